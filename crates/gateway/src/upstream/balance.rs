//! Which endpoint a request goes to.
//!
//! A [`Set`] is compiled whenever endpoints come, go, fall ill or recover; a request only looks into it.

mod order;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::pool::Endpoint;
use super::state::Picked;
use order::Order;

/// What decides about an endpoint beside the policy.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Choice<'a> {
    /// What hash policies go by; without it they pick at random.
    #[allow(dead_code, reason = "the hash policies read it")]
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

/// The endpoints of a cluster, ready to be picked from.
#[derive(Default)]
pub(crate) struct Set {
    /// All of them.
    pub(crate) slots: Vec<Slot>,
    /// Those that may be picked.
    usable: Vec<Arc<Endpoint>>,
    order: Order,
}

impl Set {
    pub(super) fn build(slots: Vec<Slot>) -> Self {
        let well = |slot: &&Slot| slot.endpoint.state.usable();
        let mut chosen: Vec<&Slot> = slots.iter().filter(well).collect();
        // Panic: so few are well that health tells more about the checks than about the endpoints.
        if chosen.len() * 100 < slots.len() * PANIC_PERCENT {
            chosen = slots.iter().collect();
        }
        let weights: Vec<u32> = chosen.iter().map(|slot| slot.weight).collect();
        let usable = chosen.iter().map(|slot| slot.endpoint.clone()).collect();
        Set {
            order: Order::of(&weights),
            usable,
            slots,
        }
    }

    /// Picks an endpoint; `None` when there is none.
    pub(super) fn pick(&self, next: &AtomicUsize, choice: &Choice<'_>) -> Option<Picked> {
        let count = self.usable.len();
        if count < 2 {
            let only = self.usable.first()?;
            return Some(Picked::new(only.clone(), false));
        }
        let mut picked = &self.usable[self.turn(next)];
        if !choice.tried.is_empty() {
            let mut turns = self.order.length(count);
            while choice.tried.contains(&picked.address) && turns > 0 {
                picked = &self.usable[self.turn(next)];
                turns -= 1;
            }
        }
        Some(Picked::new(picked.clone(), true))
    }

    fn turn(&self, next: &AtomicUsize) -> usize {
        self.order.at(next.fetch_add(1, Relaxed), self.usable.len())
    }
}

/// When less than this share of the endpoints is well, all are picked from (Envoy's `healthy_panic_threshold`).
const PANIC_PERCENT: usize = 50;
