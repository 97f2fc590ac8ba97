//! What one rendering keeps: the work that the engine's fuel does not see, and its random numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as Atomic};

use minijinja::value::{Object, ObjectRepr};
use minijinja::{Error, ErrorKind, State};

use super::value::error;

/// The name under which a rendering's budget is found; the rewriter keeps templates from using the prefix.
pub(super) const BUDGET_NAME: &str = "_tw_budget";

/// Work left for operations that the engine's fuel does not see (printing and comparing containers).
#[derive(Debug)]
pub(super) struct Budget {
    left: AtomicU64,
    drawn: AtomicU64,
}

impl Budget {
    pub(super) fn new(units: u64) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicU64::new(units),
            drawn: AtomicU64::new(0),
        })
    }

    /// Spends `units`; false once there is nothing left.
    pub(super) fn spend(&self, units: u64) -> bool {
        let left = self.left.load(Atomic::Relaxed).saturating_sub(units);
        self.left.store(left, Atomic::Relaxed);
        left > 0
    }

    /// An error once the budget has run out; nothing that was computed since can be trusted.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.left.load(Atomic::Relaxed) == 0 {
            Err(Error::from(ErrorKind::OutOfFuel))
        } else {
            Ok(())
        }
    }

    /// The next number of a fixed random sequence (Steele, Lea, Flood: SplitMix64, with the seed 0).
    pub(super) fn draw(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.drawn.fetch_add(STEP, Atomic::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The budget of the rendering that `state` belongs to.
    pub(super) fn of(state: &State<'_, '_>) -> Result<Arc<Self>, Error> {
        let budget = state
            .lookup(BUDGET_NAME)
            .and_then(|value| value.downcast_object::<Budget>())
            .ok_or_else(|| error("the rendering has no budget"))?;
        budget.check()?;
        Ok(budget)
    }
}

impl Object for Budget {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}
