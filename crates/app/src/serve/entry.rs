//! Who may come in and do what, kept in step with the configuration while the broker runs.

use broker::Broker;
use model::Broker as Settings;
use tokio::sync::Mutex;
use tracing::{error, info, warn};

use super::kafka;

/// What the broker runs with.
pub(super) struct Entry {
    /// What it was started with: most of it holds until its end.
    started: Settings,
    /// Users and rights that are in force.
    taken: Mutex<Settings>,
}

impl Entry {
    pub(super) fn new(started: &Settings) -> Self {
        Self {
            started: started.clone(),
            taken: Mutex::new(started.clone()),
        }
    }

    /// Takes over users and rights, and tells what needs a restart.
    pub(super) async fn apply(&self, broker: Option<&Broker>, wanted: &Settings) {
        let mut taken = self.taken.lock().await;
        if *wanted == *taken {
            return;
        }
        let mut next = wanted.clone();
        if let Some(broker) = broker {
            if wanted.users != taken.users {
                match take_users(broker, wanted).await {
                    Ok(()) => info!(users = wanted.users.len(), "users changed"),
                    Err(error) => {
                        error!(error = format!("{error:#}"), "users not changed");
                        // They are tried again with the next configuration.
                        next.users.clone_from(&taken.users);
                    }
                }
            }
            if wanted.authorization != taken.authorization
                && broker.change_authorization(kafka::authorization(wanted).as_ref())
            {
                info!("super users changed");
            }
        }
        let stale = stale(&self.started, wanted);
        if !stale.is_empty() {
            warn!(
                settings = stale.join(", "),
                "settings of the broker have changed that need a restart"
            );
        }
        *taken = next;
    }
}

async fn take_users(broker: &Broker, wanted: &Settings) -> anyhow::Result<()> {
    broker.change_users(kafka::users(wanted)?).await?;
    Ok(())
}

/// Names what only a start takes over.
fn stale(started: &Settings, wanted: &Settings) -> Vec<String> {
    // Users come and go; rights may change, but not begin or end.
    let comparable = |settings: &Settings| {
        let mut settings = settings.clone();
        settings.users.clear();
        settings.authorization = settings.authorization.map(|_| Default::default());
        match serde_json::to_value(settings) {
            Ok(serde_json::Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        }
    };
    let (started, wanted) = (comparable(started), comparable(wanted));
    let mut names: Vec<String> = started.keys().chain(wanted.keys()).cloned().collect();
    names.sort();
    names.dedup();
    names.retain(|name| started.get(name) != wanted.get(name));
    names
}

#[cfg(test)]
mod tests {
    use model::broker::{BrokerAuthorization, BrokerUser};

    use super::*;

    #[test]
    fn only_what_cannot_change_is_named() {
        let started = Settings::default();
        let mut wanted = started.clone();
        wanted.users.push(BrokerUser {
            name: "alice".into(),
            password_file: None,
            password_env: Some("ALICE".into()),
        });
        assert!(stale(&started, &wanted).is_empty());
        wanted.create_topics = !wanted.create_topics;
        wanted.authorization = Some(BrokerAuthorization::default());
        assert_eq!(stale(&started, &wanted), ["authorization", "create_topics"]);
        let started = wanted.clone();
        wanted.authorization = Some(BrokerAuthorization {
            super_users: vec!["User:alice".into()],
            ..BrokerAuthorization::default()
        });
        assert!(stale(&started, &wanted).is_empty());
    }
}
