//! Text to ids and back.

use serde_json::{Value, json};
use twinfer_engine::Result;
use twinfer_engine::tokenizer::{EncodeOptions, Tokenizer};

use crate::file::open;

/// For each text: its ids under all four options, and what the ids print, at once and as a stream.
pub fn tokenize(blobs: Vec<Vec<u8>>, texts: &[String]) -> Result<Value> {
    let file = open(blobs)?;
    let tokenizer = Tokenizer::from_metadata(file.metadata())?;
    let mut answers = Vec::with_capacity(texts.len());
    for text in texts {
        let mut answer = Vec::with_capacity(4);
        for (add_special, parse_special) in [(false, false), (false, true), (true, false), (true, true)] {
            let options = EncodeOptions {
                add_special,
                parse_special,
            };
            let ids = tokenizer.encode(text, options)?;
            let mut decoder = tokenizer.stream_decoder(parse_special).at_start();
            let mut streamed: String = ids.iter().map(|&id| decoder.push(id).to_owned()).collect();
            streamed.push_str(decoder.flush());
            answer.push(json!({
                "ids": ids,
                "bytes": tokenizer.decode(&ids, parse_special)?,
                "streamed": streamed,
            }));
        }
        answers.push(answer);
    }
    Ok(json!({
        "model": tokenizer.model_name(),
        "pre": tokenizer.pre_name(),
        "n_vocab": tokenizer.n_vocab(),
        "end_tokens": tokenizer.end_tokens(),
        "texts": answers,
    }))
}
