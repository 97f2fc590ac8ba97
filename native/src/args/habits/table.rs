//! The options of llama.cpp's tools (llama-cli, llama-completion, llama-bench, llama-quantize, llama-perplexity,
//! llama-tokenize) that this program does not have under the same name, and what becomes of each. What a command has
//! itself goes before.

/// Options that mean the same.
#[derive(Debug)]
pub(super) struct Habit {
    /// As they are typed, with dashes; underscores in long ones are read as dashes.
    pub(super) names: &'static [&'static str],
    /// The commands that it is for; none: all of them.
    pub(super) commands: &'static [&'static str],
    pub(super) value: Value,
    pub(super) meaning: Meaning,
}

/// What follows the option in llama.cpp. It matters only where the option is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    None,
    /// Numbers, `auto` or `all`.
    Number,
    /// `on`, `off`, `auto`, 0 or 1; often left out.
    Switch,
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// This option of ours.
    Is(&'static str),
    /// Nothing, and why.
    Ignored(&'static str),
    /// It is refused with what to do instead.
    Refused(&'static str),
}

use Meaning::{Ignored, Is, Refused};

const fn of(
    commands: &'static [&'static str],
    names: &'static [&'static str],
    value: Value,
    meaning: Meaning,
) -> Habit {
    Habit {
        names,
        commands,
        value,
        meaning,
    }
}

const fn any(names: &'static [&'static str], value: Value, meaning: Meaning) -> Habit {
    of(&[], names, value, meaning)
}

/// The habit of this name in this command.
pub(super) fn find(command: &str, name: &str) -> Option<&'static Habit> {
    all().find(|habit| {
        habit.names.contains(&name) && (habit.commands.is_empty() || habit.commands.contains(&command))
    })
}

/// All of them: those of single commands first, for they go before.
pub(super) fn all() -> impl Iterator<Item = &'static Habit> {
    [OF_COMMANDS, OTHER_NAMES, NO_DIFFERENCE, NOT_HERE]
        .into_iter()
        .flatten()
}

/// Commands of other programs, and what does the same here.
#[rustfmt::skip] // a table
const ELSEWHERE: &[(&[&str], &str)] = &[
    (&["server", "serve", "api"],
     "no server of an API is a part of this program; `twinfer serve-demo` serves the page that runs models in the browser"),
    (&["pull", "download"],
     "nothing is downloaded here; download the .gguf file yourself and give it with -m FILE"),
    (&["cli", "main", "generate", "complete", "completion"], "`twinfer run` continues a prompt, `twinfer chat` converses"),
    (&["convert"], "llama.cpp's convert_hf_to_gguf.py makes .gguf files; `twinfer quantize` makes them smaller"),
    (&["info", "show", "dump", "metadata"], "`twinfer inspect FILE` shows what a file holds"),
    (&["ppl"], "`twinfer perplexity -f FILE` measures how well a model predicts a text"),
    (&["list", "ls"], "models are files, given with -m FILE; `twinfer inspect FILE` shows what one holds"),
];

/// What does here what a command of another program does.
pub(super) fn command_elsewhere(name: &str) -> Option<&'static str> {
    ELSEWHERE
        .iter()
        .find(|(names, _)| names.contains(&name))
        .map(|(_, what)| *what)
}

const TEXT: &[&str] = &["run", "chat", "batch"];

#[rustfmt::skip] // a table
const OF_COMMANDS: &[Habit] = &[
    of(&["run"], &["-cnv", "--conversation", "-i", "--interactive", "-if", "--interactive-first"], Value::None,
       Refused("to converse, use `twinfer chat`; `run --chat TEXT` asks one question")),
    of(&["run"], &["-no-cnv", "--no-conversation"], Value::None, Ignored("`run` never converses")),
    of(&["run"], &["-st", "--single-turn"], Value::None,
       Refused("`run --chat TEXT` puts the prompt into the model's chat template and ends after the answer")),
    of(&["chat"], &["-cnv", "--conversation", "-i", "--interactive", "-if", "--interactive-first"], Value::None,
       Ignored("`chat` always converses")),
    of(&["chat"], &["-no-cnv", "--no-conversation"], Value::None, Refused("`twinfer run` continues a text")),
    of(&["chat"], &["-st", "--single-turn"], Value::None, Refused("`twinfer run --chat TEXT` asks one question")),
    of(&["chat"], &["-p", "--prompt", "-f", "--file"], Value::Any,
       Refused("type the question, or pipe it in as a line; `twinfer run --chat TEXT` asks one question, --system TEXT \
                sets the system message")),
    of(&["chat"], &["-r", "--reverse-prompt"], Value::Any,
       Refused("an answer ends where the model ends it, or with Ctrl-C")),
    of(TEXT, &["--chat-template-file"], Value::Any, Is("--template")),
    of(TEXT, &["--chat-template"], Value::Any,
       Refused("the model's own template is used; another one is read from a file with --template FILE")),
    of(&["chat"], &["--special", "--no-display-prompt"], Value::None, Ignored("a conversation shows the answers alone")),
    of(&["run"], &["-mli", "--multiline-input"], Value::None,
       Refused("the prompt is given with the command; `-f -` reads several lines from stdin")),
    of(&["chat"], &["-mli", "--multiline-input"], Value::None,
       Ignored("Alt-Enter, or a backslash at the end of a line, starts a new line")),
    of(&["bench"], &["-pg"], Value::Any,
       Refused("a prompt and what follows it are not measured as one; -p 16 -n 4 measures both by themselves, -n 4 -d 16 \
                the writing behind a prompt")),
    of(&["bench"], &["-mmp"], Value::Switch,
       Ignored("--weights packed copies weights into memory, --weights mapped does not")),
    of(&["rerank"], &["-q"], Value::Any, Is("--query")),
    of(&["bench"], &["-embd", "--embeddings"], Value::Switch,
       Refused("the making of vectors is not measured; `twinfer embed` makes them")),
    of(&["bench"], &["-oe", "--output-err"], Value::Any, Refused("the report goes to stdout: -o md or -o json")),
    of(&["bench"], &["--delay", "--progress"], Value::Number, Ignored("tests follow each other; progress is on stderr")),
    of(&["bench"], &["--n-depth"], Value::Any, Is("--depth")),
    of(&["tokenize"], &["--ids"], Value::None, Is("--json")),
    of(&["tokenize"], &["--no-bos"], Value::None, Is("--no-add-special")),
    of(&["tokenize"], &["--stdin"], Value::None, Ignored("without a text stdin is read")),
    of(&["tokenize"], &["--show-count"], Value::None, Refused("the table has a line per token: count them with `| wc -l`")),
    of(&["perplexity"], &["-p", "--prompt"], Value::Any, Refused("give the text as a file with -f FILE, or - for stdin")),
    of(&["perplexity"],
       &["--ppl-stride", "--hellaswag", "--hellaswag-tasks", "--winogrande", "--winogrande-tasks", "--multiple-choice",
         "--multiple-choice-tasks", "--kl-divergence", "--kl-divergence-base", "--save-all-logits"],
       Value::Any, Refused("only the perplexity of a text is measured here")),
    of(&["quantize"], &["--allow-requantize"], Value::None, Ignored("it is always allowed")),
    of(&["quantize"], &["--pure"], Value::None,
       Refused("the mix decides each tensor's type here; there is no other way to choose")),
    of(&["quantize"],
       &["--output-tensor-type", "--token-embedding-type", "--tensor-type", "--tensor-type-file", "--leave-output-tensor"],
       Value::Any, Refused("the mix decides each tensor's type here; `twinfer inspect` shows what it chose")),
    of(&["quantize"], &["--imatrix", "--include-weights", "--exclude-weights"], Value::Any,
       Refused("importance matrices are not read here; leave it out")),
    of(&["quantize"], &["--keep-split"], Value::None, Refused("the copy is one file; leave it out")),
    of(&["quantize"], &["--prune-layers", "--dry-run"], Value::Any,
       Refused("this is not done here; `twinfer inspect` shows what a file holds")),
];

#[rustfmt::skip] // a table
const OTHER_NAMES: &[Habit] = &[
    of(TEXT, &["--n-predict"], Value::Number, Is("--predict")),
    of(&["eval"], &["--n-predict"], Value::Number, Is("--predict")),
    of(TEXT, &["--typ-p"], Value::Number, Is("--typical")),
    of(TEXT, &["--sampler"], Value::Any, Is("--samplers")),
    of(&["batch", "inspect"], &["-np"], Value::Number, Is("--parallel")),
    of(&["run"], &["-bf", "--binary-file"], Value::Any, Is("--file")),
    any(&["-ctk"], Value::Any, Is("--cache-type-k")),
    any(&["-ctv"], Value::Any, Is("--cache-type-v")),
    any(&["-sys", "--system-prompt"], Value::Any, Is("--system")),
    of(TEXT, &["-md", "--spec-draft-model"], Value::Any, Is("--model-draft")),
    of(TEXT, &["--spec-draft-n-max"], Value::Number, Is("--draft-max")),
    of(TEXT, &["--spec-draft-n-min"], Value::Number, Is("--draft-min")),
    of(TEXT, &["--spec-draft-p-min"], Value::Number, Is("--draft-p-min")),
    any(&["-dio"], Value::None, Is("--direct-io")),
    any(&["-sp"], Value::None, Is("--special")),
    any(&["--usage"], Value::None, Is("--help")),
    any(&["--rng-seed"], Value::Number, Is("--seed")),
    any(&["--log-verbose"], Value::None, Is("--verbose")),
    any(&["-Cr", "--cpu-range"], Value::Any, Is("--cpus")),
];

const NO_GPU: Meaning = Ignored("there is no GPU here, and all layers run on the CPU");
const FUSED: Meaning = Ignored("attention is always computed in blocks");
const MAPPED: Meaning =
    Ignored("model files are always mapped; --weights says where the weights lie while it runs");
const ONE_SEQUENCE: Meaning =
    Ignored("one text is computed at a time; `twinfer batch` computes many together");
const LOG: Meaning = Ignored("there is no log: -v says more, -q says less");
const WORKERS: Meaning = Ignored("-t, --cpus, --pin and --no-pin say where the workers run");
const NO_SHIFT: Meaning = Ignored("a context that is full ends the text; it is never shifted");

#[rustfmt::skip] // a table
const NO_DIFFERENCE: &[Habit] = &[
    any(&["-ngl", "--gpu-layers", "--n-gpu-layers"], Value::Number, NO_GPU),
    any(&["-ngld", "--gpu-layers-draft", "--n-gpu-layers-draft"], Value::Number, NO_GPU),
    any(&["-sm", "--split-mode", "-ts", "--tensor-split", "-mg", "--main-gpu", "-dev", "--device"], Value::Any, NO_GPU),
    any(&["-ot", "--override-tensor", "-ncmoe", "--n-cpu-moe", "--fit", "--fit-ctx", "--fit-target"], Value::Any, NO_GPU),
    any(&["-cmoe", "--cpu-moe", "--no-host", "-nkvo", "--no-kv-offload", "-kvo", "--kv-offload"], Value::Switch, NO_GPU),
    any(&["-nopo", "--no-op-offload", "--op-offload"], Value::Switch, NO_GPU),
    any(&["-fa", "--flash-attn"], Value::Switch, FUSED),
    any(&["--mmap", "--no-mmap", "-ndio", "--no-direct-io"], Value::None, MAPPED),
    any(&["-nr", "--no-repack", "--repack"], Value::None, Ignored("--weights says whether weights are packed")),
    any(&["--jinja", "--no-jinja"], Value::None, Ignored("chat templates are always rendered as Jinja")),
    any(&["-co", "--color", "--colors"], Value::Switch, Ignored("text is never coloured")),
    any(&["--simple-io"], Value::None, Ignored("where stdin is no terminal, lines are read as they are")),
    any(&["--warmup", "--no-warmup"], Value::None, Ignored("only `bench` runs once before it measures")),
    any(&["-ub", "--ubatch-size"], Value::Number, Ignored("a batch is computed as a whole")),
    any(&["-b", "--batch-size"], Value::Number, Ignored("no number depends on it")),
    any(&["--context-shift", "--no-context-shift"], Value::None, NO_SHIFT),
    any(&["--keep"], Value::Number, NO_SHIFT),
    any(&["--swa-full", "--kv-unified", "-kvu", "--no-kv-unified", "-no-kvu"], Value::None,
        Ignored("the cache keeps what attention reaches")),
    any(&["-dt", "--defrag-thold"], Value::Number, Ignored("the cache is never fragmented")),
    of(&["batch"], &["-cb", "--cont-batching"], Value::None, Ignored("texts always begin and end at any time")),
    any(&["-np", "--parallel", "-ns", "--sequences"], Value::Number, ONE_SEQUENCE),
    any(&["-cb", "--cont-batching", "-nocb", "--no-cont-batching"], Value::None, ONE_SEQUENCE),
    any(&["--prio", "--prio-batch", "--poll", "--poll-batch", "--cpu-strict", "--cpu-strict-batch"], Value::Any,
        WORKERS),
    any(&["-C", "--cpu-mask", "-Cb", "--cpu-mask-batch", "-Crb", "--cpu-range-batch"], Value::Any, WORKERS),
    any(&["--perf", "--no-perf", "--show-timings", "--no-show-timings"], Value::None,
        Ignored("speeds are on stderr unless -q is given")),
    any(&["--log-disable", "--log-prefix", "--no-log-prefix", "--log-timestamps", "--no-log-timestamps"], Value::None, LOG),
    any(&["--log-colors"], Value::Switch, LOG),
    any(&["--check-tensors"], Value::None, Ignored("every file is checked")),
    any(&["--offline"], Value::None, Ignored("nothing is ever downloaded")),
    any(&["--no-escape"], Value::None, Ignored("a text is taken as it is, unless -e is given")),
];

const NO_DOWNLOAD: Meaning =
    Refused("nothing is downloaded here; download the .gguf file yourself and give it with -m FILE");
const IN_FILE: Meaning = Refused("this is read from the model's file and cannot be changed here");
const NO_GRAMMAR: Meaning = Refused("there are no grammars here; leave it out");
const NO_DRAFT: Meaning = Refused("there is no second model that drafts here; leave it out");
const NO_ADAPTER: Meaning = Refused("adapters are not read here; merge it into the model's file first");
const TEXT_ALONE: Meaning = Refused("only text is read here");
const NO_SAVED_STATE: Meaning = Refused("the state of a prompt is not saved here; leave it out");
const BY_TEMPLATE: Meaning =
    Refused("the model's chat template says what stands around a message: `twinfer chat`, or `run --chat`");
const THREADS_OF_BOTH: Meaning =
    Refused("-t N sets the number of threads, for prompts and for generation alike; leave it out");

#[rustfmt::skip] // a table
const NOT_HERE: &[Habit] = &[
    any(&["-hf", "-hfr", "--hf-repo", "-hff", "--hf-file", "-hft", "--hf-token", "-mu", "--model-url", "-dr",
          "--docker-repo", "-hfd", "--hf-repo-draft", "-hfv", "--hf-repo-v", "-hffv", "--hf-file-v"],
        Value::Any, NO_DOWNLOAD),
    any(&["-tb", "--threads-batch", "-td", "--threads-draft", "-tbd", "--threads-batch-draft"], Value::Number,
        THREADS_OF_BOTH),
    any(&["-lv", "--verbosity", "--log-verbosity"], Value::Number,
        Refused("-v says more, -q says less; leave the number out")),
    any(&["--log-file"], Value::Any, Refused("messages go to stderr: write them to a file with `2> FILE`")),
    any(&["--verbose-prompt"], Value::None, Refused("`twinfer tokenize` shows the tokens of a text")),
    any(&["-sysf", "--system-prompt-file"], Value::Any,
        Refused("give its text: --system \"$(cat FILE)\", with `chat` or `run --chat`")),
    any(&["--in-prefix", "--in-suffix", "--in-prefix-bos"], Value::Any, BY_TEMPLATE),
    any(&["--rope-scaling", "--rope-scale", "--rope-freq-base", "--rope-freq-scale", "--yarn-orig-ctx", "--yarn-ext-factor",
          "--yarn-attn-factor", "--yarn-beta-slow", "--yarn-beta-fast", "-gan", "--grp-attn-n", "-gaw", "--grp-attn-w",
          "--override-kv"],
        Value::Any, IN_FILE),
    any(&["--grammar", "--grammar-file", "-j", "--json-schema", "-jf", "--json-schema-file"], Value::Any, NO_GRAMMAR),
    any(&["-md", "--model-draft", "--draft", "--draft-n", "--draft-max", "--draft-min", "--draft-n-min", "--draft-p-min",
          "-devd", "--device-draft", "-cd", "--ctx-size-draft", "-lcs", "--lookup-cache-static", "-lcd",
          "--lookup-cache-dynamic"],
        Value::Any, NO_DRAFT),
    any(&["--lora", "--lora-scaled", "--control-vector", "--control-vector-scaled", "--control-vector-layer-range"],
        Value::Any, NO_ADAPTER),
    any(&["-mm", "--mmproj", "-mmu", "--mmproj-url", "--image", "--audio"], Value::Any, TEXT_ALONE),
    any(&["--prompt-cache", "--prompt-cache-all", "--prompt-cache-ro"], Value::Any, NO_SAVED_STATE),
    any(&["--reasoning-format", "--reasoning-budget", "--chat-template-kwargs"], Value::Any,
        Refused("`twinfer render-template --input` gives a template variables of your own; `chat` gives none")),
    any(&["--rpc"], Value::Any, Refused("only this machine computes")),
    any(&["--list-devices"], Value::None, Refused("`twinfer doctor` shows what this machine has")),
    any(&["--completion-bash"], Value::None, Refused("`twinfer completions bash` prints the script")),
];

/// A sentence for each entry, for the reference.
#[cfg(test)]
pub(crate) fn sentences() -> impl Iterator<Item = String> {
    all().map(|habit| {
        let names: Vec<String> = habit.names.iter().map(|name| format!("`{name}`")).collect();
        let commands = match habit.commands {
            [] => String::new(),
            some => format!(" of {}", some.join(" and ")),
        };
        let meaning = match habit.meaning {
            Is(own) => format!("the same as `{own}`"),
            Ignored(why) => format!("left out: {why}"),
            Refused(what) => format!("refused: {what}"),
        };
        format!("{}{commands}: {meaning}.", names.join(", "))
    })
}
