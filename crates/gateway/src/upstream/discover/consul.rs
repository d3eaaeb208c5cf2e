//! Services that Consul knows, followed by blocking queries: an answer comes as soon as something changes.
//!
//! Clusters that want the same share one query. While Consul cannot be asked, the last answer stays.

mod client;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::resolver::ConsulResolver;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use self::client::{Answer, Client};
use super::Feed;
use crate::upstream::cluster::Member;

/// Between the beginnings of two queries, however fast the answers come.
const EVERY_MIN: Duration = Duration::from_millis(100);
/// Between two queries where Consul tells no index, so that it cannot be waited on.
const EVERY_WITHOUT_INDEX: Duration = Duration::from_secs(5);
/// Before a query that failed is tried again: doubled each time, up to the longest.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// What is asked of Consul.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    /// `host:port`, with `http://` or `https://` in front if one likes.
    pub(crate) address: String,
    /// The agent's own when nothing is said.
    pub(crate) datacenter: Option<String>,
    pub(crate) service: String,
}

/// Consul's HTTP API where nobody says where it is.
const ADDRESS: &str = "127.0.0.1:8500";

/// Returns what a resolver asks about a service. Variables of the environment are put in; one that is not set stays as it
/// is written, and shows in what is logged.
pub(crate) fn question(
    resolver: &ConsulResolver,
    service: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Question {
    let address = match &resolver.address {
        Some(address) => expand(address, &variable),
        None => variable("CONSUL_HTTP_ADDR")
            .filter(|address| !address.is_empty())
            .unwrap_or_else(|| ADDRESS.to_owned()),
    };
    Question {
        address,
        datacenter: resolver.datacenter.clone(),
        service: service.to_owned(),
    }
}

/// Puts variables in the places of `${NAME}` and `$NAME`.
fn expand(text: &str, variable: impl Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let (name, next) = match after
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'))
        {
            Some(braced) => braced,
            None => {
                let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
                after.split_at(after.find(|c| !part(c)).unwrap_or(after.len()))
            }
        };
        match variable(name) {
            Some(value) => expanded.push_str(&value),
            None => expanded.push_str(&rest[before.len()..rest.len() - next.len()]),
        }
        rest = next;
    }
    expanded.push_str(rest);
    expanded
}

/// The services that are asked of Consul for a gateway.
pub(crate) struct Agents {
    runtime: Handle,
    /// Shown to Consul.
    token: Option<String>,
    asked: Mutex<HashMap<Question, Asked>>,
}

#[derive(Default)]
struct Asked {
    feeds: Vec<Arc<Feed>>,
    known: Option<Vec<Member>>,
    /// Whether there was any answer, be it a failure.
    answered: bool,
}

impl Agents {
    pub(crate) fn new(runtime: Handle, token: Option<String>) -> Arc<Agents> {
        Arc::new(Agents {
            runtime,
            token,
            asked: Mutex::default(),
        })
    }

    /// Tells a feed about a service from now on, for as long as its cluster lives.
    pub(super) fn ask(self: &Arc<Self>, question: &Question, feed: Arc<Feed>) {
        let mut all = self.asked();
        if let Some(asked) = all.get_mut(question) {
            asked.introduce(&feed);
            asked.feeds.push(feed);
            return;
        }
        all.entry(question.clone()).or_default().feeds.push(feed);
        drop(all);
        self.runtime.spawn(run(self.clone(), question.clone()));
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<Question, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an answer in and tells who wants to know; `None` stands for a failure. Returns whether anybody still does.
    fn take(&self, question: &Question, members: Option<Vec<Member>>) -> bool {
        let mut all = self.asked();
        let Some(asked) = all.get_mut(question) else {
            return false;
        };
        asked.feeds.retain(|feed| feed.lives());
        if asked.feeds.is_empty() {
            all.remove(question);
            return false;
        }
        let first = !std::mem::replace(&mut asked.answered, true);
        let news = members.is_some() && asked.known != members;
        if news {
            asked.known = members;
        }
        if news || first {
            for feed in &asked.feeds {
                asked.introduce(feed);
            }
        }
        true
    }
}

impl Asked {
    /// Tells a feed what is known.
    fn introduce(&self, feed: &Arc<Feed>) {
        match &self.known {
            Some(members) => feed.told(Some(members.clone())),
            None if self.answered => feed.keep(),
            None => (), // the first answer is under way
        }
    }
}

async fn run(agents: Arc<Agents>, question: Question) {
    let mut pace = Pace::default();
    let service = question.service.clone();
    // Made again after a failure, since its certificates may have changed or come.
    let mut client = None;
    loop {
        let begun = Instant::now();
        let asked = match client.take() {
            Some(client) => Ok(client),
            None => Client::new(&question, agents.token.as_deref()),
        };
        let answer = match asked {
            Ok(asked) => client.insert(asked).ask(pace.index).await,
            Err(error) => Err(error),
        };
        let (members, wait) = match answer {
            Ok(Answer { members, index }) => {
                if pace.failures > 0 {
                    info!(%service, "Consul answers again");
                }
                (Some(members), pace.answered(index))
            }
            Err(error) => {
                client = None;
                if pace.failures == 0 {
                    warn!(%error, %service, "Consul does not answer, a service's last endpoints stay");
                }
                (None, pace.failed(rand::random_range(0.5..1.0)))
            }
        };
        if !agents.take(&question, members) {
            return;
        }
        match wait {
            Wait::SinceBegin(time) => sleep_until(begun + time).await,
            Wait::FromNow(time) => sleep(time).await,
        }
    }
}

/// Which index is waited on, and how fast it is asked. It keeps to what Consul's documentation asks of those who block.
#[derive(Debug, Default)]
struct Pace {
    /// 0 asks for an answer at once.
    index: u64,
    failures: u32,
}

#[derive(Debug, PartialEq)]
enum Wait {
    SinceBegin(Duration),
    FromNow(Duration),
}

impl Pace {
    fn answered(&mut self, index: Option<u64>) -> Wait {
        self.failures = 0;
        let Some(index) = index else {
            self.index = 0;
            return Wait::SinceBegin(EVERY_WITHOUT_INDEX);
        };
        self.index = match index {
            // It went backwards: the state behind it is another one.
            index if index < self.index => 0,
            // An index of 0 would be answered at once, for ever.
            index => index.max(1),
        };
        Wait::SinceBegin(EVERY_MIN)
    }

    /// Takes note of a failure; `luck` from 0 to 1 keeps many gateways apart.
    fn failed(&mut self, luck: f64) -> Wait {
        let doubled = AGAIN.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        // Whoever answers next may count anew.
        self.index = 0;
        Wait::FromNow(doubled.min(AGAIN_MAX).mul_f64(luck))
    }
}
