//! How tokens are chosen and when generation stops: shared by `run`, `chat` and `batch`. llama.cpp's names and defaults,
//! before which the model's own go.

use std::path::PathBuf;

use crate::failure::Usage;
use clap::{Args, ValueEnum};
use twinfer_engine::Error;
use twinfer_engine::generation::{MAX_DRAFT, Sampling, Speculation};
use twinfer_engine::sample::{
    DEFAULT_DRY_BREAKERS, Recommended, SamplerKind, SamplerParams, parse_samplers, parse_sampling_seq,
};

#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct GenerationArgs {
    /// Tokens to generate at most. -1, and -2 as well: until the model ends or the context is full.
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i64).range(-2..))]
    predict: Option<i64>,

    /// Temperature. 0: always the most likely token. Default: the model's, or 0.8.
    #[arg(long, alias = "temperature", value_name = "T")]
    temp: Option<f32>,

    /// Keep the K most likely tokens. 0: all. Default: the model's, or 40.
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    top_k: Option<i32>,

    /// Keep the most likely tokens up to this probability. 1: off. Default: the model's, or 0.95.
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,

    /// Drop tokens less likely than this times the most likely one. 0: off. Default: the model's, or 0.05.
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,

    /// Locally typical sampling. 1: off.
    #[arg(long, alias = "typical-p", value_name = "P", default_value_t = 1.0)]
    typical: f32,

    /// Drop tokens more than N standard deviations below the best logit. -1: off.
    #[arg(long, alias = "top-n-sigma", value_name = "N", default_value_t = -1.0, allow_negative_numbers = true)]
    top_nsigma: f32,

    /// Chance that XTC removes the top choices. 0: off. Default: the model's, or 0.
    #[arg(long, value_name = "P")]
    xtc_probability: Option<f32>,

    /// XTC removes tokens over this probability, but the least likely of them. Over 0.5: off. Default: the model's, or 0.1.
    #[arg(long, value_name = "P")]
    xtc_threshold: Option<f32>,

    /// The temperature follows the entropy, within this range around --temp. 0: off.
    #[arg(long, value_name = "R", default_value_t = 0.0)]
    dynatemp_range: f32,

    /// Exponent of the entropy-driven temperature.
    #[arg(long, alias = "dynatemp-exponent", value_name = "E", default_value_t = 1.0)]
    dynatemp_exp: f32,

    /// Divide the logits of recent tokens by this. 1: off. Default: the model's, or 1.
    #[arg(long, value_name = "X")]
    repeat_penalty: Option<f32>,

    /// How many recent tokens are penalized. 0: off, -1: the whole context. Default: the model's, or 64.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    repeat_last_n: Option<i32>,

    /// Subtract this from the logits of recent tokens. 0: off.
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    presence_penalty: f32,

    /// Subtract this from the logits of recent tokens, per occurrence. 0: off.
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    frequency_penalty: f32,

    /// DRY: strength of the penalty on repeated sequences. 0: off.
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    dry_multiplier: f32,

    /// DRY: base of the penalty, raised to the excess length of the sequence.
    #[arg(long, value_name = "X", default_value_t = 1.75)]
    dry_base: f32,

    /// DRY: repeated sequences up to this length are free.
    #[arg(long, value_name = "N", default_value_t = 2, allow_negative_numbers = true)]
    dry_allowed_length: i32,

    /// DRY: how many recent tokens are searched. 0: off, -1: the whole context.
    #[arg(long, value_name = "N", default_value_t = -1, allow_negative_numbers = true)]
    dry_penalty_last_n: i32,

    /// DRY: a string that ends a repetition; may be given several times and replaces the defaults
    /// (line break, colon, quote, asterisk). "none": no such strings.
    #[arg(long, value_name = "TEXT")]
    dry_sequence_breaker: Vec<String>,

    /// 2: Mirostat 2.0 in place of the samplers. 0: off. Default: the model's, or 0.
    #[arg(long, value_name = "N")]
    mirostat: Option<i32>,

    /// Mirostat's learning rate. Default: the model's, or 0.1.
    #[arg(long, value_name = "X")]
    mirostat_lr: Option<f32>,

    /// Mirostat's target entropy. Default: the model's, or 5.
    #[arg(long, value_name = "X")]
    mirostat_ent: Option<f32>,

    /// Change a token's logit: its id, then the sign and the amount, as in 15043+1 or 15043-inf. May be repeated.
    #[arg(short, long, value_name = "ID(+|-)BIAS", value_parser = logit_bias)]
    logit_bias: Vec<(u32, f32)>,

    /// Never end by the model's own end token.
    #[arg(long)]
    ignore_eos: bool,

    /// Samplers in the order in which they run, separated by ';'. Default: the model's, or
    /// penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature.
    #[arg(long, value_name = "NAMES", value_parser = samplers, conflicts_with = "sampling_seq")]
    samplers: Option<Samplers>,

    /// The same in letters: edskypmxt is the program's default.
    #[arg(long, alias = "sampler-seq", value_name = "LETTERS", value_parser = sampling_seq)]
    sampling_seq: Option<Samplers>,

    /// Truncating samplers leave at least this many tokens.
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_keep: usize,

    #[command(flatten)]
    speculation: SpeculationArgs,
}

/// How drafts of the next tokens are made, which are computed together with the last one.
#[derive(Debug, Args)]
#[command(next_help_heading = "Speculation: faster, never another text")]
struct SpeculationArgs {
    /// Where drafts of the next tokens come from.
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = SpecType::Auto)]
    spec_type: SpecType,

    /// A small model of the same vocabulary that drafts what this one may say.
    #[arg(long, value_name = "FILE")]
    model_draft: Option<PathBuf>,

    /// Drafts at a time at most.
    #[arg(long, aliases = ["draft", "draft-n"], value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u64).range(0..=MAX_DRAFT as u64))]
    draft_max: u64,

    /// Fewer drafts than this are not tried.
    #[arg(long, alias = "draft-n-min", value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u64).range(0..=MAX_DRAFT as u64))]
    draft_min: u64,

    /// The draft model stops where it is less sure than this.
    #[arg(long, value_name = "P", default_value_t = 0.75)]
    draft_p_min: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SpecType {
    /// What followed the last tokens earlier in the text, and the draft model if there is one; both where it pays.
    Auto,
    /// None.
    None,
    /// What followed the last tokens earlier in the text, always.
    NgramSimple,
    /// The draft model, always.
    DraftSimple,
}

impl SpeculationArgs {
    fn resolve(&self) -> Result<Speculation, Usage> {
        let usage = |text: &str| Err(Usage(text.into()));
        let p_min = self.draft_p_min;
        if !(0.0..=1.0).contains(&p_min) {
            return usage("--draft-p-min must be between 0 and 1");
        }
        if self.draft_min > self.draft_max {
            return usage("--draft-min is larger than --draft-max");
        }
        match (self.spec_type, &self.model_draft) {
            (SpecType::DraftSimple, None) => {
                return usage("--spec-type draft-simple needs --model-draft FILE");
            }
            (SpecType::None | SpecType::NgramSimple, Some(_)) => {
                return usage("--model-draft is for --spec-type auto or draft-simple");
            }
            _ => {}
        }
        if self.spec_type == SpecType::None {
            return Ok(Speculation::OFF);
        }
        Ok(Speculation {
            lookup: self.spec_type != SpecType::DraftSimple,
            always: self.spec_type != SpecType::Auto,
            draft_max: usize::try_from(self.draft_max).unwrap_or(MAX_DRAFT),
            draft_min: usize::try_from(self.draft_min).unwrap_or(MAX_DRAFT),
            p_min,
        })
    }
}

/// A newtype, so that clap does not take it for a list of values.
#[derive(Debug, Clone)]
struct Samplers(Vec<SamplerKind>);

fn samplers(text: &str) -> Result<Samplers, String> {
    parse_samplers(text).map(Samplers).map_err(|e| e.to_string())
}

fn sampling_seq(text: &str) -> Result<Samplers, String> {
    parse_sampling_seq(text).map(Samplers).map_err(|e| e.to_string())
}

fn logit_bias(text: &str) -> Result<(u32, f32), String> {
    let expected = || "expected a token id and a signed number, as in 15043+1 or 15043-inf".to_string();
    let at = text.find(['+', '-']).ok_or_else(expected)?;
    let (id, bias) = text.split_at(at);
    let id = id.parse().map_err(|_| expected())?;
    let bias: f32 = bias.parse().map_err(|_| expected())?;
    Ok((id, bias))
}

/// What the options of generation come to.
#[derive(Debug, Clone)]
pub(crate) struct Generation {
    /// Tokens at most; `None` for as many as fit.
    pub(crate) predict: Option<usize>,
    /// Checked.
    pub(crate) sampling: Sampling,
    /// How drafts are made.
    pub(crate) speculation: Speculation,
    /// The draft model's file.
    pub(crate) draft_model: Option<PathBuf>,
}

impl GenerationArgs {
    /// Whether the options can be meant, before a model is opened.
    pub(crate) fn check(&self) -> Result<(), Usage> {
        self.resolve(0, &Recommended::default()).map(drop)
    }

    /// Resolves the options: what is not given is as the model's author recommends.
    pub(crate) fn resolve(&self, seed: u32, recommended: &Recommended) -> Result<Generation, Usage> {
        let given: Vec<&str> = self.dry_sequence_breaker.iter().map(String::as_str).collect();
        let breakers: &[&str] = match given.as_slice() {
            [] => &DEFAULT_DRY_BREAKERS,
            ["none"] => &[],
            given => given,
        };
        Ok(Generation {
            predict: self.predict.and_then(|n| usize::try_from(n).ok()),
            sampling: Sampling {
                params: self.sampler_params(seed, recommended)?,
                dry_breakers: breakers.iter().map(|&text| text.into()).collect(),
                ignore_eos: self.ignore_eos,
            },
            speculation: self.speculation.resolve()?,
            draft_model: self.speculation.model_draft.clone(),
        })
    }

    fn sampler_params(&self, seed: u32, recommended: &Recommended) -> Result<SamplerParams, Usage> {
        let mut unsaid = SamplerParams::default();
        recommended.apply(&mut unsaid);
        let samplers = self.sampling_seq.as_ref().or(self.samplers.as_ref());
        let params = SamplerParams {
            seed,
            min_keep: self.min_keep,
            top_k: self.top_k.unwrap_or(unsaid.top_k),
            top_p: self.top_p.unwrap_or(unsaid.top_p),
            min_p: self.min_p.unwrap_or(unsaid.min_p),
            xtc_probability: self.xtc_probability.unwrap_or(unsaid.xtc_probability),
            xtc_threshold: self.xtc_threshold.unwrap_or(unsaid.xtc_threshold),
            typ_p: self.typical,
            temp: self.temp.unwrap_or(unsaid.temp),
            dynatemp_range: self.dynatemp_range,
            dynatemp_exponent: self.dynatemp_exp,
            penalty_last_n: self.repeat_last_n.unwrap_or(unsaid.penalty_last_n),
            penalty_repeat: self.repeat_penalty.unwrap_or(unsaid.penalty_repeat),
            penalty_freq: self.frequency_penalty,
            penalty_present: self.presence_penalty,
            dry_multiplier: self.dry_multiplier,
            dry_base: self.dry_base,
            dry_allowed_length: self.dry_allowed_length,
            dry_penalty_last_n: self.dry_penalty_last_n,
            mirostat: self.mirostat.unwrap_or(unsaid.mirostat),
            top_n_sigma: self.top_nsigma,
            mirostat_tau: self.mirostat_ent.unwrap_or(unsaid.mirostat_tau),
            mirostat_eta: self.mirostat_lr.unwrap_or(unsaid.mirostat_eta),
            logit_bias: self.logit_bias.clone(),
            samplers: samplers.map_or(unsaid.samplers, |samplers| samplers.0.clone()),
            ..SamplerParams::default()
        };
        params.validate().map_err(by_flag)?;
        Ok(params)
    }
}

/// The sampler's settings as options that would say them: those that are always asked about, and what differs from the
/// defaults.
pub(crate) fn as_options(params: &SamplerParams) -> String {
    type Setting = (&'static str, fn(&SamplerParams) -> String);
    const ALWAYS: usize = 5;
    const SETTINGS: [Setting; 24] = [
        ("--seed", |p| p.seed.to_string()),
        ("--temp", |p| p.temp.to_string()),
        ("--top-k", |p| p.top_k.to_string()),
        ("--top-p", |p| p.top_p.to_string()),
        ("--min-p", |p| p.min_p.to_string()),
        ("--min-keep", |p| p.min_keep.to_string()),
        ("--typical", |p| p.typ_p.to_string()),
        ("--top-nsigma", |p| p.top_n_sigma.to_string()),
        ("--xtc-probability", |p| p.xtc_probability.to_string()),
        ("--xtc-threshold", |p| p.xtc_threshold.to_string()),
        ("--dynatemp-range", |p| p.dynatemp_range.to_string()),
        ("--dynatemp-exp", |p| p.dynatemp_exponent.to_string()),
        ("--repeat-last-n", |p| p.penalty_last_n.to_string()),
        ("--repeat-penalty", |p| p.penalty_repeat.to_string()),
        ("--frequency-penalty", |p| p.penalty_freq.to_string()),
        ("--presence-penalty", |p| p.penalty_present.to_string()),
        ("--dry-multiplier", |p| p.dry_multiplier.to_string()),
        ("--dry-base", |p| p.dry_base.to_string()),
        ("--dry-allowed-length", |p| p.dry_allowed_length.to_string()),
        ("--dry-penalty-last-n", |p| p.dry_penalty_last_n.to_string()),
        ("--mirostat", |p| p.mirostat.to_string()),
        ("--mirostat-ent", |p| p.mirostat_tau.to_string()),
        ("--mirostat-lr", |p| p.mirostat_eta.to_string()),
        ("--samplers", |p| {
            let names: Vec<&str> = p.samplers.iter().map(|kind| kind.name()).collect();
            format!("'{}'", names.join(";"))
        }),
    ];
    let usual = SamplerParams::default();
    let mut options = Vec::new();
    for (i, (flag, of)) in SETTINGS.iter().enumerate() {
        let value = of(params);
        if i < ALWAYS || value != of(&usual) {
            options.push(format!("{flag} {value}"));
        }
    }
    let biases = params.logit_bias.iter();
    options.extend(biases.map(|(id, bias)| format!("--logit-bias {id}{bias:+}")));
    options.join(" ")
}

/// The engine names parameters as llama.cpp's code does; a person typed the flag.
fn by_flag(mut error: Error) -> Usage {
    const FLAGS: [(&str, &str); 21] = [
        ("temp", "--temp"),
        ("top_p", "--top-p"),
        ("min_p", "--min-p"),
        ("typ_p", "--typical"),
        ("xtc_probability", "--xtc-probability"),
        ("xtc_threshold", "--xtc-threshold"),
        ("dynatemp_range", "--dynatemp-range"),
        ("dynatemp_exponent", "--dynatemp-exp"),
        ("top_n_sigma", "--top-nsigma"),
        ("penalty_repeat", "--repeat-penalty"),
        ("penalty_last_n", "--repeat-last-n"),
        ("penalty_freq", "--frequency-penalty"),
        ("penalty_present", "--presence-penalty"),
        ("dry_multiplier", "--dry-multiplier"),
        ("dry_base", "--dry-base"),
        ("dry_allowed_length", "--dry-allowed-length"),
        ("dry_penalty_last_n", "--dry-penalty-last-n"),
        ("mirostat", "--mirostat"),
        ("mirostat_tau", "--mirostat-ent"),
        ("mirostat_eta", "--mirostat-lr"),
        ("logit_bias", "--logit-bias"),
    ];
    if let Error::Parameter { name, .. } = &mut error
        && let Some((_, flag)) = FLAGS.iter().find(|(field, _)| field == name)
    {
        *name = flag;
    }
    Usage(error.to_string())
}

#[cfg(test)]
mod tests {
    use twinfer_engine::gguf::{Metadata, Value};

    use super::*;
    use crate::args::{Command, parse};

    fn resolved(args: &[&str], recommended: &Recommended) -> SamplerParams {
        let args = ["twinfer", "run", "x"].iter().chain(args);
        let (cli, _) = parse(args.map(Into::into)).unwrap();
        let Command::Run(args) = cli.command else {
            panic!("not run");
        };
        args.generation.check().unwrap();
        args.generation.resolve(5, recommended).unwrap().sampling.params
    }

    #[test]
    fn an_option_goes_before_the_model_and_the_model_before_the_default() {
        let nothing = Recommended::default();
        let plain = SamplerParams {
            seed: 5,
            ..SamplerParams::default()
        };
        assert_eq!(resolved(&[], &nothing), plain);
        let mut m = Metadata::new();
        m.insert("general.sampling.temp", Value::F32(1.0));
        m.insert("general.sampling.top_k", Value::I32(64));
        m.insert("general.sampling.min_p", Value::F32(7.0));
        m.insert(
            "general.sampling.sequence",
            Value::String("top_k;temperature".into()),
        );
        let model = Recommended::read(&m);
        assert_eq!(model.notes().len(), 1);
        let found = resolved(&[], &model);
        let chain = vec![SamplerKind::TopK, SamplerKind::Temperature];
        assert_eq!((found.temp, found.top_k, found.min_p), (1.0, 64, plain.min_p));
        assert_eq!((found.seed, &found.samplers), (5, &chain));
        let found = resolved(&["--temp", "0", "--sampling-seq", "p"], &model);
        assert_eq!((found.temp, found.top_k), (0.0, 64));
        assert_eq!(found.samplers, [SamplerKind::TopP]);
        // also where the option says what is the default without a model
        let found = resolved(&["--top-k", "40", "--samplers", ""], &model);
        assert_eq!((found.temp, found.top_k, found.samplers.len()), (1.0, 40, 0));
    }

    #[test]
    fn settings_are_said_as_they_would_be_typed() {
        let nothing = Recommended::default();
        let usual = "--seed 5 --temp 0.8 --top-k 40 --top-p 0.95 --min-p 0.05";
        assert_eq!(as_options(&resolved(&[], &nothing)), usual);
        let more = "--min-keep 1 --typical 0.9 --top-nsigma 2 --xtc-probability 0.1 --xtc-threshold 0.2 --dynatemp-range 0.3 \
                    --dynatemp-exp 2 --repeat-last-n -1 --repeat-penalty 1.1 --frequency-penalty 0.4 --presence-penalty \
                    0.5 --dry-multiplier 0.6 --dry-base 1.5 --dry-allowed-length 3 --dry-penalty-last-n 7 --mirostat 2 \
                    --mirostat-ent 4 --mirostat-lr 0.2 --samplers 'top_k;temperature' --logit-bias 7-1.5 --logit-bias 9+2";
        let typed: Vec<&str> = more.split(' ').map(|word| word.trim_matches('\'')).collect();
        let found = as_options(&resolved(&typed, &nothing));
        assert_eq!(found, format!("{usual} {more}"));
    }
}
