//! The scripts of `../shared/cases`, run as they are: each prints what it found beside what is right. Those that need
//! root (device nodes, a file system of their own) run where the tests do.

use std::path::Path;
use std::process::Command;

use crate::support::shared;

const MODEL: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../models/demo/twinfer-demo-q4_k_m.gguf"
);

/// What a script prints, its messages included; nothing where it is not there.
fn script(name: &str) -> Option<String> {
    let path = shared(&format!("cases/{name}"))?;
    let output = Command::new("bash")
        .args([&path, env!("CARGO_BIN_EXE_twinfer"), MODEL])
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Whether the tests run as root, which is said where they do not.
fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("left out: {test} needs root");
    }
    root
}

#[test]
fn arguments_that_are_no_text() {
    let Some(text) = script("nonutf8-argument-panic.sh") else {
        return;
    };
    assert_eq!(text.matches("rc=2 (right 2)").count(), 4, "{text}");
    assert_eq!(text.matches("error: ").count(), 4, "{text}");
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn a_bad_byte_in_a_chat() {
    let Some(text) = script("chat-invalid-byte-ends-chat.sh") else {
        return;
    };
    assert!(text.contains("rc=0"), "{text}");
    assert!(text.contains("not UTF-8"), "{text}");
}

#[test]
fn the_time_of_templates_is_local() {
    if !Path::new("/usr/share/zoneinfo/Asia/Tokyo").is_file() {
        println!("left out: the system has no database of time zones");
        return;
    }
    let Some(text) = script("strftime-now-is-utc.sh") else {
        return;
    };
    let mut zones = 0;
    for line in text.lines().filter(|line| line.contains("right: ")) {
        let (right, ours) = line.split_once("twinfer: ").unwrap();
        let (_, right) = right.split_once("right: ").unwrap();
        // A minute may end between the two.
        let minute = |text: &str| text.trim().rsplit_once(':').map(|(hour, _)| hour.to_owned());
        assert!(
            right.trim() == ours.trim() || minute(right) == minute(ours),
            "{line}"
        );
        zones += 1;
    }
    assert_eq!(zones, 3, "{text}");
}

#[test]
fn special_files_keep_their_kind() {
    if !is_root("output-replaces-special-file.sh") {
        return;
    }
    let Some(text) = script("output-replaces-special-file.sh") else {
        return;
    };
    if text.contains("mknod: ") {
        println!("left out: no device nodes can be made here: {text}");
        return;
    }
    let devices: Vec<_> = text
        .lines()
        .filter(|line| line.contains("OUT=character device"))
        .collect();
    assert_eq!(devices.len(), 4, "{text}");
    for line in devices {
        assert!(
            line.contains("rc=0") && line.contains(": character special file  "),
            "{line}"
        );
    }
    assert!(text.contains("symlink to stdout is now: symbolic link"), "{text}");
    assert!(text.contains("fifo is now: fifo"), "{text}");
    assert!(text.contains("symlink OUT is now: symbolic link"), "{text}");
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    if !is_root("full-disk-leaves-partial.sh") {
        return;
    }
    let Some(text) = script("full-disk-leaves-partial.sh") else {
        return;
    };
    if !text.contains("rc=") {
        println!("left out: no file system can be mounted here: {text}");
        return;
    }
    assert!(text.contains("rc=1") && text.contains("No space left"), "{text}");
    assert!(!text.contains("partial") && !text.contains("l2.f32\n"), "{text}");
}
