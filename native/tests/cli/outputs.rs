//! Files that commands write: special files, links, read-only files, and writes that fail. Every command that writes
//! one is asked the same. Devices are nodes of the test's own; the system's are never written to.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Directory, command, twinfer};

const MODEL: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../models/demo/twinfer-demo-q4_k_m.gguf"
);

/// Every command that writes a file, with `OUT` where its name stands.
const WRITERS: [&[&str]; 5] = [
    &["quantize", MODEL, "OUT", "q8_0", "-q"],
    &["eval", "--tokens", "1,2", "--logits", "OUT"],
    &["eval", "--tokens", "1,2", "--trace-ops", "OUT"],
    &["inspect", "--dump-tensor", "token_embd.weight", "-o", "OUT"],
    &[
        "bench",
        "--shape",
        "smollm2-135m",
        "--type",
        "q2_k",
        "-p",
        "0",
        "-n",
        "0",
        "-q",
        "-o",
        "OUT",
    ],
];

fn writing<'a>(writer: &[&'a str], out: &'a str) -> Vec<&'a str> {
    writer
        .iter()
        .map(|&arg| if arg == "OUT" { out } else { arg })
        .collect()
}

/// Runs a tool of the system; false where it is not allowed to do that.
fn system(program: &str, args: &[&str]) -> bool {
    let status = Command::new(program).args(args).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Writers are told apart by their first words in messages.
fn named(writer: &[&str]) -> String {
    writer.join(" ")
}

#[test]
fn a_fifo_is_written_through() {
    let directory = Directory::new("fifo");
    for writer in WRITERS {
        let plain = directory.file("plain.gguf");
        let fifo = directory.file("fifo.gguf");
        twinfer(&writing(writer, &plain)).ok();
        assert!(system("mkfifo", &[&fifo]));
        let reader = std::thread::spawn({
            let fifo = fifo.clone();
            move || fs::read(fifo).unwrap()
        });
        twinfer(&writing(writer, &fifo)).ok();
        assert!(fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo());
        let same = reader.join().unwrap() == fs::read(&plain).unwrap();
        assert!(same, "{}: the reader got other bytes", named(writer));
        assert_eq!(directory.names(), ["fifo.gguf", "plain.gguf"]);
        fs::remove_file(&fifo).unwrap();
    }
    // Who named it wants all of it: a reader that goes away is a failure, as it is none for stdout.
    let fifo = directory.file("fifo.gguf");
    assert!(system("mkfifo", &[&fifo]));
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || File::open(fifo).unwrap().read_exact(&mut [0; 10]).unwrap()
    });
    let run = twinfer(&writing(WRITERS[0], &fifo));
    reader.join().unwrap();
    assert_eq!(run.code, 1);
    assert!(run.err.contains("reader closed it"), "{}", run.err);
    fs::remove_file(&fifo).unwrap();
    // What is written there cannot be read again.
    let fifo = directory.file("fifo.gguf");
    assert!(system("mkfifo", &[&fifo]));
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || fs::read(fifo).unwrap()
    });
    let run = twinfer(&[
        "bench",
        "--shape",
        "smollm2-135m",
        "-p",
        "1",
        "-n",
        "0",
        "-o",
        &fifo,
    ]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("no regular file"), "{}", run.err);
    assert!(reader.join().unwrap().is_empty());
}

#[test]
fn a_device_stays_one() {
    let directory = Directory::new("device");
    for (name, minor, code) in [("null.gguf", "3", 0), ("full.gguf", "7", 1)] {
        let node = directory.file(name);
        if !system("mknod", &["-m", "666", &node, "c", "1", minor]) {
            println!("left out: this user makes no device nodes");
            return;
        }
        if File::options().write(true).open(&node).is_err() {
            println!("left out: device nodes do not work in {}", directory.0.display());
            return;
        }
        let link = directory.file("link.gguf");
        symlink(&node, &link).unwrap();
        for writer in WRITERS {
            for out in [&node, &link] {
                let run = twinfer(&writing(writer, out));
                assert_eq!(run.code, code, "{}: {}", named(writer), run.err);
                assert!(code == 0 || run.err.contains("No space left"), "{}", run.err);
                assert!(fs::symlink_metadata(&node).unwrap().file_type().is_char_device());
                assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
            }
        }
        fs::remove_file(&link).unwrap();
    }
    assert_eq!(directory.names(), ["full.gguf", "null.gguf"]);
}

#[test]
fn stdout_has_many_names() {
    let directory = Directory::new("stdout");
    for writer in &WRITERS[..4] {
        let plain = directory.file("plain");
        twinfer(&writing(writer, &plain)).ok();
        let expected = fs::read(&plain).unwrap();
        let link = directory.file("link");
        symlink("/proc/self/fd/1", &link).unwrap();
        let mut names = vec!["-"];
        if Path::new("/proc/self/fd/1").exists() {
            names.extend(["/dev/stdout", "/dev/fd/1", &link]);
        }
        for name in names {
            let run = twinfer(&writing(writer, name)).ok();
            assert!(run.out == expected, "{} {name}", named(writer));
        }
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        fs::remove_file(&link).unwrap();

        // Redirected, stdout is a regular file, which the shell made and holds open.
        let redirected = directory.file("redirected");
        for name in ["/dev/stdout", &redirected] {
            let file = File::create(&redirected).unwrap();
            let inode = file.metadata().unwrap().ino();
            let status = command(&writing(writer, name)).stdout(file).status().unwrap();
            assert!(status.success());
            assert_eq!(fs::metadata(&redirected).unwrap().ino(), inode);
            assert!(
                fs::read(&redirected).unwrap() == expected,
                "{} {name}",
                named(writer)
            );
        }
        fs::remove_file(&redirected).unwrap();
    }
    assert_eq!(directory.names(), ["plain"]);
}

#[test]
fn links_are_followed() {
    let directory = Directory::new("links");
    fs::create_dir(directory.0.join("elsewhere")).unwrap();
    let target = directory.file("elsewhere/target.gguf");
    let link = directory.file("link.gguf");
    let second = directory.file("second.gguf");
    symlink("elsewhere/target.gguf", &link).unwrap();
    symlink(&link, &second).unwrap();
    for writer in WRITERS {
        // First where the link leads to nothing yet, then to a file.
        for _ in 0..2 {
            twinfer(&writing(writer, &second)).ok();
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
            assert!(fs::symlink_metadata(&second).unwrap().is_symlink());
            assert!(fs::symlink_metadata(&target).unwrap().len() > 1000);
        }
        fs::remove_file(&target).unwrap();
    }
    assert_eq!(directory.names(), ["elsewhere", "link.gguf", "second.gguf"]);

    // Another hard link is another name of the old bytes.
    let one = directory.file("one");
    fs::write(&one, "old").unwrap();
    fs::hard_link(&one, directory.0.join("two")).unwrap();
    twinfer(&writing(WRITERS[3], &one)).ok();
    assert_eq!(fs::read(directory.0.join("two")).unwrap(), b"old");
    assert_ne!(fs::read(&one).unwrap(), b"old");
}

#[test]
fn names_that_are_no_files_are_refused() {
    let directory = Directory::new("names");
    let circle = directory.file("circle");
    symlink("circle", &circle).unwrap();
    let cases = [
        (directory.file(""), "directory"),
        (directory.0.to_str().unwrap().into(), "directory"),
        (directory.file("new/"), "directory"),
        (directory.file("missing/new"), "missing` does not exist"),
        (directory.file("circle/new"), "new"),
        (circle, "circle"),
        (directory.file(&"n".repeat(300)), "too long"),
    ];
    // A tensor's file may have any name; a model's ends in .gguf.
    for writer in &WRITERS[..4] {
        for (out, says) in &cases {
            let run = twinfer(&writing(writer, out));
            assert_eq!(run.code, 1, "{} {out}", named(writer));
            assert!(
                run.err.contains(says) && run.err.lines().count() == 1,
                "{out}: {}",
                run.err
            );
            assert!(run.out.is_empty());
        }
    }
    assert_eq!(twinfer(&writing(WRITERS[0], "")).code, 2);
    assert_eq!(directory.names(), ["circle"]);
    // Names as long as the file system takes them are no problem: the temporary one is shorter.
    for name in ["n".repeat(255), "\u{1f600}".repeat(63)] {
        twinfer(&writing(WRITERS[3], &directory.file(&name))).ok();
    }
    assert_eq!(directory.names().len(), 3);
}

#[test]
fn what_is_read_only_stays_unless_forced() {
    let directory = Directory::new("readonly");
    let out = directory.file("out.gguf");
    let link = directory.file("link.gguf");
    for writer in WRITERS {
        fs::write(&out, "old").unwrap();
        fs::set_permissions(&out, fs::Permissions::from_mode(0o444)).unwrap();
        symlink(&out, &link).unwrap();
        for name in [&out, &link] {
            let run = twinfer(&writing(writer, name));
            assert_eq!(run.code, 1, "{}", named(writer));
            assert!(
                run.err.contains("read-only") && run.err.contains("--force"),
                "{}",
                run.err
            );
            assert_eq!(fs::read(&out).unwrap(), b"old");
        }
        let mut forced = writing(writer, &link);
        forced.push("--force");
        twinfer(&forced).ok();
        assert_ne!(fs::read(&out).unwrap(), b"old");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&out).unwrap().mode() & 0o7777, 0o444);
        fs::remove_file(&out).unwrap();
        fs::remove_file(&link).unwrap();
    }
    // In a chat there is no --force. An empty file may be replaced by a conversation.
    fs::write(&out, "").unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o400)).unwrap();
    let input = format!("/save {out}\n");
    let run = crate::support::twinfer_with(&["chat"], input.as_bytes()).ok();
    assert!(
        run.err.contains("read-only") && !run.err.contains("--force"),
        "{}",
        run.err
    );
    assert_eq!(fs::read(&out).unwrap(), b"");
}

#[test]
fn permissions_stay() {
    let directory = Directory::new("modes");
    for writer in WRITERS {
        for mode in [0o600, 0o755] {
            let out = directory.file("out.gguf");
            fs::write(&out, "old").unwrap();
            fs::set_permissions(&out, fs::Permissions::from_mode(mode)).unwrap();
            twinfer(&writing(writer, &out)).ok();
            assert_eq!(
                fs::metadata(&out).unwrap().mode() & 0o7777,
                mode,
                "{}",
                named(writer)
            );
        }
    }
}

/// Runs with files limited to some blocks of 512 bytes: the write fails as on a full disk.
fn with_small_files(args: &[&str], blocks: &str) -> crate::support::Run {
    let program = command(&[]).get_program().to_owned();
    let output = Command::new("sh")
        .args(["-c", "ulimit -f $0; exec \"$@\"", blocks])
        .arg(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    crate::support::Run {
        code: output.status.code().unwrap_or(-1),
        out: output.stdout,
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_failed_write_leaves_the_old_file_and_nothing_else() {
    let directory = Directory::new("failed");
    let out = directory.file("out.gguf");
    for writer in WRITERS {
        // A few bytes, so that the first write fails or only the last; none at all; and no old file.
        for blocks in ["1", "0", "2"] {
            for old in [Some("old"), None] {
                let _ = fs::remove_file(&out);
                if let Some(old) = old {
                    fs::write(&out, old).unwrap();
                }
                let run = with_small_files(&writing(writer, &out), blocks);
                assert_eq!(run.code, 1, "{}: {}", named(writer), run.err);
                assert!(run.err.contains("File too large"), "{}", run.err);
                assert_eq!(run.err.lines().count(), 1, "{}", run.err);
                match old {
                    Some(old) => assert_eq!(fs::read(&out).unwrap(), old.as_bytes()),
                    None => assert!(!fs::exists(&out).unwrap()),
                }
                assert_eq!(directory.names().len(), usize::from(old.is_some()));
            }
        }
    }
    // Errors of the command itself, before the first byte and after it was asked for.
    fs::write(&out, "old").unwrap();
    for args in [
        &["eval", "--tokens", "1,99999999", "--logits", &out][..],
        &["eval", "--tokens", "1", "--backend", "abacus", "--logits", &out],
        &[
            "eval",
            "--tokens",
            "1",
            "-n",
            "18446744073709551615",
            "--trace-ops",
            &out,
        ],
        &["quantize", "/no/such/file", &out, "q8_0"],
        &["quantize", MODEL, &out, "q9_9"],
        &["inspect", "--dump-tensor", "no.such.tensor", "-o", &out],
        &["bench", "--shape", "gpt-5", "-o", &out],
        &["bench", "--shape", "smollm2-135m", "--type", "q9_9", "-o", &out],
    ] {
        assert_eq!(twinfer(args).code, 1, "{args:?}");
        assert_eq!(fs::read(&out).unwrap(), b"old", "{args:?}");
        assert_eq!(directory.names(), ["out.gguf"], "{args:?}");
    }
}

#[test]
fn a_full_disk_is_reported_at_the_last_flush() {
    let directory = Directory::new("disk");
    let mount = directory.file("mount");
    fs::create_dir(&mount).unwrap();
    if !system("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs", &mount]) {
        println!("left out: this user mounts no file system");
        return;
    }
    let result = std::panic::catch_unwind(|| {
        let out = format!("{mount}/out.gguf");
        fs::write(&out, "old").unwrap();
        // What is left takes the first bytes of an output and not its last.
        let mut fill = File::create(format!("{mount}/fill")).unwrap();
        let _ = std::io::copy(&mut std::io::repeat(0), &mut fill);
        for writer in WRITERS {
            let run = twinfer(&writing(writer, &out));
            assert_eq!(run.code, 1, "{}: {}", named(writer), run.err);
            assert!(run.err.contains("No space left"), "{}", run.err);
            assert_eq!(fs::read(&out).unwrap(), b"old");
            assert_eq!(fs::read_dir(&mount).unwrap().count(), 2, "{}", named(writer));
        }
    });
    assert!(system("umount", &[&mount]));
    result.unwrap();
}

#[test]
fn a_file_that_is_mounted_is_refused_at_once() {
    let directory = Directory::new("mounted");
    let (source, target) = (directory.file("source"), directory.file("target"));
    fs::write(&source, "old").unwrap();
    fs::write(&target, "").unwrap();
    if !system("mount", &["--bind", &source, &target]) {
        println!("left out: this user mounts no file");
        return;
    }
    let run = twinfer(&writing(WRITERS[0], &target));
    let kept = fs::read(&target).unwrap();
    assert!(system("umount", &[&target]));
    assert_eq!(run.code, 1);
    assert!(run.err.contains("mounted"), "{}", run.err);
    assert_eq!(kept, b"old");
    assert_eq!(directory.names(), ["source", "target"]);
}

#[test]
fn ctrl_c_leaves_nothing() {
    let directory = Directory::new("interrupt");
    let out = directory.file("out.f32");
    fs::write(&out, "old").unwrap();
    let interrupt = |id: u32| assert!(system("kill", &["-INT", &id.to_string()]));
    let long = [
        "eval", "--tokens", "1", "-n", "100000", "-t", "1", "--logits", &out,
    ];
    for presses in 1..=2 {
        let mut child = command(&long).stderr(Stdio::null()).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while directory.names().len() < 2 {
            assert!(Instant::now() < end && child.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(5));
        }
        for _ in 0..presses {
            interrupt(child.id());
        }
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert_eq!(directory.names(), ["out.f32"]);
        assert_eq!(fs::read(&out).unwrap(), b"old");
    }

    // The system's wish to end is obeyed at once, and the parent sees which signal it was.
    let mut child = command(&long).stderr(Stdio::null()).spawn().unwrap();
    while directory.names().len() < 2 {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(system("kill", &["-TERM", &child.id().to_string()]));
    assert_eq!(child.wait().unwrap().signal(), Some(15));
    assert_eq!(directory.names(), ["out.f32"]);

    // It waits for a reader, and one press is enough.
    let fifo = directory.file("fifo");
    assert!(system("mkfifo", &[&fifo]));
    for args in [
        &["quantize", MODEL, &fifo, "q8_0"][..],
        &["eval", "--tokens", "1", "--logits", &fifo],
    ] {
        let mut child = command(args).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(500));
        assert!(child.try_wait().unwrap().is_none());
        interrupt(child.id());
        assert!(!child.wait().unwrap().success());
    }
}

#[test]
fn the_model_to_read_is_not_written_to() {
    let directory = Directory::new("same");
    let model = directory.file("model.gguf");
    let link = directory.file("link.gguf");
    fs::copy(MODEL, &model).unwrap();
    symlink(&model, &link).unwrap();
    for (input, output) in [(&model, &model), (&model, &link), (&link, &model)] {
        for force in [&[][..], &["--force"]] {
            let args = [&["quantize", input.as_str(), output.as_str(), "q8_0"][..], force].concat();
            let run = twinfer(&args);
            assert_eq!(run.code, 1);
            assert!(run.err.contains("is the same file"), "{}", run.err);
        }
    }
    let writers: [&[&str]; 4] = [
        &["eval", "-m", &model, "--tokens", "1,2", "--logits"],
        &["eval", "-m", &link, "--tokens", "1,2", "--trace-ops"],
        &["inspect", &model, "--dump-tensor", "token_embd.weight", "-o"],
        &["inspect", &link, "--json", "-o"],
    ];
    for writer in writers {
        for output in [&model, &link] {
            let run = twinfer(&[writer, &[output, "--force"]].concat());
            assert_eq!(run.code, 1, "{}", named(writer));
            assert!(run.err.contains("is the same file"), "{}", run.err);
        }
    }
    assert!(fs::read(&model).unwrap() == fs::read(MODEL).unwrap());
    // As good as a copy: the name gets a new file, the model stays.
    let hard = directory.file("hard.gguf");
    fs::hard_link(&model, &hard).unwrap();
    twinfer(&["quantize", &model, &hard, "q8_0", "-q"]).ok();
    assert!(fs::read(&model).unwrap() == fs::read(MODEL).unwrap());
    assert!(fs::read(&hard).unwrap() != fs::read(MODEL).unwrap());
}

#[test]
fn files_of_other_runs_are_left_alone() {
    let directory = Directory::new("others");
    let out = directory.file("out");
    // What an older version or a process that was killed left behind.
    fs::write(directory.file("out.partial"), "theirs").unwrap();
    twinfer(&writing(WRITERS[3], &out)).ok();
    assert_eq!(fs::read(directory.file("out.partial")).unwrap(), b"theirs");
    // Two at a time: one of them is the file in the end, whole.
    let expected = fs::read(&out).unwrap();
    let children: Vec<_> = (0..4)
        .map(|_| {
            command(&writing(WRITERS[3], &out))
                .stdin(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let mut found = Vec::new();
    File::open(&out).unwrap().read_to_end(&mut found).unwrap();
    assert!(found == expected);
    assert_eq!(directory.names(), ["out", "out.partial"]);
}

#[test]
fn two_outputs_of_one_command_are_two_files() {
    let directory = Directory::new("two-outputs");
    let (out, link) = (directory.file("out"), directory.file("link"));
    symlink("other", &link).unwrap();
    fs::write(directory.file("other"), "").unwrap();
    let beside = directory.file("./out");
    for (logits, trace) in [(&out, &out), (&out, &beside), (&link, &directory.file("other"))] {
        let run = twinfer(&["eval", "--tokens", "1", "--logits", logits, "--trace-ops", trace]);
        assert_eq!(run.code, 2, "{logits} {trace}");
        assert!(run.err.contains("name the same file"), "{}", run.err);
    }
    assert_eq!(directory.names(), ["link", "other"]);
}

#[test]
fn a_conversation_replaces_nothing_but_a_saved_one() {
    let directory = Directory::new("save");
    let say = |lines: &str| {
        let args = ["chat", "-n", "2", "-s", "1", "--system", "Be brief."];
        crate::support::twinfer_with(&args, lines.as_bytes()).ok()
    };
    let model = directory.file("model.gguf");
    fs::copy(MODEL, &model).unwrap();
    // The last holds more than a conversation.
    let others = [
        ("model.gguf", fs::read(MODEL).unwrap()),
        ("notes.txt", b"to do".to_vec()),
        ("settings.json", b"{\"temp\": 0}".to_vec()),
        ("list.json", b"[]".to_vec()),
        ("tools.json", b"{\"messages\": [], \"tools\": []}".to_vec()),
    ];
    for (name, bytes) in &others {
        let path = directory.file(name);
        fs::write(&path, bytes).unwrap();
        let run = say(&format!("/save {path}\n"));
        assert!(
            run.err.contains("something else than a saved conversation"),
            "{}",
            run.err
        );
        assert!(&fs::read(&path).unwrap() == bytes, "{name}");
    }
    let (saved, empty) = (directory.file("a b.json"), directory.file("empty"));
    fs::write(&empty, "").unwrap();
    for _ in 0..2 {
        let run = say(&format!("/save \"{saved}\"\n/save {empty}\n/load '{saved}'\n"));
        assert_eq!(run.err.matches("saved to").count(), 2, "{}", run.err);
        assert!(run.err.contains("1 messages loaded"), "{}", run.err);
    }
    assert!(fs::read(&saved).unwrap() == fs::read(&empty).unwrap());
}

#[test]
fn a_report_goes_to_a_file() {
    let directory = Directory::new("report");
    let out = directory.file("report");
    for format in [&[][..], &["--json"], &["--json", "--full"]] {
        let shown = twinfer(&[&["inspect", MODEL], format].concat()).ok();
        let run = twinfer(&[&["inspect", MODEL, "-o", &out], format].concat()).ok();
        assert!(run.out.is_empty());
        assert!(fs::read(&out).unwrap() == shown.out, "{format:?}");
    }
}
