//! What clients may do, where the configuration asks for it: rules on disk, and a look at each request before its API has it.
//!
//! `rules` decides, `guard` knows what each request asks for; the APIs themselves know nothing of it, but for Fetch, whose
//! topics only its session knows.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use self::rules::{CLUSTER, Filter, Kind, Operation, Rule, Rules};
use crate::auth::Principal;
use crate::dispatch::{Call, Client};
use crate::files;

pub(crate) mod guard;
mod network;
pub(crate) mod rules;

/// Most rules: all of them are in memory, and the file is written anew at each change.
const RULES_MAX: usize = 50_000;

/// How it is decided what clients may do, where it is.
#[derive(Debug, Clone, Default)]
pub struct Authorization {
    /// Who may do everything, as `User:NAME` (`super.users`).
    pub super_users: Vec<String>,
    /// Whether everybody may do to a resource what no rule speaks of (`allow.everyone.if.no.acl.found`).
    pub allow_everyone_if_no_acl_found: bool,
}

/// What the configuration says beside the rules.
#[derive(Debug)]
struct Settings {
    super_users: HashSet<String>,
    open: bool,
}

impl Settings {
    fn new(said: &Authorization) -> Arc<Self> {
        Arc::new(Self {
            super_users: said.super_users.iter().cloned().collect(),
            open: said.allow_everyone_if_no_acl_found,
        })
    }
}

/// The rules that are in force.
#[derive(Debug)]
pub(crate) struct Access {
    path: PathBuf,
    settings: RwLock<Arc<Settings>>,
    rules: RwLock<Arc<Rules>>,
    /// Held while the file is written, so that readers need not wait for the disk.
    writing: Mutex<()>,
}

impl Access {
    /// Reads the rules of a data directory.
    pub(crate) fn open(data_dir: &Path, settings: &Authorization) -> io::Result<Self> {
        let path = data_dir.join("acls.json");
        let all = match files::read(&path)? {
            Some(content) => serde_json::from_slice(&content)?,
            None => BTreeSet::new(),
        };
        Ok(Self {
            path,
            settings: RwLock::new(Settings::new(settings)),
            rules: RwLock::new(Arc::new(Rules::new(all))),
            writing: Mutex::new(()),
        })
    }

    /// Takes what the configuration says now.
    pub(crate) fn change(&self, said: &Authorization) {
        *self.settings.write() = Settings::new(said);
    }

    /// Returns the rules that a filter takes.
    pub(crate) fn find(&self, filter: &Filter) -> Vec<Rule> {
        let rules = self.rules.read().clone();
        let found = rules.all().iter().filter(|rule| filter.takes(rule));
        found.cloned().collect()
    }

    /// Adds rules; they are durable when this returns. It waits for the disk.
    pub(crate) fn add(&self, new: Vec<Rule>) -> io::Result<()> {
        let _writing = self.writing.lock();
        let mut all = self.rules.read().all().clone();
        let before = all.len();
        all.extend(new);
        if all.len() > RULES_MAX {
            return Err(io::Error::other(format!("more than {RULES_MAX} rules")));
        }
        match all.len() == before {
            true => Ok(()),
            false => self.store(all),
        }
    }

    /// Removes what each filter takes, and returns it; the change is durable when this returns. It waits for the disk.
    pub(crate) fn remove(&self, filters: &[Filter]) -> io::Result<Vec<Vec<Rule>>> {
        let _writing = self.writing.lock();
        let mut all = self.rules.read().all().clone();
        let take = |filter: &Filter| {
            all.iter()
                .filter(|one| filter.takes(one))
                .cloned()
                .collect()
        };
        let taken: Vec<Vec<Rule>> = filters.iter().map(take).collect();
        if taken.iter().all(Vec::is_empty) {
            return Ok(taken);
        }
        for rule in taken.iter().flatten() {
            all.remove(rule);
        }
        self.store(all)?;
        Ok(taken)
    }

    fn store(&self, all: BTreeSet<Rule>) -> io::Result<()> {
        files::replace_private(&self.path, &serde_json::to_vec_pretty(&all)?)?;
        *self.rules.write() = Arc::new(Rules::new(all));
        Ok(())
    }

    fn is_free(&self, principal: &Principal) -> Option<String> {
        if *principal == Principal::House {
            return None;
        }
        let principal = principal.to_string();
        let settings = self.settings.read();
        (!settings.super_users.contains(&principal)).then_some(principal)
    }
}

impl Client {
    /// Returns whether this client may do something; it may do everything where nothing is asked for.
    pub(crate) fn may(&self, operation: Operation, kind: Kind, name: &str) -> bool {
        let Some(access) = &self.core.access else {
            return true;
        };
        let Some(principal) = access.is_free(&self.principal) else {
            return true;
        };
        let rules = access.rules.read().clone();
        let open = access.settings.read().open;
        let host = self.peer.ip().to_canonical().to_string();
        rules.allow(&principal, &host, operation, kind, name, open)
    }

    /// Returns whether this client may do something to some resource of a kind.
    fn may_somewhere(&self, operation: Operation, kind: Kind) -> bool {
        let Some(access) = &self.core.access else {
            return true;
        };
        let Some(principal) = access.is_free(&self.principal) else {
            return true;
        };
        let rules = access.rules.read().clone();
        let open = access.settings.read().open;
        let host = self.peer.ip().to_canonical().to_string();
        rules.allow_somewhere(&principal, &host, operation, kind, open)
    }

    fn may_cluster(&self, operation: Operation) -> bool {
        self.may(operation, Kind::Cluster, CLUSTER)
    }
}

impl Call {
    /// Returns whether the client of this call may make any topic.
    pub(crate) fn may_create(&self) -> bool {
        self.client.may_cluster(Operation::Create)
    }

    /// Returns whether the client of this call may do something to a topic.
    pub(crate) fn may_topic(&self, operation: Operation, topic: &str) -> bool {
        self.client.may(operation, Kind::Topic, topic)
    }

    /// Returns whether the client of this call may read as a broker that copies.
    pub(crate) fn may_follow(&self) -> bool {
        self.client.may_cluster(Operation::ClusterAction)
    }
}
