//! The directory of endpoints: who feeds it tells where services are, and the running clusters follow at once, without
//! another configuration.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::Endpoints;
use model::endpoints::{self, Endpoint, ServicePort};

use crate::upstream::cluster::Member;
use crate::upstream::discover::Feed;

/// Who tells of a service. Where both do, the first one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Teller {
    /// The configuration: Endpoints and EndpointSlices in files, and what `up` runs itself.
    Configuration,
    /// A cluster that is asked while we run, such as Kubernetes.
    Cluster,
}

const TELLERS: usize = 2;

/// The namespace and name of a service.
pub type Key = (String, String);

/// Where services are. Clones share it; every method may be called from any thread.
///
/// A change reaches the clusters before the method returns: new requests go to the new endpoints, requests under way
/// finish where they are.
#[derive(Clone, Default)]
pub struct Directory(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    told: [Endpoints; TELLERS],
    followers: HashMap<Key, Vec<Follower>>,
}

/// A cluster that wants to know where a service's port is.
struct Follower {
    feed: Arc<Feed>,
    port: Option<u16>,
    /// Where the gateway stands, for hints.
    zone: Option<Arc<str>>,
}

impl Directory {
    /// Tells all that a teller knows; services that it told of before and does not name any more are forgotten.
    pub fn tell(&self, teller: Teller, all: Endpoints) {
        let mut state = self.state();
        let told = &mut state.told[teller as usize];
        let mut changed = differing(&told.services, &all.services);
        let gone = told
            .services
            .keys()
            .filter(|key| !all.services.contains_key(*key));
        changed.extend(gone.cloned());
        *told = all;
        for key in changed {
            state.announce(&key);
        }
    }

    /// Tells of the services that are new or have changed; the others stay.
    pub fn add(&self, teller: Teller, more: &Endpoints) {
        let mut state = self.state();
        let told = &mut state.told[teller as usize].services;
        for key in differing(told, &more.services) {
            if let Some(ports) = more.services.get(&key) {
                state.told[teller as usize]
                    .services
                    .insert(key.clone(), ports.clone());
            }
            state.announce(&key);
        }
    }

    /// Tells of one service, all its ports at once. `None` forgets it; an empty list says that it has no endpoint.
    pub fn tell_service(
        &self,
        teller: Teller,
        namespace: &str,
        name: &str,
        ports: Option<Vec<ServicePort>>,
    ) {
        let key = (namespace.to_owned(), name.to_owned());
        let mut state = self.state();
        let told = &mut state.told[teller as usize].services;
        let before = match ports.clone() {
            Some(ports) => told.insert(key.clone(), ports),
            None => told.remove(&key),
        };
        if before != ports {
            state.announce(&key);
        }
    }

    /// Returns the endpoints behind a service's port that get requests; `None` when nobody told of the service. Without
    /// a port a service with a single one answers with that.
    pub fn told(&self, namespace: &str, name: &str, port: Option<u16>) -> Option<Vec<Endpoint>> {
        let key = (namespace.to_owned(), name.to_owned());
        self.state().find(&key, port)
    }

    /// Returns whether anybody told of a service.
    pub fn knows(&self, namespace: &str, name: &str) -> bool {
        self.told(namespace, name, None).is_some()
    }

    /// Lets a cluster follow a service from now on.
    pub(crate) fn follow(
        &self,
        key: Key,
        port: Option<u16>,
        zone: Option<Arc<str>>,
        feed: Arc<Feed>,
    ) {
        let mut state = self.state();
        let follower = Follower { feed, port, zone };
        follower.tell(state.find(&key, port));
        state.followers.entry(key).or_default().push(follower);
    }

    /// Forgets the clusters that are gone.
    pub(crate) fn tidy(&self) {
        self.state().followers.retain(|_, followers| {
            followers.retain(|follower| follower.feed.lives());
            !followers.is_empty()
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn find(&self, key: &Key, port: Option<u16>) -> Option<Vec<Endpoint>> {
        let ports = self.told.iter().find_map(|told| told.services.get(key))?;
        let port = endpoints::find(ports, port);
        Some(port.map_or(Vec::new(), |port| port.usable().cloned().collect()))
    }

    /// Tells a service's followers where it is now.
    fn announce(&mut self, key: &Key) {
        let Some(mut followers) = self.followers.remove(key) else {
            return;
        };
        followers.retain(|follower| follower.feed.lives());
        for follower in &followers {
            follower.tell(self.find(key, follower.port));
        }
        if !followers.is_empty() {
            self.followers.insert(key.clone(), followers);
        }
    }
}

/// Returns the keys of `new` whose ports are not as before.
fn differing(
    old: &BTreeMap<Key, Vec<ServicePort>>,
    new: &BTreeMap<Key, Vec<ServicePort>>,
) -> Vec<Key> {
    let differs = |(key, ports): &(&Key, &Vec<ServicePort>)| old.get(*key) != Some(*ports);
    new.iter()
        .filter(differs)
        .map(|(key, _)| key.clone())
        .collect()
}

impl Follower {
    fn tell(&self, endpoints: Option<Vec<Endpoint>>) {
        self.feed.told(members(endpoints, self.zone.as_deref()));
    }
}

/// Returns the members of a cluster that stands in this zone.
pub(crate) fn members(endpoints: Option<Vec<Endpoint>>, zone: Option<&str>) -> Option<Vec<Member>> {
    let member = |endpoint: &Endpoint| Member {
        weight: endpoint.weight,
        zone: endpoint.zone.clone(),
        ..Member::new(endpoint.address)
    };
    let all = endpoints?;
    let all: Vec<&Endpoint> = all.iter().collect();
    let left = match zone {
        Some(zone) => endpoints::hinted(all, zone),
        None => all,
    };
    Some(left.into_iter().map(member).collect())
}
