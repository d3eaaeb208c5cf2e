//! From a Mapping to how its endpoints are picked, looked after and put aside.

use std::sync::Arc;

use model::mapping::{LoadBalancer, LoadBalancerPolicy};
use model::{Config, Mapping};

use crate::upstream::balance::{Balance, Policy, SlowStart, Zone};
use crate::upstream::cluster::Care;
use crate::upstream::health::Check;
use crate::upstream::outlier::Limits;

/// Tells the zone where the Module does not.
const ZONE_VARIABLE: &str = "NUNCIO_ZONE";

pub(super) fn of(config: &Config, said: &Mapping) -> Arc<Care> {
    let module = &config.module;
    let balancer = said.load_balancer.as_ref();
    let outlier = said.outlier_detection.as_ref();
    Arc::new(Care {
        balance: balancer
            .or(module.load_balancer.as_ref())
            .map(|balancer| balance(balancer, zone(config)))
            .unwrap_or_default(),
        checks: said.health_checks.iter().filter_map(Check::new).collect(),
        outlier: outlier
            .or(module.outlier_detection.as_ref())
            .map(Limits::new),
    })
}

/// Returns the zone that the gateway stands in.
pub(super) fn zone(config: &Config) -> Option<String> {
    let variable = || std::env::var(ZONE_VARIABLE).ok();
    let zone = config.module.zone.clone().or_else(variable);
    zone.filter(|zone| !zone.is_empty())
}

fn balance(said: &LoadBalancer, zone: Option<String>) -> Balance {
    let slow_start = said.slow_start.as_ref().map(|slow| SlowStart {
        window: slow.window,
        aggression: (slow.aggression.unwrap_or(1.0) * 1000.0).round().max(1.0) as u32,
        min_weight_percent: slow.min_weight_percent.unwrap_or(10),
    });
    let zone = said.zone_preference.as_ref().and_then(|preference| {
        Some(Zone {
            name: zone?,
            min_healthy_percent: preference.min_healthy_percent.unwrap_or(70) as usize,
            min_endpoints: preference.min_endpoints.unwrap_or(1) as usize,
        })
    });
    Balance {
        policy: match said.policy {
            LoadBalancerPolicy::RoundRobin => Policy::InTurn,
            LoadBalancerPolicy::LeastRequest => Policy::LeastRequest,
            LoadBalancerPolicy::RingHash => Policy::RingHash,
            LoadBalancerPolicy::Maglev => Policy::Maglev,
            LoadBalancerPolicy::Random => Policy::Random,
        },
        slow_start,
        zone,
        panic_percent: said.healthy_panic_threshold.unwrap_or(50) as usize,
    }
}
