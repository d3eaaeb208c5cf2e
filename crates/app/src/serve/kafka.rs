//! Opens the embedded broker and its listeners.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, bail};
use broker::{Authorization, Broker, Limits, Listener, Mechanism, Protocol, Secret, User};
use control::Published;
use model::broker::{
    BrokerListener, BrokerTls, BrokerUser, ClientAuth, SaslMechanism, SecurityProtocol,
};
use model::{Config, Severity, Source, TlsContext};
use observe::metrics::Metrics;
use tls::keep::Terminators;
use tls::server::Terminator;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::running::taken;
use super::{KAFKA, Options};

/// A broker that serves.
pub(super) struct Started {
    pub(super) broker: Broker,
    /// Where its listeners are, the first one first.
    pub(super) listeners: Vec<Listening>,
    /// Where this process itself reaches it as a client.
    pub(super) bootstrap: String,
    /// What it proves itself with there, when the listeners ask everybody who he is.
    pub(super) password: Option<Secret>,
    /// Looks after the certificates of its listeners for as long as it is kept.
    pub(super) certificates: Terminators,
}

/// A listener that serves.
#[derive(Debug, Clone)]
pub(crate) struct Listening {
    pub(crate) name: String,
    pub(crate) protocol: &'static str,
    pub(crate) address: SocketAddr,
}

/// Refuses to start a broker whose settings could not be read. There is no last good version at the start, and the defaults in
/// its place might let everybody in, or forget records that were to be kept.
pub(super) fn refuse_in_doubt(published: &Published) -> anyhow::Result<()> {
    let errors = published
        .problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error);
    let doubts: Vec<String> = errors
        .filter(|problem| match &problem.object {
            Some(object) => object.starts_with("Broker "),
            None => might_hold_broker(&published.sources, &problem.origin.file),
        })
        .map(ToString::to_string)
        .collect();
    if doubts.is_empty() {
        return Ok(());
    }
    bail!(
        "the broker does not start with settings that are in doubt:\n{}",
        doubts.join("\n")
    )
}

/// Returns whether a file that is wrong as a whole may be the one with the broker's settings: it names them, or it could not be read.
fn might_hold_broker(sources: &[Source], file: &str) -> bool {
    let source = sources.iter().find(|source| *source.name == *file);
    source.is_none_or(|source| source.text.to_ascii_lowercase().contains("broker"))
}

/// Opens the broker and has it serve on everything that the configuration names.
pub(super) async fn start(
    options: &Options,
    config: &Config,
    metrics: &Metrics,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<Started> {
    let settings = &config.broker;
    let limits = Limits::default();
    let mut certificates = Terminators::new(Handle::current());
    let listeners = match settings.listeners.is_empty() {
        true => vec![short(options, settings, &limits)?],
        false => long(options, &settings.listeners, &limits, &mut certificates)?,
    };
    let mut sockets = Vec::new();
    for (address, listener) in listeners {
        let socket = TcpListener::bind(address)
            .await
            .with_context(|| taken("broker", address, "--kafka"))?;
        let bound = socket.local_addr()?;
        sockets.push((socket, bound, listener));
    }
    let connections_max = sockets.iter().map(|(.., one)| one.connections_max).sum();
    let retention_ms = settings.default_retention.as_millis().to_string();
    let mut opening = broker::Options {
        auto_create: settings.create_topics,
        partitions_default: usize::try_from(settings.default_partitions).unwrap_or(1),
        topic_defaults: BTreeMap::from([("retention.ms".to_owned(), retention_ms)]),
        metrics: metrics.clone(),
        users: users(settings)?,
        authorization: authorization(settings),
        limits: Limits {
            connections_max,
            requests_bytes_max: usize::try_from(settings.queued_max_request_bytes)
                .unwrap_or(usize::MAX),
            ..limits.clone()
        },
        ..broker::Options::new(options.place.data.join("kafka"))
    };
    opening.take(&settings.settings.said())?;
    let broker = Broker::open(opening).await?;
    let mut listening = Vec::new();
    let mut serve = |socket: TcpListener, listener: Listener| {
        let (broker, stop) = (broker.clone(), stop.clone());
        tasks.spawn(async move { broker.serve_as(socket, listener, stop).await });
    };
    for (socket, bound, listener) in sockets {
        listening.push(Listening {
            name: listener.name.clone(),
            protocol: listener.protocol.name(),
            address: bound,
        });
        // `localhost` is ::1 first for some clients, so loopback means both families where both can be had.
        if bound.ip() == IpAddr::from([127, 0, 0, 1])
            && let Ok(twin) = TcpListener::bind((Ipv6Addr::LOCALHOST, bound.port())).await
        {
            serve(twin, listener.clone());
        }
        serve(socket, listener);
    }
    let (bootstrap, password) =
        match settings.listeners.is_empty() && settings.authorization.is_none() {
            true => (listening[0].address.to_string(), None),
            false => {
                // Subscriptions are Kafka clients too, and nobody gives them a certificate or a password.
                let socket = TcpListener::bind(("127.0.0.1", 0))
                    .await
                    .context("this process cannot listen on 127.0.0.1 for itself")?;
                let bootstrap = socket.local_addr()?.to_string();
                let password = Secret::random().context("the system has no random numbers")?;
                serve(socket, Listener::of_house(password.clone(), &limits));
                (bootstrap, Some(password))
            }
        };
    Ok(Started {
        broker,
        listeners: listening,
        bootstrap,
        password,
        certificates,
    })
}

/// The one listener of a configuration that names none.
fn short(
    options: &Options,
    settings: &model::Broker,
    limits: &Limits,
) -> anyhow::Result<(SocketAddr, Listener)> {
    let address = match (options.place.kafka, settings.listen.as_deref()) {
        (Some(address), _) => address,
        (None, Some(text)) => text
            .parse()
            .with_context(|| format!("`{text}` in broker.listen is no address"))?,
        (None, None) => KAFKA.parse().expect("the default is an address"),
    };
    let advertised = settings.advertised.as_deref();
    let advertised = advertised.map(str::parse::<broker::Address>).transpose();
    let listener = Listener {
        advertised: advertised.context("could not read broker.advertised")?,
        ..Listener::new("PLAINTEXT", Protocol::Plaintext, limits)
    };
    Ok((address, listener))
}

fn long(
    options: &Options,
    listeners: &[BrokerListener],
    limits: &Limits,
    certificates: &mut Terminators,
) -> anyhow::Result<Vec<(SocketAddr, Listener)>> {
    let mut built = Vec::new();
    for (index, settings) in listeners.iter().enumerate() {
        let named = || format!("listener `{}` of the broker", settings.name);
        let own = settings.listen.parse();
        let address = match options.place.kafka {
            Some(address) if index == 0 => address,
            _ => own.with_context(|| format!("{}: no address", named()))?,
        };
        built.push((
            address,
            listener(settings, limits, certificates).with_context(named)?,
        ));
    }
    Ok(built)
}

fn listener(
    settings: &BrokerListener,
    limits: &Limits,
    certificates: &mut Terminators,
) -> anyhow::Result<Listener> {
    let protocol = match settings.protocol {
        SecurityProtocol::Plaintext => Protocol::Plaintext,
        SecurityProtocol::Ssl => Protocol::Ssl,
        SecurityProtocol::SaslPlaintext => Protocol::SaslPlaintext,
        SecurityProtocol::SaslSsl => Protocol::SaslSsl,
    };
    let mechanism = |mechanism| match mechanism {
        SaslMechanism::Plain => Mechanism::Plain,
        SaslMechanism::ScramSha256 => Mechanism::ScramSha256,
        SaslMechanism::ScramSha512 => Mechanism::ScramSha512,
    };
    let advertised = settings.advertised.as_deref();
    let advertised = advertised.map(str::parse::<broker::Address>).transpose();
    let tls = match &settings.tls {
        Some(tls) if protocol.has_tls() => Some(terminator(settings, tls, certificates)?),
        None if protocol.has_tls() => bail!("protocol `{protocol}` needs `tls`"),
        _ => None,
    };
    Ok(Listener {
        advertised: advertised.context("could not read `advertised`")?,
        connections_max: usize::try_from(settings.max_connections)?,
        idle_max: settings.connections_max_idle,
        request_bytes_max: usize::try_from(settings.socket_request_max_bytes)?,
        mechanisms: settings.mechanisms().into_iter().map(mechanism).collect(),
        session_max: settings.connections_max_reauth,
        tls,
        ..Listener::new(settings.name.as_str(), protocol, limits)
    })
}

/// Returns how a listener speaks TLS; its files are read again when they change.
fn terminator(
    settings: &BrokerListener,
    tls: &BrokerTls,
    certificates: &mut Terminators,
) -> anyhow::Result<Arc<Terminator>> {
    let context = TlsContext {
        cert_chain_file: Some(tls.certificate.clone()),
        private_key_file: Some(tls.key.clone()),
        cacert_chain_file: tls.client_ca.clone(),
        cert_required: Some(tls.client_auth == ClientAuth::Required),
        min_tls_version: Some(tls.min_version),
        // Kafka's clients ask for none.
        alpn_protocols: Some(String::new()),
        ..TlsContext::default()
    };
    let context = tls::material::Context {
        spec: context,
        namespace: String::new(),
        secret: None,
    };
    let nothing = Config::default();
    Terminator::try_out(&nothing, std::slice::from_ref(&context)).map_err(anyhow::Error::msg)?;
    Ok(certificates.of(&nothing, &settings.name, vec![context]))
}

/// Returns the users of the configuration, with their passwords as they are now.
pub(super) fn users(settings: &model::Broker) -> anyhow::Result<Vec<User>> {
    settings.users.iter().map(user).collect()
}

/// Returns what the configuration says of rights.
pub(super) fn authorization(settings: &model::Broker) -> Option<Authorization> {
    let said = settings.authorization.as_ref()?;
    Some(Authorization {
        super_users: said.super_users.clone(),
        allow_everyone_if_no_acl_found: said.allow_everyone_if_no_acl_found,
    })
}

/// Reads a user's password from where the configuration says.
fn user(settings: &BrokerUser) -> anyhow::Result<User> {
    let name = &settings.name;
    let password = match (&settings.password_file, &settings.password_env) {
        (Some(file), _) => std::fs::read_to_string(file)
            .with_context(|| format!("could not read the password of user `{name}` in `{file}`"))?,
        (None, Some(variable)) => std::env::var(variable)
            .with_context(|| format!("variable `{variable}` has no password of user `{name}`"))?,
        (None, None) => bail!("user `{name}` has no password"),
    };
    let password = password.trim_end();
    if password.is_empty() {
        bail!("the password of user `{name}` is empty");
    }
    Ok(User {
        name: name.clone(),
        password: Secret::new(password),
    })
}
