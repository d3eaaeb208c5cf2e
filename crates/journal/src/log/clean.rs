//! What compaction needs to know of a log.

use std::sync::Arc;

use super::Log;
use crate::clean::{Cleaning, Last};

impl Log {
    /// Returns the log as compaction sees it now; `None` when it is not to be compacted.
    ///
    /// Nothing from `up_to` on will change, nor anything that is not on disk yet. The work itself is done on
    /// another thread, beside this log and its readers.
    pub fn cleaning(&self, up_to: i64) -> Option<Cleaning> {
        let settings = self.config.compaction?;
        if self.failed {
            return None;
        }
        let shape = self.shared.shape();
        // Recovery reads from there on, by position.
        let checked = shape.checkpoint.recovery?.segment;
        let state = self.shared.state();
        let (active, segments) = state.segments.split_last()?;
        if segments.is_empty() || shape.keeps_out() {
            return None;
        }
        let fenced = state.fences.iter().map(|fence| fence.segment);
        let producers = self.producers.iter().map(|(id, producer)| {
            let last = Last {
                epoch: producer.epoch,
                offset: producer.batches.back().map(|kept| kept.last_offset),
            };
            (id, last)
        });
        Some(Cleaning {
            shared: Arc::clone(&self.shared),
            config: self.config,
            settings,
            segments: segments.to_vec(),
            fences: state.fences.clone(),
            excluded: fenced.chain(state.rotten.iter().copied()).collect(),
            start: self.shared.start(),
            cleaned_to: shape.checkpoint.cleaned_to,
            limit: up_to.min(self.shared.stable()).min(checked),
            active_base: active.base(),
            producers: producers.collect(),
        })
    }
}
