//! How text is generated: what the options come to, resolved once, before a model is opened.

use std::path::PathBuf;

use twinfer_engine::generation::{MAX_DRAFT, Sampling, Speculation};
use twinfer_engine::sample::{DEFAULT_DRY_BREAKERS, Recommended};

use super::sampler;
use crate::args::{GenerationArgs, SpecType, SpeculationArgs};
use crate::failure::Usage;

/// What the options of generation come to.
#[derive(Debug, Clone)]
pub(crate) struct GenerationSettings {
    /// Tokens at most; `None` for as many as fit.
    pub(crate) predict: Option<usize>,
    /// Checked.
    pub(crate) sampling: Sampling,
    /// How drafts are made.
    pub(crate) speculation: Speculation,
    /// The draft model's file.
    pub(crate) draft_model: Option<PathBuf>,
    /// The sampler's parameters that were chosen, by the engine's names: they go before the author's.
    chosen: Vec<&'static str>,
}

impl GenerationSettings {
    /// Resolves the options, with the program's defaults where nobody chose.
    ///
    /// # Errors
    /// Options that cannot be meant.
    pub(crate) fn new(args: &GenerationArgs, seed: u32) -> Result<Self, Usage> {
        let given: Vec<&str> = args.dry_sequence_breaker.iter().map(String::as_str).collect();
        let breakers: &[&str] = match given.as_slice() {
            [] => &DEFAULT_DRY_BREAKERS,
            ["none"] => &[],
            given => given,
        };
        let (params, chosen) = sampler::chosen(args, seed)?;
        Ok(GenerationSettings {
            predict: args.predict.and_then(|n| usize::try_from(n).ok()),
            sampling: Sampling {
                params,
                dry_breakers: breakers.iter().map(|&text| text.into()).collect(),
                ignore_eos: args.ignore_eos,
            },
            speculation: speculation(&args.speculation)?,
            draft_model: args.speculation.model_draft.clone(),
            chosen,
        })
    }

    /// The same for a model whose author recommends these values: they stand where nobody chose.
    pub(crate) fn with(mut self, recommended: &Recommended) -> Self {
        recommended.apply_except(&mut self.sampling.params, |name| self.chosen.contains(&name));
        self
    }
}

fn speculation(args: &SpeculationArgs) -> Result<Speculation, Usage> {
    let usage = |text: &str| Err(Usage(text.into()));
    let p_min = args.draft_p_min;
    if !(0.0..=1.0).contains(&p_min) {
        return usage("--draft-p-min must be between 0 and 1");
    }
    if args.draft_min > args.draft_max {
        return usage("--draft-min is larger than --draft-max");
    }
    match (args.spec_type, &args.model_draft) {
        (SpecType::DraftSimple, None) => {
            return usage("--spec-type draft-simple needs --model-draft FILE");
        }
        (SpecType::None | SpecType::NgramSimple, Some(_)) => {
            return usage("--model-draft is for --spec-type auto or draft-simple");
        }
        _ => {}
    }
    if args.spec_type == SpecType::None {
        return Ok(Speculation::OFF);
    }
    Ok(Speculation {
        lookup: args.spec_type != SpecType::DraftSimple,
        always: args.spec_type != SpecType::Auto,
        draft_max: usize::try_from(args.draft_max).unwrap_or(MAX_DRAFT),
        draft_min: usize::try_from(args.draft_min).unwrap_or(MAX_DRAFT),
        p_min,
    })
}

#[cfg(test)]
mod tests {
    use twinfer_engine::gguf::{Metadata, Value};
    use twinfer_engine::sample::{SamplerKind, SamplerParams};

    use super::*;
    use crate::args::{Command, parse};
    use crate::settings::as_options;

    fn resolved(args: &[&str], recommended: &Recommended) -> SamplerParams {
        let args = ["twinfer", "run", "x"].iter().chain(args);
        let (cli, _) = parse(args.map(Into::into)).unwrap();
        let Command::Run(args) = cli.command else {
            panic!("not run");
        };
        let settings = GenerationSettings::new(&args.generation, 5).unwrap();
        settings.with(recommended).sampling.params
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
