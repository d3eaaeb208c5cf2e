//! Which endpoint a request goes to.
//!
//! A [`Set`] is compiled whenever endpoints come, go, fall ill or recover; a request only looks into it.

pub(crate) mod key;
mod maglev;
mod order;
mod ring;
#[cfg(test)]
mod tests;
mod warm;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::time::Instant;

use super::pool::Endpoint;
use super::state::Picked;
use maglev::Maglev;
use order::Order;
use ring::Ring;
use warm::Warm;

pub(crate) use warm::SlowStart;

/// Draws before an endpoint is looked for in order.
const DRAWS_MAX: usize = 16;

/// How endpoints are picked, as configured.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Balance {
    pub(crate) policy: Policy,
    pub(crate) slow_start: Option<SlowStart>,
    pub(crate) zone: Option<Zone>,
    /// When less than this share of the endpoints is well, all are picked from: so few that health tells more about
    /// the checks than about the endpoints (Envoy's `healthy_panic_threshold`).
    pub(crate) panic_percent: usize,
}

impl Default for Balance {
    fn default() -> Self {
        Balance {
            policy: Policy::InTurn,
            slow_start: None,
            zone: None,
            panic_percent: 50,
        }
    }
}

/// The rule by which endpoints are picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Policy {
    InTurn,
    LeastRequest,
    Random,
    RingHash,
    Maglev,
}

/// The gateway's own zone, and when it is enough.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Zone {
    pub(crate) name: String,
    pub(crate) min_healthy_percent: usize,
    pub(crate) min_endpoints: usize,
}

/// What decides about an endpoint beside the policy.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Choice<'a> {
    /// What hash policies go by; without it they pick at random.
    pub(crate) hash: Option<u64>,
    /// Addresses to keep away from while there are others.
    pub(crate) tried: &'a [SocketAddr],
}

/// An endpoint's place in its cluster.
#[derive(Clone)]
pub(crate) struct Slot {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) weight: u32,
    pub(crate) zone: Option<Arc<str>>,
}

impl PartialEq for Slot {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.endpoint, &other.endpoint)
            && self.weight == other.weight
            && self.zone == other.zone
    }
}

/// The endpoints of a cluster, ready to be picked from.
#[derive(Default)]
pub(crate) struct Set {
    /// All of them.
    pub(crate) slots: Vec<Slot>,
    /// Those that are picked from.
    usable: Vec<Arc<Endpoint>>,
    table: Table,
    warm: Option<Box<Warm>>,
}

/// The policy, compiled for the usable endpoints.
enum Table {
    InTurn(Order),
    Random(Order),
    /// With the weights.
    Least(Order, Vec<u32>),
    Ring(Ring),
    Maglev(Maglev),
}

impl Default for Table {
    fn default() -> Self {
        Table::InTurn(Order::default())
    }
}

impl Set {
    pub(super) fn build(slots: Vec<Slot>, balance: &Balance) -> Self {
        let chosen = chosen(&slots, balance);
        let weights: Vec<u32> = chosen.iter().map(|slot| slot.weight).collect();
        let usable: Vec<Arc<Endpoint>> = chosen.iter().map(|slot| slot.endpoint.clone()).collect();
        let keyed = || -> Vec<(String, u32)> {
            chosen
                .iter()
                .map(|slot| (slot.endpoint.address.to_string(), slot.weight))
                .collect()
        };
        let table = match balance.policy {
            _ if usable.len() < 2 => Table::default(),
            Policy::InTurn => Table::InTurn(Order::of(&weights)),
            Policy::Random => Table::Random(Order::of(&weights)),
            Policy::LeastRequest => Table::Least(Order::of(&weights), weights),
            Policy::RingHash => Table::Ring(Ring::of(&keyed())),
            Policy::Maglev => Table::Maglev(Maglev::of(&keyed())),
        };
        let warm = balance.slow_start.as_ref().and_then(|slow| {
            let since = usable.iter().map(|endpoint| endpoint.state.since());
            Warm::of(slow, since.collect(), Instant::now())
        });
        Set {
            usable,
            table,
            warm,
            slots,
        }
    }

    /// Picks an endpoint; `None` when there is none.
    pub(super) fn pick(&self, next: &AtomicUsize, choice: &Choice<'_>) -> Option<Picked> {
        if self.usable.len() < 2 {
            let only = self.usable.first()?;
            let other = self.beyond(choice.tried, only);
            return Some(match other {
                Some(other) => Picked::new(other.clone(), true),
                None => Picked::new(only.clone(), false),
            });
        }
        let found = match &self.table {
            Table::InTurn(order) => self.in_turn(order, next, choice),
            Table::Random(order) => self.drawn(order, choice, |_| false),
            Table::Least(order, weights) => self.least(order, weights, choice),
            Table::Ring(ring) => self.first(ring.from(hash(choice)), choice),
            Table::Maglev(maglev) => self.first(maglev.from(hash(choice)), choice),
        };
        let mut picked = &self.usable[found];
        if let Some(other) = self.beyond(choice.tried, picked) {
            picked = other;
        }
        Some(Picked::new(picked.clone(), true))
    }

    /// Returns the endpoint that a hash leads to, without picking it.
    pub(super) fn picked_for(&self, hash: u64) -> Option<SocketAddr> {
        let index = match &self.table {
            Table::Ring(ring) => ring.from(hash).next(),
            Table::Maglev(maglev) => maglev.from(hash).next(),
            Table::InTurn(_) | Table::Random(_) | Table::Least(..) => Some(0),
        };
        self.usable.get(index?).map(|endpoint| endpoint.address)
    }

    /// Returns an endpoint outside of those that are picked from, when all of these were tried.
    fn beyond(&self, tried: &[SocketAddr], picked: &Endpoint) -> Option<&Arc<Endpoint>> {
        if tried.is_empty() || !tried.contains(&picked.address) {
            return None;
        }
        let mut others = self.slots.iter().map(|slot| &slot.endpoint);
        others.find(|other| other.state.usable() && !tried.contains(&other.address))
    }

    /// The next whose turn it is. One that starts slowly lets some of its turns pass.
    fn in_turn(&self, order: &Order, next: &AtomicUsize, choice: &Choice<'_>) -> usize {
        let count = self.usable.len();
        let turn = || order.at(next.fetch_add(1, Relaxed), count);
        let mut picked = turn();
        if choice.tried.is_empty() && self.warm.is_none() {
            return picked;
        }
        for _ in 0..order.length(count) {
            if !self.tried(picked, choice) && self.ready(picked) {
                break;
            }
            picked = turn();
        }
        picked
    }

    /// The less busy of two, for its weight.
    fn least(&self, order: &Order, weights: &[u32], choice: &Choice<'_>) -> usize {
        let one = self.drawn(order, choice, |_| false);
        let other = self.drawn(order, choice, |index| index == one);
        let busy = |index: usize| self.usable[index].state.active();
        let now = self.warm.as_ref().map(|_| Instant::now());
        let part = |index: usize| match (&self.warm, now) {
            (Some(warm), Some(now)) => warm.part(index, now),
            _ => 1.0,
        };
        // The weights decide who is drawn, so that without load each has its share; under load they count here too.
        let load = |index: usize| busy(index) as f64 / (f64::from(weights[index]) * part(index));
        if load(other) < load(one) { other } else { one }
    }

    /// Any, as often as the weights say, that is not `other` and was not tried.
    fn drawn(&self, order: &Order, choice: &Choice<'_>, other: impl Fn(usize) -> bool) -> usize {
        let count = self.usable.len();
        let length = order.length(count);
        let mut drawn = 0;
        for _ in 0..DRAWS_MAX {
            drawn = order.at(rand::random_range(0..length), count);
            if !other(drawn) && !self.tried(drawn, choice) && self.ready(drawn) {
                return drawn;
            }
        }
        // Luck had its chance; now the next one that may.
        (0..count)
            .map(|step| (drawn + step) % count)
            .find(|index| !other(*index) && !self.tried(*index, choice))
            .unwrap_or(drawn)
    }

    /// The first of these that was not tried.
    fn first(&self, mut order: impl Iterator<Item = usize>, choice: &Choice<'_>) -> usize {
        let Some(first) = order.next() else {
            return 0;
        };
        if !self.tried(first, choice) || choice.tried.len() >= self.usable.len() {
            return first;
        }
        order
            .find(|index| !self.tried(*index, choice))
            .unwrap_or(first)
    }

    fn tried(&self, index: usize, choice: &Choice<'_>) -> bool {
        choice.tried.contains(&self.usable[index].address)
    }

    /// Returns whether an endpoint that starts slowly takes this turn.
    fn ready(&self, index: usize) -> bool {
        self.warm.as_ref().is_none_or(|warm| {
            let part = warm.part(index, Instant::now());
            part >= 1.0 || rand::random::<f64>() < part
        })
    }
}

fn hash(choice: &Choice<'_>) -> u64 {
    choice.hash.unwrap_or_else(rand::random)
}

/// Returns the endpoints that are picked from: those that are well, in the own zone if that has enough of them.
fn chosen<'s>(slots: &'s [Slot], balance: &Balance) -> Vec<&'s Slot> {
    let well = |slot: &&Slot| slot.endpoint.state.usable();
    let chosen: Vec<&Slot> = slots.iter().filter(well).collect();
    if chosen.len() * 100 < slots.len() * balance.panic_percent {
        return slots.iter().collect();
    }
    let Some(zone) = &balance.zone else {
        return chosen;
    };
    let own = |slot: &&Slot| slot.zone.as_deref() == Some(&*zone.name);
    let here: Vec<&Slot> = chosen.iter().copied().filter(|slot| own(slot)).collect();
    let all_here = slots.iter().filter(own).count();
    let enough = here.len() >= zone.min_endpoints.max(1)
        && here.len() * 100 >= all_here * zone.min_healthy_percent;
    if enough { here } else { chosen }
}
