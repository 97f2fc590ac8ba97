//! The program at a terminal, which is a pseudo terminal here: what is typed, pasted and shown, and how the terminal is
//! left.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use crate::support::{CHATML, Directory, command};

/// What the line editor writes when a line begins and when it is complete.
const LINE_BEGINS: &str = "\x1b[?2004h";
const LINE_ENDS: &str = "\x1b[?2004l";

/// A program at a terminal of its own.
struct Terminal {
    master: File,
    /// The program's side.
    slave: File,
    child: Child,
    shown: Arc<Mutex<Vec<u8>>>,
    reading: JoinHandle<()>,
}

impl Terminal {
    fn new(mut program: Command, term: Option<&str>) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let open = || {
            File::options()
                .read(true)
                .write(true)
                .open(name.to_str().unwrap())
        };
        let slave = open().unwrap();
        match term {
            Some(term) => program.env("TERM", term),
            None => program.env_remove("TERM"),
        };
        let child = program
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave.try_clone().unwrap())
            .spawn()
            .unwrap();
        // Its copies of the program's side would keep the terminal open.
        drop(program);
        let master = File::from(master);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let reading = std::thread::spawn({
            let (mut master, shown) = (master.try_clone().unwrap(), Arc::clone(&shown));
            move || {
                let mut piece = [0; 4096];
                // The end is an error: the other side is closed.
                while let Ok(n @ 1..) = master.read(&mut piece) {
                    shown.lock().unwrap().extend_from_slice(&piece[..n]);
                }
            }
        });
        Self {
            master,
            slave,
            child,
            shown,
            reading,
        }
    }

    /// `chat` with the built-in model and short answers.
    fn chat(directory: &Directory, term: Option<&str>, more: &[&str]) -> Self {
        let template = directory.file("t.jinja");
        fs::write(&template, CHATML).unwrap();
        let args = ["chat", "--template", &template, "-s", "1", "--no-history"];
        Self::new(command(&[&args[..], more].concat()), term)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    fn type_in(&mut self, text: &[u8]) {
        self.master.write_all(text).unwrap();
    }

    #[track_caller]
    fn wait_for(&mut self, what: &str, times: usize) {
        let end = Instant::now() + Duration::from_secs(60);
        while self.text().matches(what).count() < times {
            let ended = self.child.try_wait().unwrap();
            assert!(
                Instant::now() < end && ended.is_none(),
                "no {what:?} in {:?}",
                self.text()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the program reads lines without the terminal's help.
    #[track_caller]
    fn wait_for_line(&mut self, n: usize) {
        self.wait_for(LINE_BEGINS, n);
        self.wait_for("> ", n);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn modes(&self) -> LocalModes {
        tcgetattr(&self.slave).unwrap().local_modes
    }

    /// How the program ended, what was shown, and the modes that it left.
    fn end(mut self) -> (ExitStatus, String, LocalModes) {
        let status = self.child.wait().unwrap();
        let modes = self.modes();
        let Self {
            master,
            slave,
            shown,
            reading,
            ..
        } = self;
        drop((master, slave));
        reading.join().unwrap();
        let text = String::from_utf8_lossy(&shown.lock().unwrap()).into_owned();
        (status, text, modes)
    }
}

#[test]
fn a_bad_byte_costs_its_line() {
    let directory = Directory::new("terminal-bytes");
    for term in ["xterm", "dumb", ""] {
        let mut chat = Terminal::chat(&directory, Some(term), &["-n", "4"]);
        chat.wait_for("> ", 1);
        std::thread::sleep(Duration::from_millis(300));
        chat.type_in(b"caf\xe9 au lait\r");
        chat.wait_for("not UTF-8 text", 1);
        std::thread::sleep(Duration::from_millis(300));
        chat.type_in(b"/show\r");
        chat.wait_for("tokens used]", 1);
        std::thread::sleep(Duration::from_millis(300));
        chat.type_in(b"\x04");
        let (status, text, _) = chat.end();
        assert_eq!(status.code(), Some(0), "{term}: {text:?}");
        // Nothing of the line became a question.
        assert!(!text.contains("user: "), "{term}: {text:?}");
    }
}

#[test]
fn lines_that_come_together_are_all_asked() {
    let directory = Directory::new("pasted");
    for term in ["xterm", "dumb"] {
        let mut chat = Terminal::chat(&directory, Some(term), &["-n", "2"]);
        chat.wait_for("> ", 1);
        std::thread::sleep(Duration::from_millis(300));
        chat.type_in(b"line one\rline two\rline three\r/show\r/exit\r");
        let (status, text, _) = chat.end();
        assert_eq!(status.code(), Some(0), "{term}: {text:?}");
        for line in ["user: line one", "user: line two", "user: line three"] {
            assert!(text.contains(line), "{term}: no `{line}` in {text:?}");
        }
    }
}

#[test]
fn what_is_typed_during_an_answer_is_sent_by_its_enter() {
    let directory = Directory::new("ahead");
    let mut chat = Terminal::chat(&directory, Some("xterm"), &["-n", "200", "--ignore-eos"]);
    chat.wait_for_line(1);
    chat.type_in(b"first\r");
    chat.wait_for(LINE_ENDS, 1);
    // The answer is being written: the terminal makes a line feed of Enter.
    assert!(
        chat.modes().contains(LocalModes::ICANON),
        "the answer was too short"
    );
    chat.type_in(b"second\r");
    chat.wait_for(LINE_ENDS, 2);
    chat.wait_for_line(3);
    chat.type_in(b"/show\r");
    chat.wait_for("tokens used]", 1);
    chat.type_in(b"/exit\r");
    let (status, text, _) = chat.end();
    assert_eq!(status.code(), Some(0), "{text:?}");
    assert!(text.contains("user: second\r\nassistant: "), "{text:?}");
}

#[test]
fn signals_leave_the_terminal_in_order() {
    let directory = Directory::new("signals");
    let in_order = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
    for signal in [Signal::TERM, Signal::HUP] {
        let mut chat = Terminal::chat(&directory, Some("xterm"), &[]);
        chat.wait_for_line(1);
        assert!(!chat.modes().intersects(in_order), "the line is not being edited");
        chat.signal(signal);
        let (status, text, modes) = chat.end();
        assert_eq!(status.signal(), Some(signal.as_raw()), "{text:?}");
        assert!(modes.contains(in_order), "{signal:?}: {modes:?}");
        assert!(text.ends_with(LINE_ENDS), "{text:?}");
    }
}

#[test]
fn nohup_is_heeded() {
    let program = command(&[]).get_program().to_owned();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "trap '' HUP; exec \"$0\" chat --no-history"])
        .arg(program);
    let mut chat = Terminal::new(shell, Some("xterm"));
    chat.wait_for_line(1);
    chat.signal(Signal::HUP);
    std::thread::sleep(Duration::from_millis(200));
    chat.type_in(b"/exit\r");
    let (status, text, _) = chat.end();
    assert_eq!(status.code(), Some(0), "{text:?}");
}

#[test]
fn ctrl_c_at_an_empty_prompt_says_how_to_leave() {
    let directory = Directory::new("ctrl-c");
    let mut chat = Terminal::chat(&directory, Some("xterm"), &["-q"]);
    chat.wait_for_line(1);
    chat.type_in(b"half a question\x03");
    chat.wait_for_line(2);
    assert!(!chat.text().contains("Ctrl-D leaves"), "{:?}", chat.text());
    chat.type_in(b"\x03");
    chat.wait_for("Ctrl-D leaves", 1);
    chat.wait_for_line(3);
    chat.type_in(b"\x04");
    let (status, text, _) = chat.end();
    assert_eq!(status.code(), Some(0), "{text:?}");
}

#[test]
fn a_terminal_without_a_name_gets_no_escape_sequences() {
    let directory = Directory::new("no-term");
    for term in [None, Some("")] {
        let mut chat = Terminal::chat(&directory, term, &["-n", "2"]);
        chat.wait_for("> ", 1);
        chat.type_in(b"Hello\r/show\r/exit\r");
        let (status, text, _) = chat.end();
        assert_eq!(status.code(), Some(0), "{text:?}");
        assert!(
            text.contains("user: Hello") && !text.contains('\x1b'),
            "{term:?}: {text:?}"
        );
    }
}

#[test]
fn a_terminal_does_not_obey_a_text() {
    let args = ["run", "-q", "-n", "1", "-s", "1", "a\x1b[31mb\tc\x07"];
    let (status, text, _) = Terminal::new(command(&args), Some("xterm")).end();
    assert_eq!(status.code(), Some(0), "{text:?}");
    assert!(text.starts_with("a\u{241b}[31mb\tc\u{2407}"), "{text:?}");
    // Programs get what there is.
    let piped = crate::support::twinfer(&args).ok();
    assert!(
        piped.text().starts_with("a\x1b[31mb\tc\x07"),
        "{:?}",
        piped.text()
    );
}

/// Where reading the prompt takes a moment, as it does here, its bar is not there any more when the text comes: it
/// would wipe the line away with every token.
#[test]
fn a_text_does_not_meet_the_bar_of_its_prompt() {
    let directory = Directory::new("bar");
    let model = directory.file("m.gguf");
    let make = ["bench", "--shape", "smollm2-135m", "-p", "0", "-n", "0", "-o"];
    crate::support::twinfer(&[make.as_slice(), &[&model]].concat()).ok();
    let prompt = "word ".repeat(100);
    let args = [
        "run",
        "-m",
        &model,
        "--backend",
        "scalar",
        "-t",
        "1",
        "-n",
        "3",
        "--ignore-eos",
        &prompt,
    ];
    let (status, text, _) = Terminal::new(command(&args), Some("xterm")).end();
    assert_eq!(status.code(), Some(0), "{text:?}");
    let (_, after) = text.split_once(prompt.trim_end()).unwrap();
    assert!(
        after.contains("generated: 3 tokens") && !after.contains("\x1b[2K"),
        "{text:?}"
    );
}
