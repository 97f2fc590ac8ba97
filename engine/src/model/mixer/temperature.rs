//! Temperature by position: queries grow with the logarithm of how far into a text they stand, so that attention stays
//! as sharp over a long text as it was over those that the model was trained on.

use crate::model::config::Keys;
use crate::{Result, math};

/// How much. A query at `position` is multiplied with `ln(floor((position + offset) / length) + 1) * scale + 1`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Temperature {
    /// Positions after which the logarithm's argument grows by one; at least 1.
    pub length: usize,
    /// Added to a position: 1 for families that count from 1.
    pub offset: usize,
    /// Weight of the logarithm.
    pub scale: f32,
}

impl Temperature {
    /// As `attention.temperature_scale` states it; `None` where that is missing or 0. The length is the family's to
    /// know, and not 0.
    pub(crate) fn read(keys: &Keys<'_>, length: usize) -> Result<Option<Self>> {
        const SCALE: &str = "attention.temperature_scale";
        /// Far beyond any model's; a factor is then far from infinite.
        const MOST: f32 = 1e6;
        match keys.opt_f32(SCALE)?.unwrap_or(0.0) {
            0.0 => Ok(None),
            scale if scale.abs() <= MOST => Ok(Some(Temperature {
                length: length.max(1),
                offset: 0,
                scale,
            })),
            scale => Err(keys.wrong(SCALE, &format!("-{MOST} to {MOST}"), &scale.to_string())),
        }
    }

    /// The factor of a query at a position: in f64, rounded once.
    pub(super) fn factor(&self, position: usize) -> f32 {
        let times = position.saturating_add(self.offset) / self.length;
        (math::ln(times as f64 + 1.0) * f64::from(self.scale) + 1.0) as f32
    }
}
