//! The messages of a conversation. They alternate: a question of the user, an answer; the system message before them.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// Where a saved conversation has what the model thought.
const THINKING: &str = "reasoning_content";

#[derive(Debug, Clone, Default)]
pub(super) struct Conversation {
    system: Option<String>,
    /// (question, answer); only the last may be without an answer.
    turns: Vec<(String, Option<Answer>)>,
}

#[derive(Debug, Clone)]
struct Answer {
    text: String,
    /// What the model thought before it, which may be nothing.
    thinking: String,
}

impl Conversation {
    pub(super) fn new(system: Option<String>) -> Self {
        Self {
            system,
            turns: Vec::new(),
        }
    }

    pub(super) fn ask(&mut self, question: &str) {
        self.turns.push((question.into(), None));
    }

    /// Answers the last question.
    pub(super) fn answer(&mut self, text: &str, thinking: &str) {
        if let Some(turn) = self.turns.last_mut() {
            turn.1 = Some(Answer {
                text: text.into(),
                thinking: thinking.into(),
            });
        }
    }

    /// Removes the last answer; false where there is no question.
    pub(super) fn forget_answer(&mut self) -> bool {
        let Some(turn) = self.turns.last_mut() else {
            return false;
        };
        turn.1 = None;
        true
    }

    /// Puts another text in the place of the user's message `number`, counted from 1, or of the last one. It is
    /// without an answer then, and what followed it is gone.
    pub(super) fn edit(&mut self, number: Option<usize>, text: &str) -> Result<()> {
        let there = self.turns.len();
        if there == 0 {
            bail!("there is no message to edit");
        }
        let number = number.unwrap_or(there);
        if !(1..=there).contains(&number) {
            bail!("there is no message {number} to edit: you have sent {there}");
        }
        self.turns.truncate(number - 1);
        self.ask(text);
        Ok(())
    }

    /// Removes the last question; false where there is none.
    pub(super) fn undo(&mut self) -> bool {
        self.turns.pop().is_some()
    }

    pub(super) fn reset(&mut self) {
        self.turns.clear();
    }

    pub(super) fn set_system(&mut self, system: Option<String>) {
        self.system = system;
        self.reset();
    }

    /// Role, text, and what was thought before it.
    fn entries(&self) -> impl Iterator<Item = (&'static str, &str, &str)> {
        let system = self.system.iter().map(|text| ("system", text.as_str(), ""));
        let turns = self.turns.iter().flat_map(|(question, answer)| {
            let answer = answer
                .iter()
                .map(|answer| ("assistant", answer.text.as_str(), answer.thinking.as_str()));
            std::iter::once(("user", question.as_str(), "")).chain(answer)
        });
        system.chain(turns)
    }

    /// As templates take them: thinking stands in a field of its own, under each of the names that they know it by, and
    /// a template decides what of it the model sees again.
    pub(super) fn messages(&self) -> Vec<Value> {
        self.with_thinking(&["reasoning_content", "thinking"])
    }

    fn with_thinking(&self, names: &[&str]) -> Vec<Value> {
        let message = |(role, content, thinking): (&str, &str, &str)| {
            let mut message = json!({"role": role, "content": content});
            if !thinking.is_empty() {
                names.iter().for_each(|name| message[*name] = thinking.into());
            }
            message
        };
        self.entries().map(message).collect()
    }

    pub(super) fn to_json(&self) -> Value {
        json!({"messages": self.with_thinking(&[THINKING])})
    }

    pub(super) fn to_text(&self) -> String {
        self.entries()
            .map(|(role, content, _)| format!("{role}: {}\n", content.trim_end()))
            .collect()
    }

    /// Reads what [`Self::to_json`] gives, or the bare array of messages.
    pub(super) fn from_json(value: &Value) -> Result<Self> {
        let messages = value.get("messages").unwrap_or(value);
        let messages = messages.as_array().context("there is no array of messages")?;
        let mut conversation = Self::default();
        for (i, message) in messages.iter().enumerate() {
            let text = |key: &str| {
                let value = message.get(key).and_then(Value::as_str);
                value.with_context(|| format!("message {}: `{key}` is not a text", i + 1))
            };
            let (role, content) = (text("role")?, text("content")?);
            let open = conversation.turns.last().is_some_and(|turn| turn.1.is_none());
            match role {
                "system" if i == 0 => conversation.system = Some(content.into()),
                "user" if !open => conversation.ask(content),
                "assistant" if open => {
                    let thinking = message.get(THINKING).and_then(Value::as_str);
                    conversation.answer(content, thinking.unwrap_or_default());
                }
                _ => bail!(
                    "message {}: role `{role}` is out of place; user and assistant must alternate",
                    i + 1
                ),
            }
        }
        if conversation.turns.last().is_some_and(|turn| turn.1.is_none()) {
            bail!("the last message must be an answer");
        }
        Ok(conversation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns() {
        let mut c = Conversation::new(Some("Be brief.".into()));
        assert!(!c.undo() && !c.forget_answer());
        c.ask("Hi");
        c.answer("Hello.", "Who is it?");
        c.ask("Why?");
        assert_eq!(c.messages().len(), 4);
        c.answer("So.", "");
        assert_eq!(
            c.to_text(),
            "system: Be brief.\nuser: Hi\nassistant: Hello.\nuser: Why?\nassistant: So.\n"
        );
        let again = Conversation::from_json(&c.to_json()).unwrap();
        assert_eq!(again.to_text(), c.to_text());
        assert_eq!(again.to_json(), c.to_json());
        let greeting = &again.messages()[2];
        assert_eq!(greeting["content"], "Hello.");
        assert_eq!(greeting["reasoning_content"], "Who is it?");
        assert_eq!(greeting["thinking"], "Who is it?");
        assert_eq!(
            again.messages()[4],
            json!({"role": "assistant", "content": "So."})
        );
        assert!(c.forget_answer());
        assert_eq!(c.messages().len(), 4);
        assert!(c.undo());
        assert_eq!(c.messages().len(), 3);
        c.set_system(None);
        assert_eq!(c.messages(), Vec::<Value>::new());
    }

    #[test]
    fn an_edited_message_drops_what_followed_it() {
        let mut c = Conversation::new(Some("Be brief.".into()));
        let error = c.edit(None, "Hi").unwrap_err();
        assert_eq!(error.to_string(), "there is no message to edit");
        for i in 1..=3 {
            c.ask(&format!("Q{i}"));
            c.answer(&format!("A{i}"), "");
        }
        for number in [0, 4] {
            let error = c.edit(Some(number), "Hi").unwrap_err().to_string();
            assert_eq!(
                error,
                format!("there is no message {number} to edit: you have sent 3")
            );
        }
        assert_eq!(c.messages().len(), 7);
        c.edit(None, "Q three").unwrap();
        assert_eq!(
            c.to_text(),
            "system: Be brief.\nuser: Q1\nassistant: A1\nuser: Q2\nassistant: A2\nuser: Q three\n"
        );
        c.edit(Some(1), "Q one").unwrap();
        assert_eq!(c.to_text(), "system: Be brief.\nuser: Q one\n");
    }

    #[test]
    fn loading_says_what_is_wrong() {
        let error = |value: Value| format!("{:#}", Conversation::from_json(&value).unwrap_err());
        assert!(error(json!(5)).contains("no array of messages"));
        assert!(error(json!([{"role": "user"}])).contains("message 1: `content`"));
        assert!(error(json!([{"role": "user", "content": "a"}])).contains("must be an answer"));
        assert!(error(json!([{"role": "assistant", "content": "a"}])).contains("out of place"));
    }
}
