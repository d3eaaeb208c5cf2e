//! What is done to a request besides choosing its route: the policies of the route, where they are not as usual, and the
//! service as a running process sees it. Nothing is sent.

mod endpoint;
mod headers;
mod live;
mod policies;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, Method};
use model::{Config, Mapping, Object};
use serde::{Deserialize, Serialize};

use crate::Gateway;
use crate::backend::Backend;
use crate::policy::cors::{self, Cors};
use crate::policy::guards::Guards;
use crate::route::explain::{Destination, Explanation, Outcome, Preflight, Question, Taker};
use crate::route::{Found, Request, Table, Target};
use crate::upstream::cluster::Cluster;

pub use live::{Limit, Live, LiveEndpoint, State};

/// One thing that is done to a request or its answer, because somebody said so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// What it is about, in one word: `timeout`, `retry`.
    pub policy: String,
    /// What is done.
    pub told: String,
    /// Who said so.
    pub said_by: Said,
}

/// Who has said something about a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// The Mapping itself.
    Mapping,
    /// Another Mapping that shares its requests by weight.
    Group,
    /// The Module.
    Module,
}

impl Policy {
    pub(crate) fn new(policy: &str, told: impl Into<String>, said_by: Said) -> Self {
        Policy {
            policy: policy.to_owned(),
            told: told.into(),
            said_by,
        }
    }
}

impl fmt::Display for Policy {
    /// One line.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said_by = match self.said_by {
            Said::Mapping => "",
            Said::Group => " (as another Mapping of its group says)",
            Said::Module => " (as the Module says)",
        };
        writeln!(out, "  {:7} {}{said_by}", self.policy, self.told)
    }
}

/// Answers the question from the configuration alone.
pub fn explain(config: &Config, table: &Table, question: &Question) -> Explanation {
    let running = |_: &str| None;
    Explainer {
        config,
        table,
        question,
        running: &running,
    }
    .explain()
}

impl Gateway {
    /// Answers the question from the configuration and from what runs.
    pub fn explain(&self, config: &Config, question: &Question) -> Explanation {
        let (table, _) = Table::build(config);
        let running = |name: &str| self.cluster_of(name);
        Explainer {
            config,
            table: &table,
            question,
            running: &running,
        }
        .explain()
    }

    /// Returns the running cluster behind a Mapping.
    fn cluster_of(&self, route: &str) -> Option<Arc<Cluster>> {
        let running = self.running();
        running.listeners.values().find_map(|listener| {
            let front = listener.front.load();
            front.routes.iter().find_map(|built| match &built.backend {
                Backend::Service(cluster) if *built.name == *route => Some(cluster.clone()),
                _ => None,
            })
        })
    }
}

struct Explainer<'a> {
    config: &'a Config,
    table: &'a Table,
    question: &'a Question,
    /// Returns the running cluster behind a Mapping, where something runs.
    running: &'a dyn Fn(&str) -> Option<Arc<Cluster>>,
}

impl Explainer<'_> {
    fn explain(&self) -> Explanation {
        let mut explanation =
            crate::route::explain::explain(self.config, self.table, self.question);
        if matches!(explanation.outcome, Outcome::Refused { .. }) {
            return explanation;
        }
        if let Some(answer) = self.preflight(&explanation.path) {
            explanation.outcome = Outcome::Preflight(answer);
            return explanation;
        }
        let path = explanation.path.clone();
        if let Outcome::Routed(takers) = &mut explanation.outcome {
            for taker in takers {
                self.fill(taker, &path);
            }
        }
        explanation
    }

    /// The gateway answers preflights where the route for the question, or for what is asked about, has rules.
    fn preflight(&self, path: &str) -> Option<Preflight> {
        let question = self.question;
        if !cors::is_preflight(&question.method, &question.headers) {
            return None;
        }
        let about = cors::requested_method(&question.headers)?;
        let (target, name, cors) = self
            .ruled(path, &question.method)
            .or_else(|| self.ruled(path, &about))?;
        let answer = cors.preflight(&question.headers);
        Some(Preflight {
            route: name,
            origin: self.origin(target),
            headers: lines(answer.headers()),
        })
    }

    fn ruled(&self, path: &str, method: &Method) -> Option<(Target, String, Cors)> {
        let question = self.question;
        let request = Request {
            authority: &question.authority,
            path,
            query: question.query.as_deref(),
            method,
            headers: &question.headers,
            secure: question.secure,
        };
        let Found::Route(found) = self.table.find(&request, || 0) else {
            return None;
        };
        let target = found.route.target();
        let own = match target {
            Target::Mapping(index) => self.config.mappings[index].spec.cors.as_ref(),
            Target::Publish(_) => None,
        };
        let said = own.or(self.config.module.cors.as_ref())?;
        Some((target, found.route.name().to_owned(), Cors::new(said)))
    }

    fn origin(&self, target: Target) -> String {
        match target {
            Target::Mapping(index) => self.config.mappings[index].origin.to_string(),
            Target::Publish(index) => self.config.publish[index].origin.to_string(),
        }
    }

    fn fill(&self, taker: &mut Taker, path: &str) {
        let mut policies = policies::of_all(self.config);
        let bypasses = match taker.target {
            Some(Target::Mapping(index)) => self.config.mappings[index].spec.bypass_auth,
            Some(Target::Publish(_)) => false,
            None => return,
        };
        let passes_on = !matches!(taker.destination, Destination::Redirect { .. });
        let guards = Guards::new(&self.config.guards);
        if passes_on
            && !bypasses
            && let Some(guard) = guards.refuses(&self.question.authority, path)
        {
            taker.destination = Destination::Refused {
                status: 500,
                why: format!("{guard} wants somebody to be asked first, which Nuncio cannot do"),
            };
            taker.policies.clear();
            return;
        }
        if let Some(Target::Mapping(index)) = taker.target
            && matches!(taker.destination, Destination::Service { .. })
        {
            let mapping = &self.config.mappings[index];
            let peers = self.peers(mapping);
            let (headers, method) = (&self.question.headers, &self.question.method);
            policies.extend(policies::of(self.config, mapping, headers, method));
            let (changes, headers) = headers::of(self.config, mapping, &peers, self.question);
            policies.extend(changes);
            let cluster = (self.running)(&taker.route);
            policies.extend(endpoint::of(
                self.config,
                mapping,
                cluster.as_deref(),
                &headers,
                self.question.client,
            ));
            taker.live = cluster.map(|cluster| Live::of(&cluster, mapping.spec.priority));
        }
        policies.append(&mut taker.policies);
        taker.policies = policies;
    }

    /// Returns the other Mappings of the same group.
    fn peers(&self, mapping: &Object<Mapping>) -> Vec<&Mapping> {
        let name = mapping.full_name();
        let id = self
            .table
            .routes()
            .find(|route| route.name() == name && matches!(route.target(), Target::Mapping(_)));
        let companions = self.table.companions();
        let ids = id.and_then(|route| companions.get(&route.id));
        let targets = ids
            .into_iter()
            .flatten()
            .map(|id| self.table.route(*id).target());
        targets
            .filter_map(|target| match target {
                Target::Mapping(index) => Some(&self.config.mappings[index].spec),
                Target::Publish(_) => None,
            })
            .collect()
    }
}

fn lines(headers: &HeaderMap) -> Vec<String> {
    let line = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
    };
    headers.iter().map(line).collect()
}
