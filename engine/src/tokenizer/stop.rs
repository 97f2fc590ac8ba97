//! Stop strings in a text that comes in pieces: never shown, not even in part.

/// Holds back text that may be the beginning of a stop string.
#[derive(Debug, Clone, Default)]
pub struct StopFilter {
    stop: Vec<String>,
    held: String,
}

impl StopFilter {
    /// A filter for these strings; empty ones stop nothing.
    pub fn new(stop: &[String]) -> Self {
        let stop = stop.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        StopFilter {
            stop,
            held: String::new(),
        }
    }

    /// Takes the next text and gives what can be shown; true where a stop string came, which ends the text.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        if let Some(at) = self
            .stop
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()))
            .min()
        {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        // The earliest place from which the rest could grow into a stop string.
        let safe = self
            .held
            .char_indices()
            .map(|(i, _)| i)
            .find(|&i| self.stop.iter().any(|stop| stop.starts_with(&self.held[i..])))
            .unwrap_or(self.held.len());
        let rest = self.held.split_off(safe);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// The text that is still held back: it has ended, so no stop string will come.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(stop: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let stop: Vec<String> = stop.iter().map(|s| s.to_string()).collect();
        let mut filter = StopFilter::new(&stop);
        let mut out = Vec::new();
        let mut stopped = false;
        for piece in pieces {
            let (text, end) = filter.push(piece);
            out.push(text);
            stopped = end;
            if stopped {
                break;
            }
        }
        out.push(filter.finish());
        out.retain(|text| !text.is_empty());
        (out, stopped)
    }

    #[test]
    fn stop_strings_are_never_shown_in_part() {
        assert_eq!(filtered(&[], &["a", "b"]), (vec!["a".into(), "b".into()], false));
        assert_eq!(filtered(&["END"], &["xE", "N", "Dy"]), (vec!["x".into()], true));
        assert_eq!(
            filtered(&["END"], &["xE", "N", "Fy"]),
            (vec!["x".into(), "ENFy".into()], false)
        );
        assert_eq!(
            filtered(&["END"], &["xEN"]),
            (vec!["x".into(), "EN".into()], false)
        );
        assert_eq!(filtered(&["b", "abc"], &["zab"]), (vec!["za".into()], true));
        assert_eq!(filtered(&["éé"], &["né", "ée"]), (vec!["n".into()], true));
        assert_eq!(filtered(&[""], &["a"]), (vec!["a".into()], false));
    }
}
