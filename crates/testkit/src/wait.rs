//! Waiting for something to become true, with a limit.

use std::thread;
use std::time::{Duration, Instant};

/// Pause between two looks.
const STEP: Duration = Duration::from_millis(20);

/// Looks until `look` returns something, and panics with `what` when the limit has passed.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited {limit:?} in vain for {what}");
        thread::sleep(STEP);
    }
}
