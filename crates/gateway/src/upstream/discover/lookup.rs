//! One question to DNS and what its answer means.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::rdata::SRV;

use super::dns::Question;
use crate::upstream::cluster::Member;

/// Longest wait for one answer.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Largest weight of an endpoint.
const WEIGHT_MAX: u32 = 128;
/// Most addresses of one answer that become endpoints.
const ADDRESSES_MAX: usize = 4096;
/// Most targets of an SRV answer that are looked up.
const TARGETS_MAX: usize = 256;

/// One address of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) ip: IpAddr,
    /// What SRV says; else the service's own port.
    pub(super) port: Option<u16>,
    pub(super) weight: u32,
    /// The target's name in an SRV answer.
    pub(super) hostname: Option<Arc<str>>,
}

impl Found {
    /// Returns it as an endpoint, on this port where the answer has none.
    pub(super) fn member(&self, port: u16) -> Member {
        Member {
            weight: self.weight,
            hostname: self.hostname.clone(),
            ..Member::new((self.ip, self.port.unwrap_or(port)).into())
        }
    }
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// These addresses, for so long.
    Here(Vec<Found>, Duration),
    /// DNS knows for certain that there is none.
    Nowhere,
    /// Nobody could say.
    Failed(String),
}

/// Sets what the question says about addresses.
pub(super) fn set(options: &mut ResolverOpts, question: &Question) {
    options.timeout = ANSWER_MAX / 2;
    // Every name is asked for in one place, as often as wanted.
    options.cache_size = 0;
    options.ip_strategy = match (question.ipv4, question.ipv6) {
        (true, true) => LookupIpStrategy::Ipv6thenIpv4,
        (false, true) => LookupIpStrategy::Ipv6Only,
        _ => LookupIpStrategy::Ipv4Only,
    };
}

/// Asks once.
pub(super) async fn ask(resolver: &TokioResolver, question: &Question) -> Answer {
    let asked = async {
        match question.srv {
            true => services(resolver, &question.host).await,
            false => addresses(resolver, &question.host).await,
        }
    };
    match tokio::time::timeout(ANSWER_MAX, asked).await {
        Ok(Ok((found, _))) if found.is_empty() => Answer::Nowhere,
        Ok(Ok((mut found, until))) => {
            found.truncate(ADDRESSES_MAX);
            let left = until.saturating_duration_since(Instant::now());
            Answer::Here(found, left)
        }
        Ok(Err(error)) if error.is_no_records_found() => match &error {
            // A server that fails says so in the same way as one that knows of none.
            error if serves(error) => Answer::Nowhere,
            error => Answer::Failed(error.to_string()),
        },
        Ok(Err(error)) => Answer::Failed(error.to_string()),
        Err(_) => Answer::Failed(format!("no answer within {ANSWER_MAX:?}")),
    }
}

fn serves(error: &NetError) -> bool {
    use hickory_resolver::net::DnsError;
    use hickory_resolver::proto::op::ResponseCode;
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            matches!(
                none.response_code,
                ResponseCode::NoError | ResponseCode::NXDomain
            )
        }
        _ => false,
    }
}

async fn addresses(
    resolver: &TokioResolver,
    host: &str,
) -> Result<(Vec<Found>, Instant), NetError> {
    let answer = resolver.lookup_ip(host).await?;
    let found = answer.iter().map(|ip| Found {
        ip,
        port: None,
        weight: 1,
        hostname: None,
    });
    Ok((found.collect(), answer.valid_until()))
}

/// Asks for a service's records (RFC 2782) and for the addresses of their targets. Only the targets of the first priority
/// with an address count.
async fn services(resolver: &TokioResolver, name: &str) -> Result<(Vec<Found>, Instant), NetError> {
    let answer = resolver.srv_lookup(name).await?;
    let mut records: Vec<&SRV> = answer
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            // A target `.` says that there is no such service.
            RData::SRV(srv) if !srv.target.is_root() => Some(srv),
            _ => None,
        })
        .collect();
    records.sort_by_key(|srv| srv.priority);
    records.truncate(TARGETS_MAX);
    let mut until = answer.valid_until();
    for group in records.chunk_by(|a, b| a.priority == b.priority) {
        let targets = group.iter().map(|srv| async {
            let found = resolver.lookup_ip(srv.target.clone()).await;
            (*srv, found)
        });
        let largest = group.iter().map(|srv| srv.weight).max().unwrap_or(0);
        let mut found = Vec::new();
        let mut failed = None;
        for (srv, answer) in join_all(targets).await {
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) if error.is_no_records_found() && serves(&error) => continue,
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            until = until.min(answer.valid_until());
            let target = srv.target.to_utf8();
            let hostname: Arc<str> = target.trim_end_matches('.').into();
            found.extend(answer.iter().map(|ip| Found {
                ip,
                port: Some(srv.port),
                weight: share(srv.weight, largest),
                hostname: Some(hostname.clone()),
            }));
        }
        match (found.is_empty(), failed) {
            (false, _) => return Ok((found, until)),
            (true, Some(error)) => return Err(error),
            (true, None) => (),
        }
    }
    Ok((Vec::new(), until))
}

/// Brings a weight of SRV, 0 to 65535, into our bounds; the proportions stay as far as they can.
pub(super) fn share(weight: u16, largest: u16) -> u32 {
    let (weight, largest) = (u32::from(weight), u32::from(largest));
    let scaled = match largest > WEIGHT_MAX {
        true => (weight * WEIGHT_MAX + largest / 2) / largest,
        false => weight,
    };
    scaled.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_keep_their_proportions() {
        assert_eq!(share(0, 0), 1);
        assert_eq!((share(10, 20), share(20, 20)), (10, 20));
        assert_eq!((share(100, 200), share(200, 200)), (64, 128));
        assert_eq!((share(1, 65535), share(65535, 65535)), (1, 128));
    }
}
