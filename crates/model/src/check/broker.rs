//! Checks of the broker's settings.

use std::collections::HashSet;
use std::time::Duration;

use super::own::PARTITIONS_MAX;
use crate::Broker;
use crate::broker::{BOUNDS, Bound, BrokerListener, BrokerSecurity, BrokerSettings, ClientAuth};
use crate::read::Finding;
use crate::target::Target;
use crate::tls_context::TlsVersion;

/// Most connections of one listener.
const CONNECTIONS_MAX: u32 = 1_000_000;
/// Shortest time after which a client has to prove again who it is: each proof costs a few messages.
const REAUTH_MIN: Duration = Duration::from_secs(1);

pub(super) fn broker(broker: &Broker, findings: &mut Vec<Finding>) {
    for address in broker.bootstrap.iter().flat_map(|all| all.split(',')) {
        match Target::parse(address.trim()) {
            Ok(target) if target.port.is_some() && !target.tls => (),
            _ => {
                let what = format!("`{}` is no address, write `host:port`", address.trim());
                findings.push(Finding::error("bootstrap", what));
            }
        }
    }
    if let Some(settings) = &broker.security {
        if broker.bootstrap.is_none() {
            let what = "`security` is for the cluster of `bootstrap`, and there is none";
            let finding = Finding::error("security", what);
            findings.push(finding.hint("the embedded broker has `listeners` and `users`"));
        }
        security(settings, findings);
    }
    if let Some(listen) = &broker.listen
        && listen.parse::<std::net::SocketAddr>().is_err()
    {
        let finding = Finding::error("listen", format!("`{listen}` is no address"));
        findings.push(finding.hint("write it as `127.0.0.1:9092`"));
    }
    if let Some(advertised) = &broker.advertised
        && !Target::parse(advertised).is_ok_and(|target| target.port.is_some())
    {
        let finding = Finding::error("advertised", format!("`{advertised}` is no address"));
        findings.push(finding.hint("write it as `broker.example.com:9092`"));
    }
    without_embedded(broker, findings);
    memory(broker, findings);
    settings(&broker.settings, findings);
    listeners(broker, findings);
    users(broker, findings);
    let authorization = broker.authorization.iter();
    for (index, user) in authorization.flat_map(|one| &one.super_users).enumerate() {
        if user.strip_prefix("User:").is_none_or(str::is_empty) {
            let at = format!("authorization.super_users[{index}]");
            let what = format!("`{user}` is no principal");
            findings.push(Finding::error(&at, what).hint("write it as `User:admin`"));
        }
    }
    if !(1..=PARTITIONS_MAX).contains(&broker.default_partitions) {
        let what = format!(
            "a topic cannot have {} partitions",
            broker.default_partitions
        );
        findings.push(
            Finding::error("default_partitions", what).hint(format!("use 1 to {PARTITIONS_MAX}")),
        );
    }
}

fn security(security: &BrokerSecurity, findings: &mut Vec<Finding>) {
    let protocol = security.protocol;
    let mut idle = |field: &str, said: bool, hint: &str| {
        if said {
            let what = format!(
                "`{field}` has no effect with protocol `{}`",
                protocol.name()
            );
            findings.push(Finding::error(&format!("security.{field}"), what).hint(hint));
        }
    };
    if !protocol.has_tls() {
        let hint = "use `SSL` or `SASL_SSL`";
        idle("ca", security.ca.is_some(), hint);
        idle("certificate", security.certificate.is_some(), hint);
        idle("key", security.key.is_some(), hint);
    }
    if !protocol.has_sasl() {
        let hint = "use `SASL_SSL` or `SASL_PLAINTEXT`";
        idle("sasl_mechanism", security.sasl_mechanism.is_some(), hint);
        idle("username", security.username.is_some(), hint);
        idle("password_file", security.password_file.is_some(), hint);
        idle("password_env", security.password_env.is_some(), hint);
    } else {
        if security.username.as_deref().is_none_or(str::is_empty) {
            let what = format!("protocol `{}` needs `username`", protocol.name());
            findings.push(Finding::error("security.username", what));
        }
        if security.password_file.is_some() == security.password_env.is_some() {
            let what = "a user has either `password_file` or `password_env`";
            let finding = Finding::error("security", what);
            findings.push(finding.hint("a password never stands in the configuration itself"));
        }
    }
    if security.certificate.is_some() != security.key.is_some() {
        let what = "`certificate` and `key` belong together";
        findings.push(Finding::error("security", what));
    }
}

/// What the memory for requests may be.
const QUEUED_BYTES: std::ops::RangeInclusive<u64> = 16 << 20..=1 << 40;
/// Kafka's default for the largest request, which is cut to what there is.
const REQUEST_BYTES_DEFAULT: u64 = 100 << 20;

/// Names what is said of the embedded broker where a cluster takes its place.
fn without_embedded(broker: &Broker, findings: &mut Vec<Finding>) {
    if broker.bootstrap.is_none() {
        return;
    }
    for (field, said) in [
        ("listen", broker.listen.is_some()),
        ("advertised", broker.advertised.is_some()),
        ("listeners", !broker.listeners.is_empty()),
        ("users", !broker.users.is_empty()),
        ("authorization", broker.authorization.is_some()),
        ("settings", !broker.settings.is_empty()),
    ] {
        if said {
            let what = format!(
                "`{field}` has no effect: `bootstrap` has a cluster take the embedded broker's place"
            );
            findings.push(Finding::warning(field, what));
        }
    }
}

fn memory(broker: &Broker, findings: &mut Vec<Finding>) {
    let bytes = broker.queued_max_request_bytes;
    if !QUEUED_BYTES.contains(&bytes) {
        let size = kit::human::size_text(bytes);
        let what = format!("requests cannot have {size} of memory");
        findings
            .push(Finding::error("queued_max_request_bytes", what).hint("use `16MiB` to `1TiB`"));
    }
    for (index, listener) in broker.listeners.iter().enumerate() {
        let request = listener.socket_request_max_bytes;
        if request > REQUEST_BYTES_DEFAULT && request > bytes / 2 {
            let at = format!("listeners[{index}].socket_request_max_bytes");
            let what = "one request may take half of `queued_max_request_bytes` at most";
            let least = kit::human::size_text(request.saturating_mul(2));
            findings.push(
                Finding::error(&at, what.to_owned())
                    .hint(format!("write `queued_max_request_bytes: {least}`")),
            );
        }
    }
}

fn settings(settings: &BrokerSettings, findings: &mut Vec<Finding>) {
    let said = settings.said();
    for (name, bound) in BOUNDS {
        let Some(value) = said.get(*name) else {
            continue;
        };
        let hint = match bound {
            Bound::OneOf(choices) if choices.contains(&value.as_str()) => continue,
            Bound::OneOf(choices) => format!("use one of {}", choices.join(", ")),
            Bound::Number(from, to) => {
                // Kafka takes -1 and 1 to 9.
                let hole = *name == "compression.gzip.level" && value == "0";
                let number = value.parse::<f64>().unwrap_or(f64::NAN);
                match (from..=to).contains(&&number) && !hole {
                    true => continue,
                    false if to.is_finite() => format!("use {from} to {to}"),
                    false => format!("use {from} or more"),
                }
            }
        };
        let what = format!("`{name}` cannot be {value}");
        findings.push(Finding::error(&format!("settings.{name}"), what).hint(hint));
    }
    let lag = settings.log_cleaner_min_compaction_lag_ms.unwrap_or(0);
    if lag
        > settings
            .log_cleaner_max_compaction_lag_ms
            .unwrap_or(i64::MAX)
    {
        let what = "records cannot wait longer than they may before they are compacted";
        let hint = "lower it, or raise `log.cleaner.max.compaction.lag.ms`";
        let at = "settings.log.cleaner.min.compaction.lag.ms";
        findings.push(Finding::error(at, what).hint(hint));
    }
    let shortest = settings.group_min_session_timeout_ms.unwrap_or(6_000);
    if shortest > settings.group_max_session_timeout_ms.unwrap_or(1_800_000) {
        let what = "the shortest session cannot be longer than the longest";
        let hint = "lower it, or raise `group.max.session.timeout.ms`";
        let at = "settings.group.min.session.timeout.ms";
        findings.push(Finding::error(at, what).hint(hint));
    }
}

fn listeners(broker: &Broker, findings: &mut Vec<Finding>) {
    if !broker.listeners.is_empty() {
        for (field, value) in [
            ("listen", &broker.listen),
            ("advertised", &broker.advertised),
        ] {
            if value.is_some() {
                let what = format!("`{field}` and `listeners` exclude each other");
                findings.push(Finding::error(field, what).hint("write it at a listener"));
            }
        }
    }
    let (mut names, mut addresses) = (HashSet::new(), HashSet::new());
    for (index, listener) in broker.listeners.iter().enumerate() {
        let at = |field: &str| format!("listeners[{index}].{field}");
        if !names.insert(&listener.name) {
            let what = format!("there are two listeners `{}`", listener.name);
            findings.push(Finding::error(&at("name"), what));
        }
        let fixed = !listener.listen.ends_with(":0");
        if !addresses.insert(&listener.listen) && fixed {
            let what = format!("there are two listeners on `{}`", listener.listen);
            findings.push(Finding::error(&at("listen"), what));
        }
        listener_alone(listener, at, findings);
    }
}

fn listener_alone(
    listener: &BrokerListener,
    at: impl Fn(&str) -> String,
    findings: &mut Vec<Finding>,
) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if listener.name.is_empty() || listener.name.len() > 63 || !listener.name.bytes().all(plain) {
        let what = format!("`{}` is no name of a listener", listener.name);
        let hint = "use up to 63 letters, digits, `_` and `-`";
        findings.push(Finding::error(&at("name"), what).hint(hint));
    }
    if listener.listen.parse::<std::net::SocketAddr>().is_err() {
        let what = format!("`{}` is no address", listener.listen);
        let finding = Finding::error(&at("listen"), what);
        findings.push(finding.hint("write it as `0.0.0.0:9093`"));
    }
    if let Some(advertised) = &listener.advertised
        && !Target::parse(advertised).is_ok_and(|target| target.port.is_some())
    {
        let finding = Finding::error(&at("advertised"), format!("`{advertised}` is no address"));
        findings.push(finding.hint("write it as `broker.example.com:9093`"));
    }
    if !(1..=CONNECTIONS_MAX).contains(&listener.max_connections) {
        let what = format!("{} connections are out of range", listener.max_connections);
        let finding = Finding::error(&at("max_connections"), what);
        findings.push(finding.hint(format!("use 1 to {CONNECTIONS_MAX}")));
    }
    if listener.connections_max_idle < Duration::from_secs(1) {
        let what = "connections would be closed while clients think";
        let finding = Finding::error(&at("connections_max_idle"), what);
        findings.push(finding.hint("did you mean `10m`?"));
    }
    if !(1 << 10..=1 << 30).contains(&listener.socket_request_max_bytes) {
        let what = "a request has 1KiB to 1GiB";
        findings.push(Finding::error(&at("socket_request_max_bytes"), what));
    }
    let protocol = listener.protocol;
    if !protocol.has_sasl() {
        let name = protocol.name();
        let said = [
            (
                "sasl_enabled_mechanisms",
                !listener.sasl_enabled_mechanisms.is_empty(),
            ),
            (
                "connections_max_reauth",
                listener.connections_max_reauth.is_some(),
            ),
        ];
        for (field, _) in said.iter().filter(|(_, said)| *said) {
            let what = format!("`{field}` has no effect with protocol `{name}`");
            let finding = Finding::error(&at(field), what);
            findings.push(finding.hint("use `SASL_SSL` or `SASL_PLAINTEXT`"));
        }
    }
    if listener
        .connections_max_reauth
        .is_some_and(|every| every < REAUTH_MIN)
    {
        let what = "clients would do nothing but prove who they are";
        let finding = Finding::error(&at("connections_max_reauth"), what);
        findings.push(finding.hint("did you mean `1h`?"));
    }
    match &listener.tls {
        None if protocol.has_tls() => {
            let what = format!("protocol `{}` needs `tls`", protocol.name());
            let hint = "write `tls: { certificate: FILE, key: FILE }`";
            findings.push(Finding::error(&at("tls"), what).hint(hint));
        }
        Some(_) if !protocol.has_tls() => {
            let what = format!("`tls` has no effect with protocol `{}`", protocol.name());
            let finding = Finding::error(&at("tls"), what);
            findings.push(finding.hint("use `SSL` or `SASL_SSL`"));
        }
        Some(tls) => {
            if tls.client_auth != ClientAuth::None && tls.client_ca.is_none() {
                let what = "clients' certificates are checked against `client_ca`";
                let finding = Finding::error(&at("tls.client_ca"), what);
                findings.push(finding.hint("name the file of the CA that signs them"));
            }
            if tls.client_auth == ClientAuth::None && tls.client_ca.is_some() {
                let what = "`client_ca` has no effect without `client_auth`";
                let finding = Finding::error(&at("tls.client_ca"), what);
                findings.push(finding.hint("write `client_auth: required`"));
            }
            if tls.min_version < TlsVersion::V1_2 {
                let what = "TLS before 1.2 is not spoken";
                let finding = Finding::error(&at("tls.min_version"), what);
                findings.push(finding.hint("use `v1.2` or `v1.3`"));
            }
        }
        None => (),
    }
}

fn users(broker: &Broker, findings: &mut Vec<Finding>) {
    let mut names = HashSet::new();
    for (index, user) in broker.users.iter().enumerate() {
        let at = |field: &str| format!("users[{index}].{field}");
        if user.name.is_empty() || user.name.contains('\0') {
            findings.push(Finding::error(&at("name"), "a user has a name"));
        }
        if !names.insert(&user.name) {
            let what = format!("there are two users `{}`", user.name);
            findings.push(Finding::error(&at("name"), what));
        }
        if user.password_file.is_some() == user.password_env.is_some() {
            let what = "a user has either `password_file` or `password_env`";
            let finding = Finding::error(&format!("users[{index}]"), what);
            findings.push(finding.hint("a password never stands in the configuration itself"));
        }
    }
}
