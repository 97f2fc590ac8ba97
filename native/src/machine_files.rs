//! A machine as tests see it: files below a root of their own, where the program looks for those of the system.

use std::path::PathBuf;

/// The root; it is removed at the end.
pub(crate) struct MachineFiles(pub(crate) PathBuf);

impl MachineFiles {
    /// These files, by path and content. No two tests have the same name.
    pub(crate) fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let root = std::env::temp_dir().join(format!("twinfer-{name}-{}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        MachineFiles(root)
    }
}

impl Drop for MachineFiles {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
