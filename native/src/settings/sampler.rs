//! The sampler's parameters, each with all of its names: the engine's field, the flag, the fields of a line of `batch`. From
//! this one table options are read, written as they would be typed, and named where they are at fault.

use twinfer_engine::Error;
use twinfer_engine::sample::SamplerParams;

use crate::args::GenerationArgs;
use crate::failure::Usage;

/// A parameter of the sampler, but for the seed.
pub(crate) struct Parameter {
    /// The engine's name: of the field, of the author's recommendation, and in errors.
    pub(crate) name: &'static str,
    flag: &'static str,
    /// Its names in a line of `batch`: OpenAI's where it has one, llama.cpp's, and the flag's.
    fields: &'static [&'static str],
    pub(crate) kind: Kind,
}

/// Where the value lies in [`SamplerParams`].
type Place<T> = fn(&mut SamplerParams) -> &mut T;
/// What the command line says of it; nothing where the model's author is asked next.
type Given<T> = fn(&GenerationArgs) -> Option<T>;

/// What values the parameter has.
pub(crate) enum Kind {
    Float(Place<f32>, Given<f32>),
    Int(Place<i32>, Given<i32>),
    Count(Place<usize>, Given<usize>),
    /// The order of the samplers.
    Samplers,
    /// Changes of single tokens' logits.
    Biases,
}

const fn parameter(
    name: &'static str,
    flag: &'static str,
    fields: &'static [&'static str],
    kind: Kind,
) -> Parameter {
    Parameter {
        name,
        flag,
        fields,
        kind,
    }
}

/// Said even where they are at their defaults: the first of the table.
const ALWAYS: usize = 4;

#[rustfmt::skip] // a row each
static PARAMETERS: [Parameter; 24] = {
    use Kind::{Biases, Count, Float, Int, Samplers};
    [
        parameter("temp", "--temp", &["temperature", "temp"], Float(|p| &mut p.temp, |a| a.temp)),
        parameter("top_k", "--top-k", &["top_k"], Int(|p| &mut p.top_k, |a| a.top_k)),
        parameter("top_p", "--top-p", &["top_p"], Float(|p| &mut p.top_p, |a| a.top_p)),
        parameter("min_p", "--min-p", &["min_p"], Float(|p| &mut p.min_p, |a| a.min_p)),
        parameter("min_keep", "--min-keep", &["min_keep"], Count(|p| &mut p.min_keep, |a| Some(a.min_keep))),
        parameter("typ_p", "--typical", &["typical_p", "typical", "typ_p"],
            Float(|p| &mut p.typ_p, |a| Some(a.typical))),
        parameter("top_n_sigma", "--top-nsigma", &["top_n_sigma", "top_nsigma"],
            Float(|p| &mut p.top_n_sigma, |a| Some(a.top_nsigma))),
        parameter("xtc_probability", "--xtc-probability", &["xtc_probability"],
            Float(|p| &mut p.xtc_probability, |a| a.xtc_probability)),
        parameter("xtc_threshold", "--xtc-threshold", &["xtc_threshold"],
            Float(|p| &mut p.xtc_threshold, |a| a.xtc_threshold)),
        parameter("dynatemp_range", "--dynatemp-range", &["dynatemp_range"],
            Float(|p| &mut p.dynatemp_range, |a| Some(a.dynatemp_range))),
        parameter("dynatemp_exponent", "--dynatemp-exp", &["dynatemp_exponent", "dynatemp_exp"],
            Float(|p| &mut p.dynatemp_exponent, |a| Some(a.dynatemp_exp))),
        parameter("penalty_last_n", "--repeat-last-n", &["repeat_last_n"],
            Int(|p| &mut p.penalty_last_n, |a| a.repeat_last_n)),
        parameter("penalty_repeat", "--repeat-penalty", &["repeat_penalty"],
            Float(|p| &mut p.penalty_repeat, |a| a.repeat_penalty)),
        parameter("penalty_freq", "--frequency-penalty", &["frequency_penalty"],
            Float(|p| &mut p.penalty_freq, |a| Some(a.frequency_penalty))),
        parameter("penalty_present", "--presence-penalty", &["presence_penalty"],
            Float(|p| &mut p.penalty_present, |a| Some(a.presence_penalty))),
        parameter("dry_multiplier", "--dry-multiplier", &["dry_multiplier"],
            Float(|p| &mut p.dry_multiplier, |a| Some(a.dry_multiplier))),
        parameter("dry_base", "--dry-base", &["dry_base"], Float(|p| &mut p.dry_base, |a| Some(a.dry_base))),
        parameter("dry_allowed_length", "--dry-allowed-length", &["dry_allowed_length"],
            Int(|p| &mut p.dry_allowed_length, |a| Some(a.dry_allowed_length))),
        parameter("dry_penalty_last_n", "--dry-penalty-last-n", &["dry_penalty_last_n"],
            Int(|p| &mut p.dry_penalty_last_n, |a| Some(a.dry_penalty_last_n))),
        parameter("mirostat", "--mirostat", &["mirostat"], Int(|p| &mut p.mirostat, |a| a.mirostat)),
        parameter("mirostat_tau", "--mirostat-ent", &["mirostat_tau", "mirostat_ent"],
            Float(|p| &mut p.mirostat_tau, |a| a.mirostat_ent)),
        parameter("mirostat_eta", "--mirostat-lr", &["mirostat_eta", "mirostat_lr"],
            Float(|p| &mut p.mirostat_eta, |a| a.mirostat_lr)),
        parameter("samplers", "--samplers", &["samplers"], Samplers),
        parameter("logit_bias", "--logit-bias", &["logit_bias"], Biases),
    ]
};

impl Parameter {
    /// The parameter that a field of a line of `batch` names.
    pub(crate) fn of_field(field: &str) -> Option<&'static Self> {
        PARAMETERS
            .iter()
            .find(|parameter| parameter.fields.contains(&field))
    }

    /// Puts what the command line says into `params`; whether it says anything.
    fn read(&self, args: &GenerationArgs, params: &mut SamplerParams) -> bool {
        fn put<T>(to: &mut T, given: Option<T>) -> bool {
            let is_given = given.is_some();
            if let Some(value) = given {
                *to = value;
            }
            is_given
        }
        match self.kind {
            Kind::Float(place, given) => put(place(params), given(args)),
            Kind::Int(place, given) => put(place(params), given(args)),
            Kind::Count(place, given) => put(place(params), given(args)),
            Kind::Samplers => {
                let samplers = args.sampling_seq.as_ref().or(args.samplers.as_ref());
                put(&mut params.samplers, samplers.map(|samplers| samplers.0.clone()))
            }
            Kind::Biases => put(&mut params.logit_bias, Some(args.logit_bias.clone())),
        }
    }

    /// The options that say its value; `None` for biases where there are none.
    fn write(&self, params: &mut SamplerParams) -> Option<String> {
        let flag = self.flag;
        Some(match self.kind {
            Kind::Float(place, _) => format!("{flag} {}", place(params)),
            Kind::Int(place, _) => format!("{flag} {}", place(params)),
            Kind::Count(place, _) => format!("{flag} {}", place(params)),
            Kind::Samplers => {
                let names: Vec<&str> = params.samplers.iter().map(|kind| kind.name()).collect();
                format!("{flag} '{}'", names.join(";"))
            }
            Kind::Biases => {
                let biases = params.logit_bias.iter();
                let each: Vec<String> = biases.map(|(id, bias)| format!("{flag} {id}{bias:+}")).collect();
                return (!each.is_empty()).then(|| each.join(" "));
            }
        })
    }
}

/// The parameters that the command line asks for, with the program's defaults for the others, and the engine's names of those
/// that were chosen.
pub(super) fn chosen(args: &GenerationArgs, seed: u32) -> Result<(SamplerParams, Vec<&'static str>), Usage> {
    let mut params = SamplerParams {
        seed,
        ..SamplerParams::default()
    };
    let mut chosen = Vec::new();
    for parameter in &PARAMETERS {
        if parameter.read(args, &mut params) {
            chosen.push(parameter.name);
        }
    }
    params.validate().map_err(by_flag)?;
    Ok((params, chosen))
}

/// The sampler's settings as options that would say them: those that are always asked about, and what differs from the
/// defaults.
pub(crate) fn as_options(params: &SamplerParams) -> String {
    let (mut params, mut usual) = (params.clone(), SamplerParams::default());
    let mut options = vec![format!("--seed {}", params.seed)];
    for (i, parameter) in PARAMETERS.iter().enumerate() {
        let said = parameter.write(&mut params);
        if i < ALWAYS || said != parameter.write(&mut usual) {
            options.extend(said);
        }
    }
    options.join(" ")
}

/// The engine names parameters as its fields; a person typed the flag.
fn by_flag(mut error: Error) -> Usage {
    if let Error::Parameter { name, .. } = &mut error
        && let Some(parameter) = PARAMETERS.iter().find(|parameter| parameter.name == *name)
    {
        *name = parameter.flag;
    }
    Usage(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_name_one_parameter() {
        let fields = || PARAMETERS.iter().flat_map(|parameter| parameter.fields);
        let all: HashSet<_> = fields().collect();
        assert_eq!(all.len(), fields().count());
        let flags: HashSet<_> = PARAMETERS.iter().map(|parameter| parameter.flag).collect();
        assert_eq!(flags.len(), PARAMETERS.len());
    }

    #[test]
    fn what_the_engine_refuses_is_named_by_its_flag() {
        for parameter in &PARAMETERS {
            let mut params = SamplerParams::default();
            match parameter.kind {
                Kind::Float(place, _) => *place(&mut params) = f32::NAN,
                Kind::Int(place, _) => *place(&mut params) = -7,
                Kind::Biases => params.logit_bias = vec![(0, f32::NAN)],
                Kind::Count(..) | Kind::Samplers => continue,
            }
            match params.validate() {
                Ok(()) => assert_eq!(parameter.name, "top_k", "no other number may be anything"),
                Err(error) => {
                    let Usage(text) = by_flag(error);
                    assert!(text.starts_with(&format!("{} must be", parameter.flag)), "{text}");
                }
            }
        }
    }
}
