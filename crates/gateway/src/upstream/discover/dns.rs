//! Names that are looked up again and again. Clusters that want the same share one lookup; a failing resolver changes
//! nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::Feed;
use super::lookup::{self, Answer, Found};
use crate::upstream::cluster::{Lookup, Records};

/// Between two questions where the time to live is not asked for (Envoy's `dns_refresh_rate`).
const EVERY: Duration = Duration::from_secs(5);
/// Bounds of what a time to live may ask for.
const EVERY_MIN: Duration = Duration::from_secs(1);
const EVERY_MAX: Duration = Duration::from_secs(300);
/// Before a question is put again that failed, or whose answer is hard to believe.
const AGAIN: Duration = Duration::from_secs(1);
/// How often in a row DNS must say that a name is nowhere before a service loses its endpoints.
const NOWHERE_BELIEVED: u32 = 3;
/// Questions under way at once.
const ASKING_MAX: usize = 64;

/// What is asked, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    pub(super) host: String,
    pub(super) ipv4: bool,
    pub(super) ipv6: bool,
    pub(super) srv: bool,
    ttl_respected: bool,
}

impl Question {
    pub(super) fn new(host: &str, lookup: Lookup) -> Self {
        Question {
            host: host.to_owned(),
            ipv4: lookup.ipv4,
            ipv6: lookup.ipv6,
            srv: lookup.records == Records::Srv,
            ttl_respected: lookup.ttl_respected,
        }
    }
}

/// What a feed is told about its name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Told<'a> {
    /// It is here.
    Here(&'a [Found]),
    /// It is nowhere.
    Nowhere,
    /// Nothing could be learnt; all stays.
    Nothing,
}

/// The names that are looked up for a gateway.
pub(crate) struct Names {
    runtime: Handle,
    asking: Semaphore,
    resolver: Box<MakeResolver>,
    asked: Mutex<HashMap<Question, Asked>>,
}

type MakeResolver = dyn Fn(&Question) -> Result<TokioResolver, NetError> + Send + Sync;

#[derive(Default)]
struct Asked {
    feeds: Vec<Arc<Feed>>,
    name: Name,
}

impl Names {
    /// Asks the name servers of the system's `resolv.conf`, with its search domains and `ndots`, and knows `/etc/hosts`.
    pub(crate) fn of_system(runtime: Handle) -> Arc<Names> {
        Self::with(runtime, |question| {
            let mut builder = TokioResolver::builder_tokio()?;
            lookup::set(builder.options_mut(), question);
            builder.build()
        })
    }

    pub(super) fn with(
        runtime: Handle,
        resolver: impl Fn(&Question) -> Result<TokioResolver, NetError> + Send + Sync + 'static,
    ) -> Arc<Names> {
        Arc::new(Names {
            runtime,
            asking: Semaphore::new(ASKING_MAX),
            resolver: Box::new(resolver),
            asked: Mutex::default(),
        })
    }

    /// Tells a feed about a name from now on, until it does not want it any more.
    pub(super) fn ask(self: &Arc<Self>, question: &Question, feed: &Arc<Feed>) {
        let mut all = self.asked();
        if let Some(asked) = all.get_mut(question) {
            asked.feeds.push(feed.clone());
            asked.name.introduce(feed);
            return;
        }
        let asked = all.entry(question.clone()).or_default();
        asked.feeds.push(feed.clone());
        drop(all);
        self.runtime.spawn(run(self.clone(), question.clone()));
    }

    /// Tells a feed that is in our list already what is known.
    pub(super) fn tell_again(self: &Arc<Self>, question: &Question, feed: &Arc<Feed>) {
        if let Some(asked) = self.asked().get(question) {
            asked.name.introduce(feed);
        }
    }

    /// Returns how many names are asked for.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.asked().len()
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<Question, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an answer in, tells who wants to know, and returns when to ask again; nothing when nobody wants it.
    fn take(&self, question: &Question, answer: Answer) -> Option<Duration> {
        let mut all = self.asked();
        let asked = all.get_mut(question)?;
        asked.feeds.retain(|feed| feed.wants_lookup());
        if asked.feeds.is_empty() {
            all.remove(question);
            return None;
        }
        let (news, wait) = asked
            .name
            .take(&question.host, answer, question.ttl_respected);
        if news {
            for feed in &asked.feeds {
                asked.name.introduce(feed);
            }
        }
        Some(wait)
    }
}

async fn run(names: Arc<Names>, question: Question) {
    let resolver = match (names.resolver)(&question) {
        Ok(resolver) => resolver,
        Err(error) => {
            warn!(%error, host = %question.host, "the resolver cannot be set up, the service has no address");
            let why = Answer::Failed(error.to_string());
            while let Some(wait) = names.take(&question, why.clone()) {
                tokio::time::sleep(wait).await;
            }
            return;
        }
    };
    loop {
        let answer = {
            let Ok(_permit) = names.asking.acquire().await else {
                return;
            };
            lookup::ask(&resolver, &question).await
        };
        let Some(wait) = names.take(&question, answer) else {
            return;
        };
        // Names that were asked for at the same time do not stay together.
        tokio::time::sleep(wait.mul_f64(rand::random_range(0.9..1.1))).await;
    }
}

/// DNS servers shuffle: another order of the same is no news.
fn same(before: &[Found], now: &[Found]) -> bool {
    before.len() == now.len() && now.iter().all(|one| before.contains(one))
}

/// What is known of one name.
#[derive(Debug, Default)]
struct Name {
    /// The last answer that was believed: addresses, or nowhere.
    known: Option<Option<Vec<Found>>>,
    /// Whether there was any answer, be it a failure.
    answered: bool,
    /// How often in a row it was said to be nowhere.
    nowhere: u32,
    failing: bool,
}

impl Name {
    /// Takes an answer in. Returns whether there is something to tell, and when to ask again.
    fn take(&mut self, host: &str, answer: Answer, ttl_respected: bool) -> (bool, Duration) {
        let first = !std::mem::replace(&mut self.answered, true);
        let failed = matches!(answer, Answer::Failed(_));
        match (&answer, self.failing) {
            (Answer::Failed(error), false) => {
                warn!(%error, %host, "a service's name cannot be looked up, its last addresses stay");
            }
            (Answer::Here(..) | Answer::Nowhere, true) => {
                info!(%host, "the name is looked up again")
            }
            _ => (),
        }
        self.failing = failed;
        match answer {
            Answer::Here(found, valid) => {
                self.nowhere = 0;
                let wait = match ttl_respected {
                    true => valid.clamp(EVERY_MIN, EVERY_MAX),
                    false => EVERY,
                };
                let before = self.known.as_ref().and_then(Option::as_ref);
                let news = before.is_none_or(|before| !same(before, &found));
                self.known = Some(Some(found));
                (news, wait)
            }
            Answer::Nowhere => {
                self.nowhere = self.nowhere.saturating_add(1);
                let had = matches!(self.known, Some(Some(_)));
                if had && self.nowhere < NOWHERE_BELIEVED {
                    return (false, AGAIN);
                }
                if self.known != Some(None) {
                    warn!(%host, "DNS knows no address of a service");
                }
                let news = self.known != Some(None);
                self.known = Some(None);
                (news, EVERY)
            }
            Answer::Failed(_) => (first, if first { AGAIN } else { EVERY }),
        }
    }

    /// Tells a feed what is known.
    fn introduce(&self, feed: &Feed) {
        match &self.known {
            Some(Some(found)) => feed.found(Told::Here(found)),
            Some(None) => feed.found(Told::Nowhere),
            None if self.answered => feed.found(Told::Nothing),
            None => (), // the first answer is under way
        }
    }
}
