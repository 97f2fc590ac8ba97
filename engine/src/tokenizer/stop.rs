//! Stop strings in a text that comes in pieces: never shown, not even in part.

/// Bytes of a piece of text that there is room for from the beginning, beside a stop string.
const ROOM: usize = 64;

/// Holds back text that may be the beginning of a stop string.
#[derive(Debug, Clone, Default)]
pub struct StopFilter {
    stop: Vec<String>,
    held: String,
}

impl StopFilter {
    /// A filter for these strings; empty ones stop nothing.
    pub fn new(stop: &[String]) -> Self {
        let stop: Vec<String> = stop.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        let longest = stop.iter().map(String::len).max().unwrap_or(0);
        StopFilter {
            stop,
            held: String::with_capacity(longest + ROOM),
        }
    }

    /// Takes the next text and adds what can be shown to `shown`; true where a stop string came, which ends the text.
    pub fn push(&mut self, text: &str, shown: &mut String) -> bool {
        self.held.push_str(text);
        if let Some(at) = self
            .stop
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()))
            .min()
        {
            shown.push_str(&self.held[..at]);
            self.held.clear();
            return true;
        }
        // The earliest place from which the rest could grow into a stop string.
        let safe = self
            .held
            .char_indices()
            .map(|(i, _)| i)
            .find(|&i| self.stop.iter().any(|stop| stop.starts_with(&self.held[i..])))
            .unwrap_or(self.held.len());
        shown.push_str(&self.held[..safe]);
        self.held.drain(..safe);
        false
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
            let mut text = String::new();
            stopped = filter.push(piece, &mut text);
            out.push(text);
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
