//! Sampled text: the same seed gives the same text in every cell, with each kind of sampler.

use twinfer_engine::cache::CacheType;
use twinfer_engine::generation::Generation;
use twinfer_engine::kernels::select;
use twinfer_engine::sample::{Sampler, SamplerParams};
use twinfer_engine::tokenizer::{EncodeOptions, Tokenizer};

use crate::cells::{self, Cell, Subject};
use crate::{built_in, simd_backends};

/// Longer than an attention block, so that the splits differ.
const PROMPT: &str = "Once upon a time there was a little girl who lived in a house near the forest. One day she took her \
    basket and went to look for berries. The sun was warm, and the birds were singing in the trees. After a while she came \
    to a river, and there she met an old fox. The fox said";

/// Tokens to sample.
const N: usize = 40;

fn settings() -> [SamplerParams; 3] {
    let seeded = |seed| SamplerParams {
        seed,
        ..SamplerParams::default()
    };
    [
        seeded(1),
        SamplerParams {
            temp: 1.3,
            top_k: 0,
            typ_p: 0.9,
            xtc_probability: 0.3,
            penalty_repeat: 1.1,
            dry_multiplier: 0.8,
            ..seeded(2)
        },
        SamplerParams {
            mirostat: 2,
            ..seeded(3)
        },
    ]
}

fn sampled(
    subject: &Subject,
    cell: &Cell,
    params: SamplerParams,
    teams: &[twinfer_engine::team::Team; 4],
) -> Vec<u32> {
    let mut context = subject.context(cell, teams);
    let sampler = Sampler::new(params, subject.config.n_vocab).unwrap();
    let id = context.open().unwrap();
    let mut generation = Generation::of_tokens(&mut context, id, &subject.tokens, sampler, Some(N)).unwrap();
    twinfer_tests::text::finish(&mut context, &mut generation).unwrap();
    generation.generated().to_vec()
}

#[test]
fn the_same_seed_gives_the_same_text() {
    let mut subject = Subject::open(&built_in(), 0);
    let tokenizer = Tokenizer::from_metadata(subject.file.metadata()).unwrap();
    let options = EncodeOptions {
        add_special: true,
        parse_special: true,
    };
    subject.tokens = tokenizer.encode(PROMPT, options).unwrap();
    assert!(subject.tokens.len() > 64, "{}", subject.tokens.len());
    let teams = cells::teams();
    let mut texts = Vec::new();
    let mut n = 0;
    for params in settings() {
        let mut wants: Vec<(cells::Cache, Vec<u32>)> = Vec::new();
        let mut all: Vec<Cell> = simd_backends()
            .flat_map(|backend| cells::covering(backend, &subject.config))
            .collect();
        all.extend(cells::transversal(
            select::choose(Some("scalar")).unwrap(),
            &subject.config,
        ));
        for cell in &all {
            let known = wants.iter().position(|(cache, _)| *cache == cell.cache);
            let index = known.unwrap_or_else(|| {
                let plain = Subject::reference(cell.cache);
                wants.push((cell.cache, sampled(&subject, &plain, params.clone(), &teams)));
                wants.len() - 1
            });
            let got = sampled(&subject, cell, params.clone(), &teams);
            assert_eq!(got, wants[index].1, "{cell}, seed {}", params.seed);
            n += 1;
        }
        let f16 = wants.iter().find(|(cache, _)| cache.0 == CacheType::F16).unwrap();
        texts.push(String::from_utf8_lossy(&tokenizer.decode(&f16.1, false).unwrap()).into_owned());
    }
    for text in &texts {
        println!("sampled: {text:?}");
    }
    // Three settings that gave one text would have sampled nothing.
    texts.dedup();
    assert_eq!(texts.len(), settings().len());
    println!("matrix: {n} sampled texts equal");
}
