//! Damage that a reader meets: it is noted, and nobody reads it any more.

use std::sync::Arc;

use tracing::error;

use super::{Failure, ReadError, Reader, skip};
use crate::checkpoint::Fence;
use crate::scan::{Damage, NEAR, Walk};
use crate::segment::{Place, Segment};

impl Reader {
    /// Checks a batch that seems to end beyond what may be read: a damaged header must not make readers wait for ever.
    pub(super) fn doubt(
        &self,
        offset: i64,
        segment: &Arc<Segment>,
        place: &Place,
    ) -> Result<(), Failure> {
        let behind = place.position + place.size as u64;
        if segment.trusted(place.position, behind) {
            return Ok(());
        }
        let next_base = {
            let state = self.shared.state();
            let mut segments = state.segments.iter();
            segments
                .find(|one| one.base() > segment.base())
                .map(|next| next.base())
        };
        if place.last_offset >= next_base.unwrap_or_else(|| self.shared.end()) {
            let (found, due) = (place.base_offset, offset);
            return Err(Failure::Batch(Damage::Offset { found, due }));
        }
        let file = segment.file().map_err(Failure::Disk)?;
        Ok(Walk::new(&file, place.position, behind, NEAR).verify()?)
    }

    /// Answers for what was found of a batch; a header that cannot be read is fenced with what hides behind it.
    pub(super) fn placed(
        &self,
        offset: i64,
        segment: &Arc<Segment>,
        fences: &[Fence],
        found: Result<Option<Place>, Failure>,
    ) -> Result<Option<Place>, ReadError> {
        if let Err(Failure::Batch(problem)) = &found
            && let Ok(Some((position, before))) =
                segment.broken(offset, segment.size(), skip(fences))
        {
            let spot = Spot {
                position,
                base_offset: before.map_or(offset, |before| before.min(offset)),
                behind: None,
            };
            if let Some((from, to)) = self.fence(offset, segment, &spot, problem) {
                return Err(ReadError::Damaged { from, to });
            }
        }
        self.checked(offset, found)
    }

    /// Has nobody read a damaged batch any more, neither now nor after the next start. Returns the offsets that
    /// are lost with it, first and the one after the last; `None` when the segment is not there any more.
    pub(super) fn fence(
        &self,
        offset: i64,
        segment: &Arc<Segment>,
        spot: &Spot,
        problem: &Damage,
    ) -> Option<(i64, i64)> {
        let shared = &self.shared;
        let mut shape = shared.shape();
        let (size, end) = settled(|| shared.end(), || segment.size());
        let next_base = {
            let state = shared.state();
            let mut segments = state.segments.iter();
            segments.find(|one| Arc::ptr_eq(one, segment))?;
            segments.next().map(|next| next.base())
        };
        // One that is closed has got its last size.
        let (size, end) = next_base.map_or((size, end), |next| (segment.size(), next));
        let dense = offset >= shared.state().sparse_to;
        let behind = spot.behind.map(|position| (position, None)).into_iter();
        let known = segment.indexed_behind(spot.position).unwrap_or_default();
        let known = known
            .into_iter()
            .map(|(position, last)| (position, Some(last)));
        let mut places = behind.chain(known);
        let resumed = places.find_map(|(position, indexed)| {
            let found = good_batch(segment, position, size)?;
            // No checksum covers its offset: the index, or what follows, must agree with it.
            let follows = match found.follows {
                Some(next) => Some(next),
                None if found.is_last => Some(end),
                None => None,
            };
            let agreed = match (indexed, follows) {
                (Some(indexed), _) => indexed == found.last,
                (None, Some(next)) if dense => next == found.last + 1,
                (None, Some(next)) => next > found.last,
                (None, None) => false,
            };
            (agreed && found.base > offset && found.last < end).then_some((position, found.base))
        });
        let (to_position, next_offset) = resumed.unwrap_or((size, end));
        let fence = Fence {
            segment: segment.base(),
            from_position: spot.position,
            to_position,
            from_offset: spot.base_offset.min(offset),
            to_offset: next_offset.max(offset + 1),
        };
        let lost = (fence.from_offset, fence.to_offset);
        error!(dir = %shared.dir.display(), from = lost.0, to = lost.1, %problem, "the log is damaged");
        shared.state_mut().fences.push(fence);
        let noted = shared.write_checkpoint(&mut shape, |next| next.fences.push(fence));
        if let Err(error) = noted {
            error!(dir = %shared.dir.display(), %error, "the damage will have to be found again");
        }
        Some(lost)
    }
}

/// Reads how long the newest segment and the log are while they grow: a size and the offset that belongs to it.
fn settled(mut end: impl FnMut() -> i64, mut size: impl FnMut() -> u64) -> (u64, i64) {
    let mut known = end();
    loop {
        let size = size();
        let now = end();
        if now == known {
            return (size, now);
        }
        known = now;
    }
}

/// Where damage begins.
pub(super) struct Spot {
    pub(super) position: u64,
    /// The first offset there, as far as it can be read.
    pub(super) base_offset: i64,
    /// Where the next batch should begin.
    pub(super) behind: Option<u64>,
}

impl Spot {
    pub(super) fn of(place: &Place) -> Spot {
        Spot {
            position: place.position,
            base_offset: place.base_offset,
            behind: Some(place.position + place.size as u64),
        }
    }
}

/// A batch whose checksum is right.
struct Good {
    base: i64,
    last: i64,
    /// The first offset of the one after it, if its header can be read.
    follows: Option<i64>,
    is_last: bool,
}

/// Returns the batch at a position if its checksum is right.
fn good_batch(segment: &Segment, position: u64, size: u64) -> Option<Good> {
    let file = segment.file().ok()?;
    let mut walk = Walk::new(&file, position, size, NEAR);
    walk.verify().ok()?;
    let header = walk.header().ok()??;
    let behind = position + header.size() as u64;
    let (base, last) = (header.base_offset(), header.last_offset());
    walk.seek(behind);
    let next = walk.header().ok().flatten();
    Some(Good {
        base,
        last,
        follows: next.map(|next| next.base_offset()),
        is_last: behind >= size,
    })
}

#[cfg(test)]
mod tests {
    use super::settled;

    #[test]
    fn the_size_and_the_end_are_of_the_same_time() {
        let mut ends = [10, 11, 12, 12].into_iter();
        let mut sizes = [100, 110, 120].into_iter();
        let told = settled(
            || ends.next().expect("asked too often"),
            || sizes.next().expect("asked too often"),
        );
        assert_eq!(told, (120, 12));
    }
}
