//! Keys and tensors of encoders: what is missing, of another shape, or not what any model has.

use twinfer_engine::gguf::Value;

use crate::small::Small;

const MODELS: [&str; 3] = [
    "../encoders/bert",
    "../encoders/jina-bert-v2",
    "../encoders/modern-bert",
];

#[test]
fn keys_of_encoders() {
    const HUGE: [u32; 3] = [0, (1 << 20) + 1, u32::MAX];
    for name in MODELS {
        for (key, wrong) in [
            ("pooling_type", &[5, 1 << 31][..]),
            ("attention.head_count", &[0, 5, 64, u32::MAX]),
            ("feed_forward_length", &HUGE),
            ("embedding_length", &HUGE),
            ("block_count", &[0, 4097, u32::MAX]),
        ] {
            for value in wrong {
                let what = format!("{name} with {key} = {value}");
                Small::read(name)
                    .set(&format!(".{key}"), Value::U32(*value))
                    .refused(&what, key);
            }
        }
        for eps in [-1.0, 1.0, f32::NAN, f32::INFINITY] {
            Small::read(name)
                .set(".attention.layer_norm_epsilon", Value::F32(eps))
                .refused(&format!("{name} with an epsilon of {eps}"), "layer_norm_epsilon");
        }
        Small::read(name)
            .without(".attention.layer_norm_epsilon")
            .refused(&format!("{name} without an epsilon"), "layer_norm_epsilon");
    }
    // Positions have an embedding each.
    Small::read(MODELS[0])
        .set(".context_length", Value::U32(u32::MAX))
        .refused(
            "a context of more positions than there are embeddings",
            "position_embd",
        );
}

#[test]
fn every_matrix_and_norm_of_an_encoder_counts() {
    for name in MODELS {
        let names: Vec<String> = Small::read(name)
            .tensors
            .iter()
            .map(|(spec, _)| spec.name.clone())
            .filter(|tensor| tensor.ends_with("weight") && tensor != "token_types.weight")
            // Without a gate, the part is a plain one that lacks nothing.
            .filter(|tensor| !tensor.ends_with("ffn_gate.weight"))
            .collect();
        assert!(names.len() > 20);
        for tensor in names {
            let mut small = Small::read(name);
            small.tensors.retain(|(spec, _)| spec.name != tensor);
            let known = tensor
                .trim_end_matches(".weight")
                .rsplit('.')
                .next()
                .unwrap_or_default();
            small.refused(&format!("{name} without {tensor}"), known);
        }
    }
}
