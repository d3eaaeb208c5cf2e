//! Long work beside the requests: on a thread of its own that steps back where the processor is wanted by others.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Five steps of niceness: a third of what a serving thread gets where both want the same core. More, and a change would
/// not come through at all on a machine that is full.
const NICENESS: i32 = 5;

/// Longest turn of such work while others want the core: what one of their requests may have to wait for it.
const TURN_MAX: Duration = Duration::from_micros(100);

thread_local! {
    /// When the turn of work that stands aside began; `None` on all other threads.
    static TURN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Lets others have the core when this thread's turn has been long enough. Long work calls it once for each of its many
/// small parts; on threads that do not stand aside it does nothing.
pub fn let_others() {
    let Some(began) = TURN.get() else { return };
    if began.elapsed() >= TURN_MAX {
        thread::yield_now();
        TURN.set(Some(Instant::now()));
    }
}

/// The work did not come to its end: it panicked, or no thread could be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the work did not come to its end")
    }
}

impl std::error::Error for Lost {}

/// Does the work on a thread with this name, within the present runtime's context, and waits for it without holding up
/// others. Dropping the future leaves the work to its end.
///
/// # Errors
/// [`Lost`], when the work panics or the operating system gives no thread.
pub async fn aside<T, F>(name: &str, work: F) -> Result<T, Lost>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let (done, end) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _context = runtime.enter();
        // On Linux this is about the calling thread alone. Where it is not allowed, the work is done all the same.
        _ = rustix::process::setpriority_process(None, NICENESS);
        TURN.set(Some(Instant::now()));
        // Nobody may be waiting any more.
        _ = done.send(work());
    });
    spawned.map_err(|_| Lost)?;
    end.await.map_err(|_| Lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_ends_with_its_result_or_is_lost() {
        let niceness = || rustix::process::getpriority_process(None).expect("a priority");
        let before = niceness();
        let there = aside("test", move || niceness() - before).await;
        assert_eq!(there, Ok(NICENESS.min(19 - before)));
        assert_eq!(niceness(), before, "only that thread steps back");
        let lost = aside("test", || -> u8 { panic!("as meant") }).await;
        assert_eq!(lost, Err(Lost));
    }
}
