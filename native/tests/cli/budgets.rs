//! Memory that is planned before a model is loaded, limits on it, and files that fail while a model runs.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use twinfer_engine::gguf::{self, ModelFile, TensorSpec, Writer};
use twinfer_engine::memory::Bytes;
use twinfer_engine::quant::GgmlType;

use crate::support::{Directory, Run, command, twinfer};

const DEMO: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../models/demo/twinfer-demo-q4_k_m.gguf"
);

/// What the child came to; a signal is code -1.
fn finish(child: Child) -> Run {
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap_or(-1),
        out: output.stdout,
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn piped(mut command: Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Sum of the sizes of a list of buffers.
fn sum(buffers: &Value) -> u64 {
    let sizes = buffers.as_array().unwrap().iter();
    sizes.map(|buffer| buffer["bytes"].as_u64().unwrap()).sum()
}

fn plan(args: &[&str]) -> Value {
    twinfer(&[&["inspect", "--plan", "--json"], args].concat()).json()
}

#[test]
fn a_plan_says_what_is_needed_and_whether_it_is_there() {
    let report = plan(&["-c", "256"]);
    let plan_of = &report["plan"];
    let of = |name: &str| plan_of[name].as_u64().unwrap();
    let weights = &plan_of["weights"][0];
    let weight = |name: &str| weights[name].as_u64().unwrap();
    let planned = weight("packed")
        + weight("vectors")
        + of("loading")
        + sum(&plan_of["cache"])
        + sum(&plan_of["workspace"]);
    assert_eq!(of("needed"), planned + of("unplanned"));
    assert_eq!(
        (report["fits"].as_bool(), report["n_ctx"].as_u64()),
        (Some(true), Some(256))
    );
    assert!(weight("packed") > 0 || report["backend"] == "scalar");

    // A longer context, more sequences and another type change the cache; mapped weights need no memory of their own.
    let cache = |args: &[&str]| sum(&plan(args)["plan"]["cache"]);
    let one = cache(&["-c", "256"]);
    assert!(cache(&["-c", "512"]) > one && cache(&["-c", "256", "-np", "3"]) > 2 * one);
    assert!(cache(&["-c", "256", "--cache-type-k", "f32"]) > one);
    let mapped = plan(&["--weights", "mapped"]);
    assert_eq!(mapped["plan"]["weights"][0]["packed"], 0);
    assert!(mapped["plan"]["weights"][0]["mapped"].as_u64() > Some(0));

    // Nodes that are told apart have a plan each; one has all of it.
    let on_node = twinfer(&["inspect", "--plan", "--json", "-c", "256", "--numa", "node:0"]);
    if on_node.code == 0 {
        let plan_of = &on_node.json()["plan"];
        let node = &plan_of["nodes"][0];
        assert_eq!(node["node"], 0, "{plan_of}");
        assert_eq!(node["cache"].as_u64(), Some(sum(&plan_of["cache"])));
        assert_eq!(node["workspace"].as_u64(), Some(sum(&plan_of["workspace"])));
        assert!(node["needed"].as_u64() <= plan_of["needed"].as_u64(), "{plan_of}");
        assert!(
            node["needed"].as_u64() > Some(sum(&plan_of["cache"])),
            "{plan_of}"
        );
    } else {
        println!("left out: there is no node 0 to use: {}", on_node.err);
    }
    let off = plan(&["--numa", "off"]);
    assert_eq!(off["plan"]["nodes"], Value::Array(Vec::new()));

    let text = twinfer(&["inspect", DEMO, "--plan", "-c", "256"]).ok();
    for part in [
        "cache: keys",
        "workspace: logits",
        "needed",
        "checkpoints",
        "Free of the system",
        "It fits.",
    ] {
        assert!(text.text().contains(part), "{part}: {}", text.text());
    }
    let small = twinfer(&["inspect", "--plan", "--memory-limit", "80M", "-c", "1000000"]).ok();
    for part in ["--memory-limit", "does not fit", "would fit: --ctx-size"] {
        assert!(small.text().contains(part), "{part}: {}", small.text());
    }
}

/// What follows the last `name` in an error's advice.
fn advised<'a>(err: &'a str, name: &str) -> &'a str {
    let (_, rest) = err
        .rsplit_once(name)
        .unwrap_or_else(|| panic!("no `{name}` in: {err}"));
    rest.split([',', '\n']).next().unwrap().trim()
}

#[test]
fn what_does_not_fit_is_refused_with_what_would() {
    let limited = |ctx: &str| {
        twinfer(&[
            "eval",
            "-m",
            DEMO,
            "--tokens",
            "1,2,3",
            "--memory-limit",
            "100M",
            "-c",
            ctx,
        ])
    };
    let refused = limited("4000000");
    assert_eq!(refused.code, 1, "{}", refused.err);
    for part in [
        "4000000 tokens",
        "--memory-limit",
        "weights",
        "cache",
        "what would fit",
    ] {
        assert!(refused.err.contains(part), "{part}: {}", refused.err);
    }
    // It does, and a page more does not. What the program has itself differs by some pages from run to run.
    let fits: usize = advised(&refused.err, "--ctx-size ").parse().unwrap();
    assert!(fits > 1000, "{}", refused.err);
    limited(&(fits * 9 / 10).to_string()).ok();
    assert_eq!(limited(&(fits * 11 / 10).to_string()).code, 1);
    // Of a cache whose size is given, that one is too large.
    let directory = Directory::new("budget");
    let input = directory.file("in.jsonl");
    fs::write(&input, "{\"prompt\": \"a\", \"max_tokens\": 2}\n").unwrap();
    let batch = |size: &str, out: &str| {
        let out = directory.file(out);
        let args = [
            "batch",
            &input,
            "-o",
            &out,
            "--memory-limit",
            "200M",
            "-c",
            "4096",
            "--cache-size",
            size,
        ];
        twinfer(&args)
    };
    let refused = batch("2G", "a");
    assert_eq!(refused.code, 1, "{}", refused.err);
    let fits = advised(&refused.err, "--cache-size ").trim_end_matches('M');
    let fits: u64 = fits.parse().unwrap();
    // What the program has itself differs by some pages from run to run.
    batch(&format!("{}M", fits * 9 / 10), "b").ok();
}

/// A model nearly all of whose weights are those of experts, 26 MiB of zeros: one of `tests/oracle` with wider ones.
fn mostly_experts(path: &str) {
    const WIDTH: usize = 16384;
    let small = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/oracle/vectors/qwen3moe.gguf"
    );
    let file = ModelFile::from_parts(vec![Bytes::from_vec(fs::read(small).unwrap())]).unwrap();
    let mut metadata = file.metadata().clone();
    let width = gguf::Value::U32(WIDTH as u32);
    metadata.insert("qwen3moe.expert_feed_forward_length", width);
    let specs: Vec<TensorSpec> = file
        .tensors()
        .map(|tensor| {
            let of_experts = tensor.name.contains("_exps.");
            // The embedding's width is 32, that of experts 24.
            let wide = |&n: &usize| if of_experts && n == 24 { WIDTH } else { n };
            TensorSpec {
                name: tensor.name.clone(),
                ty: if of_experts { GgmlType::Q8_0 } else { tensor.ty },
                shape: tensor.shape.iter().map(wide).collect(),
            }
        })
        .collect();
    let mut writer = Writer::new(fs::File::create(path).unwrap(), &metadata, &specs).unwrap();
    for spec in &specs {
        let data = match spec.ty {
            GgmlType::Q8_0 => {
                let rows = spec.shape[1..].iter().product::<usize>();
                vec![0; spec.ty.row_bytes(spec.shape[0]).unwrap() * rows]
            }
            _ => file.tensor_bytes(&spec.name).unwrap().to_vec(),
        };
        writer.write_tensor(&spec.name, &data).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn mapped_experts_are_among_what_would_fit() {
    let directory = Directory::new("experts");
    let model = directory.file("m.gguf");
    mostly_experts(&model);
    let needed = |options: &[&str]| {
        let report = plan(&[&["-m", &model, "-c", "4096"], options].concat());
        report["plan"]["needed"].as_u64().unwrap()
    };
    let (packed, mapped) = (needed(&["--experts", "packed"]), needed(&["--experts", "mapped"]));
    if packed == mapped {
        println!("left out: the scalar backend packs no weights");
        return;
    }
    assert!(packed > mapped + (20 << 20), "{packed} {mapped}");
    // What the program has itself counts as well: a few MiB.
    let limit = format!("{}", (packed + mapped) / 2);
    let eval = |options: &[&str]| {
        let args = ["eval", "-m", &model, "--tokens", "1,2,3", "-c", "4096"];
        twinfer(&[&args[..], &["--memory-limit", &limit], options].concat())
    };
    let refused = eval(&["--experts", "packed"]);
    assert_eq!(refused.code, 1, "{}", refused.err);
    let (_, advice) = refused.err.split_once("what would fit: ").unwrap();
    assert!(advice.contains("--experts mapped"), "{}", refused.err);
    eval(&["--experts", "mapped"]).ok();
    // Mapped weights alone are no help to who insists on packed experts.
    assert!(!advice.contains("--weights mapped"), "{}", refused.err);
    assert_eq!(eval(&["--experts", "packed", "--weights", "mapped"]).code, 1);
    // Where nobody said, they are mapped unasked.
    let settled = eval(&[]).ok();
    assert!(
        settled.err.contains("those of experts stay mapped"),
        "{}",
        settled.err
    );
}

/// A control group of its own for a test, with a limit on memory.
struct Group {
    path: PathBuf,
    limit: &'static str,
    version: u32,
}

impl Group {
    /// `None` where this user may make none.
    fn new() -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        for line in own.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let (root, limit, version) = match controllers {
                "" => ("/sys/fs/cgroup", "memory.max", 2),
                "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", 1),
                _ => continue,
            };
            // In a container the path may be one outside of it.
            for above in Path::new(path.trim_start_matches('/')).ancestors() {
                let path = Path::new(root)
                    .join(above)
                    .join(format!("twinfer-test-{}", std::process::id()));
                if fs::create_dir(&path).is_err() {
                    continue;
                }
                let group = Group { path, limit, version };
                let file = group.path.join(limit);
                // A directory elsewhere is no group.
                if file.exists() && fs::write(file, (1u64 << 30).to_string()).is_ok() {
                    return Some(group);
                }
            }
        }
        None
    }

    /// Runs the program in it.
    fn run(&self, limit: u64, args: &[&str]) -> Run {
        let read = |file: &str| fs::read_to_string(self.path.join(file)).unwrap_or_default();
        // Pages of files that runs before have left count as well: they make room for these.
        let _ = fs::write(self.path.join("memory.force_empty"), "0");
        fs::write(self.path.join(self.limit), limit.to_string()).unwrap();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(self.path.join("cgroup.procs"))
            .arg(command(&[]).get_program())
            .args(args);
        let run = finish(piped(shell));
        let events = read(if self.version == 2 {
            "memory.events"
        } else {
            "memory.oom_control"
        });
        let killed = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        assert!(killed.is_none_or(|n| n == "0"), "{limit} {args:?}: {events}");
        run
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

#[test]
fn no_limit_of_a_control_group_kills_the_program() {
    let Some(group) = Group::new() else {
        println!("left out: this user may make no control group with a limit on memory");
        return;
    };
    let directory = Directory::new("group");
    let model = directory.random_model("q4_0");
    let (mut refused, mut ran) = (0, 0);
    for options in [&[][..], &["--weights", "mapped"], &["--direct-io"]] {
        let eval = [
            &["eval", "-m", &model, "--tokens", "1,2,3", "-c", "4096"],
            options,
        ]
        .concat();
        let plan = plan(&[&["-m", &model, "-c", "4096"], options].concat());
        let needed = plan["plan"]["needed"].as_u64().unwrap();
        for percent in [40, 80, 95, 105, 140] {
            let run = group.run(needed * percent / 100, &eval);
            println!(
                "{options:?}, {percent} % of {} MiB: code {}",
                needed >> 20,
                run.code
            );
            assert!(
                [0, 1].contains(&run.code),
                "{percent} %, {options:?}: {} {}",
                run.code,
                run.err
            );
            if run.code == 1 {
                assert!(run.err.contains("free (the control group)"), "{}", run.err);
                refused += 1;
            } else {
                ran += 1;
            }
            assert!(
                percent > 95 || run.code == 1,
                "less than is needed was enough for {options:?}"
            );
            assert!(percent < 140 || run.code == 0, "{}", run.err);
        }
        // What the refusal advises does fit.
        if options.is_empty() && plan["backend"] != "scalar" {
            let limit = needed * 80 / 100;
            let error = group.run(limit, &eval).err;
            assert!(error.contains("--weights mapped"), "{error}");
            group
                .run(limit, &[&eval[..], &["--weights", "mapped"]].concat())
                .ok();
        }
    }
    assert!(refused > 0 && ran > 0);
    // To the last position of the context: what was promised is then in use, with mapped weights beside it.
    let n_ctx = 2048;
    let sizes = ["-c", "2048", "--cache-type-k", "f32", "--cache-type-v", "f32"];
    let tokens: Vec<String> = (0..n_ctx).map(|i| (1 + i % 100).to_string()).collect();
    let tokens = tokens.join(",");
    for weights in ["packed", "mapped"] {
        let options = [&["-m", &model, "--weights", weights][..], &sizes].concat();
        let plan = plan(&options);
        let (needed, cache) = (
            plan["plan"]["needed"].as_u64().unwrap(),
            sum(&plan["plan"]["cache"]),
        );
        // More than what is allowed for beside the plan, so that a cache that was not counted would show.
        assert!(cache > 64 << 20, "{cache}");
        let mut filled = 0;
        for percent in [104, 120] {
            let fill = [&["eval", "--tokens", &tokens][..], &options].concat();
            let run = group.run(needed * percent / 100, &fill);
            println!(
                "{weights}, {n_ctx} tokens, {percent} % of {} MiB: code {}",
                needed >> 20,
                run.code
            );
            assert!(
                [0, 1].contains(&run.code),
                "{percent} %, {weights}: {} {}",
                run.code,
                run.err
            );
            assert!(
                run.code == 0 || run.err.contains("free (the control group)"),
                "{}",
                run.err
            );
            filled += usize::from(run.code == 0);
        }
        assert!(filled > 0, "{weights}: the cache was never filled");
    }
}

#[test]
fn direct_reads_change_no_number_and_keep_one_copy() {
    let directory = Directory::new("direct");
    let demo = directory.file("demo.gguf");
    fs::copy(DEMO, &demo).unwrap();
    let digest = |args: &[&str]| {
        let run = twinfer(&[&["eval", "--tokens", "1,5,9", "-m", &demo], args].concat()).ok();
        (run.text().lines().last().unwrap().to_string(), run.err)
    };
    let (expected, _) = digest(&[]);
    for args in [
        &["--direct-io"][..],
        &["--direct-io", "--weights", "mapped"],
        &["-dio", "--weights", "packed", "-t", "3", "--mlock"],
        &["--direct-io", "--backend", "scalar"],
    ] {
        let (found, err) = digest(args);
        assert_eq!(found, expected, "{args:?}");
        if !err.is_empty() {
            println!("{args:?}: {err}");
            assert!(
                err.contains("reading through the system's cache") || err.contains("--mlock"),
                "{err}"
            );
        }
    }
    // The built-in model is in no file.
    let (found, err) = digest(&[]);
    assert_eq!((found, err.as_str()), (expected, ""));
    let built_in = twinfer(&["eval", "--tokens", "1", "--direct-io"]).ok();
    assert!(built_in.err.contains("not in a file"), "{}", built_in.err);
}

#[test]
fn a_file_that_is_cut_while_it_runs_ends_with_an_error() {
    let directory = Directory::new("cut");
    let model = directory.file("m.gguf");
    fs::copy(DEMO, &model).unwrap();
    // More text than a pipe holds: it is still generating when the file is cut.
    let args = [
        "run",
        "Once",
        "-m",
        &model,
        "--weights",
        "mapped",
        "--ignore-eos",
        "-n",
        "200000",
        "-c",
        "200001",
    ];
    let mut child = piped(command(&args));
    let out = child.stdout.as_mut().unwrap();
    out.read_exact(&mut [0; 8]).unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(&model)
        .unwrap()
        .set_len(4096)
        .unwrap();
    let run = finish(child);
    assert_eq!(run.code, 1, "{}", run.err);
    let error = run.err.lines().last().unwrap();
    for part in [
        "error: `",
        "m.gguf` can no longer be read at byte ",
        "is 4096 bytes now",
    ] {
        assert!(error.contains(part), "{}", run.err);
    }
}

/// What is done to the file in the middle of a text, with mapped weights or packed ones, and whether it is an error.
#[test]
fn a_file_that_is_replaced_while_it_runs() {
    let args = "run Once --ignore-eos -n 3000 -c 3001 --seed 1";
    let args: Vec<&str> = args.split(' ').collect();
    let undisturbed = twinfer(&args).ok();
    for (name, weights, renamed, is_error) in [
        ("written-mapped", "mapped", false, true),
        ("written-packed", "packed", false, false),
        ("renamed-mapped", "mapped", true, false),
    ] {
        let directory = Directory::new(name);
        let model = directory.file("m.gguf");
        fs::copy(DEMO, &model).unwrap();
        let mut child = piped(command(
            &[&args[..], &["-m", &model, "--weights", weights]].concat(),
        ));
        let mut begin = [0; 8];
        child.stdout.as_mut().unwrap().read_exact(&mut begin).unwrap();
        let to = if renamed {
            directory.file("new.gguf")
        } else {
            model.clone()
        };
        if renamed {
            fs::copy(DEMO, &to).unwrap();
        }
        // Other weights in the second half, in place: the file is never shorter.
        let mut file = fs::OpenOptions::new().write(true).open(&to).unwrap();
        let len = file.metadata().unwrap().len();
        file.seek(SeekFrom::Start(len / 2)).unwrap();
        file.write_all(&vec![0; (len - len / 2) as usize]).unwrap();
        drop(file);
        if renamed {
            fs::rename(&to, &model).unwrap();
        }
        let run = finish(child);
        if is_error {
            assert_eq!(run.code, 1, "{name}: {}", run.err);
            assert!(
                run.err
                    .contains("m.gguf` was written to while weights were read from it"),
                "{}",
                run.err
            );
        } else {
            assert_eq!(run.code, 0, "{name}: {}", run.err);
            assert_eq!([&begin[..], &run.out].concat(), undisturbed.out, "{name}");
        }
    }
}

#[test]
fn a_disk_that_fails_ends_with_an_error() {
    let directory = Directory::new("failing");
    let library = directory.file("unreadable.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/unreadable.c");
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o", &library, source])
        .status();
    if !made.is_ok_and(|status| status.success()) {
        println!("left out: there is no C compiler for the stand-in of a failing disk");
        return;
    }
    let model = directory.file("m-failing.gguf");
    fs::copy(DEMO, &model).unwrap();
    for options in [
        &["--weights", "mapped"][..],
        &["--weights", "packed"],
        &["--direct-io"],
    ] {
        let direct = options.contains(&"--direct-io");
        let mut command = command(&[&["eval", "--tokens", "1,2", "-m", &model], options].concat());
        command.env("LD_PRELOAD", &library);
        if direct {
            command.env("READS_ONLY", "1");
        }
        let run = finish(piped(command));
        if direct && run.err.contains("reading through the system's cache") {
            println!("left out: this file system has no direct reads");
            continue;
        }
        let expected = if direct {
            "Input/output error"
        } else {
            "can no longer be read at byte "
        };
        assert_eq!(run.code, 1, "{options:?}: {}", run.err);
        for part in ["m-failing.gguf", expected] {
            assert!(run.err.contains(part), "{options:?}: {}", run.err);
        }
    }
}
