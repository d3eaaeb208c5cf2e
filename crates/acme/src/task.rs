//! The task of one certificate: it waits until something is due, does it, and remembers how it went.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::host::AcmeChallenge;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::Shared;
use crate::kept::{Issued, Kept, Tries};
use crate::order::Talk;
use crate::plan::{self, Window};
use crate::trouble::Trouble;
use crate::wanted::{Key, Wanted};

/// Longest sleep, since the clock may be set, and the files may be changed, meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(600);
/// How often one whose disk takes nothing looks whether it does.
const DISK_EVERY: Duration = Duration::from_secs(60);
/// How often one that must not order looks whether it may.
const TURN_EVERY: Duration = Duration::from_secs(10);
/// After a restart nobody waits for longer than this, unless the authority has said so.
const RESTART_REST_MAX: Duration = Duration::from_secs(300);
/// How long an order waits after one of which nobody knows how it went.
const LOST_REST: Duration = Duration::from_secs(60);
/// When the authority is asked again that does not say when to renew.
const ASK_AGAIN: Duration = Duration::from_secs(6 * 3600);

/// Keeps a certificate fresh until `stop`.
pub(crate) async fn run(
    shared: Arc<Shared>,
    key: Key,
    wanted: watch::Receiver<Arc<Wanted>>,
    stop: CancellationToken,
) {
    let mut task = Task::new(shared, key, wanted);
    tokio::select! {
        () = stop.cancelled() => (),
        () = Box::pin(task.run()) => (),
    }
}

struct Task {
    shared: Arc<Shared>,
    key: Key,
    changes: watch::Receiver<Arc<Wanted>>,
    wanted: Arc<Wanted>,
    kept: Arc<Kept>,
    tries: Tries,
    /// When the authority would like the certificate to be renewed.
    window: Option<Window>,
    /// When it is asked that again.
    ask: SystemTime,
}

impl Task {
    fn new(shared: Arc<Shared>, key: Key, mut changes: watch::Receiver<Arc<Wanted>>) -> Self {
        let wanted = changes.borrow_and_update().clone();
        let kept = Kept::of(&shared.ordered, &wanted);
        let mut tries = kept.tries();
        tries.after_restart(RESTART_REST_MAX);
        Task {
            shared,
            key,
            changes,
            wanted,
            kept: Arc::new(kept),
            tries,
            window: None,
            ask: SystemTime::UNIX_EPOCH,
        }
    }

    /// Ends when nobody wants the certificate any more.
    async fn run(&mut self) {
        let mut turn = true;
        loop {
            match self.shared.is_first() {
                Ok(true) => turn = true,
                Ok(false) => {
                    if std::mem::take(&mut turn) {
                        info!(
                            host = self.key.name,
                            "another process orders the certificate"
                        );
                    }
                    if !self.sleep(TURN_EVERY).await {
                        return;
                    }
                    continue;
                }
                Err(error) => {
                    self.complain(&error);
                    if !self.sleep(DISK_EVERY).await {
                        return;
                    }
                    continue;
                }
            }
            let issued = self.kept.issued();
            let now = SystemTime::now();
            let due = match &issued {
                None => now,
                Some(issued) => plan::renewal(issued.life, self.window, issued.dice),
            };
            let due = due.max(self.tries.again());
            let until = issued.as_ref().map(|issued| issued.life.not_after);
            self.shared.told.plan(&self.key, until, due);
            if let Ok(rest) = due.duration_since(now)
                && !rest.is_zero()
            {
                if let Some(issued) = &issued {
                    if self.ask <= now {
                        self.ask(issued).await;
                        continue;
                    }
                    let ask = self.ask.duration_since(now).unwrap_or_default();
                    if !self.sleep(rest.min(ask)).await {
                        return;
                    }
                } else if !self.sleep(rest).await {
                    return;
                }
                continue;
            }
            // A disk that takes nothing would have us order for nothing.
            let begun = self.tries.begun(now, LOST_REST);
            if self.write(begun).await {
                self.order(issued.as_ref()).await;
            } else if !self.sleep(DISK_EVERY).await {
                return;
            }
        }
    }

    /// Sleeps, or takes note of a change. Returns whether the certificate is still wanted.
    async fn sleep(&mut self, rest: Duration) -> bool {
        // A little longer, so that the time has come afterwards.
        let rest = rest.min(SLEEP_MAX) + Duration::from_millis(1);
        tokio::select! {
            () = tokio::time::sleep(rest) => true,
            changed = self.changes.changed() => {
                if changed.is_err() {
                    return false;
                }
                self.wanted = self.changes.borrow_and_update().clone();
                self.kept = Arc::new(Kept::of(&self.shared.ordered, &self.wanted));
                self.tries.anew();
                true
            }
        }
    }

    /// Asks when the authority would like the certificate to be renewed.
    async fn ask(&mut self, issued: &Issued) {
        let _permit = self.shared.orders.acquire().await;
        let asked = match Talk::new(&self.shared, &self.wanted, &self.kept) {
            Ok(talk) => Box::pin(talk.window(issued)).await,
            Err(trouble) => Err(trouble),
        };
        let now = SystemTime::now();
        let again = match asked {
            Ok((window, again)) => {
                if self.window != Some(window) {
                    let from = time(window.start);
                    debug!(host = self.key.name, %from, "the authority says when to renew");
                }
                self.window = Some(window);
                again
            }
            Err(trouble) => {
                debug!(host = self.key.name, %trouble, "the authority does not say when to renew");
                ASK_AGAIN
            }
        };
        self.ask = now + plan::asked_again(issued.life, again);
    }

    async fn order(&mut self, before: Option<&Issued>) {
        let permit = self.shared.orders.acquire().await;
        let (host, authority) = (&self.key.name, &self.key.authority);
        match before {
            None => info!(host, authority, "ordering a certificate"),
            Some(_) => info!(host, authority, "renewing a certificate"),
        }
        let first = match self.tries.failures % 2 {
            0 => AcmeChallenge::Http01,
            _ => AcmeChallenge::TlsAlpn01,
        };
        let ordered = match Talk::new(&self.shared, &self.wanted, &self.kept) {
            Ok(talk) => Box::pin(talk.order(before, first)).await,
            Err(trouble) => Err(trouble),
        };
        drop(permit);
        let kept = match ordered {
            Ok(pair) => {
                let kept = self.kept.clone();
                let keep = move || kept.keep(&pair.chain, &pair.key);
                let kept = aside(keep).await;
                kept.map_err(|error| Trouble::disk("the certificate cannot be kept", &error))
            }
            Err(trouble) => Err(trouble),
        };
        self.shared.told.ordered(&self.key, kept.is_ok());
        match kept {
            Ok(()) => self.issued().await,
            Err(trouble) => self.failed(trouble).await,
        }
    }

    async fn issued(&mut self) {
        let until = self.kept.issued().map(|issued| time(issued.life.not_after));
        let until = until.unwrap_or_default();
        let (host, authority) = (&self.key.name, &self.key.authority);
        info!(host, authority, %until, "the authority has issued a certificate");
        (self.window, self.ask) = (None, SystemTime::UNIX_EPOCH);
        self.remember(Tries::default()).await;
    }

    async fn failed(&mut self, trouble: Trouble) {
        if trouble.stranger
            && self.wanted.account_key.is_none()
            && let Err(error) = self.kept.forget_account()
        {
            self.complain(&error);
        }
        let dice = rand::random::<f64>();
        let failures = self.tries.failures.saturating_add(1);
        let rest = plan::rest(trouble.cause, failures, trouble.after, dice);
        let (host, authority) = (&self.key.name, &self.key.authority);
        let again_in = jiff::SignedDuration::from_secs(rest.as_secs().try_into().unwrap_or(0));
        warn!(host, authority, again_in = %format!("{again_in:#}"), why = %trouble, "no certificate was issued");
        let tries = self
            .tries
            .failed(trouble.cause, trouble.what, SystemTime::now(), rest);
        self.remember(tries).await;
    }

    async fn remember(&mut self, tries: Tries) {
        self.tries = tries.clone();
        self.write(tries).await;
    }

    /// Keeps how orders went. Returns whether the disk takes it.
    async fn write(&self, tries: Tries) -> bool {
        let kept = self.kept.clone();
        let kept = aside(move || kept.keep_tries(&tries)).await;
        if let Err(error) = &kept {
            self.complain(error);
        }
        kept.is_ok()
    }

    fn complain(&self, error: &io::Error) {
        let folder = self.shared.ordered.folder().display();
        error!(%error, host = self.key.name, %folder, "certificates cannot be kept");
    }
}

/// Does something with the disk where nobody waits for it.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Returns a time as the log has it.
fn time(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map_or_else(
        |_| String::new(),
        |at| format!("{}", at.strftime("%Y-%m-%dT%H:%M:%SZ")),
    )
}
