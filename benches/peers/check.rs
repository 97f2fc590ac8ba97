//! Before anything is timed: both sides must have computed the same model. Engines round differently, so their logits
//! are compared by correlation.

use std::path::Path;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use twinfer_benches::statistics::correlation;

use crate::engines::{Engine, Settings};
use crate::plan::Kind;

/// Spread over every vocabulary in use.
const TOKENS: [u32; 16] = [
    1, 271, 9001, 17, 4242, 30001, 77, 1500, 12, 25000, 333, 8191, 64, 20202, 5, 30400,
];

/// Below this the two did not compute the same. Quantized activations alone leave more than 0.99.
const LEAST: f64 = 0.98;

/// How well two engines agree.
#[derive(Debug, Clone)]
pub(crate) struct Agreement {
    /// The smallest correlation of one position's logits.
    pub(crate) correlation: f64,
    /// 1 where a text's vector was compared.
    pub(crate) positions: usize,
    /// Sequences that the peer wrote together.
    pub(crate) sequences: usize,
    /// Positions with the same likeliest token.
    pub(crate) same_argmax: usize,
    /// What the peer says of itself.
    pub(crate) report: Value,
}

impl Agreement {
    pub(crate) fn json(&self) -> Value {
        json!({
            "least_correlation": self.correlation, "positions": self.positions, "sequences": self.sequences,
            "same_argmax": self.same_argmax,
        })
    }
}

/// Compares a peer with twinfer on one model: one of so many sequences.
pub(crate) fn compare(
    ours: &Engine,
    peer: &Engine,
    model: &Path,
    (kind, sequences): (Kind, usize),
    directory: &Path,
    settings: &Settings,
) -> Result<Agreement> {
    let logits = |engine: &Engine| {
        let output = directory.join(format!("{}.logits", engine.name()));
        let found = engine.logits(model, &TOKENS, (kind, sequences), &output, settings);
        let _ = std::fs::remove_file(output);
        found
    };
    let positions = match kind {
        Kind::Prompt | Kind::Writing => TOKENS.len(),
        Kind::Texts => 1,
    };
    let (a, _) = logits(ours)?;
    let (b, report) = logits(peer)?;
    let agreement = Agreement {
        sequences,
        ..agreement(&a, &b, positions, report)?
    };
    if agreement.correlation < LEAST {
        bail!(
            "what {} and twinfer compute correlates by only {:.4}: one of them does not compute this model",
            peer.name(),
            agreement.correlation
        );
    }
    Ok(agreement)
}

/// Both have a row per position.
fn agreement(ours: &[f32], peer: &[f32], positions: usize, report: Value) -> Result<Agreement> {
    let n_vocab = ours.len() / positions;
    if n_vocab == 0 || peer.len() != ours.len() {
        bail!(
            "{} logits from twinfer and {} from the peer do not belong to one vocabulary",
            ours.len(),
            peer.len()
        );
    }
    let rows = || ours.chunks_exact(n_vocab).zip(peer.chunks_exact(n_vocab));
    let least = rows()
        .map(|(a, b)| correlation(a, b))
        .fold(1.0, |least, c| if c < least { c } else { least });
    Ok(Agreement {
        correlation: least,
        positions,
        sequences: 1,
        same_argmax: rows().filter(|(a, b)| argmax(a) == argmax(b)).count(),
        report,
    })
}

fn argmax(row: &[f32]) -> Option<usize> {
    row.iter()
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(b.1))
        .map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_position_is_compared() {
        let ours: Vec<f32> = (0..40).map(|i| (i * 7 % 13) as f32).collect();
        let same = agreement(&ours, &ours, 4, Value::Null).unwrap();
        assert_eq!((same.positions, same.same_argmax), (4, 4));
        assert!(same.correlation > 0.999);
        let other: Vec<f32> = ours.iter().rev().copied().collect();
        assert!(agreement(&ours, &other, 4, Value::Null).unwrap().correlation < LEAST);
        assert!(agreement(&ours, &ours[..30], 4, Value::Null).is_err());
        assert!(agreement(&ours, &[], 4, Value::Null).is_err());
    }
}
