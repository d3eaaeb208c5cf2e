//! What the commands that speak to a broker share: its address, a connection, its answers in words.

mod ask;
mod partitions;
mod secret;
mod security;
mod table;
mod told;

use std::time::Duration;

use anyhow::{Context, bail};
use jiff::Timestamp;
use krafka::admin::{AdminClient, ListTopicsOptions, TopicDescription};
use krafka::{Kafka, KrafkaError};

use self::security::Security;
pub(crate) use ask::{To, ask, coordinator};
pub(crate) use partitions::{Partition, Partitions};
pub(crate) use secret::new_password;
pub(crate) use table::{row, table};
pub(crate) use told::{Told, checked, each, is_unknown_topic};

/// Where a broker is when nobody says.
const BOOTSTRAP: &str = "127.0.0.1:9092";

/// Which broker a command speaks to.
#[derive(clap::Args)]
pub(crate) struct Bootstrap {
    /// Address of any Kafka-compatible broker, comma-separated for several; 127.0.0.1:9092 when nothing is said.
    #[arg(long, short = 'b', env = "KAFKA_BOOTSTRAP_SERVERS", global = true)]
    bootstrap: Option<String>,
    /// How long one question to the broker may take.
    #[arg(long, default_value = "30s", value_parser = kit::human::duration, global = true)]
    timeout: Duration,
    #[command(flatten)]
    security: Security,
}

impl Bootstrap {
    /// Connects, or says which address did not answer.
    pub(crate) async fn connect(&self) -> anyhow::Result<Kafka> {
        let secured = self.security.read()?;
        let bootstrap = self.bootstrap.clone().or(secured.bootstrap);
        let bootstrap = bootstrap.as_deref().unwrap_or(BOOTSTRAP);
        let connecting = Kafka::builder(bootstrap)
            .security(secured.auth)
            .client_id("nuncio-cli")
            .request_timeout(self.timeout)
            .connect_timeout(self.timeout)
            .allow_auto_create_topics(false);
        let why = match tokio::time::timeout(self.timeout, connecting.connect()).await {
            Ok(Ok(kafka)) => return Ok(kafka),
            Ok(Err(error)) if is_refused(&error) => {
                let why = anyhow::Error::from(error).root_cause().to_string();
                bail!("no entry at {bootstrap}: {why}");
            }
            // The client library says the same at each level; the last one says what happened.
            Ok(Err(error)) => anyhow::Error::from(error).root_cause().to_string(),
            Err(_) => format!("nothing within {}", kit::human::duration_text(self.timeout)),
        };
        bail!(
            "no broker answers at {bootstrap}: {why}; is `nuncio serve` running? (--bootstrap names another)"
        )
    }

    /// Connects as an administrator, each of whose questions ends in time.
    pub(crate) async fn admin(&self) -> anyhow::Result<(Kafka, AdminClient)> {
        let kafka = self.connect().await?;
        let admin = self.admin_of(&kafka);
        Ok((kafka, admin))
    }

    /// Returns the administrator's side of a connection.
    pub(crate) fn admin_of(&self, kafka: &Kafka) -> AdminClient {
        kafka.admin().default_api_timeout(self.timeout)
    }
}

/// Returns whether a broker answered, and did not believe who we are.
fn is_refused(error: &KrafkaError) -> bool {
    matches!(error, KrafkaError::Auth { .. })
}

/// Describes one topic; a name that does not exist is told with the names that are like it.
pub(crate) async fn topic(admin: &AdminClient, name: &str) -> anyhow::Result<TopicDescription> {
    let mut described = admin
        .describe_topics([name], Default::default())
        .await
        .told()?;
    let topic = described
        .remove(name)
        .context("the broker did not answer for the topic")?;
    match topic {
        Ok(topic) => Ok(topic),
        Err(error) if told::is_unknown_topic(&error) => {
            let names = admin
                .list_topics(ListTopicsOptions::default().include_internal(true))
                .await
                .told()?;
            bail!("there is no topic `{name}`{}", hint(name, &names))
        }
        Err(error) => Err(told::words(error)).with_context(|| format!("topic `{name}`")),
    }
}

/// Returns what was probably meant, as the rest of a sentence.
pub(crate) fn hint(name: &str, known: &[String]) -> String {
    match nearest(name, known) {
        Some(near) => format!("; did you mean `{near}`?"),
        None => String::new(),
    }
}

fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    let plain = name.to_lowercase();
    let alike = known.iter().map(|word| {
        let distance = strsim::damerau_levenshtein(&plain, &word.to_lowercase());
        (distance, word.as_str())
    });
    alike
        .filter(|(distance, word)| {
            *distance <= 1.max(word.len() / 3) && *distance < name.len().min(word.len())
        })
        .min()
        .map(|(_, word)| word)
}

/// Returns the time in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// Writes milliseconds since 1970 as a date and time in UTC, `-` when there are none.
pub(crate) fn time_text(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) if ms >= 0 => format!("{time:.3}"),
        _ => "-".to_owned(),
    }
}

/// Prints one JSON value, indented.
pub(crate) fn print_json(value: &serde_json::Value) {
    anstream::println!("{value:#}");
}

/// Parses `NAME=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_that_is_alike_is_proposed() {
        let known = ["orders.placed", "orders.paid", "x"].map(str::to_owned);
        assert_eq!(nearest("order.placed", &known), Some("orders.placed"));
        assert_eq!(nearest("Orders.Paid", &known), Some("orders.paid"));
        assert_eq!(nearest("shipments", &known), None);
        assert_eq!(nearest("y", &known), None);
    }

    #[test]
    fn times_are_told_in_utc() {
        assert_eq!(time_text(1_732_355_000_123), "2024-11-23T09:43:20.123Z");
        assert_eq!(time_text(-1), "-");
    }
}
