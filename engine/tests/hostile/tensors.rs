//! Tensors whose shapes, types or presence do not fit the hyperparameters.

use twinfer_engine::quant::GgmlType;

use crate::small::{ARCHITECTURES, Small};

/// Every tensor taken away: refused by its name, unless the model runs without it.
#[test]
fn missing() {
    let (mut refused, mut optional) = (0, 0);
    for name in ARCHITECTURES {
        let base = Small::read(name);
        for (spec, _) in &base.tensors {
            let tensor = &spec.name;
            let less = base.clone().without_tensor(tensor);
            // Tied to the embedding where it is missing; a bias is as good as zero.
            if tensor == "output.weight" || tensor.ends_with(".bias") {
                less.accepted(tensor);
                optional += 1;
            } else {
                // The fused one's message begins with the separate one.
                less.refused(tensor, &format!("`{tensor}`"));
                less.refused(tensor, "it is missing from the file");
                refused += 1;
            }
        }
    }
    println!("hostile: {refused} of {refused} missing tensors named, {optional} optional ones left out");
}

/// Every tensor one larger or smaller in each dimension, transposed, and with other numbers of dimensions.
#[test]
fn of_another_shape() {
    let mut count = 0;
    for name in ARCHITECTURES {
        let base = Small::read(name);
        for (spec, _) in &base.tensors {
            let mut shapes = Vec::new();
            for i in 0..spec.shape.len() {
                for delta in [-1isize, 1] {
                    let mut shape = spec.shape.clone();
                    shape[i] = shape[i].wrapping_add_signed(delta);
                    shapes.push(shape);
                }
            }
            let n = spec.shape.iter().product();
            shapes.push(vec![1, n]);
            if let [a, b] = spec.shape[..] {
                shapes.push(vec![a, b, 2]);
                shapes.push(vec![a, 1, b]);
                shapes.push(vec![a, b, 1, 2]);
                shapes.push(vec![n]);
                if a != b {
                    shapes.push(vec![b, a]);
                }
            }
            for shape in shapes {
                let part = format!("tensor `{}`: the hyperparameters ask for the shape", spec.name);
                base.clone()
                    .reshape(&spec.name, spec.ty, &shape)
                    .refused(&format!("{} as {shape:?}", spec.name), &part);
                count += 1;
            }
        }
    }
    println!("hostile: {count} of {count} tensors of another shape refused");
}

/// Integers and f64 are no weights, and norms are never quantized.
#[test]
fn of_another_type() {
    let mut count = 0;
    for name in ARCHITECTURES {
        let base = Small::read(name);
        for (spec, _) in &base.tensors {
            let vector = spec.shape.len() == 1;
            for ty in GgmlType::ALL.iter().copied() {
                let fits = spec.shape[0].is_multiple_of(ty.block_len());
                let allowed = if vector { ty.is_float() } else { ty.is_weight() };
                if !fits || allowed {
                    continue;
                }
                base.clone().reshape(&spec.name, ty, &spec.shape).refused(
                    &format!("{} as {}", spec.name, ty.name()),
                    &format!("tensor `{}`", spec.name),
                );
                count += 1;
            }
        }
    }
    println!("hostile: {count} of {count} tensors of an unusable type refused");
}

#[test]
fn fused_with_wrong_rows() {
    let base = Small::read("phi3");
    let mut count = 0;
    for tensor in ["blk.0.attn_qkv.weight", "blk.1.ffn_up.weight"] {
        let [k, n] = base.tensors[base.index(tensor)].0.shape[..] else {
            panic!("a matrix");
        };
        for rows in [1, n / 2, n - 1, n + 1, 2 * n, 3 * n] {
            base.clone()
                .reshape(tensor, GgmlType::F32, &[k, rows])
                .refused(&format!("{tensor} with {rows} rows"), "blk.");
            count += 1;
        }
    }
    // Both the fused matrix and the separate ones, or a fused bias of the wrong length.
    for len in [1, 7] {
        base.clone()
            .add_tensor("blk.0.attn_qkv.bias", &[len], &vec![0.0; len])
            .refused("a fused bias", "blk.0.attn_qkv.bias");
        count += 1;
    }
    println!("hostile: {count} of {count} fused tensors refused");
}

#[test]
fn factors_of_rotations() {
    let mut count = 0;
    for (name, tensor) in [
        ("llama-rope-freqs", "rope_freqs.weight"),
        ("llama-longrope", "rope_factors_short.weight"),
        ("phi3-long", "rope_factors_long.weight"),
    ] {
        let base = Small::read(name);
        for bad in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            base.clone()
                .change(tensor, |i, v| if i == 1 { bad } else { v })
                .refused(&format!("{tensor} with {bad}"), &format!("tensor `{tensor}`"));
            count += 1;
        }
        let len = base.tensors[base.index(tensor)].0.shape[0];
        for other in [1, len - 1, len + 1, 2 * len] {
            base.clone()
                .reshape(tensor, GgmlType::F32, &[other])
                .refused(&format!("{tensor} of {other}"), &format!("tensor `{tensor}`"));
            count += 1;
        }
        for tiny in [f32::MIN_POSITIVE, f32::MAX] {
            base.clone().change(tensor, |_, _| tiny).accepted(tensor);
        }
    }
    println!("hostile: {count} of {count} rotation factors refused");
}
