//! Topics that the configuration names: missing ones are made, others grow; nothing is deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::{info, warn};

use crate::Broker;
use crate::api::topics::on_disk;
use crate::core::Core;
use crate::topic::Topic;
use crate::topic::registry::{Error, NewTopic};

/// Where a topic is not as the configuration says, and stays so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// The topic.
    pub topic: String,
    /// What differs, in words.
    pub what: String,
}

/// Why a topic could not be made as the configuration says.
#[derive(Debug, thiserror::Error)]
#[error("topic `{topic}`: {why}")]
pub struct EnsureError {
    /// The topic.
    pub topic: String,
    /// What is wrong.
    pub why: String,
}

impl Broker {
    /// Makes the topics that are missing, gives others more partitions and the settings that are said;
    /// tells what cannot be changed. Topics that are not named are left alone.
    pub async fn ensure_topics(
        &self,
        topics: &BTreeMap<String, model::Topic>,
    ) -> Result<Vec<Drift>, EnsureError> {
        let mut drifts = Vec::new();
        for (name, wanted) in topics {
            let ensured = ensure(&self.core, name, wanted).await;
            let drift = ensured.map_err(|error| EnsureError {
                topic: name.clone(),
                why: error.to_string(),
            })?;
            if let Some(what) = drift {
                warn!(topic = %name, what, "topic differs from its configuration");
                let topic = name.clone();
                drifts.push(Drift { topic, what });
            }
        }
        Ok(drifts)
    }
}

async fn ensure(
    core: &Arc<Core>,
    name: &str,
    wanted: &model::Topic,
) -> Result<Option<String>, Error> {
    let partitions = usize::try_from(wanted.partitions).unwrap_or(usize::MAX);
    let overrides = wanted.kafka_config();
    let found = match core.topics.get(name) {
        Some(found) => found,
        None => {
            let new = NewTopic {
                name: name.to_owned(),
                partitions,
                overrides,
            };
            let core = core.clone();
            on_disk(move || core.topics.create(new)).await?;
            return Ok(None);
        }
    };
    configure(core, &found, overrides).await?;
    let now = found.partitions().len();
    if now < partitions {
        let (core, found) = (core.clone(), found.clone());
        on_disk(move || core.topics.grow(&found, partitions)).await?;
    }
    Ok((now > partitions).then(|| {
        format!(
            "it has {now} partitions, {partitions} are configured; partitions are never removed"
        )
    }))
}

/// Sets what is said and leaves what else is set.
async fn configure(
    core: &Arc<Core>,
    found: &Arc<Topic>,
    wanted: BTreeMap<String, String>,
) -> Result<(), Error> {
    let now = found.overrides();
    let mut next = now.clone();
    next.extend(wanted);
    if next == now {
        return Ok(());
    }
    info!(topic = %found.name, "topic settings changed");
    let (core, found) = (core.clone(), found.clone());
    on_disk(move || core.topics.configure(&found, next)).await
}
