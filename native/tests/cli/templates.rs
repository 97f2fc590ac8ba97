//! Chat templates on the command line: which of a file's templates is taken, and the time that it is told.

use std::path::PathBuf;
use std::process::Stdio;

use crate::support::{Directory, command, twinfer};

/// A file of `../shared/cases`; `None`, said aloud, where it is not there.
fn case(name: &str) -> Option<String> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/cases")).join(name);
    if !path.is_file() {
        println!("left out: {} is not there", path.display());
        return None;
    }
    Some(path.to_str().unwrap().to_owned())
}

const HI: &str = r#"{"messages": [{"role": "user", "content": "hi"}]}"#;
const HI_WITH_TOOLS: &str = r#"{"messages": [{"role": "user", "content": "hi"}],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}"#;

#[test]
fn tool_use_is_taken_where_tools_are_given() {
    let Some(model) = case("template-tool_use-variant.gguf") else {
        return;
    };
    let render = |input: &str, more: &[&str]| {
        twinfer(&[&["render-template", "-m", &model, "--input", input], more].concat())
    };
    assert_eq!(render(HI, &[]).ok().text(), "D:hi");
    assert_eq!(render(HI_WITH_TOOLS, &[]).ok().text(), "[f]TU:hi");
    let no_tools = r#"{"messages": [{"role": "user", "content": "hi"}], "tools": []}"#;
    assert_eq!(render(no_tools, &[]).ok().text(), "D:hi");
    let by_name = |name| ["--chat-template-name", name];
    assert_eq!(render(HI, &by_name("tool_use")).ok().text(), "TU:hi");
    assert_eq!(render(HI_WITH_TOOLS, &by_name("default")).ok().text(), "D:hi");
    let unknown = render(HI, &by_name("rag"));
    assert_eq!(unknown.code, 1);
    assert!(
        unknown.err.contains("`rag`") && unknown.err.contains("default, tool_use"),
        "{}",
        unknown.err
    );
}

#[test]
fn a_file_of_named_templates_names_them() {
    let Some(model) = case("template-only-named.gguf") else {
        return;
    };
    for command in [
        &["chat"][..],
        &["run", "--chat", "hi"],
        &["render-template", "--input", HI],
    ] {
        let run = twinfer(&[command, &["-m", &model]].concat());
        assert_eq!(run.code, 1, "{command:?}");
        for word in ["tool_use", "rag", "--chat-template-name"] {
            assert!(run.err.contains(word), "{command:?}: {}", run.err);
        }
        assert_eq!(run.err.lines().count(), 1, "{}", run.err);
    }
    let tools = twinfer(&["render-template", "-m", &model, "--input", HI_WITH_TOOLS]).ok();
    assert_eq!(tools.text(), "[f]TU:hi");
    let named = [
        "run",
        "--chat",
        "hi",
        "-m",
        &model,
        "-n",
        "1",
        "--chat-template-name",
        "rag",
    ];
    twinfer(&named).ok();
}

#[test]
fn an_empty_template_is_none() {
    let directory = Directory::new("empty-template");
    let blank = directory.file("blank.jinja");
    std::fs::write(&blank, " \n\t").unwrap();
    let run = twinfer(&["run", "--chat", "hi", "-n", "1", "--template", &blank]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("is empty"), "{}", run.err);
    // A template that drops what is said is no better.
    std::fs::write(&blank, "{% if false %}{{ messages }}{% endif %}").unwrap();
    let run = twinfer(&["run", "--chat", "hi", "-n", "1", "--template", &blank]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("to nothing"), "{}", run.err);

    let Some(model) = case("template-empty-string.gguf") else {
        return;
    };
    for command in [
        &["chat"][..],
        &["run", "--chat", "hi"],
        &["render-template", "--input", HI],
    ] {
        let run = twinfer(&[command, &["-m", &model]].concat());
        assert_eq!(run.code, 1, "{command:?}");
        assert!(
            run.err.contains("has no chat template"),
            "{command:?}: {}",
            run.err
        );
    }
}

/// What `strftime_now` prints in a time zone.
fn printed_in(zone: &str, format: &str) -> String {
    let directory = Directory::new(&format!("zone-{}", zone.replace(['/', '<', '>'], "-")));
    let template = directory.file("t.jinja");
    std::fs::write(&template, format!("{{{{ strftime_now('{format}') }}}}")).unwrap();
    let child = command(&["render-template", "--template", &template, "--input", "{}"])
        .env("TZ", zone)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

/// Hours since the year began, in a time zone.
fn hours_in(zone: &str) -> i64 {
    let text = printed_in(zone, "%j %H");
    let (day, hour) = text.split_once(' ').unwrap();
    day.parse::<i64>().unwrap() * 24 + hour.parse::<i64>().unwrap()
}

#[test]
fn the_time_is_local() {
    let mut zones: Vec<(&str, i64)> = vec![("<+14>-14", 14), ("XYZ8", -8)];
    if PathBuf::from("/usr/share/zoneinfo/Asia/Tokyo").is_file() {
        zones.push(("Asia/Tokyo", 9));
        zones.push(("Pacific/Kiritimati", 14));
    } else {
        println!("time zones by name: left out, the system has no database of them");
    }
    for (zone, expected) in zones {
        // Again where the hour turned in between.
        let difference = (0..5).find_map(|_| {
            let (before, local, after) = (hours_in("UTC0"), hours_in(zone), hours_in("UTC0"));
            (before == after).then_some(local - before)
        });
        // Around New Year the two are in different years.
        let hours_of_year = [365 * 24, 366 * 24].map(|hours| expected - hours * expected.signum());
        let difference = difference.expect("two runs within one hour");
        assert!(
            difference == expected || hours_of_year.contains(&difference),
            "{zone}: {difference}"
        );
    }
}

#[test]
fn now_fixes_the_time_of_a_conversation() {
    let directory = Directory::new("now");
    let template = directory.file("t.jinja");
    // The conversation stops unless it is told this time.
    std::fs::write(
        &template,
        "{% if strftime_now('%F %T') != '2026-01-02 03:04:05' %}{{ raise_exception('another time') }}{% endif %}\
         {{ messages[-1].content }}",
    )
    .unwrap();
    let run = ["run", "--chat", "Once", "-n", "1", "--template", &template];
    twinfer(&[&run[..], &["--now", "2026-01-02T03:04:05"]].concat()).ok();
    assert!(twinfer(&run).err.contains("another time"));
    let chat = ["chat", "-n", "1", "--no-history", "--template", &template];
    let told = crate::support::twinfer_with(
        &[&chat[..], &["--now", "2026-01-02 03:04:05"]].concat(),
        b"Once\n",
    )
    .ok();
    assert!(!told.err.contains("another time"), "{}", told.err);
    let untold = crate::support::twinfer_with(&chat, b"Once\n").ok();
    assert!(untold.err.contains("another time"), "{}", untold.err);
    for (args, code) in [
        (&["run", "x", "--now", "2026-01-02"][..], 2),
        (&["run", "x", "--chat-template-name", "tool_use"], 2),
        (
            &["run", "--chat", "x", "--template", &template, "--now", "soon"],
            2,
        ),
    ] {
        assert_eq!(twinfer(args).code, code, "{args:?}");
    }
}
