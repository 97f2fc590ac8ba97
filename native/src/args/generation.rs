//! How tokens are chosen and when generation stops: shared by `run`, `chat` and `batch`. llama.cpp's names and defaults.
//! What a model's author may recommend has no default here: `settings` knows what it is when nobody chose.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use twinfer_engine::generation::MAX_DRAFT;
use twinfer_engine::sample::{SamplerKind, parse_samplers, parse_sampling_seq};

#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct GenerationArgs {
    /// Tokens to generate at most. -1, and -2 as well: until the model ends or the context is full.
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i64).range(-2..))]
    pub(crate) predict: Option<i64>,

    /// Temperature. 0: always the most likely token. Default: the model's, or 0.8.
    #[arg(long, alias = "temperature", value_name = "T")]
    pub(crate) temp: Option<f32>,

    /// Keep the K most likely tokens. 0: all. Default: the model's, or 40.
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    pub(crate) top_k: Option<i32>,

    /// Keep the most likely tokens up to this probability. 1: off. Default: the model's, or 0.95.
    #[arg(long, value_name = "P")]
    pub(crate) top_p: Option<f32>,

    /// Drop tokens less likely than this times the most likely one. 0: off. Default: the model's, or 0.05.
    #[arg(long, value_name = "P")]
    pub(crate) min_p: Option<f32>,

    /// Locally typical sampling. 1: off.
    #[arg(long, alias = "typical-p", value_name = "P", default_value_t = 1.0)]
    pub(crate) typical: f32,

    /// Drop tokens more than N standard deviations below the best logit. -1: off.
    #[arg(long, alias = "top-n-sigma", value_name = "N", default_value_t = -1.0, allow_negative_numbers = true)]
    pub(crate) top_nsigma: f32,

    /// Chance that XTC removes the top choices. 0: off. Default: the model's, or 0.
    #[arg(long, value_name = "P")]
    pub(crate) xtc_probability: Option<f32>,

    /// XTC removes tokens over this probability, but the least likely of them. Over 0.5: off. Default: the model's, or 0.1.
    #[arg(long, value_name = "P")]
    pub(crate) xtc_threshold: Option<f32>,

    /// The temperature follows the entropy, within this range around --temp. 0: off.
    #[arg(long, value_name = "R", default_value_t = 0.0)]
    pub(crate) dynatemp_range: f32,

    /// Exponent of the entropy-driven temperature.
    #[arg(long, alias = "dynatemp-exponent", value_name = "E", default_value_t = 1.0)]
    pub(crate) dynatemp_exp: f32,

    /// Divide the logits of recent tokens by this. 1: off. Default: the model's, or 1.
    #[arg(long, value_name = "X")]
    pub(crate) repeat_penalty: Option<f32>,

    /// How many recent tokens are penalized. 0: off, -1: the whole context. Default: the model's, or 64.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) repeat_last_n: Option<i32>,

    /// Subtract this from the logits of recent tokens. 0: off.
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    pub(crate) presence_penalty: f32,

    /// Subtract this from the logits of recent tokens, per occurrence. 0: off.
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    pub(crate) frequency_penalty: f32,

    /// DRY: strength of the penalty on repeated sequences. 0: off.
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    pub(crate) dry_multiplier: f32,

    /// DRY: base of the penalty, raised to the excess length of the sequence.
    #[arg(long, value_name = "X", default_value_t = 1.75)]
    pub(crate) dry_base: f32,

    /// DRY: repeated sequences up to this length are free.
    #[arg(long, value_name = "N", default_value_t = 2, allow_negative_numbers = true)]
    pub(crate) dry_allowed_length: i32,

    /// DRY: how many recent tokens are searched. 0: off, -1: the whole context.
    #[arg(long, value_name = "N", default_value_t = -1, allow_negative_numbers = true)]
    pub(crate) dry_penalty_last_n: i32,

    /// DRY: a string that ends a repetition; may be given several times and replaces the defaults
    /// (line break, colon, quote, asterisk). "none": no such strings.
    #[arg(long, value_name = "TEXT")]
    pub(crate) dry_sequence_breaker: Vec<String>,

    /// 2: Mirostat 2.0 in place of the samplers. 0: off. Default: the model's, or 0.
    #[arg(long, value_name = "N")]
    pub(crate) mirostat: Option<i32>,

    /// Mirostat's learning rate. Default: the model's, or 0.1.
    #[arg(long, value_name = "X")]
    pub(crate) mirostat_lr: Option<f32>,

    /// Mirostat's target entropy. Default: the model's, or 5.
    #[arg(long, value_name = "X")]
    pub(crate) mirostat_ent: Option<f32>,

    /// Change a token's logit: its id, then the sign and the amount, as in 15043+1 or 15043-inf. May be repeated.
    #[arg(short, long, value_name = "ID(+|-)BIAS", value_parser = logit_bias)]
    pub(crate) logit_bias: Vec<(u32, f32)>,

    /// Never end by the model's own end token.
    #[arg(long)]
    pub(crate) ignore_eos: bool,

    /// Samplers in the order in which they run, separated by ';'. Default: the model's, or
    /// penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature.
    #[arg(long, value_name = "NAMES", value_parser = samplers, conflicts_with = "sampling_seq")]
    pub(crate) samplers: Option<Samplers>,

    /// The same in letters: edskypmxt is the program's default.
    #[arg(long, alias = "sampler-seq", value_name = "LETTERS", value_parser = sampling_seq)]
    pub(crate) sampling_seq: Option<Samplers>,

    /// Truncating samplers leave at least this many tokens.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) min_keep: usize,

    #[command(flatten)]
    pub(crate) speculation: SpeculationArgs,
}

/// How drafts of the next tokens are made, which are computed together with the last one.
#[derive(Debug, Args)]
#[command(next_help_heading = "Speculation: faster, never another text")]
pub(crate) struct SpeculationArgs {
    /// Where drafts of the next tokens come from.
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = SpecType::Auto)]
    pub(crate) spec_type: SpecType,

    /// A small model of the same vocabulary that drafts what this one may say.
    #[arg(long, value_name = "FILE")]
    pub(crate) model_draft: Option<PathBuf>,

    /// Drafts at a time at most.
    #[arg(long, aliases = ["draft", "draft-n"], value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u64).range(0..=MAX_DRAFT as u64))]
    pub(crate) draft_max: u64,

    /// Fewer drafts than this are not tried.
    #[arg(long, alias = "draft-n-min", value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u64).range(0..=MAX_DRAFT as u64))]
    pub(crate) draft_min: u64,

    /// The draft model stops where it is less sure than this.
    #[arg(long, value_name = "P", default_value_t = 0.75)]
    pub(crate) draft_p_min: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SpecType {
    /// What followed the last tokens earlier in the text, and the draft model if there is one; both where it pays.
    Auto,
    /// None.
    None,
    /// What followed the last tokens earlier in the text, always.
    NgramSimple,
    /// The draft model, always.
    DraftSimple,
}

/// A newtype, so that clap does not take it for a list of values.
#[derive(Debug, Clone)]
pub(crate) struct Samplers(pub(crate) Vec<SamplerKind>);

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
