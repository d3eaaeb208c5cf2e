//! Passive outlier detection: endpoints that fail are put aside for a while, going by the answers to real requests.
//!
//! [`Machine`] decides, from what was counted and the time; [`watch`] counts and does what it says.

pub(crate) mod watch;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use model::mapping::balance::OutlierDetection;
use tokio::time::Instant;

/// The limits, as configured; the names are Envoy's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Limits {
    /// Failures in a row; 0 is never. Each with the percentage of its chances that are taken.
    consecutive_5xx: (u32, u32),
    consecutive_gateway_failure: (u32, u32),
    consecutive_local_origin_failure: (u32, u32),
    /// A failure without an answer counts for itself alone.
    split: bool,
    pub(crate) interval: Duration,
    base_ejection_time: Duration,
    max_ejection_time: Duration,
    max_ejection_percent: usize,
    success_rate: Rate,
    /// In thousandths.
    stdev_factor: u32,
    failure_percentage: Rate,
    failure_threshold_percent: u32,
}

/// When a rate is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Rate {
    enforcing: u32,
    minimum_hosts: usize,
    request_volume: u32,
}

impl Limits {
    pub(crate) fn new(said: &OutlierDetection) -> Self {
        let base = said.base_ejection_time.unwrap_or(Duration::from_secs(30));
        let all = |percent: Option<u32>| percent.unwrap_or(100);
        let local_default = if said.split_external_local_origin_errors {
            5
        } else {
            0
        };
        let threshold = said.failure_percentage_threshold;
        let count = |said: Option<u32>, default: u32| said.unwrap_or(default) as usize;
        Limits {
            consecutive_5xx: (
                said.consecutive_5xx.unwrap_or(5),
                all(said.enforcing_consecutive_5xx),
            ),
            consecutive_gateway_failure: (
                said.consecutive_gateway_failure.unwrap_or(0),
                all(said.enforcing_consecutive_gateway_failure),
            ),
            consecutive_local_origin_failure: (
                said.consecutive_local_origin_failure
                    .unwrap_or(local_default),
                all(said.enforcing_consecutive_local_origin_failure),
            ),
            split: said.split_external_local_origin_errors,
            interval: said.interval.unwrap_or(Duration::from_secs(10)),
            base_ejection_time: base,
            max_ejection_time: said
                .max_ejection_time
                .unwrap_or(base.max(Duration::from_secs(300))),
            max_ejection_percent: count(said.max_ejection_percent, 10),
            success_rate: Rate {
                enforcing: all(said.enforcing_success_rate),
                minimum_hosts: count(said.success_rate_minimum_hosts, 5),
                request_volume: said.success_rate_request_volume.unwrap_or(100),
            },
            stdev_factor: said.success_rate_stdev_factor.unwrap_or(1900),
            failure_percentage: Rate {
                enforcing: said
                    .enforcing_failure_percentage
                    .unwrap_or(if threshold.is_some() { 100 } else { 0 }),
                minimum_hosts: count(said.failure_percentage_minimum_hosts, 5),
                request_volume: said.failure_percentage_request_volume.unwrap_or(50),
            },
            failure_threshold_percent: threshold.unwrap_or(85),
        }
    }
}

/// What one try says about its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Success,
    /// 5xx but those of a gateway.
    ServerError,
    /// 502, 503, 504.
    GatewayFailure,
    /// No answer.
    LocalOrigin,
}

/// Failures in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Streaks {
    pub(crate) server_error: u32,
    pub(crate) gateway: u32,
    pub(crate) local: u32,
}

impl Streaks {
    /// Goes on after another try.
    pub(crate) fn after(mut self, verdict: Verdict, split: bool) -> Self {
        let more = |count: &mut u32| *count = count.saturating_add(1);
        match verdict {
            Verdict::Success => return Streaks::default(),
            Verdict::ServerError => {
                more(&mut self.server_error);
                self.gateway = 0;
                self.local = 0;
            }
            Verdict::GatewayFailure => {
                more(&mut self.server_error);
                more(&mut self.gateway);
                self.local = 0;
            }
            Verdict::LocalOrigin => {
                more(&mut self.local);
                if !split {
                    more(&mut self.server_error);
                    more(&mut self.gateway);
                }
            }
        }
        self
    }
}

/// What was counted about an endpoint in an interval.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) address: SocketAddr,
    pub(crate) requests: u32,
    pub(crate) failures: u32,
}

/// Why an endpoint is put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Consecutive5xx,
    ConsecutiveGatewayFailure,
    ConsecutiveLocalOriginFailure,
    SuccessRate,
    FailurePercentage,
}

impl Reason {
    /// Returns its name in metrics and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Reason::Consecutive5xx => "consecutive_5xx",
            Reason::ConsecutiveGatewayFailure => "consecutive_gateway_failure",
            Reason::ConsecutiveLocalOriginFailure => "consecutive_local_origin_failure",
            Reason::SuccessRate => "success_rate",
            Reason::FailurePercentage => "failure_percentage",
        }
    }

    /// All of them.
    pub(crate) const ALL: [Reason; 5] = [
        Reason::Consecutive5xx,
        Reason::ConsecutiveGatewayFailure,
        Reason::ConsecutiveLocalOriginFailure,
        Reason::SuccessRate,
        Reason::FailurePercentage,
    ];
}

/// What has to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Eject(SocketAddr, Reason),
    Return(SocketAddr),
}

/// Decides who is aside and for how long.
#[derive(Debug)]
pub(crate) struct Machine {
    limits: Limits,
    hosts: HashMap<SocketAddr, Host>,
}

#[derive(Debug, Default)]
struct Host {
    /// Since when it is aside.
    since: Option<Instant>,
    /// How often it was of late.
    times: u32,
}

impl Machine {
    pub(crate) fn new(limits: Limits) -> Self {
        Machine {
            limits,
            hosts: HashMap::new(),
        }
    }

    /// Returns whether these failures in a row, of an endpoint that is one of so many, put it aside; the failures are
    /// then counted from the beginning. `chance` is a number below 100.
    pub(crate) fn failed(
        &mut self,
        address: SocketAddr,
        streaks: Streaks,
        endpoints: usize,
        now: Instant,
        chance: u32,
    ) -> Option<Reason> {
        let reason = self.reached(streaks)?;
        let (_, enforcing) = match reason {
            Reason::ConsecutiveLocalOriginFailure => self.limits.consecutive_local_origin_failure,
            Reason::ConsecutiveGatewayFailure => self.limits.consecutive_gateway_failure,
            _ => self.limits.consecutive_5xx,
        };
        (chance < enforcing && self.eject(address, endpoints, now)).then_some(reason)
    }

    /// Returns which limit failures in a row have reached.
    pub(crate) fn reached(&self, streaks: Streaks) -> Option<Reason> {
        let limits = &self.limits;
        let over = |count: u32, (limit, _): (u32, u32)| limit > 0 && count >= limit;
        if over(streaks.local, limits.consecutive_local_origin_failure) {
            Some(Reason::ConsecutiveLocalOriginFailure)
        } else if over(streaks.gateway, limits.consecutive_gateway_failure) {
            Some(Reason::ConsecutiveGatewayFailure)
        } else if over(streaks.server_error, limits.consecutive_5xx) {
            Some(Reason::Consecutive5xx)
        } else {
            None
        }
    }

    /// An interval is over: endpoints come back, rates are looked at. There is a tally for every endpoint there is.
    pub(crate) fn tick(
        &mut self,
        tallies: &[Tally],
        now: Instant,
        mut chance: impl FnMut() -> u32,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.hosts
            .retain(|address, _| tallies.iter().any(|tally| tally.address == *address));
        for (address, host) in &mut self.hosts {
            match host.since {
                Some(since) => {
                    let time = self.limits.base_ejection_time.saturating_mul(host.times);
                    if now.saturating_duration_since(since)
                        >= time.min(self.limits.max_ejection_time)
                    {
                        host.since = None;
                        effects.push(Effect::Return(*address));
                    }
                }
                None => host.times = host.times.saturating_sub(1),
            }
        }
        self.hosts
            .retain(|_, host| host.since.is_some() || host.times > 0);
        let mut put_aside = |machine: &mut Self, enforcing: u32, bad: Vec<SocketAddr>, reason| {
            for address in bad {
                if chance() < enforcing && machine.eject(address, tallies.len(), now) {
                    effects.push(Effect::Eject(address, reason));
                }
            }
        };
        let bad = self.below_success_rate(tallies);
        let enforcing = self.limits.success_rate.enforcing;
        put_aside(self, enforcing, bad, Reason::SuccessRate);
        let bad = self.above_failure_percentage(tallies);
        let enforcing = self.limits.failure_percentage.enforcing;
        put_aside(self, enforcing, bad, Reason::FailurePercentage);
        effects
    }

    /// Endpoints whose success rate is so many standard deviations below the mean.
    fn below_success_rate(&self, tallies: &[Tally]) -> Vec<SocketAddr> {
        let enough = enough(&self.limits.success_rate, tallies);
        let rate = |tally: &Tally| {
            f64::from(tally.requests - tally.failures.min(tally.requests))
                / f64::from(tally.requests)
        };
        let count = enough.len() as f64;
        let mean = enough.iter().map(|tally| rate(tally)).sum::<f64>() / count;
        let variance = enough
            .iter()
            .map(|tally| (rate(tally) - mean).powi(2))
            .sum::<f64>()
            / count;
        let least = mean - variance.sqrt() * f64::from(self.limits.stdev_factor) / 1000.0;
        let bad = enough.iter().filter(|tally| rate(tally) < least);
        bad.map(|tally| tally.address).collect()
    }

    fn above_failure_percentage(&self, tallies: &[Tally]) -> Vec<SocketAddr> {
        let threshold = u64::from(self.limits.failure_threshold_percent);
        let bad = |tally: &&&Tally| {
            u64::from(tally.failures) * 100 >= threshold * u64::from(tally.requests)
        };
        let enough = enough(&self.limits.failure_percentage, tallies);
        let bad = enough.iter().filter(bad);
        bad.map(|tally| tally.address).collect()
    }

    /// Puts an endpoint aside, if one more may be: never the last, and one always where any may.
    fn eject(&mut self, address: SocketAddr, endpoints: usize, now: Instant) -> bool {
        let aside = self
            .hosts
            .values()
            .filter(|host| host.since.is_some())
            .count();
        let most = self.limits.max_ejection_percent;
        let within = most > 0 && (aside == 0 || (aside + 1) * 100 <= most * endpoints);
        let host = self.hosts.entry(address).or_default();
        if host.since.is_some() || !within || aside + 1 >= endpoints {
            return false;
        }
        host.since = Some(now);
        host.times = host.times.saturating_add(1);
        true
    }
}

/// Returns the tallies with enough requests, or none when there are too few of them.
fn enough<'t>(rate: &Rate, tallies: &'t [Tally]) -> Vec<&'t Tally> {
    if rate.enforcing == 0 {
        return Vec::new();
    }
    let volume = rate.request_volume.max(1);
    let enough = tallies.iter().filter(|tally| tally.requests >= volume);
    let enough: Vec<&Tally> = enough.collect();
    match enough.len() >= rate.minimum_hosts.max(1) {
        true => enough,
        false => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
