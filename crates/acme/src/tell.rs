//! What the metrics tell about certificates that are ordered.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use observe::metrics::{Kind, Page, Source, labels};

use crate::kept::seconds;
use crate::wanted::Key;

/// What is known of each certificate.
#[derive(Default)]
pub(crate) struct Told(Mutex<BTreeMap<Key, State>>);

#[derive(Default)]
struct State {
    /// Orders that came to something, and that did not.
    issued: u64,
    failed: u64,
    until: Option<SystemTime>,
    next: Option<SystemTime>,
}

impl Told {
    /// Says until when the certificate counts, if there is one, and when the next is ordered.
    pub(crate) fn plan(&self, key: &Key, until: Option<SystemTime>, next: SystemTime) {
        let mut all = self.all();
        let state = all.entry(key.clone()).or_default();
        state.until = until;
        state.next = Some(next);
    }

    /// Counts an order.
    pub(crate) fn ordered(&self, key: &Key, issued: bool) {
        let mut all = self.all();
        let state = all.entry(key.clone()).or_default();
        match issued {
            true => state.issued += 1,
            false => state.failed += 1,
        }
    }

    /// Says nothing more about a certificate that nobody asks for.
    pub(crate) fn forget(&self, key: &Key) {
        self.all().remove(key);
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Key, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Told {
    fn tell(&self, page: &mut Page) {
        let all = self.all();
        if all.is_empty() {
            return;
        }
        let of = |key: &Key| labels(&[("host", &key.name), ("authority", &key.authority)]);
        let mut orders = page.family(
            "nuncio_acme_orders",
            Kind::Counter,
            "Orders of certificates, by what came of them.",
        );
        for (key, state) in all.iter() {
            for (result, count) in [("issued", state.issued), ("failed", state.failed)] {
                let labels = format!("{},result=\"{result}\"", of(key));
                orders.value(&labels, count);
            }
        }
        let mut gauge = |name, help, value: &dyn Fn(&State) -> Option<SystemTime>| {
            let mut family = page.family(name, Kind::Gauge, help);
            for (key, state) in all.iter() {
                family.value(&of(key), value(state).map_or(0, seconds));
            }
        };
        gauge(
            "nuncio_acme_not_after_seconds",
            "When the certificate that an authority has issued expires, in seconds since 1970; 0 while there is none.",
            &|state| state.until,
        );
        gauge(
            "nuncio_acme_next_order_seconds",
            "When a certificate is ordered next, in seconds since 1970.",
            &|state| state.next,
        );
    }
}
