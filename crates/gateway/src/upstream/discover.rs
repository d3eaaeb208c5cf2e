//! Where a cluster's endpoints come from: told by the directory, looked up in DNS, asked of Consul.

pub(crate) mod consul;
pub(crate) mod dns;
mod lookup;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::runtime::Handle;

use self::consul::Agents;
use self::dns::{Names, Question, Told};
use self::lookup::Found;
use super::cluster::{Cluster, Lookup, Member, Records, Source};
use crate::discovery::Directory;

/// Feeds the clusters of one gateway.
pub(crate) struct Discovery {
    directory: Directory,
    names: Arc<Names>,
    agents: Arc<Agents>,
    pub(crate) runtime: Handle,
}

impl Discovery {
    /// Looks names up on `runtime`.
    pub(crate) fn new(directory: Directory, runtime: Handle) -> Self {
        let token = std::env::var("CONSUL_HTTP_TOKEN").ok();
        let token = token.filter(|token| !token.is_empty());
        Discovery {
            directory,
            names: Names::of_system(runtime.clone()),
            agents: Agents::new(runtime.clone(), token),
            runtime,
        }
    }

    /// Returns who tells where services are.
    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Gives a new cluster its endpoints, from now on and for as long as it lives.
    pub(crate) fn follow(&self, cluster: &Arc<Cluster>) {
        let _runtime = self.runtime.enter();
        let feed = |lookup: Option<Lookup>| {
            let spec = &cluster.spec;
            let named = lookup.map(|lookup| Named {
                question: Question::new(&spec.host, lookup),
                logical: lookup.records == Records::Logical,
                port: spec.port,
                names: self.names.clone(),
            });
            Arc::new(Feed {
                cluster: Arc::downgrade(cluster),
                named,
                runtime: self.runtime.clone(),
                state: Mutex::default(),
            })
        };
        match &cluster.spec.source {
            Source::Told => {
                let ip = cluster.spec.host.parse::<IpAddr>().ok();
                let address = ip.map(|ip| SocketAddr::new(ip, cluster.spec.port));
                cluster.set_members(address.map(Member::new));
            }
            Source::Dns(lookup) => feed(Some(*lookup)).told(None),
            Source::Service {
                service,
                port,
                zone,
                otherwise,
            } => self
                .directory
                .follow(service.clone(), *port, zone.clone(), feed(*otherwise)),
            Source::Consul(question) => self.agents.ask(question, feed(None)),
        }
    }

    /// Forgets what only clusters wanted that are gone.
    pub(crate) fn tidy(&self) {
        self.directory.tidy();
    }
}

/// The way of endpoints into one cluster. What is told wins over what is looked up.
pub(crate) struct Feed {
    cluster: Weak<Cluster>,
    /// What is looked up while nothing is told.
    named: Option<Named>,
    runtime: Handle,
    state: Mutex<State>,
}

struct Named {
    question: Question,
    /// One address at a time.
    logical: bool,
    port: u16,
    names: Arc<Names>,
}

#[derive(Default)]
struct State {
    told: bool,
    asking: bool,
    /// The address in use with logical DNS.
    current: Option<IpAddr>,
}

impl Feed {
    /// Returns a way without lookups.
    #[cfg(test)]
    pub(crate) fn plain(cluster: &Arc<Cluster>, runtime: Handle) -> Arc<Feed> {
        Arc::new(Feed {
            cluster: Arc::downgrade(cluster),
            named: None,
            runtime,
            state: Mutex::default(),
        })
    }

    /// Lets all stay as it is, and requests that wait for the first answer go on.
    fn keep(&self) {
        if let Some(cluster) = self.cluster.upgrade() {
            cluster.keep_addresses();
        }
    }

    /// Returns whether the cluster is still there.
    pub(crate) fn lives(&self) -> bool {
        self.cluster.strong_count() > 0
    }

    /// Takes what is told; `None` means that nobody tells.
    pub(crate) fn told(self: &Arc<Self>, members: Option<Vec<Member>>) {
        let Some(cluster) = self.cluster.upgrade() else {
            return;
        };
        let _runtime = self.runtime.enter();
        let mut state = self.state();
        state.told = members.is_some();
        match (members, &self.named) {
            (Some(members), _) => cluster.set_members(members),
            (None, None) => cluster.set_members([]),
            (None, Some(named)) if !state.asking => {
                state.asking = true;
                drop(state);
                named.names.ask(&named.question, self);
            }
            (None, Some(named)) => {
                drop(state);
                named.names.tell_again(&named.question, self);
            }
        }
    }

    /// Returns whether names are to be looked up for it; if not, it will ask again when they are.
    fn wants_lookup(&self) -> bool {
        let mut state = self.state();
        state.asking = self.lives() && !state.told;
        state.asking
    }

    /// Takes what was looked up.
    fn found(&self, told: Told<'_>) {
        let (Some(cluster), Some(named)) = (self.cluster.upgrade(), &self.named) else {
            return;
        };
        let _runtime = self.runtime.enter();
        let mut state = self.state();
        if state.told {
            return;
        }
        match told {
            Told::Here(found) if named.logical => {
                // The address in use stays while the answer has it, so that no connection is given up for nothing.
                let stays = |one: &&Found| Some(one.ip) == state.current;
                if let Some(one) = found.iter().find(stays).or(found.first()) {
                    state.current = Some(one.ip);
                    cluster.set_members([one.member(named.port)]);
                }
            }
            Told::Here(found) => {
                // DNS servers shuffle; a steady order keeps the rotation even.
                let mut found: Vec<&Found> = found.iter().collect();
                found.sort_unstable_by_key(|one| (one.ip, one.port));
                cluster.set_members(found.into_iter().map(|one| one.member(named.port)));
            }
            Told::Nowhere if !named.logical => cluster.set_members([]),
            // With logical DNS an answer without an address changes nothing, as in Envoy.
            Told::Nowhere | Told::Nothing => cluster.keep_addresses(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
