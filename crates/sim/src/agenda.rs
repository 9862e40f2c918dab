//! What is going to happen, in order of time; what was planned first comes first at the same time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use evenkeel_model::time::Timestamp;

/// Everything that is planned.
#[derive(Debug)]
pub(crate) struct Agenda<T> {
    /// Times with what was planned for them, as a place in `slots`.
    heap: BinaryHeap<Reverse<(Timestamp, u64, usize)>>,
    slots: Vec<Option<T>>,
    free: Vec<usize>,
    planned: u64,
}

impl<T> Agenda<T> {
    pub(crate) const fn new() -> Self {
        Self { heap: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), planned: 0 }
    }

    pub(crate) fn plan(&mut self, at: Timestamp, happening: T) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(happening);
        self.planned += 1;
        self.heap.push(Reverse((at, self.planned, slot)));
    }

    /// Returns what comes next, unless it comes after `end`.
    pub(crate) fn next(&mut self, end: Timestamp) -> Option<(Timestamp, T)> {
        let Reverse((at, _, _)) = self.heap.peek()?;
        if *at > end {
            return None;
        }
        let Reverse((at, _, slot)) = self.heap.pop()?;
        self.free.push(slot);
        self.slots[slot].take().map(|happening| (at, happening))
    }
}
