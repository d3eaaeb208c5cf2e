//! One budget of bytes for many who come and go: none of them can take all of it, and nobody waits for ever.
//!
//! ```text
//! bound = common + reserve for the pressing + reserve for the ordinary
//! ```
//! Whoever asks is given bytes at once as long as it would hold no more than half of what is then left of the common
//! part. So a few may hold much and many only little each, and there is always something left for the next one, without
//! anybody counting heads. Who asks for more than that waits in line. The first of those who must finish what they have
//! begun (they are *pressing*) may draw on a reserve, one at a time, until its share is gone: that is why two who
//! hold half of what they need never wait for each other. The first of the others may draw on a small reserve of theirs.
//!
//! All is cancel-safe: what was given to somebody who has stopped waiting comes back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Those who wait that are looked at when bytes come back.
const LOOKED_AT_MAX: usize = 1024;
/// Places from here on are for those who do not draw on a reserve already.
const PLACES: u64 = 2;
/// The part of all that is the reserve of the ordinary.
const ORDINARY_PART: usize = 8;

/// The budget; clones are handles of the same one.
#[derive(Debug, Clone)]
pub struct Memory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bound: usize,
    /// What is kept for each need.
    reserves: [usize; 2],
    /// What is held of the common part.
    used: AtomicUsize,
    /// What is held of each reserve.
    drawn: [AtomicUsize; 2],
    most: AtomicUsize,
    waits: AtomicU64,
    /// How many are in the line, to be read without its lock.
    waiting: AtomicUsize,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    next: u64,
    waiters: BTreeMap<u64, Waiter>,
    /// Whether somebody draws on the reserve of each need.
    favoured: [bool; 2],
}

#[derive(Debug)]
struct Waiter {
    held: usize,
    more: usize,
    need: Need,
    given: oneshot::Sender<Share>,
}

/// Whether one who waits has begun what it cannot leave unfinished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It holds what comes back only when it is given more: it may draw on the reserve.
    Pressing,
    /// It has not begun yet.
    Ordinary,
}

/// Bytes that somebody holds; dropping it gives them back.
#[derive(Debug)]
pub struct Share {
    memory: Memory,
    bytes: usize,
    /// The reserve that it draws on.
    favoured: Option<Need>,
    /// What of its bytes is from there.
    drawn: usize,
}

impl Memory {
    /// Makes a budget of `bound` bytes, of which up to `reserve`, but at most half, are kept for those who must finish, and
    /// an eighth for those who wait to begin.
    pub fn new(bound: usize, reserve: usize) -> Self {
        let inner = Inner {
            bound,
            reserves: [reserve.min(bound / 2), bound / ORDINARY_PART],
            used: AtomicUsize::new(0),
            drawn: Default::default(),
            most: AtomicUsize::new(0),
            waits: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            line: Mutex::new(Line {
                next: PLACES,
                ..Line::default()
            }),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Returns a share without any bytes.
    pub fn share(&self) -> Share {
        Share {
            memory: self.clone(),
            bytes: 0,
            favoured: None,
            drawn: 0,
        }
    }

    /// Returns the bytes that there are in all.
    pub fn bound(&self) -> usize {
        self.inner.bound
    }

    /// Returns the most that an ordinary one can be given; to wait for more is to wait for ever.
    pub fn due_max(&self) -> usize {
        self.common() / 3
    }

    /// The part that is nobody's reserve.
    fn common(&self) -> usize {
        self.inner.bound - self.inner.reserves.iter().sum::<usize>()
    }

    /// Returns the bytes that are held now.
    pub fn used(&self) -> usize {
        let drawn = self.inner.drawn.iter();
        let drawn: usize = drawn.map(|drawn| drawn.load(Ordering::Relaxed)).sum();
        self.inner.used.load(Ordering::Relaxed) + drawn
    }

    /// Returns the most bytes that were ever held at a time.
    pub fn most(&self) -> usize {
        self.inner.most.load(Ordering::Relaxed)
    }

    /// Returns how often somebody had to wait.
    pub fn waits(&self) -> u64 {
        self.inner.waits.load(Ordering::Relaxed)
    }

    /// Returns whether somebody waits now.
    pub fn is_short(&self) -> bool {
        self.inner.waiting.load(Ordering::Relaxed) > 0
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        let line = self.inner.line.lock();
        line.unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes bytes for one who holds some: between `least` and `most` of them, as many as are its due.
    fn take(&self, held: usize, least: usize, most: usize) -> Option<usize> {
        let inner = &*self.inner;
        let common = self.common();
        let mut taken = 0;
        let update = inner
            .used
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |used| {
                // held + taken ≤ (common − used − taken) / 2
                let left = common.checked_sub(used)?.checked_sub(2 * held)?;
                taken = (left / 3).min(most);
                (taken >= least).then_some(used + taken)
            });
        update.ok()?;
        self.note();
        Some(taken)
    }

    /// Takes bytes out of the reserve for a need; for the one alone who draws on it.
    fn draw(&self, need: Need, more: usize) -> bool {
        let (drawn, reserve) = (
            &self.inner.drawn[need as usize],
            self.inner.reserves[need as usize],
        );
        let before = drawn.load(Ordering::Relaxed);
        if before + more > reserve {
            return false;
        }
        drawn.fetch_add(more, Ordering::Relaxed);
        self.note();
        true
    }

    fn note(&self) {
        let used = self.used();
        if used > self.inner.most.load(Ordering::Relaxed) {
            self.inner.most.fetch_max(used, Ordering::Relaxed);
        }
    }

    fn give_back(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.inner.used.fetch_sub(bytes, Ordering::SeqCst);
        // Whoever joins the line looks once more at what there is, so that one of the two sees the other.
        if self.inner.waiting.load(Ordering::SeqCst) > 0 {
            self.serve(&mut self.line());
        }
    }

    /// Gives bytes to those who wait, as far as there are any.
    fn serve(&self, line: &mut Line) {
        let mut done = Vec::new();
        for (place, waiter) in line.waiters.iter().take(LOOKED_AT_MAX) {
            if waiter.given.is_closed() {
                done.push((*place, None));
                continue;
            }
            let need = waiter.need;
            let taken = line.favoured[need as usize];
            let favoured = match self.take(waiter.held, waiter.more, waiter.more) {
                Some(_) => None,
                None if !taken && self.draw(need, waiter.more) => {
                    line.favoured[need as usize] = true;
                    Some(need)
                }
                None => continue,
            };
            done.push((*place, Some(favoured)));
        }
        for (place, given) in done {
            let Some(waiter) = line.waiters.remove(&place) else {
                continue;
            };
            self.inner.waiting.fetch_sub(1, Ordering::SeqCst);
            let Some(favoured) = given else { continue };
            let share = Share {
                memory: self.clone(),
                bytes: waiter.more,
                favoured,
                drawn: favoured.map_or(0, |_| waiter.more),
            };
            if let Err(mut share) = waiter.given.send(share) {
                // It has just left. This is the line itself, so its lock is not taken again.
                share.leave(line);
            }
        }
    }
}

/// A place in the line; dropping it leaves.
struct Place<'a> {
    memory: &'a Memory,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut line = self.memory.line();
        if line.waiters.remove(&self.number).is_some() {
            self.memory.inner.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Share {
    /// Returns the bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the budget that it is of.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Returns whether it draws on a reserve, for which others may be waiting.
    pub fn is_favoured(&self) -> bool {
        self.favoured.is_some()
    }

    /// Makes it hold between `least` and `most` bytes, as many as are its due now; false when not even the least are.
    pub fn try_grow(&mut self, least: usize, most: usize) -> bool {
        let least = least.saturating_sub(self.bytes);
        let most = most.saturating_sub(self.bytes);
        if most == 0 {
            return true;
        }
        if let Some(taken) = self.memory.take(self.bytes, least, most) {
            self.bytes += taken;
            return true;
        }
        if let Some(need) = self.favoured
            && self.memory.draw(need, least)
        {
            self.bytes += least;
            self.drawn += least;
            return true;
        }
        least == 0
    }

    /// Makes it hold at least so many bytes, and waits for them.
    pub async fn grow(&mut self, bytes: usize, need: Need) {
        if self.try_grow(bytes, bytes) {
            return;
        }
        let memory = self.memory.clone();
        memory.inner.waits.fetch_add(1, Ordering::Relaxed);
        let (given, coming) = oneshot::channel();
        let place = {
            let mut line = memory.line();
            let number = match self.favoured {
                Some(need) => need as u64,
                None => {
                    line.next += 1;
                    line.next
                }
            };
            let waiter = Waiter {
                held: self.bytes,
                more: bytes - self.bytes,
                need: self.favoured.unwrap_or(need),
                given,
            };
            line.waiters.insert(number, waiter);
            memory.inner.waiting.fetch_add(1, Ordering::SeqCst);
            memory.serve(&mut line);
            Place {
                memory: &memory,
                number,
            }
        };
        let share = coming.await;
        drop(place);
        if let Ok(share) = share {
            self.absorb(share);
        }
    }

    /// Makes it hold so many bytes, even if there are not so many: they are there already, and can only be counted.
    pub fn insist(&mut self, bytes: usize) {
        let more = bytes.saturating_sub(self.bytes);
        if more > 0 {
            self.memory.inner.used.fetch_add(more, Ordering::SeqCst);
            self.memory.note();
            self.bytes = bytes;
        }
    }

    /// Gives back what is more than `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        let spare = self.bytes.saturating_sub(bytes);
        self.bytes -= spare;
        let drawn = spare.min(self.drawn);
        self.put_back(drawn);
        self.memory.give_back(spare - drawn);
    }

    /// Puts back what was drawn on a reserve.
    fn put_back(&mut self, bytes: usize) {
        if let Some(need) = self.favoured {
            self.memory.inner.drawn[need as usize].fetch_sub(bytes, Ordering::Relaxed);
            self.drawn -= bytes;
        }
    }

    /// Gives everything back, while the line is held.
    fn leave(&mut self, line: &mut Line) {
        let bytes = self.bytes - self.drawn;
        self.put_back(self.drawn);
        self.memory.inner.used.fetch_sub(bytes, Ordering::SeqCst);
        if let Some(need) = self.favoured.take() {
            line.favoured[need as usize] = false;
        }
        self.bytes = 0;
    }

    /// Takes `bytes` of it, or all of it, into a share of their own; the favour goes with them.
    pub fn split(&mut self, bytes: usize) -> Share {
        let bytes = bytes.min(self.bytes);
        let drawn = self.drawn.min(bytes);
        let rest = self.drawn - drawn;
        // What stays behind is no longer of the reserve.
        self.put_back(rest);
        self.memory.inner.used.fetch_add(rest, Ordering::SeqCst);
        self.bytes -= bytes;
        self.drawn = 0;
        Share {
            memory: self.memory.clone(),
            bytes,
            favoured: self.favoured.take(),
            drawn,
        }
    }

    /// Adds what another share of the same budget holds.
    pub fn absorb(&mut self, mut other: Share) {
        self.bytes += std::mem::take(&mut other.bytes);
        self.drawn += std::mem::take(&mut other.drawn);
        if let Some(need) = other.favoured.take() {
            let both = self.favoured.replace(need);
            debug_assert_eq!(both, None, "one share draws on one reserve");
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.favoured.is_none() {
            return self.memory.give_back(self.bytes);
        }
        let memory = self.memory.clone();
        let mut line = memory.line();
        self.leave(&mut line);
        memory.serve(&mut line);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn held(memory: &Memory, bytes: usize) -> Share {
        let mut share = memory.share();
        assert!(share.try_grow(bytes, bytes), "{bytes} of {memory:?}");
        share
    }

    async fn waits(growing: impl Future<Output = ()>) -> bool {
        timeout(Duration::from_millis(1), growing).await.is_err()
    }

    #[test]
    fn one_may_hold_much_and_many_only_little_each() {
        let memory = Memory::new(1000, 275);
        assert_eq!(memory.due_max(), 200);
        assert!(!memory.share().try_grow(201, 201));
        let first = held(&memory, 200);
        assert!(!memory.share().try_grow(134, 134));
        let mut hogs: Vec<Share> = Vec::new();
        for _ in 0..200 {
            let mut hog = memory.share();
            assert!(hog.try_grow(0, 1000));
            hogs.push(hog);
        }
        // However many there are, the next one finds something, as long as it is less than a byte for each.
        assert!(memory.used() <= 600);
        drop((first, hogs));
        assert_eq!(memory.used(), 0);
        assert!(memory.most() <= 600);
    }

    #[test]
    fn what_is_due_lies_between_least_and_most() {
        let memory = Memory::new(1000, 275);
        let mut share = memory.share();
        assert!(share.try_grow(10, 50));
        assert_eq!(share.bytes(), 50);
        assert!(share.try_grow(10, 1000));
        assert_eq!(share.bytes(), 200);
        assert!(!share.try_grow(300, 1000));
        let mut part = share.split(50);
        part.shrink(40);
        assert_eq!((share.bytes(), memory.used()), (150, 190));
        share.insist(2000);
        assert_eq!((memory.used(), memory.most()), (2040, 2040));
        share.absorb(part);
        assert_eq!(share.bytes(), 2040);
        drop(share);
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test]
    async fn those_who_must_finish_do_so_one_after_the_other() {
        let memory = Memory::new(1000, 500);
        let mut shares: Vec<Share> = (0..4).map(|_| held(&memory, 50)).collect();
        // Each of them needs 400: together far more than there is.
        let mut finishing = Vec::new();
        for mut share in shares.drain(..) {
            finishing.push(tokio::spawn(async move {
                for size in (100..=400).step_by(50) {
                    share.grow(size, Need::Pressing).await;
                    tokio::task::yield_now().await;
                }
            }));
        }
        for one in finishing {
            timeout(Duration::from_secs(30), one)
                .await
                .expect("in time")
                .expect("finished");
        }
        assert_eq!(memory.used(), 0);
        assert!(memory.most() <= 1000);
        assert!(memory.waits() > 0);
        assert_eq!(memory.line().favoured, [false; 2]);
    }

    #[tokio::test]
    async fn each_need_has_a_reserve_of_its_own() {
        let memory = Memory::new(1000, 500);
        let hog = held(&memory, 120);
        let mut ordinary = memory.share();
        assert!(waits(ordinary.grow(200, Need::Ordinary)).await);
        assert!(!memory.is_short(), "it has left the line");
        ordinary.grow(125, Need::Ordinary).await;
        assert!(ordinary.is_favoured());
        let mut next = memory.share();
        assert!(waits(next.grow(125, Need::Ordinary)).await);
        let mut pressing = memory.share();
        pressing.grow(200, Need::Pressing).await;
        assert!(pressing.is_favoured());
        let mut second = memory.share();
        assert!(waits(second.grow(200, Need::Pressing)).await);
        drop(pressing);
        second.grow(200, Need::Pressing).await;
        drop((hog, ordinary, next, second));
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test]
    async fn what_was_given_to_one_who_has_left_comes_back() {
        let memory = Memory::new(1000, 500);
        let hog = held(&memory, 120);
        let mut first = memory.share();
        first.grow(125, Need::Ordinary).await;
        let mut share = memory.share();
        {
            let mut growing = pin!(share.grow(125, Need::Ordinary));
            assert!(waits(growing.as_mut()).await);
            assert!(memory.is_short());
            drop(first);
            assert_eq!(memory.used(), 245, "given, not yet taken");
        }
        assert_eq!(memory.used(), 120);
        assert!(!memory.is_short());
        assert_eq!(memory.line().favoured, [false; 2]);
        drop((share, hog));
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test]
    async fn small_ones_pass_those_who_wait_for_much() {
        let memory = Memory::new(1000, 500);
        let hog = held(&memory, 120);
        let mut large = memory.share();
        let mut growing = pin!(large.grow(400, Need::Ordinary));
        assert!(waits(growing.as_mut()).await);
        drop(held(&memory, 50));
        let mut small = memory.share();
        small.grow(80, Need::Ordinary).await;
        drop((hog, small));
        assert!(waits(growing.as_mut()).await, "more than it may ever hold");
    }
}
