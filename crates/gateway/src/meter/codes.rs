//! How often each status was answered. The usual ones have their place, the unusual ones take memory when they occur.

use std::sync::OnceLock;

use http::StatusCode;
use observe::metrics::Count;

/// What most services answer with.
const USUAL: [u16; 19] = [
    200, 201, 202, 204, 206, 301, 302, 304, 307, 400, 401, 403, 404, 409, 429, 500, 502, 503, 504,
];
const FIRST: u16 = 100;
/// Statuses from 100 to 599.
const ALL: usize = 500;

/// The place of each status among the usual ones; none for the others.
const PLACES: [Option<u8>; ALL] = {
    let mut places = [None; ALL];
    let mut at = 0;
    while at < USUAL.len() {
        places[(USUAL[at] - FIRST) as usize] = Some(at as u8);
        at += 1;
    }
    places
};

/// Answers by their status.
#[derive(Debug, Default)]
pub(crate) struct Codes {
    usual: [Count; USUAL.len()],
    others: OnceLock<Box<[Count]>>,
}

impl Codes {
    /// Counts an answer; what is no status from 100 to 599 does not count.
    pub(crate) fn count(&self, status: StatusCode) {
        let at = usize::from(status.as_u16() - FIRST);
        match PLACES.get(at) {
            None => (),
            Some(Some(place)) => self.usual[usize::from(*place)].inc(),
            Some(None) => {
                let others = self
                    .others
                    .get_or_init(|| (0..ALL).map(|_| Count::default()).collect());
                others[at].inc();
            }
        }
    }

    /// Returns the statuses that were answered, in order, and how often.
    pub(crate) fn read(&self) -> Vec<(u16, u64)> {
        let usual = USUAL.iter().copied().zip(&self.usual);
        let others = self.others.get().into_iter().flatten();
        let others = (FIRST..).zip(others);
        let mut read: Vec<(u16, u64)> = usual
            .chain(others)
            .map(|(code, count)| (code, count.get()))
            .filter(|(_, count)| *count > 0)
            .collect();
        read.sort_unstable();
        read
    }
}

/// Adds up what was answered by the status' class, `1xx` first.
pub(crate) fn classes(codes: &[(u16, u64)]) -> [u64; 5] {
    let mut classes = [0; 5];
    for (code, count) in codes {
        classes[usize::from(code / 100) - 1] += count;
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_and_unusual_statuses_are_counted_apart() {
        let codes = Codes::default();
        for code in [200, 200, 418, 100, 599, 600, 999] {
            codes.count(StatusCode::from_u16(code).unwrap());
        }
        let read = codes.read();
        assert_eq!(read, [(100, 1), (200, 2), (418, 1), (599, 1)]);
        assert_eq!(classes(&read), [1, 2, 0, 1, 1]);
    }
}
