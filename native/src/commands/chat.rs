//! `chat`: a conversation in the terminal.

mod conversation;
mod editor;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use twinfer_engine::generation::{Bounds, End};

use crate::answer::Answer;
use crate::args::ChatArgs;
use crate::compute::Compute;
use crate::generate::{self, Session};
use crate::output::{self, note};
use crate::output_file::{ReadOnly, write_whole};
use crate::settings::{GenerationSettings, Settings, Verbosity};
use crate::workers::Workers;
use crate::{load, template};
use conversation::Conversation;
use editor::{Editor, Input};

const N_BATCH: usize = 512;

const HELP: &str = "\
/help               this list
/system [TEXT]      set the system message, or remove it; the conversation starts anew
/reset              start anew (also /clear)
/regenerate         another answer to the last question (also /regen, /retry)
/edit [N] TEXT      ask TEXT in place of your message N (1 is the first) or of the last one; what followed it is dropped
/undo               forget the last question and its answer
/show               the conversation so far, and the room that is left
/save FILE          write the conversation as JSON (render-template reads it)
/load FILE          go on with a saved conversation
/exit               leave (also /quit, /bye, Ctrl-D)
Alt-Enter, or a backslash at the end of the line, starts a new line. Ctrl-C stops the answer.";

pub(super) fn run(settings: &Settings, workers: &Workers, args: &ChatArgs) -> Result<()> {
    let (source, verbosity) = (&settings.source, settings.verbosity);
    let seed = settings.seed.unwrap_or_else(generate::random_seed);
    let generation = GenerationSettings::new(&args.generation, seed)?;
    let file = source.open()?;
    let tokenizer = load::tokenizer(source, &file, verbosity)?;
    let generation = generation.with(&load::recommended(&file, verbosity));
    let compute = Compute::start(settings, workers)?;
    let planned = compute.plan(&file)?;
    // Said first: no template would make a model of vectors talk.
    planned.must_write_text()?;
    let template = template::load(source, &file, &args.template)?;
    let driver = generate::driver(
        &generation,
        &compute,
        &tokenizer,
        (planned.config(), verbosity),
        1,
    )?;
    let n_ctx = compute.context_size(planned.config());
    let options = compute.conversation(n_ctx, N_BATCH);
    let model = compute.load(planned, &options)?;
    let context = compute.context(&model, options)?;
    let _pinned = compute.pin_caller();
    let mut sampler = generation.sampling.sampler(&tokenizer, n_ctx)?;
    let mut session = Session::new(context, driver, verbosity)?.of_conversation();
    let mut editor = Editor::new(!args.no_history)?;
    let mut conversation = Conversation::new(args.system.clone());
    if editor.interactive() {
        verbosity.note(&format!("{source}. /help lists the commands, Ctrl-D leaves."));
    }

    loop {
        let line = match editor.read()? {
            Input::Line(line) => line,
            Input::Cancelled => continue,
            Input::CancelledEmpty => {
                note("Ctrl-D leaves");
                continue;
            }
            Input::Refused(why) => {
                note(&why);
                continue;
            }
            Input::End => break,
        };
        let text = line.trim();
        if text.is_empty() {
            continue;
        }
        let before = conversation.clone();
        if let Some(command) = text.strip_prefix('/') {
            match execute(command, &mut conversation, &session) {
                Ok(Next::Read) => continue,
                Ok(Next::Leave) => break,
                Ok(Next::Answer) => {}
                Err(error) => {
                    note(&format!("{error:#}"));
                    continue;
                }
            }
        } else {
            conversation.ask(text);
        }

        let answered = answer(
            &mut session,
            &mut conversation,
            &mut |session, messages| {
                let template::Prompt { ids, reasoning } = template::prompt(&template, &tokenizer, messages)?;
                if ids.len() >= session.capacity() {
                    bail!(
                        "the conversation has {} tokens and the context has room for {}; /reset starts anew, a \
                         larger --ctx-size makes room",
                        ids.len(),
                        session.capacity()
                    );
                }
                // Penalties look at this conversation only; the random numbers go on.
                sampler.clear_history();
                let limits = Bounds {
                    max_tokens: generation.predict,
                    shown: reasoning.marks().into_iter().map(String::from).collect(),
                    at_start: true,
                    ..Bounds::default()
                };
                let mut answer = Answer::new(&reasoning, args.hide_thinking);
                let mut print = |text: &str| answer.push(text);
                let outcome = session.generate(&tokenizer, &mut sampler, &ids, &limits, &mut print)?;
                answer.finish()?;
                Ok((outcome, answer))
            },
            verbosity,
        );
        if let Err(error) = answered {
            // A closed stdout ends the program; anything else ends the answer.
            if error.chain().any(|e| e.is::<std::io::Error>()) {
                return Err(error);
            }
            conversation = before;
            note(&format!("{error:#}"));
        }
    }
    editor.save();
    Ok(())
}

type Generate<'a> = dyn FnMut(&mut Session, &[serde_json::Value]) -> Result<(generate::Outcome, Answer)> + 'a;

/// Streams the answer and enters it into the conversation; what was said before Ctrl-C stays.
fn answer(
    session: &mut Session,
    conversation: &mut Conversation,
    generate: &mut Generate<'_>,
    verbosity: Verbosity,
) -> Result<()> {
    let (outcome, answer) = generate(session, &conversation.messages())?;
    conversation.answer(&answer.text, &answer.thinking);
    outcome.tell_reuse(verbosity);
    outcome.tell_speculation(verbosity);
    if matches!(outcome.end, End::Interrupted | End::ContextFull) {
        verbosity.note(&format!("[{}]", outcome.summary()));
    }
    Ok(())
}

/// What follows a command.
enum Next {
    Read,
    Answer,
    Leave,
}

fn execute(command: &str, conversation: &mut Conversation, session: &Session) -> Result<Next> {
    let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let rest = rest.trim();
    let file = |verb: &str| {
        if rest.is_empty() {
            bail!("/{verb} needs a file name");
        }
        Ok(typed_path(rest, std::env::home_dir()))
    };
    match name {
        "help" | "?" => note(HELP),
        "exit" | "quit" | "bye" => return Ok(Next::Leave),
        "reset" | "clear" => {
            conversation.reset();
            note("the conversation starts anew");
        }
        "system" => {
            conversation.set_system((!rest.is_empty()).then(|| rest.to_string()));
            note(if rest.is_empty() {
                "no system message; the conversation starts anew"
            } else {
                "system message set; the conversation starts anew"
            });
        }
        "regenerate" | "regen" | "retry" => {
            if !conversation.forget_answer() {
                bail!("there is no question to answer again");
            }
            return Ok(Next::Answer);
        }
        "edit" => {
            let (number, text) = edited(rest)?;
            conversation.edit(number, text)?;
            return Ok(Next::Answer);
        }
        "undo" => {
            if !conversation.undo() {
                bail!("there is nothing to undo");
            }
            note("the last question is forgotten");
        }
        "show" => {
            let used = format!("[{} of {} tokens used]", session.len(), session.capacity());
            output::generated(&conversation.to_text())?;
            note(&used);
        }
        "save" => {
            let path: &Path = &file("save")?;
            if loses_other_file(path) {
                bail!(
                    "cannot write `{}`: there is a file with something else than a saved conversation; choose another \
                     name",
                    path.display()
                );
            }
            let mut json = serde_json::to_string_pretty(&conversation.to_json())?;
            json.push('\n');
            write_whole(path, json.as_bytes(), ReadOnly::RefuseAlways)?;
            note(&format!("saved to `{}`", path.display()));
        }
        "load" => {
            let path: &Path = &file("load")?;
            let value = serde_json::from_str(&output::read_text(path)?)
                .with_context(|| format!("`{}` is not valid JSON", path.display()))?;
            *conversation = Conversation::from_json(&value)
                .with_context(|| format!("`{}` is not a saved conversation", path.display()))?;
            note(&format!("{} messages loaded", conversation.messages().len()));
        }
        _ => bail!("there is no command /{name}; /help lists them"),
    }
    Ok(Next::Read)
}

/// What stands after `/edit`: the number of a message, if there is one, and its new text.
fn edited(rest: &str) -> Result<(Option<usize>, &str)> {
    let (first, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let (number, text) = match first.parse() {
        Ok(number) => (Some(number), after.trim()),
        Err(_) => (None, rest),
    };
    if text.is_empty() {
        bail!("/edit needs the new text: /edit TEXT for your last message, /edit N TEXT for message N");
    }
    Ok((number, text))
}

/// A path as people type it where no shell reads it: in quotes, or beginning with `~/`.
fn typed_path(typed: &str, home: Option<PathBuf>) -> Cow<'_, Path> {
    for quote in ['"', '\''] {
        let inner = typed
            .strip_prefix(quote)
            .and_then(|rest| rest.strip_suffix(quote));
        if let Some(inner) = inner.filter(|inner| !inner.is_empty()) {
            return Cow::Borrowed(Path::new(inner));
        }
    }
    match (typed.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => Cow::Owned(home.join(rest)),
        _ => Cow::Borrowed(Path::new(typed)),
    }
}

/// Whether writing a conversation there loses what `/save` did not write: the model, a template, a person's text. An empty
/// file has nothing to lose, and what is no regular file is not replaced.
fn loses_other_file(path: &Path) -> bool {
    if !std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() > 0) {
        return false;
    }
    // Read piece by piece: of a model no more than the beginning.
    let Ok(file) = std::fs::File::open(path) else {
        return true;
    };
    let found: Result<serde_json::Value, _> = serde_json::from_reader(std::io::BufReader::new(file));
    !found.is_ok_and(|value| Conversation::from_json(&value).is_ok_and(|saved| saved.to_json() == value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_read_as_people_type_them() {
        let read = |typed| edited(typed).unwrap();
        assert_eq!(read("Why?"), (None, "Why?"));
        assert_eq!(read("2 Why not?"), (Some(2), "Why not?"));
        assert_eq!(read("2\n3 apples"), (Some(2), "3 apples"));
        assert_eq!(read("2nd try"), (None, "2nd try"));
        for typed in ["", "3", "3 "] {
            let error = edited(typed).unwrap_err().to_string();
            assert!(error.starts_with("/edit needs the new text"), "{error}");
        }
    }

    #[test]
    fn paths_are_read_as_people_type_them() {
        let path = |typed| typed_path(typed, Some("/home/me".into())).into_owned();
        assert_eq!(path("a b.json"), Path::new("a b.json"));
        assert_eq!(path("\"a b.json\""), Path::new("a b.json"));
        assert_eq!(path("'~/x'"), Path::new("~/x"));
        assert_eq!(path("~/x y"), Path::new("/home/me/x y"));
        assert_eq!(path("~x"), Path::new("~x"));
        assert_eq!(path("\"x"), Path::new("\"x"));
        assert_eq!(path("\""), Path::new("\""));
        assert_eq!(typed_path("~/x", None), Path::new("~/x"));
    }
}
