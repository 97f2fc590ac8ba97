//! The rows of a pass by expert: which rows each has, and the memory that they are gathered and computed in.

use bytemuck::Zeroable;

use super::config::{ExpertsConfig, Presence};
use crate::Result;
use crate::cache::Sizes;
use crate::memory::Buffers;
use crate::model::ffn::router::Pick;
use crate::model::product::ListMemory;

/// Rows of one expert.
#[derive(Debug, Clone, Copy, Zeroable)]
#[repr(C)]
pub(super) struct Active {
    pub(super) expert: u32,
    pub(super) first: u32,
    pub(super) rows: u32,
}

/// What experts compute in.
#[derive(Debug)]
pub(super) struct Work {
    /// Per expert the row behind its last one.
    pub(super) ends: Vec<u32>,
    /// The row of each pick.
    pub(super) places: Vec<u32>,
    /// The pick of each row.
    pub(super) sources: Vec<u32>,
    /// The experts that have rows.
    pub(super) active: Vec<Active>,
    /// What experts read, then what they made; behind it the shared one's.
    pub(super) rows: Vec<f32>,
    pub(super) gate: Vec<f32>,
    pub(super) up: Vec<f32>,
    pub(super) list: ListMemory,
}

impl Work {
    /// Gives each pick a row, expert by expert; in place the picks' own order, each a row of its own.
    pub(super) fn group(&mut self, n_experts: usize, picks: &[Pick], in_place: bool) {
        self.active.clear();
        if in_place {
            for (i, (pick, place)) in picks.iter().zip(&mut self.places).enumerate() {
                *place = i as u32;
                self.active.push(Active {
                    expert: pick.expert,
                    first: i as u32,
                    rows: 1,
                });
            }
            return;
        }
        let ends = &mut self.ends[..n_experts];
        ends.fill(0);
        picks.iter().for_each(|pick| ends[pick.expert as usize] += 1);
        let mut first = 0;
        for (expert, end) in ends.iter_mut().enumerate() {
            let rows = *end;
            if rows > 0 {
                self.active.push(Active {
                    expert: expert as u32,
                    first,
                    rows,
                });
            }
            // For now where its next row is.
            *end = first;
            first += rows;
        }
        for (i, (pick, place)) in picks.iter().zip(&mut self.places).enumerate() {
            let next = &mut ends[pick.expert as usize];
            *place = *next;
            self.sources[*next as usize] = i as u32;
            *next += 1;
        }
    }

    /// For any of these layers.
    pub(super) fn make<'a>(
        layers: impl Iterator<Item = &'a ExpertsConfig> + Clone,
        n_embd: usize,
        sizes: &Sizes,
        buffers: &mut Buffers<'_>,
    ) -> Result<Self> {
        let most = |f: &dyn Fn(&ExpertsConfig) -> usize| layers.clone().map(f).max().unwrap_or(0);
        let n_experts = most(&|layer| layer.n_experts);
        // Behind the rows of experts one of the shared one's.
        let rows = most(&|layer| layer.rows_at_once(sizes.n_batch) + 1);
        let n_ff = most(&|layer| layer.n_ff);
        let gated = layers.clone().any(|layer| layer.gate != Presence::No);
        Ok(Work {
            ends: buffers.rows("rows by expert", n_experts, 1)?,
            places: buffers.rows("rows by expert", rows, 1)?,
            sources: buffers.rows("rows by expert", rows, 1)?,
            active: buffers.room("rows by expert", n_experts)?,
            rows: buffers.outputs("rows of experts", rows, most(&|layer| layer.width(n_embd)))?,
            gate: buffers.outputs("experts' gate", rows, n_ff)?,
            up: buffers.outputs("experts' up", if gated { rows } else { 0 }, n_ff)?,
            // All experts, and two of the shared one's.
            list: ListMemory::make(if n_experts > 0 { n_experts + 2 } else { 0 }, buffers)?,
        })
    }
}
