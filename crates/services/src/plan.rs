//! What is to run, where it listens, and what it is told through its environment.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One service, as the user declared it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Its name, unique in the plan.
    pub name: String,
    /// The folder that it runs in.
    pub folder: PathBuf,
    /// A command that must end well before the first start, such as a compiler's.
    pub prepare: Option<String>,
    /// The command that runs it, for `sh`.
    pub run: Option<String>,
    /// How to see that it works.
    pub health: Health,
    /// The port that it listens on; a free one is chosen when nothing is said.
    pub port: Option<u16>,
    /// How long it may take to become healthy before it is called unhealthy.
    pub start_timeout: Duration,
    /// How long it may take to stop after SIGTERM before SIGKILL.
    pub stop_timeout: Duration,
    /// The services that must be healthy before it starts.
    pub needs: Vec<String>,
    /// The user's own variables; they win over ours.
    pub environment: Vec<(String, String)>,
}

/// How to see that a service works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// `GET` of this path is answered with 2xx.
    Http(String),
    /// Its port accepts a connection.
    Tcp,
}

impl Spec {
    /// Reads the user's declaration; its `build:` is seen from `folder`, where the declaration stands.
    pub fn of(declared: &model::Object<model::Service>, folder: &Path) -> Spec {
        let service = &declared.spec;
        Spec {
            name: declared.name.clone(),
            folder: match &service.build {
                Some(build) => folder.join(build.strip_prefix("./").unwrap_or(build)),
                None => folder.to_owned(),
            },
            prepare: service.prepare.clone(),
            run: service.run.clone(),
            health: service.health.clone().map_or(Health::Tcp, Health::Http),
            port: service.port,
            start_timeout: service.start_timeout,
            stop_timeout: service.stop_timeout,
            needs: service.needs.clone(),
            environment: service.env.clone().into_iter().collect(),
        }
    }
}

/// One service with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// What the user declared.
    pub spec: Spec,
    /// Where it is told to listen, the same for all its restarts.
    pub address: SocketAddr,
    /// The folder for what it must keep between runs.
    pub data: PathBuf,
}

/// What all services are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// Where Kafka clients start: `KAFKA_BOOTSTRAP_SERVERS`.
    pub kafka: String,
    /// The gateway's URL: `NUNCIO_GATEWAY_URL`.
    pub gateway: String,
}

/// All services, checked and placed.
#[derive(Debug)]
pub struct Plan {
    services: Vec<Service>,
    surroundings: Option<Surroundings>,
}

/// Why a set of services cannot run.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Two services share a name.
    #[error("service `{0}` is declared twice")]
    Twice(String),

    /// A service needs one that is not there.
    #[error("service `{service}` needs `{needed}`, which is not declared")]
    NeedsUnknown {
        /// The one that needs.
        service: String,
        /// The one that is missing.
        needed: String,
    },

    /// Services need each other, so that none could start first.
    #[error("services need each other in a circle: {}", .0.join(", "))]
    Circle(Vec<String>),

    /// The machine has no free port.
    #[error("no free port for service `{service}`")]
    NoPort {
        /// The one without.
        service: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Plan {
    /// Checks the services and gives each a port of the loopback and a folder under `data`.
    ///
    /// A port that is chosen here is free now, but not reserved: the system could hand it to another program before
    /// the service takes it, which then shows as the service's own error.
    ///
    /// # Errors
    /// See [`PlanError`].
    pub fn new(specs: Vec<Spec>, data: &Path) -> Result<Plan, PlanError> {
        check_names(&specs)?;
        check_circles(&specs)?;

        // All listeners stay open until the last is bound, so that no two services get the same port.
        let mut listeners = Vec::with_capacity(specs.len());
        let mut services = Vec::with_capacity(specs.len());
        for spec in specs {
            if let Some(port) = spec.port {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                services.push(Service {
                    data: data.join(&spec.name),
                    spec,
                    address,
                });
                continue;
            }
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .and_then(|listener| Ok((listener.local_addr()?, listener)));
            let (address, listener) = match free {
                Ok(free) => free,
                Err(source) => {
                    return Err(PlanError::NoPort {
                        service: spec.name,
                        source,
                    });
                }
            };
            listeners.push(listener);
            services.push(Service {
                data: data.join(&spec.name),
                spec,
                address,
            });
        }
        Ok(Plan {
            services,
            surroundings: None,
        })
    }

    /// Sets what the services are told about the gateway and the broker.
    pub fn surround(&mut self, surroundings: Surroundings) {
        self.surroundings = Some(surroundings);
    }

    /// Returns the services in the order in which they were declared.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// Returns the variables that `service` is started with, beside those of our own process.
    ///
    /// `HOST` and `PORT` say where to listen, `DATA_DIR` where to keep things, `KAFKA_BOOTSTRAP_SERVERS` and
    /// `NUNCIO_GATEWAY_URL` where the broker and the gateway are, and `<NAME>_URL` where each other service is.
    pub fn environment(&self, service: &Service) -> Vec<(String, String)> {
        let mut variables = vec![
            ("HOST".to_owned(), service.address.ip().to_string()),
            ("PORT".to_owned(), service.address.port().to_string()),
            ("DATA_DIR".to_owned(), service.data.display().to_string()),
        ];
        if let Some(surroundings) = &self.surroundings {
            variables.push((
                "KAFKA_BOOTSTRAP_SERVERS".to_owned(),
                surroundings.kafka.clone(),
            ));
            variables.push((
                "NUNCIO_GATEWAY_URL".to_owned(),
                surroundings.gateway.clone(),
            ));
        }
        for other in self
            .services
            .iter()
            .filter(|other| other.spec.name != service.spec.name)
        {
            variables.push((
                url_variable(&other.spec.name),
                format!("http://{}", other.address),
            ));
        }
        variables.extend(service.spec.environment.iter().cloned());
        variables
    }
}

/// Returns `ORDER_BOOK_URL` for `order-book`.
fn url_variable(name: &str) -> String {
    let mut variable: String = name
        .chars()
        .map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect();
    variable.push_str("_URL");
    variable
}

fn check_names(specs: &[Spec]) -> Result<(), PlanError> {
    let mut names = HashSet::with_capacity(specs.len());
    for spec in specs {
        if !names.insert(spec.name.as_str()) {
            return Err(PlanError::Twice(spec.name.clone()));
        }
    }
    for spec in specs {
        if let Some(needed) = spec
            .needs
            .iter()
            .find(|needed| !names.contains(needed.as_str()))
        {
            return Err(PlanError::NeedsUnknown {
                service: spec.name.clone(),
                needed: needed.clone(),
            });
        }
    }
    Ok(())
}

/// Takes away every service whose needs are already away, until nothing moves; what is left goes in circles.
fn check_circles(specs: &[Spec]) -> Result<(), PlanError> {
    let mut left: Vec<&Spec> = specs.iter().collect();
    loop {
        let names: HashSet<&str> = left.iter().map(|spec| spec.name.as_str()).collect();
        let before = left.len();
        left.retain(|spec| {
            spec.needs
                .iter()
                .any(|needed| names.contains(needed.as_str()))
        });
        if left.is_empty() {
            return Ok(());
        }
        if left.len() == before {
            return Err(PlanError::Circle(
                left.iter().map(|spec| spec.name.clone()).collect(),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn spec(declared: &str) -> Spec {
        let mut words = declared.split_whitespace();
        Spec {
            name: words.next().expect("a name comes first").to_owned(),
            folder: PathBuf::from("."),
            prepare: None,
            run: Some("true".to_owned()),
            health: Health::Tcp,
            port: None,
            start_timeout: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(10),
            needs: words.map(str::to_owned).collect(),
            environment: Vec::new(),
        }
    }

    /// Each declaration is a name and then what it needs.
    #[track_caller]
    fn check(declared: &[&str], expected: Expect) {
        let specs = declared.iter().map(|line| spec(line)).collect();
        let said = match Plan::new(specs, &PathBuf::from("data")) {
            Ok(plan) => format!("{} services", plan.services().len()),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn needs_are_checked_before_anything_starts() {
        check(&["a b", "b c", "c"], expect!["3 services"]);
        check(&[], expect!["0 services"]);
        check(&["a", "a"], expect!["service `a` is declared twice"]);
        check(
            &["a", "b x"],
            expect!["service `b` needs `x`, which is not declared"],
        );
        check(&["a a"], expect!["services need each other in a circle: a"]);
        check(
            &["free", "a b", "b c", "c a free"],
            expect!["services need each other in a circle: a, b, c"],
        );
    }

    #[test]
    fn every_service_hears_of_the_others() {
        let specs = vec![spec("order-book"), spec("mailer")];
        let mut plan = Plan::new(specs, &PathBuf::from("data")).expect("two plain services");
        plan.surround(Surroundings {
            kafka: "broker:9092".into(),
            gateway: "http://gate".into(),
        });
        let mailer = &plan.services()[1];
        let told = plan.environment(mailer);

        let book = plan.services()[0].address;
        assert_ne!(book.port(), mailer.address.port());
        let expected = [
            ("HOST", "127.0.0.1".to_owned()),
            ("PORT", mailer.address.port().to_string()),
            ("DATA_DIR", "data/mailer".to_owned()),
            ("KAFKA_BOOTSTRAP_SERVERS", "broker:9092".to_owned()),
            ("NUNCIO_GATEWAY_URL", "http://gate".to_owned()),
            ("ORDER_BOOK_URL", format!("http://{book}")),
        ];
        assert_eq!(told, expected.map(|(name, value)| (name.to_owned(), value)));
    }
}
