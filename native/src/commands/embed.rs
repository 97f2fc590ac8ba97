//! `embed`: vectors of texts.

use std::io::IsTerminal as _;

use anyhow::{Result, anyhow, bail};
use serde_json::{Value, json};
use twinfer_engine::model::pooling::Pooling;
use twinfer_engine::tokenizer::EncodeOptions;

use crate::args::{EmbedArgs, VectorFormat};
use crate::compute::Compute;
use crate::failure::Usage;
use crate::output::{self, json_f32};
use crate::settings::Settings;
use crate::vectors::{self, Making};
use crate::workers::Workers;
use crate::{load, prompt};

pub(super) fn run(settings: &Settings, workers: &Workers, args: &EmbedArgs) -> Result<()> {
    if args.format != VectorFormat::Json && std::io::stdout().is_terminal() {
        return Err(Usage("npy and f32 are no text: send them to a file or another program".into()).into());
    }
    let (source, verbosity) = (&settings.source, settings.verbosity);
    let file = source.open()?;
    let texts: Vec<Vec<u32>> = if args.tokens.is_empty() {
        let lines = match args.file() {
            Some(path) => vectors::lines(path)?,
            None => args.texts.clone(),
        };
        let tokenizer = load::tokenizer(source, &file, verbosity)?;
        let options = EncodeOptions {
            add_special: true,
            parse_special: true,
        };
        let tokens = |text: &String| prompt::tokens(verbosity, &tokenizer, text, options);
        lines.iter().map(tokens).collect::<Result<_>>()?
    } else {
        args.tokens.iter().map(|ids| ids.0.clone()).collect()
    };

    let compute = Compute::start(settings, workers)?;
    let planned = compute.plan(&file)?;
    let own = &planned.config().pooling;
    let pooling = match args.pooling().or(own.kind) {
        Some(Pooling::Rank) if own.rank.is_none() => bail!(
            "the model is no reranker (its `pooling_type` is not 4, rank): take --pooling mean, cls, last or none"
        ),
        Some(pooling) => pooling,
        None => bail!(
            "the model's file does not say how a text's vector is made: choose --pooling mean, cls, last or none"
        ),
    };
    let width = planned.config().vector_len(pooling);
    let making = Making {
        pooling,
        normalize: args.normalize,
        batch_size: args.batch_size,
    };
    let all = vectors::make((&compute, verbosity), planned, &texts, making, "text")?;
    match args.format {
        VectorFormat::Json => {
            let data: Vec<Value> = all
                .iter()
                .enumerate()
                .map(|(index, vectors)| {
                    let numbers = |vector: &Vec<f32>| Value::from_iter(vector.iter().map(|x| json_f32(*x)));
                    let embedding = match (pooling, &**vectors) {
                        (Pooling::None, all) => all.iter().map(numbers).collect(),
                        (_, [vector]) => numbers(vector),
                        _ => Value::Null,
                    };
                    json!({"object": "embedding", "index": index, "embedding": embedding})
                })
                .collect();
            let tokens: usize = texts.iter().map(Vec::len).sum();
            let answer = json!({
                "object": "list",
                "data": data,
                "model": source.to_string(),
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            });
            output::to_stdout(&format!("{}\n", serde_json::to_string(&answer)?))
        }
        VectorFormat::Npy | VectorFormat::F32 => {
            let rows: Vec<&Vec<f32>> = all.iter().flatten().collect();
            let mut bytes = match args.format {
                VectorFormat::Npy => npy_header(rows.len(), width)?,
                _ => Vec::new(),
            };
            bytes.extend(
                rows.iter()
                    .flat_map(|row| row.iter())
                    .flat_map(|x| x.to_le_bytes()),
            );
            output::bytes_to_stdout(&bytes)
        }
    }
}

/// What stands before the numbers of an array of f32 in NumPy's format, version 1.0.
fn npy_header(rows: usize, width: usize) -> Result<Vec<u8>> {
    const BEGIN: &[u8] = b"\x93NUMPY\x01\x00";
    let mut about = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    // The numbers begin at a multiple of 64 bytes, behind a line end.
    let len = (BEGIN.len() + 2 + about.len() + 1).next_multiple_of(64) - BEGIN.len() - 2;
    about.push_str(&" ".repeat(len - about.len() - 1));
    about.push('\n');
    let len = u16::try_from(len).map_err(|_| anyhow!("the shape is too long to write"))?;
    Ok([BEGIN, &len.to_le_bytes(), about.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::npy_header;

    #[test]
    fn an_array_begins_where_numpy_expects_it() {
        for rows in [1, 10, 123_456_789] {
            let header = npy_header(rows, 384).unwrap();
            assert_eq!((header.len() % 64, header.last()), (0, Some(&b'\n')));
            let len = u16::from_le_bytes([header[8], header[9]]);
            assert_eq!(usize::from(len) + 10, header.len());
            let text = String::from_utf8_lossy(&header[10..]);
            assert!(text.contains(&format!("'shape': ({rows}, 384)")), "{text}");
        }
    }
}
