//! What a model's author recommends for the sampler: the keys `general.sampling.*` of its file.
//!
//! They take the place of the program's defaults; what a person chose goes before them. A value that cannot be meant is
//! no reason to refuse a model: it is left out, and a note says so.

use super::chain::SamplerKind;
use super::params::SamplerParams;
use crate::gguf::{Metadata, Value};

const PREFIX: &str = "general.sampling.";

/// Names of parameters, the keys' and the fields', and the parameters: numbers with a fraction, then whole ones.
type Floats = [(&'static str, fn(&mut SamplerParams) -> &mut f32); 8];
type Ints = [(&'static str, fn(&mut SamplerParams) -> &mut i32); 3];

const FLOATS: Floats = [
    ("top_p", |p| &mut p.top_p),
    ("min_p", |p| &mut p.min_p),
    ("xtc_probability", |p| &mut p.xtc_probability),
    ("xtc_threshold", |p| &mut p.xtc_threshold),
    ("temp", |p| &mut p.temp),
    ("penalty_repeat", |p| &mut p.penalty_repeat),
    ("mirostat_tau", |p| &mut p.mirostat_tau),
    ("mirostat_eta", |p| &mut p.mirostat_eta),
];
const INTS: Ints = [
    ("top_k", |p| &mut p.top_k),
    ("penalty_last_n", |p| &mut p.penalty_last_n),
    ("mirostat", |p| &mut p.mirostat),
];
const SEQUENCE: &str = "sequence";

/// The author's values; nothing for what the file does not say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recommended {
    floats: [Option<f32>; FLOATS.len()],
    ints: [Option<i32>; INTS.len()],
    samplers: Option<Vec<SamplerKind>>,
    notes: Vec<String>,
}

impl Recommended {
    /// Reads a file's keys.
    pub fn read(m: &Metadata) -> Self {
        let mut found = Self::default();
        let mut notes = Vec::new();
        for (slot, (name, field)) in found.floats.iter_mut().zip(FLOATS) {
            *slot = value(m, name, &mut notes, |number, params| {
                *field(params) = number as f32;
                Some(number as f32)
            });
        }
        for (slot, (name, field)) in found.ints.iter_mut().zip(INTS) {
            *slot = value(m, name, &mut notes, |number, params| {
                let whole = number as i32;
                *field(params) = whole;
                (f64::from(whole) == number).then_some(whole)
            });
        }
        found.samplers = samplers(m, &mut notes);
        found.notes = notes;
        found
    }

    /// Puts the author's values into `params`; what the file does not say stays.
    pub fn apply(&self, params: &mut SamplerParams) {
        self.apply_except(params, |_| false);
    }

    /// As [`Self::apply`], but for the fields of `params` that were chosen, by their names.
    pub fn apply_except(&self, params: &mut SamplerParams, chosen: impl Fn(&str) -> bool) {
        for (value, (name, field)) in self.floats.iter().zip(FLOATS) {
            if let Some(value) = value.filter(|_| !chosen(name)) {
                *field(params) = value;
            }
        }
        for (value, (name, field)) in self.ints.iter().zip(INTS) {
            if let Some(value) = value.filter(|_| !chosen(name)) {
                *field(params) = value;
            }
        }
        if let Some(samplers) = self.samplers.as_ref().filter(|_| !chosen("samplers")) {
            params.samplers.clone_from(samplers);
        }
    }

    /// What the file states and cannot be meant, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The values for a person, as in `top_k 64, top_p 0.95`; `None` where the file says nothing.
    pub fn describe(&self) -> Option<String> {
        let floats = self.floats.iter().zip(FLOATS);
        let ints = self.ints.iter().zip(INTS);
        let samplers = self.samplers.iter().map(|samplers| {
            let names: Vec<&str> = samplers.iter().map(|kind| kind.name()).collect();
            format!("samplers {}", names.join(";"))
        });
        let all: Vec<String> = ints
            .filter_map(|(value, (name, _))| Some(format!("{name} {}", (*value)?)))
            .chain(floats.filter_map(|(value, (name, _))| Some(format!("{name} {}", (*value)?))))
            .chain(samplers)
            .collect();
        (!all.is_empty()).then(|| all.join(", "))
    }
}

/// The number of a key, of any type; `None`, and a note, where the parameter cannot take it.
fn value<T>(
    m: &Metadata,
    name: &str,
    notes: &mut Vec<String>,
    set: impl FnOnce(f64, &mut SamplerParams) -> Option<T>,
) -> Option<T> {
    let key = format!("{PREFIX}{name}");
    let stated = m.get(&key)?;
    let mut params = SamplerParams::default();
    let Some(value) = number(stated).and_then(|number| set(number, &mut params)) else {
        let found = stated.describe();
        notes.push(format!(
            "`{key}` is left out: it is no number of its kind, but {found}"
        ));
        return None;
    };
    match params.validate() {
        Ok(()) => Some(value),
        Err(error) => {
            notes.push(format!("`{key}` is left out: {error}"));
            None
        }
    }
}

fn number(value: &Value) -> Option<f64> {
    Some(match *value {
        Value::U8(v) => v.into(),
        Value::I8(v) => v.into(),
        Value::U16(v) => v.into(),
        Value::I16(v) => v.into(),
        Value::U32(v) => v.into(),
        Value::I32(v) => v.into(),
        Value::U64(v) => v as f64,
        Value::I64(v) => v as f64,
        Value::F32(v) => v.into(),
        Value::F64(v) => v,
        _ => return None,
    })
}

/// The chain: names separated by `;`. Unknown ones are left out, as in llama.cpp; where none is left the program's
/// chain stays.
fn samplers(m: &Metadata, notes: &mut Vec<String>) -> Option<Vec<SamplerKind>> {
    let key = format!("{PREFIX}{SEQUENCE}");
    let stated = m.get(&key)?;
    let Value::String(text) = stated else {
        let found = stated.describe();
        notes.push(format!("`{key}` is left out: it is no text, but {found}"));
        return None;
    };
    let mut samplers = Vec::new();
    for name in text
        .split([';', ','])
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        match SamplerKind::from_name(name) {
            // as many as there are kinds can be meant
            Ok(_) if samplers.len() == MAX_SAMPLERS => {
                notes.push(format!(
                    "`{key}` has more than {MAX_SAMPLERS} samplers: the rest is left out"
                ));
                break;
            }
            Ok(kind) => samplers.push(kind),
            Err(_) => {
                let name: String = name.chars().take(40).collect();
                notes.push(format!(
                    "`{key}` names no sampler with `{name}`, which is left out"
                ));
            }
        }
        if notes.len() > MAX_NOTES {
            break;
        }
    }
    (!samplers.is_empty()).then_some(samplers)
}

/// Samplers of a chain that are taken from a file, and notes on it: a made-up one could name millions.
const MAX_SAMPLERS: usize = 32;
const MAX_NOTES: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[(&str, Value)]) -> Recommended {
        let mut m = Metadata::new();
        for (name, value) in values {
            m.insert(format!("{PREFIX}{name}"), value.clone());
        }
        Recommended::read(&m)
    }

    #[test]
    fn values_take_the_place_of_defaults() {
        let nothing = read(&[]);
        assert_eq!((nothing.describe(), nothing.notes().len()), (None, 0));
        let mut params = SamplerParams::default();
        nothing.apply(&mut params);
        assert_eq!(params, SamplerParams::default());

        let found = read(&[
            ("top_k", Value::I32(64)),
            ("top_p", Value::F32(0.95)),
            ("min_p", Value::F64(0.0)),
            ("temp", Value::U32(1)),
            ("penalty_last_n", Value::F32(-1.0)),
            ("penalty_repeat", Value::F32(1.05)),
            ("mirostat", Value::U8(2)),
            ("mirostat_tau", Value::F32(4.0)),
            ("mirostat_eta", Value::F32(0.2)),
            ("xtc_probability", Value::F32(0.5)),
            ("xtc_threshold", Value::F32(0.2)),
            ("sequence", Value::String("top_k; temperature".into())),
        ]);
        assert!(found.notes().is_empty(), "{:?}", found.notes());
        found.apply(&mut params);
        let expected = SamplerParams {
            top_k: 64,
            top_p: 0.95,
            min_p: 0.0,
            temp: 1.0,
            penalty_last_n: -1,
            penalty_repeat: 1.05,
            mirostat: 2,
            mirostat_tau: 4.0,
            mirostat_eta: 0.2,
            xtc_probability: 0.5,
            xtc_threshold: 0.2,
            samplers: vec![SamplerKind::TopK, SamplerKind::Temperature],
            ..SamplerParams::default()
        };
        assert_eq!(params, expected);
        let few = read(&[("temp", Value::F32(0.7)), ("top_k", Value::I32(20))]);
        assert_eq!(few.describe().as_deref(), Some("top_k 20, temp 0.7"));
    }

    #[test]
    fn what_cannot_be_meant_is_left_out_with_a_note() {
        let bad = [
            ("top_k", Value::F32(1.5)),
            ("top_k", Value::U64(1 << 40)),
            ("top_k", Value::Bool(true)),
            ("top_p", Value::F32(1.5)),
            ("top_p", Value::F32(f32::NAN)),
            ("min_p", Value::F32(-0.1)),
            ("temp", Value::F64(1e300)),
            ("temp", Value::String("1".into())),
            ("penalty_repeat", Value::F32(0.0)),
            ("penalty_last_n", Value::I32(-2)),
            ("mirostat", Value::I32(1)),
            ("mirostat_tau", Value::F32(f32::INFINITY)),
            ("sequence", Value::U8(1)),
            ("sequence", Value::String("infill".into())),
        ];
        for (name, value) in bad {
            let found = read(&[(name, value.clone())]);
            assert_eq!(found.describe(), None, "{name} {value:?}");
            let [note] = found.notes() else {
                panic!("{name} {value:?}: {:?}", found.notes());
            };
            assert!(note.starts_with(&format!("`{PREFIX}{name}` ")), "{note}");
        }
        let some = read(&[("sequence", Value::String("infill;top_p".into()))]);
        assert_eq!(some.describe().as_deref(), Some("samplers top_p"));
        let many = read(&[("sequence", Value::String("x;".repeat(100_000)))]);
        assert!(many.notes().len() < 30 && many.describe().is_none());
    }
}
