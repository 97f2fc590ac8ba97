//! The shapes of encoders of BERT's kind.

use twinfer_engine::gguf::Value;

use super::parts::{Attention, Bias, Ffn, Fill, Layer, Mixer, Tensor};
use super::table::float;
use super::{Model, Output, Vocabulary, number};

/// What an encoder of BERT's kind is told by.
struct Bert {
    n_embd: usize,
    n_ff: usize,
    n_heads: usize,
    n_vocab: usize,
    n_ctx_train: usize,
    eps: f32,
    /// Kinds of segments.
    n_types: usize,
    /// 1: the mean of all vectors; 2: the first one.
    pooling: usize,
}

impl Bert {
    fn model(&self, n_layers: usize, vocabulary: Vocabulary, mix: &'static str) -> Model {
        let n_embd = self.n_embd;
        let attention = Attention {
            bias: Bias::All,
            ..Attention::new(self.n_heads, self.n_heads, n_embd / self.n_heads)
        };
        let layer = Layer {
            layer_norms: true,
            ..Layer::new(Mixer::Attention(attention), Ffn::Plain { n_ff: self.n_ff })
                .with_norms(&["attn_output_norm", "layer_output_norm"])
        };
        Model {
            arch: "bert",
            n_embd,
            n_vocab: self.n_vocab,
            vocabulary,
            mix,
            keys: vec![
                ("attention.head_count", number(self.n_heads)),
                ("attention.layer_norm_epsilon", float(self.eps)),
                ("attention.causal", Value::Bool(false)),
                ("feed_forward_length", number(self.n_ff)),
                ("pooling_type", number(self.pooling)),
            ],
            n_ctx_train: self.n_ctx_train,
            layers: vec![layer; n_layers],
            output: Output::None,
            others: vec![
                Tensor::new("token_types.weight", &[n_embd, self.n_types]),
                Tensor::new("position_embd.weight", &[n_embd, self.n_ctx_train]),
                Tensor::new("token_embd_norm.weight", &[n_embd]).filled(Fill::Ones),
                Tensor::new("token_embd_norm.bias", &[n_embd]).filled(Fill::Zeros),
            ],
        }
    }
}

/// bge-m3 (XLM-RoBERTa, large).
pub(super) fn bge_m3(n_layers: usize) -> Model {
    let bert = Bert {
        n_embd: 1024,
        n_ff: 4096,
        n_heads: 16,
        n_vocab: 250_002,
        n_ctx_train: 8192,
        eps: 1e-5,
        n_types: 1,
        pooling: 2,
    };
    bert.model(n_layers, Vocabulary::Unigrams, "q8_0")
}

/// all-MiniLM-L6-v2.
pub(super) fn all_minilm(n_layers: usize) -> Model {
    let bert = Bert {
        n_embd: 384,
        n_ff: 1536,
        n_heads: 12,
        n_vocab: 30_522,
        n_ctx_train: 512,
        eps: 1e-12,
        n_types: 2,
        pooling: 1,
    };
    bert.model(n_layers, Vocabulary::WordPieces, "q8_0")
}
