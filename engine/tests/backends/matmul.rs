//! Matrix products and the decode of rows, every type.

use twinfer_engine::kernels::{Backend, Operand, PackedMatrix, Packing, Placement, Storage, select};
use twinfer_engine::memory::Bytes;
use twinfer_engine::quant::{GgmlType, step_len};
use twinfer_engine::team::{Place, Team};

use crate::{Random, assert_same, backends, reduced};

/// What the blocks of a matrix hold.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Content {
    /// Random bytes, the scales moderate.
    Random,
    /// Random bytes throughout: infinite and NaN scales as well.
    Wild,
    /// All bits set, the scales the largest there are.
    Ones,
    /// The byte -128 (0x80) everywhere, the scales subnormal.
    Minus128,
}

/// Where a type's blocks have f16 scales.
fn halves(ty: GgmlType) -> &'static [usize] {
    use GgmlType::*;
    match ty {
        Q4_1 | Q5_1 | Q4_K | Q5_K => &[0, 2],
        Q2_K => &[80, 82],
        Q3_K => &[108],
        Q6_K => &[208],
        TQ1_0 => &[52],
        TQ2_0 => &[64],
        // Scales of another kind, or floats.
        IQ1_M | MXFP4 | NVFP4 | F32 | F16 | BF16 => &[],
        _ => &[0],
    }
}

fn block(ty: GgmlType, content: Content, random: &mut Random, out: &mut [u8]) {
    for byte in out.iter_mut() {
        *byte = match content {
            Content::Ones => 0xff,
            Content::Minus128 => 0x80,
            _ => random.next() as u8,
        };
    }
    if content == Content::Wild {
        return;
    }
    for at in halves(ty) {
        let bits = random.next() as u16;
        let half = match content {
            Content::Ones => 0x7bff,
            Content::Minus128 => bits & 0x83ff,
            // Subnormal to 32.
            _ => bits & 0x83ff | (((bits >> 10) & 31) % 21) << 10,
        };
        out[*at..*at + 2].copy_from_slice(&half.to_le_bytes());
    }
    match ty {
        GgmlType::MXFP4 if content == Content::Random => out[0] = 100 + out[0] % 40,
        GgmlType::F32 => out.copy_from_slice(&random.float().to_le_bytes()),
        GgmlType::F16 if out[1] & 0x7c == 0x7c => out[1] &= 0xbf,
        GgmlType::BF16 => out.copy_from_slice(&random.float().to_le_bytes()[2..]),
        _ => (),
    }
}

fn matrix(ty: GgmlType, n: usize, k: usize, content: Content, random: &mut Random) -> Bytes {
    let mut bytes = vec![0; ty.row_bytes(k).unwrap() * n];
    for out in bytes.chunks_exact_mut(ty.block_bytes()) {
        block(ty, content, random, out);
    }
    Bytes::from_vec(bytes)
}

/// Activations: random, with steps that are zero, tiny, and one value alone.
fn activations(m: usize, k: usize, random: &mut Random) -> Vec<f32> {
    let mut x = random.floats(m * k);
    for step in x.chunks_mut(16) {
        match random.below(12) {
            0 => step.fill(0.0),
            1 => step.fill(-0.0),
            2 => step.iter_mut().for_each(|x| *x *= 1e-30),
            3 => step
                .iter_mut()
                .for_each(|x| *x = if *x < 0.0 { -3.5 } else { 3.5 }),
            4 => step[0] = 1e4,
            _ => (),
        }
    }
    x
}

struct Case {
    ty: GgmlType,
    n: usize,
    k: usize,
    m: usize,
    content: Content,
    seed: u64,
}

impl Case {
    fn product(&self, backend: &dyn Backend, storage: Storage, team: &Team) -> (PackedMatrix, Vec<f32>) {
        let mut random = Random(self.seed);
        let bytes = matrix(self.ty, self.n, self.k, self.content, &mut random);
        let weight = backend
            .pack(self.ty, self.n, self.k, bytes, &Packing::on_heap(storage, team))
            .unwrap();
        let x = activations(self.m, self.k, &mut random);
        let operand = Operand::new(backend, team, &weight, x).unwrap();
        let mut out = vec![0.0; self.m * self.n];
        operand.matmul(team, &weight, &mut out).unwrap();
        // Some of the rows by themselves are those rows.
        let first = random.below(self.m);
        let rows = first..first + 1 + random.below(self.m - first);
        let mut part = vec![0.0; rows.len() * self.n];
        operand
            .matmul_rows(rows.clone(), team, &weight, &mut part)
            .unwrap();
        assert_same(
            &part,
            &out[rows.start * self.n..rows.end * self.n],
            &format!(
                "{} {storage:?} {} seed {}, rows {rows:?} of {}",
                backend.name(),
                self.ty.name(),
                self.seed,
                self.m
            ),
        );
        (weight, out)
    }

    fn check(&self, team: &Team) -> usize {
        let (scalar, want) = self.product(select::choose(Some("scalar")).unwrap(), Storage::Mapped, team);
        let mut compared = 0;
        for backend in backends() {
            for storage in [Storage::Packed, Storage::Mapped] {
                let what = format!(
                    "{} {storage:?} {} {:?} n {} k {} m {} seed {}",
                    backend.name(),
                    self.ty.name(),
                    self.content,
                    self.n,
                    self.k,
                    self.m,
                    self.seed
                );
                let (weight, got) = self.product(backend, storage, team);
                assert_same(&got, &want, &what);
                let (mut a, mut b) = (vec![0.0; self.k], vec![0.0; self.k]);
                for row in [0, self.n / 2, self.n - 1] {
                    weight.decode_row(row, &mut a).unwrap();
                    scalar.decode_row(row, &mut b).unwrap();
                    assert_same(&a, &b, &format!("{what}, decode of row {row}"));
                }
                compared += 1;
            }
        }
        compared
    }
}

fn weight_types() -> impl Iterator<Item = GgmlType> {
    GgmlType::ALL.iter().copied().filter(|ty| ty.is_weight())
}

/// Depths that a type can have: whole blocks.
fn depths(ty: GgmlType) -> impl Iterator<Item = usize> {
    let depths = [32, 64, 256, 512, 768, 1280, 2304];
    depths.into_iter().filter(move |k| ty.row_bytes(*k).is_some())
}

/// The products of the reduced test: the least depth and several steps, rows and tokens around the edges of panels,
/// every content.
fn few(ty: GgmlType) -> impl Iterator<Item = Case> {
    use Content::*;
    let one = depths(ty).next().unwrap();
    let cases = [
        (1, one, 1, Wild),
        (40, one, 2, Random),
        (8, one, 7, Random),
        (17, 768, 1, Random),
        (33, 768, 9, Random),
        (15, 512, 4, Wild),
        (16, 512, 5, Random),
        (24, 512, 8, Ones),
        (24, 512, 3, Minus128),
        (17, 1280, 6, Random),
        // Whole tiles of tokens, and a last one that begins in the one before.
        (17, 768, 16, Wild),
        (40, 512, 33, Random),
        (24, 512, 21, Minus128),
    ];
    (1..).zip(cases).map(move |(seed, (n, k, m, content))| Case {
        ty,
        n,
        k,
        m,
        content,
        seed,
    })
}

#[test]
fn products_of_every_type_are_scalars() {
    let team = Team::single();
    let mut compared = 0;
    for ty in weight_types() {
        if reduced() {
            compared += few(ty).map(|case| case.check(&team)).sum::<usize>();
            continue;
        }
        let mut seed = 1;
        for k in depths(ty) {
            // Each n and m with each k would take minutes in scalar; each appears with several.
            for n in [1, 8, 15, 16, 17, 33, 40] {
                let m = [1, 2, 3, 7, 8, 9, 64][(n + k / 32 + seed as usize) % 7];
                let m = if k > 1024 { m.min(9) } else { m };
                seed += 1;
                let content = [Content::Random, Content::Random, Content::Wild][seed as usize % 3];
                compared += Case {
                    ty,
                    n,
                    k,
                    m,
                    content,
                    seed,
                }
                .check(&team);
            }
        }
        // Every number of rows that a batch of decoding sequences has, over one and a half or two fills of a panel; and
        // those around whole tiles of tokens.
        for m in (1..=17).chain([31, 32, 33, 47, 48]) {
            let k = if step_len(ty) == 256 { 512 } else { 384 };
            for content in [Content::Random, Content::Ones, Content::Minus128] {
                compared += Case {
                    ty,
                    n: 24,
                    k,
                    m,
                    content,
                    seed: 77,
                }
                .check(&team);
            }
        }
    }
    println!("backends: {compared} products bit-equal to scalar's, with 3 decoded rows each");
}

#[test]
fn more_tokens_than_sums_are_kept_for_change_nothing() {
    let team = Team::single();
    for ty in [GgmlType::Q4_K, GgmlType::Q8_0, GgmlType::F16, GgmlType::IQ3_S] {
        for &(m, n) in if reduced() {
            &[(515, 3), (528, 1)][..]
        } else {
            &[(259, 40), (515, 17), (532, 3)]
        } {
            Case {
                ty,
                n,
                k: 512,
                m,
                content: Content::Random,
                seed: 3,
            }
            .check(&team);
        }
    }
}

/// Rows so long that the activations of many tokens outgrow a core's cache are taken by several panels before the next
/// part of them; more rows of the weight than these panels have, and no whole number of them.
#[test]
fn long_rows_of_many_tokens_change_nothing() {
    let team = Team::single();
    let shapes = if reduced() {
        &[(33, 257)][..]
    } else {
        &[(270, 256), (270, 532)]
    };
    for ty in [GgmlType::Q4_K, GgmlType::Q8_0, GgmlType::Q3_K] {
        for &(n, m) in shapes {
            Case {
                ty,
                n,
                k: 3072,
                m,
                content: Content::Random,
                seed: 11,
            }
            .check(&team);
        }
    }
}

#[test]
fn threads_and_views_change_nothing() {
    let scalar = select::choose(Some("scalar")).unwrap();
    let mut compared = 0;
    let (n, teams) = if reduced() {
        (72, &[2][..])
    } else {
        (200, &[2, 3][..])
    };
    for &threads in teams {
        let team = Team::new(threads, |_, work| {
            std::thread::spawn(work);
        });
        for ty in [GgmlType::Q4_K, GgmlType::IQ3_S, GgmlType::Q8_0, GgmlType::F16] {
            compared += Case {
                ty,
                n,
                k: 512,
                m: 35,
                content: Content::Random,
                seed: 5,
            }
            .check(&team);
            let bytes = matrix(ty, n, 512, Content::Random, &mut Random(9));
            let x = activations(3, 512, &mut Random(10));
            for range in [0..8, 8..40, 24..25, n / 2..n, 7..n - 1] {
                let product = |backend: &dyn Backend, storage| {
                    let whole = backend
                        .pack(ty, n, 512, bytes.clone(), &Packing::on_heap(storage, &team))
                        .unwrap();
                    let view = whole.view(range.clone()).unwrap();
                    let mut out = vec![0.0; 3 * range.len()];
                    let operand = Operand::new(backend, &team, &view, x.clone()).unwrap();
                    operand.matmul(&team, &view, &mut out).unwrap();
                    let mut row = vec![0.0; 512];
                    view.decode_row(range.len() - 1, &mut row).unwrap();
                    out.append(&mut row);
                    out
                };
                let want = product(scalar, Storage::Mapped);
                for backend in backends() {
                    for storage in [Storage::Packed, Storage::Mapped] {
                        let what = format!("{} {storage:?} {} rows {range:?}", backend.name(), ty.name());
                        assert_same(&product(backend, storage), &want, &what);
                        compared += 1;
                    }
                }
            }
        }
    }
    println!("backends: {compared} products of teams and of views bit-equal to scalar's");
}

/// Of a stack of matrices each node has rows of every one, in one piece of memory, whether it comes whole or in pieces.
#[test]
fn stacks_are_divided_matrix_by_matrix() {
    let (n, count, k) = (96, 5, 512);
    let places = [0, 1, 1].map(|node| Place { node, cache: 0 });
    let team = Team::placed(&places, |_, work| {
        std::thread::spawn(work);
    });
    let scalar = select::choose(Some("scalar")).unwrap();
    for ty in [GgmlType::Q4_K, GgmlType::Q8_0, GgmlType::F16] {
        let bytes = matrix(ty, n * count, k, Content::Random, &mut Random(3));
        let x = activations(3, k, &mut Random(4));
        let product = |backend: &dyn Backend, whole: &PackedMatrix, i: usize| {
            let view = whole.view(i * n..(i + 1) * n).unwrap();
            let mut out = vec![0.0; 3 * n];
            let operand = Operand::new(backend, &team, &view, x.clone()).unwrap();
            operand.matmul(&team, &view, &mut out).unwrap();
            out
        };
        let mapped = scalar
            .pack(
                ty,
                n * count,
                k,
                bytes.clone(),
                &Packing::on_heap(Storage::Mapped, &team),
            )
            .unwrap();
        for backend in backends() {
            for matrix_rows in [0, n] {
                let packing = Packing {
                    placement: Placement::Distribute,
                    matrix_rows,
                    ..Packing::on_heap(Storage::Packed, &team)
                };
                let whole = backend.pack(ty, n * count, k, bytes.clone(), &packing).unwrap();
                for i in 0..count {
                    let what = format!("{} {} matrix {i} of {matrix_rows}", backend.name(), ty.name());
                    assert_same(&product(backend, &whole, i), &product(scalar, &mapped, i), &what);
                    let view = whole.view(i * n..(i + 1) * n).unwrap();
                    let nodes: Vec<usize> = view.placed().map(|(node, _)| node).collect();
                    if matrix_rows == n && whole.is_packed() {
                        assert_eq!(nodes, [0, 1], "{what}");
                    }
                }
            }
        }
    }
}
