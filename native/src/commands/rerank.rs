//! `rerank`: documents in the order in which they answer a query.

use std::fmt::Write as _;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::model::pooling::Pooling;
use twinfer_engine::tokenizer::{EncodeOptions, Tokenizer};

use crate::args::RerankArgs;
use crate::compute::Compute;
use crate::load;
use crate::output::{self, json_f32};
use crate::settings::Settings;
use crate::vectors::{self, Making};
use crate::workers::Workers;

pub(super) fn run(settings: &Settings, workers: &Workers, args: &RerankArgs) -> Result<()> {
    let (source, verbosity) = (&settings.source, settings.verbosity);
    let documents = match args.file() {
        Some(path) => vectors::lines(path)?,
        None => args.documents.clone(),
    };
    let file = source.open()?;
    let compute = Compute::start(settings, workers)?;
    let planned = compute.plan(&file)?;
    if planned.config().pooling.rank.is_none() {
        bail!("`{source}` is no reranker (its `pooling_type` is not 4, rank); `twinfer embed` makes vectors");
    }
    let tokenizer = load::tokenizer(source, &file, verbosity)?;
    let template = template(&file)?;
    let pair = |document: &String| pair(&tokenizer, template, &args.query, document);
    let texts: Vec<Vec<u32>> = documents.iter().map(pair).collect::<Result<_>>()?;
    let making = Making {
        pooling: Pooling::Rank,
        normalize: false,
        batch_size: args.batch_size,
    };
    let scores = vectors::make((&compute, verbosity), planned, &texts, making, "document")?;
    // The first label is the one that says yes.
    let mut ranked: Vec<(usize, f32)> = scores
        .iter()
        .map(|scores| {
            scores
                .iter()
                .flatten()
                .next()
                .copied()
                .unwrap_or(f32::NEG_INFINITY)
        })
        .enumerate()
        .collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked.truncate(args.top_n.unwrap_or(usize::MAX));
    if args.json {
        let tokens: usize = texts.iter().map(Vec::len).sum();
        let results: Vec<Value> = ranked
            .iter()
            .map(|&(index, score)| json!({"index": index, "relevance_score": json_f32(score)}))
            .collect();
        return output::json(&json!({
            "object": "list",
            "model": source.to_string(),
            "results": results,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }));
    }
    let mut report = String::new();
    for (index, score) in ranked {
        let _ = writeln!(
            report,
            "{score:>12.6}  {index:>5}  {}",
            output::one_line(&documents[index])
        );
    }
    output::to_stdout(&report)
}

/// The template that a file has for pairs, if it has one: plain text with `{query}` and `{document}` in it.
fn template(file: &ModelFile) -> Result<Option<&str>> {
    let templates = file.metadata().chat_templates()?;
    let found = templates.into_iter().find(|(name, _)| *name == "rerank");
    Ok(found.map(|(_, text)| text))
}

/// The tokens of a query with a document.
fn pair(tokenizer: &Tokenizer, template: Option<&str>, query: &str, document: &str) -> Result<Vec<u32>> {
    let Some(template) = template else {
        return Ok(tokenizer.encode_pair(query, document)?);
    };
    let options = EncodeOptions {
        add_special: false,
        parse_special: true,
    };
    Ok(tokenizer.encode(&fill(template, query, document), options)?)
}

/// The template with both put in, each where its name stands; what is put in is not looked at again.
fn fill(template: &str, query: &str, document: &str) -> String {
    let mut out = String::new();
    let mut rest = template;
    let names = [("{query}", query), ("{document}", document)];
    while let Some((at, name, text)) = names
        .iter()
        .filter_map(|(name, text)| Some((rest.find(name)?, name, text)))
        .min_by_key(|(at, ..)| *at)
    {
        out.push_str(&rest[..at]);
        out.push_str(text);
        rest = &rest[at + name.len()..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::fill;

    #[test]
    fn what_is_put_into_a_template_is_not_looked_at_again() {
        assert_eq!(
            fill("Q: {query}\nD: {document}!", "a {document}", "b"),
            "Q: a {document}\nD: b!"
        );
        assert_eq!(fill("{document}{document}", "q", "{query}"), "{query}{query}");
        assert_eq!(fill("plain", "q", "d"), "plain");
    }
}
