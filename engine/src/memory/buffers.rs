//! Buffers that are made once. What is allocated can be counted before, by the function that allocates: it is given
//! [`Buffers`], which either make each buffer that is asked for or only add up what it would take.

use bytemuck::{Pod, Zeroable};

use super::{Memory, room, zero_rows};
use crate::Result;

/// A buffer, or all those of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// What lies in it.
    pub name: &'static str,
    /// Its size; saturates.
    pub bytes: u64,
}

/// See the module.
pub(crate) struct Buffers<'a> {
    /// `None` where they are only counted.
    memory: Option<&'a dyn Memory>,
    /// For errors: what all of them are, and what to do where there is not so much memory.
    what: &'static str,
    planned: Vec<Planned>,
}

impl<'a> Buffers<'a> {
    /// Makes them; `what` says in an error what they are and how to need less.
    pub(crate) fn made(what: &'static str, memory: &'a dyn Memory) -> Self {
        Buffers {
            memory: Some(memory),
            what,
            // More than there are names: a list that moves while it grows would be there twice.
            planned: Vec::with_capacity(64),
        }
    }

    /// Counts them: every buffer is empty.
    pub(crate) fn counted() -> Self {
        Buffers {
            memory: None,
            what: "",
            planned: Vec::new(),
        }
    }

    pub(crate) fn only_counts(&self) -> bool {
        self.memory.is_none()
    }

    /// All that were asked for, by name.
    pub(crate) fn planned(self) -> Vec<Planned> {
        self.planned
    }

    /// `rows` rows of `width` zeros.
    ///
    /// # Errors
    /// `Memory` if the allocator refuses.
    pub(crate) fn rows<T: Zeroable>(
        &mut self,
        name: &'static str,
        rows: usize,
        width: usize,
    ) -> Result<Vec<T>> {
        self.count::<T>(name, rows, width);
        match self.memory {
            Some(_) => zero_rows(self.what, rows, width),
            None => Ok(Vec::new()),
        }
    }

    /// As [`Self::rows`], of which columns are written to all over: a matrix product's tile of outputs is a few numbers
    /// of many rows, and with small pages each row is a miss of address translation.
    pub(crate) fn outputs(&mut self, name: &'static str, rows: usize, width: usize) -> Result<Vec<f32>> {
        let out = self.rows(name, rows, width)?;
        if let Some(memory) = self.memory {
            memory.advise(bytemuck::cast_slice(&out));
        }
        Ok(out)
    }

    /// As [`Self::rows`], for keys, values and states: all that is there is read for every token.
    pub(crate) fn cached<T: Pod>(&mut self, name: &'static str, rows: usize, width: usize) -> Result<Vec<T>> {
        let mut cached = self.rows(name, rows, width)?;
        if let Some(memory) = self.memory {
            memory.advise_cache(bytemuck::cast_slice_mut(&mut cached));
        }
        Ok(cached)
    }

    /// An empty vector with room for `n`.
    ///
    /// # Errors
    /// `Memory` if the allocator refuses.
    pub(crate) fn room<T>(&mut self, name: &'static str, n: usize) -> Result<Vec<T>> {
        self.count::<T>(name, n, 1);
        match self.memory {
            Some(_) => room(self.what, n),
            None => Ok(Vec::new()),
        }
    }

    fn count<T>(&mut self, name: &'static str, rows: usize, width: usize) {
        let bytes = (rows as u64)
            .saturating_mul(width as u64)
            .saturating_mul(size_of::<T>() as u64);
        if bytes == 0 {
            // What this model has no use for.
            return;
        }
        match self.planned.iter_mut().find(|planned| planned.name == name) {
            Some(planned) => planned.bytes = planned.bytes.saturating_add(bytes),
            None => self.planned.push(Planned { name, bytes }),
        }
    }
}
