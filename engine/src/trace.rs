//! Where two runs begin to differ: a digest of what each operation made of each position, and the one number behind the
//! first digest that differs.
//!
//! A [`Trace`] is a [`Probe`]. Rows are told apart by their position and not by the pass that computed them, so traces
//! can be compared whatever the prompt's split was. It is for one sequence from its first position on, of which every
//! row wants an output.
//!
//! In the order of a trace (position, then the operations as they follow each other) everything that a row was computed
//! from stands before it: the first difference is where a fault is, and not where it was passed on. What an operation
//! does to its input counts as its own: the matrix products' int8 rows, and in `attention` keys and values as the cache
//! stores them.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::ops::ControlFlow;
use std::str::FromStr;

use crate::context::Context;
use crate::digest::Digest;
use crate::kernels::NUMERICS_VERSION;
use crate::model::probe::Probe;
use crate::{Error, Result};

/// One row of one operation's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Position in the sequence.
    pub position: usize,
    /// Layer index; the number of layers stands for the output head.
    pub layer: usize,
    /// The operation, as [`Probe`] names it.
    pub op: Cow<'static, str>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { position, layer, op } = self;
        write!(f, "position {position}, layer {layer}, operation {op}")
    }
}

/// As it is typed: `POSITION:LAYER:OP`.
impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (position, rest) = text.split_once(':')?;
            let (layer, op) = rest.split_once(':')?;
            Some(Place {
                position: position.parse().ok()?,
                layer: layer.parse().ok()?,
                op: op.to_owned().into(),
            })
        };
        parse().ok_or_else(|| Error::InvalidInput {
            what: "expected POSITION:LAYER:OP, for instance 0:0:attn_norm".into(),
        })
    }
}

/// What a trace is of, for [`Trace::new`]: all that a number may depend on. `generated` tokens follow the given ones.
pub fn describe(context: &Context, tokens: &[u32], generated: usize) -> String {
    let (config, options) = (context.model().config(), context.options());
    let tokens: Vec<String> = tokens.iter().map(u32::to_string).collect();
    format!(
        "numerics {NUMERICS_VERSION}, {} of {} layers, context {}, cache {}/{}, tokens {} and {generated} more",
        config.arch,
        config.layers.len(),
        options.n_ctx,
        options.cache_type_k.name(),
        options.cache_type_v.name(),
        tokens.join(",")
    )
}

/// One operation of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Op {
    layer: usize,
    name: Cow<'static, str>,
    width: usize,
    /// A digest per position.
    digests: Vec<String>,
}

/// Digests of every operation's output, by position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// What must be equal for a comparison to mean anything, on one line.
    run: String,
    /// In the order in which a pass does them.
    ops: Vec<Op>,
    /// Where the next operation is expected.
    next: usize,
}

/// What the first line of a written trace begins with.
const HEADER: &str = "# twinfer trace 1: ";

impl Trace {
    /// An empty trace. `run` says on one line what is traced (the model, the tokens, the cache's types): traces of
    /// different runs are not compared.
    pub fn new(run: &str) -> Self {
        Trace {
            run: run.replace(['\n', '\r'], " "),
            ops: Vec::new(),
            next: 0,
        }
    }

    /// Positions traced so far.
    pub fn positions(&self) -> usize {
        self.ops.last().map_or(0, |op| op.digests.len())
    }

    /// The trace as text: a line that says of what, then a line per position and operation, `position layer operation
    /// width sha256`, so that `diff` shows the first difference.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEADER}{}\n", self.run);
        for position in 0..self.positions() {
            for op in &self.ops {
                let digest = op.digests.get(position).map_or("-", String::as_str);
                // Writing to a string does not fail.
                let _ = writeln!(text, "{position} {} {} {} {digest}", op.layer, op.name, op.width);
            }
        }
        text
    }

    /// A trace from its text.
    ///
    /// # Errors
    /// Text that is not one, with the line.
    pub fn from_text(text: &str) -> Result<Self> {
        let wrong = |line: usize, what: &str| Error::InvalidInput {
            what: format!("this is not a trace: line {line}: {what}"),
        };
        let mut lines = text.lines();
        let run = lines.next().and_then(|line| line.strip_prefix(HEADER));
        let mut trace = Trace::new(run.ok_or_else(|| wrong(1, &format!("expected `{HEADER}...`")))?);
        for (number, line) in (2..).zip(lines) {
            let fields: Vec<&str> = line.split(' ').collect();
            let &[position, layer, name, width, digest] = fields.as_slice() else {
                return Err(wrong(number, "expected `position layer operation width sha256`"));
            };
            let parse = |field: &str| {
                let what = format!("expected a number, found `{field}`");
                field.parse::<usize>().map_err(|_| wrong(number, &what))
            };
            let (position, layer, width) = (parse(position)?, parse(layer)?, parse(width)?);
            if position == 0 {
                trace.ops.push(Op {
                    layer,
                    name: Cow::Owned(name.into()),
                    width,
                    digests: Vec::new(),
                });
            }
            // The operations of the first position come again, in the same order, at each one.
            let index = if position == 0 {
                trace.ops.len() - 1
            } else {
                trace.next
            };
            let follows = |op: &&mut Op| {
                (op.layer, &*op.name, op.width, op.digests.len()) == (layer, name, width, position)
            };
            let op = trace.ops.get_mut(index).filter(follows);
            let op = op.ok_or_else(|| wrong(number, "it does not follow the one before"))?;
            op.digests.push(digest.into());
            trace.next = (index + 1) % trace.ops.len();
        }
        let positions = trace.positions();
        if trace.ops.iter().any(|op| op.digests.len() != positions) {
            return Err(wrong(text.lines().count(), "the last position is not complete"));
        }
        Ok(trace)
    }

    /// The first row whose digests differ; `None` where all are equal.
    ///
    /// # Errors
    /// Traces that cannot be compared: of other runs, or of models with other operations.
    pub fn first_difference(&self, other: &Trace) -> Result<Option<Place>> {
        let refused = |what: String| Err(Error::InvalidInput { what });
        if self.run != other.run {
            return refused(format!(
                "the traces are of different runs: `{}` and `{}`",
                self.run, other.run
            ));
        }
        if self.positions() != other.positions() || self.ops.len() != other.ops.len() {
            return refused(format!(
                "the traces have {} positions of {} operations and {} of {}: one is not complete",
                self.positions(),
                self.ops.len(),
                other.positions(),
                other.ops.len()
            ));
        }
        for (a, b) in self.ops.iter().zip(&other.ops) {
            if (a.layer, &a.name, a.width) != (b.layer, &b.name, b.width) {
                return refused(format!(
                    "the traces are of different models: layer {} {} of {}, and layer {} {} of {}",
                    a.layer, a.name, a.width, b.layer, b.name, b.width
                ));
            }
        }
        for position in 0..self.positions() {
            let mut pairs = self.ops.iter().zip(&other.ops);
            if let Some((op, _)) = pairs.find(|(a, b)| a.digests.get(position) != b.digests.get(position)) {
                return Ok(Some(Place {
                    position,
                    layer: op.layer,
                    op: op.name.clone(),
                }));
            }
        }
        Ok(None)
    }

    /// The operation, made where it is not there yet.
    fn op_mut(&mut self, layer: usize, name: Cow<'static, str>, width: usize) -> &mut Op {
        let is_it = |op: &Op| op.layer == layer && op.name == name;
        let index = if self.ops.get(self.next).is_some_and(is_it) {
            self.next
        } else {
            // The first pass, whose operations are new, and the head, which comes several times in a pass.
            self.ops.iter().position(is_it).unwrap_or_else(|| {
                self.ops.push(Op {
                    layer,
                    name: name.clone(),
                    width,
                    digests: Vec::new(),
                });
                self.ops.len() - 1
            })
        };
        self.next = (index + 1) % self.ops.len();
        &mut self.ops[index]
    }
}

impl Probe for Trace {
    fn op(&mut self, layer: usize, op: &'static str, width: usize, values: &[f32]) {
        let op = self.op_mut(layer, Cow::Borrowed(op), width);
        for row in values.chunks_exact(width.max(1)) {
            let mut digest = Digest::new();
            digest.update(row);
            op.digests.push(digest.finish());
        }
    }
}

/// The values at one [`Place`].
#[derive(Debug, Clone)]
pub struct Capture {
    place: Place,
    seen: usize,
    values: Vec<f32>,
}

impl Capture {
    /// Waits for the values there.
    pub fn new(place: Place) -> Self {
        Capture {
            place,
            seen: 0,
            values: Vec::new(),
        }
    }

    /// The values; none where the place was not met.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The values as text: a line each, `element bits value`, so that `diff` shows which differ.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] where the place was not met.
    pub fn to_text(&self) -> Result<String> {
        if self.values.is_empty() {
            return Err(Error::InvalidInput {
                what: format!("there is no {}; a trace lists what there is", self.place),
            });
        }
        let mut text = String::new();
        for (element, value) in self.values.iter().enumerate() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{element} {:08x} {value:e}", value.to_bits());
        }
        Ok(text)
    }
}

impl Probe for Capture {
    fn op(&mut self, layer: usize, op: &'static str, width: usize, values: &[f32]) {
        if layer != self.place.layer || op != self.place.op {
            return;
        }
        for row in values.chunks_exact(width.max(1)) {
            if self.seen == self.place.position {
                self.values = row.to_vec();
            }
            self.seen += 1;
        }
    }
}

/// The first number at which two runs differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Where.
    pub place: Place,
    /// Index of the first element that differs.
    pub element: usize,
    /// Both values.
    pub values: [f32; 2],
    /// How many elements of the row differ.
    pub differing: usize,
    /// Elements of the row.
    pub width: usize,
}

impl Difference {
    /// The first element at which two rows differ in a bit; `None` where they are equal.
    pub fn between(place: &Place, a: &[f32], b: &[f32]) -> Option<Self> {
        let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
        let element = a.iter().zip(b).position(differs)?;
        Some(Difference {
            place: place.clone(),
            element,
            values: [a[element], b[element]],
            differing: a.iter().zip(b).filter(|pair| differs(*pair)).count(),
            width: a.len(),
        })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = self.values;
        write!(
            f,
            "{}, element {} of {}: {:08x} ({a:e}) and {:08x} ({b:e}); {} of its elements differ",
            self.place,
            self.element,
            self.width,
            a.to_bits(),
            b.to_bits(),
            self.differing
        )
    }
}

/// What came of comparing two runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Comparison {
    /// Every operation's output has the same bits.
    Equal,
    /// They differ, first of all here.
    Differs(Difference),
    /// They differed here, and did not when they were run again: one of them does not repeat itself.
    Unsteady(Place),
    /// The caller ended it.
    Stopped,
}

/// Evaluates `tokens` in two contexts and finds the first number at which they differ. Both run once, and a second time
/// where they differ, for the values. `progress(done, total)` counts tokens evaluated, of those of the first runs; it
/// may end it.
///
/// # Errors
/// As [`Context::eval_probed`]; contexts of models with different operations.
pub fn compare(
    a: &mut Context,
    b: &mut Context,
    tokens: &[u32],
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Comparison> {
    let total = 2 * tokens.len();
    let mut traces = [Trace::new(""), Trace::new("")];
    for (i, (context, trace)) in [&mut *a, &mut *b].into_iter().zip(&mut traces).enumerate() {
        let mut progress = |done| progress(i * tokens.len() + done, total);
        if evaluate(context, tokens, trace, &mut progress)?.is_break() {
            return Ok(Comparison::Stopped);
        }
    }
    let Some(place) = traces[0].first_difference(&traces[1])? else {
        return Ok(Comparison::Equal);
    };
    let mut captures = [(); 2].map(|()| Capture::new(place.clone()));
    // No further than to the place itself.
    let tokens = &tokens[..=place.position];
    for (context, capture) in [a, b].into_iter().zip(&mut captures) {
        if evaluate(context, tokens, capture, &mut |_| progress(total, total))?.is_break() {
            return Ok(Comparison::Stopped);
        }
    }
    let [a, b] = captures;
    Ok(match Difference::between(&place, a.values(), b.values()) {
        Some(difference) => Comparison::Differs(difference),
        None => Comparison::Unsteady(place),
    })
}

/// Evaluates `tokens` in a sequence of their own, in passes of the context's batch, with a look at every operation.
/// `progress(done)` follows each pass and may end it.
///
/// # Errors
/// As [`Context::eval_probed`].
pub fn evaluate<P: Probe>(
    context: &mut Context,
    tokens: &[u32],
    probe: &mut P,
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let sequence = context.open()?;
    let mut done = 0;
    let mut result = Ok(ControlFlow::Continue(()));
    for chunk in tokens.chunks(context.options().n_batch) {
        result = context
            .eval_probed(sequence, chunk, probe, &mut |_, _| {})
            .map(|()| {
                done += chunk.len();
                progress(done)
            });
        if !matches!(result, Ok(ControlFlow::Continue(()))) {
            break;
        }
    }
    context.close(sequence)?;
    result
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Capture, Difference, Place, Trace};
    use crate::model::probe::Probe as _;

    /// Three positions of two operations of width 2, in passes of the given sizes; `flip` changes one element's last
    /// bit.
    fn traced(run: &str, passes: &[usize], flip: Option<(usize, usize)>) -> (Trace, Vec<f32>) {
        let mut trace = Trace::new(run);
        let place = flip.map_or((0, 0), |(position, _)| (position, 1));
        let mut capture = Capture::new(Place {
            position: place.0,
            layer: place.1,
            op: "q".into(),
        });
        let mut first = 0;
        for n in passes {
            for layer in [0, 1] {
                let mut values: Vec<f32> = (2 * first..2 * (first + n)).map(|i| i as f32 + 0.5).collect();
                if let Some((position, element)) = flip
                    && layer == 1
                    && (first..first + n).contains(&position)
                {
                    let value = &mut values[2 * (position - first) + element];
                    *value = f32::from_bits(value.to_bits() ^ 1);
                }
                trace.op(layer, "q", 2, &values);
                capture.op(layer, "q", 2, &values);
            }
            first += n;
        }
        (trace, capture.values().to_vec())
    }

    #[test]
    fn a_trace_does_not_depend_on_passes_and_finds_one_bit() {
        let (whole, _) = traced("a", &[3], None);
        let (parts, _) = traced("a", &[1, 2], None);
        assert_eq!(whole.to_text(), parts.to_text());
        assert_eq!(whole.first_difference(&parts).unwrap(), None);
        let (other, captured) = traced("a", &[2, 1], Some((2, 1)));
        let place = whole.first_difference(&other).unwrap().unwrap();
        assert_eq!(place.to_string(), "position 2, layer 1, operation q");
        let difference = Difference::between(&place, &[4.5, 5.5], &captured).unwrap();
        assert_eq!((difference.element, difference.differing), (1, 1));
        assert_eq!(
            difference.to_string(),
            "position 2, layer 1, operation q, element 1 of 2: 40b00000 (5.5e0) and 40b00001 (5.5000005e0); \
             1 of its elements differ"
        );
    }

    #[test]
    fn text_comes_back_and_what_is_none_is_refused() {
        let (trace, _) = traced("model\nx", &[3], None);
        let text = trace.to_text();
        assert_eq!(text.lines().count(), 7);
        let back = Trace::from_text(&text).unwrap();
        assert_eq!(back.to_text(), text);
        assert_eq!(trace.first_difference(&back).unwrap(), None);
        let header = text.lines().next().unwrap();
        for (wrong, says) in [
            ("", "line 1"),
            (&*format!("{header}\n0 0 q 2"), "line 2: expected `position"),
            (
                &*format!("{header}\n0 0 q 2 ab\n2 0 q 2 ab"),
                "line 3: it does not follow",
            ),
            (
                &*format!("{header}\n0 0 q 2 ab\n1 0 k 2 ab"),
                "line 3: it does not follow",
            ),
            (
                &*format!("{header}\n0 0 q 2 ab\n0 0 k 2 ab\n1 0 q 2 ab"),
                "line 4: the last position",
            ),
            (
                &*format!("{header}\n0 0 q 2 ab\n1 0 q 2 ab\n0 0 k 2 ab"),
                "line 4: the last position",
            ),
            (&*format!("{header}\n0 x q 2 ab"), "found `x`"),
        ] {
            let error = Trace::from_text(wrong).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let (other, _) = traced("another", &[3], None);
        assert!(
            trace
                .first_difference(&other)
                .unwrap_err()
                .to_string()
                .contains("different runs")
        );
        let (shorter, _) = traced("model x", &[2], None);
        assert!(
            trace
                .first_difference(&shorter)
                .unwrap_err()
                .to_string()
                .contains("not complete")
        );
    }
}
