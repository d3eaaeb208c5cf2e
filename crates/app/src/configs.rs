//! `nuncio configs`: the settings of topics, brokers and groups of any Kafka-compatible broker.

use anyhow::{Context, bail};
use clap::Subcommand;
use krafka::admin::{
    AdminClient, ConfigEntry, ConfigOp, ConfigResource, DescribeConfigsOptions,
    IncrementalAlterConfigsOptions,
};
use serde_json::{Value, json};

use crate::client::{self, Bootstrap, Told, hint, pair, print_json, row, table};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the settings that differ from the default.
    Describe {
        #[command(flatten)]
        of: Of,
        /// Only these settings.
        names: Vec<String>,
        /// All settings.
        #[arg(long, short = 'a')]
        all: bool,
        /// Say of each setting what it means, where the broker tells.
        #[arg(long)]
        explain: bool,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Set settings.
    Set {
        #[command(flatten)]
        of: Of,
        /// Each as NAME=VALUE.
        #[arg(required = true, value_parser = pair)]
        settings: Vec<(String, String)>,
        /// Ask the broker whether it would, and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Go back to the default of settings.
    Unset {
        #[command(flatten)]
        of: Of,
        #[arg(required = true)]
        names: Vec<String>,
        /// Ask the broker whether it would, and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Add to settings that are lists, such as `cleanup.policy`.
    Append {
        #[command(flatten)]
        of: Of,
        /// Each as NAME=VALUE.
        #[arg(required = true, value_parser = pair)]
        settings: Vec<(String, String)>,
        /// Ask the broker whether it would, and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Take away from settings that are lists.
    Subtract {
        #[command(flatten)]
        of: Of,
        /// Each as NAME=VALUE.
        #[arg(required = true, value_parser = pair)]
        settings: Vec<(String, String)>,
        /// Ask the broker whether it would, and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Whose settings.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Of {
    /// Of a topic.
    #[arg(long, short = 't')]
    topic: Option<String>,
    /// Of a broker by its id, or of `all` brokers.
    #[arg(long)]
    broker: Option<String>,
    /// Of a consumer group.
    #[arg(long, short = 'g')]
    group: Option<String>,
}

impl Of {
    /// Returns whose settings they are, or says what does not exist.
    async fn find(&self, admin: &AdminClient) -> anyhow::Result<ConfigResource> {
        match (&self.topic, &self.broker, &self.group) {
            (Some(topic), ..) => {
                client::topic(admin, topic).await?;
                Ok(ConfigResource::topic(topic))
            }
            (_, Some(broker), _) if broker == "all" => Ok(ConfigResource::broker_default()),
            (_, Some(broker), _) => {
                let id: i32 = broker
                    .parse()
                    .with_context(|| format!("`{broker}` is neither a broker's id nor `all`"))?;
                let cluster = admin.describe_cluster(Default::default()).await.told()?;
                let known: Vec<i32> = cluster.brokers.iter().map(|broker| broker.id).collect();
                if !known.contains(&id) {
                    bail!("there is no broker {id}; there are {known:?}");
                }
                Ok(ConfigResource::broker(id))
            }
            (_, _, Some(group)) => Ok(ConfigResource::group(group)),
            _ => bail!("say --topic, --broker or --group"),
        }
    }

    fn name(&self) -> String {
        match (&self.topic, &self.broker, &self.group) {
            (Some(topic), ..) => format!("topic `{topic}`"),
            (_, Some(broker), _) if broker == "all" => "all brokers".to_owned(),
            (_, Some(broker), _) => format!("broker {broker}"),
            (_, _, group) => format!("group `{}`", group.as_deref().unwrap_or_default()),
        }
    }
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let (_kafka, admin) = arguments.bootstrap.admin().await?;
    match arguments.command {
        Command::Describe {
            of,
            names,
            all,
            explain,
            json,
        } => {
            let mut entries = describe(&admin, &of, explain).await?;
            check_names(&names, &entries)?;
            entries.retain(|entry| match names.is_empty() {
                true => all || differs(entry),
                false => names.contains(&entry.name),
            });
            show(&entries, explain, json);
            Ok(())
        }
        Command::Set {
            of,
            settings,
            dry_run,
        } => {
            let set = settings.into_iter();
            let set = set.map(|(name, value)| ConfigOp::set(name, value));
            change(&admin, &of, set.collect(), dry_run).await
        }
        Command::Unset { of, names, dry_run } => {
            let unset = names.into_iter().map(ConfigOp::delete).collect();
            change(&admin, &of, unset, dry_run).await
        }
        Command::Append {
            of,
            settings,
            dry_run,
        } => {
            let added = settings.into_iter();
            let added = added.map(|(name, value)| ConfigOp::Append { name, value });
            change(&admin, &of, added.collect(), dry_run).await
        }
        Command::Subtract {
            of,
            settings,
            dry_run,
        } => {
            let taken = settings.into_iter();
            let taken = taken.map(|(name, value)| ConfigOp::Subtract { name, value });
            change(&admin, &of, taken.collect(), dry_run).await
        }
    }
}

async fn describe(admin: &AdminClient, of: &Of, explain: bool) -> anyhow::Result<Vec<ConfigEntry>> {
    let resource = of.find(admin).await?;
    let options = DescribeConfigsOptions::default().include_documentation(explain);
    let described = admin.describe_configs([resource], options).await.told()?;
    let mut entries = Vec::new();
    for found in described.into_values() {
        entries.extend(found.told().with_context(|| of.name())?);
    }
    entries.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(entries)
}

/// Says which names are not those of settings.
fn check_names(names: &[String], entries: &[ConfigEntry]) -> anyhow::Result<()> {
    let known: Vec<String> = entries.iter().map(|entry| entry.name.clone()).collect();
    match names.iter().find(|name| !known.contains(name)) {
        Some(unknown) => bail!("there is no setting `{unknown}`{}", hint(unknown, &known)),
        None => Ok(()),
    }
}

async fn change(
    admin: &AdminClient,
    of: &Of,
    changes: Vec<ConfigOp>,
    dry_run: bool,
) -> anyhow::Result<()> {
    let resource = of.find(admin).await?;
    let options = IncrementalAlterConfigsOptions::default().validate_only(dry_run);
    let names: Vec<String> = changes.iter().map(name_of).collect();
    let results = admin
        .incremental_alter_configs([(resource, changes)], options)
        .await
        .told()?;
    for result in results.into_values() {
        if let Err(error) = result.told() {
            // A name that is nearly one of theirs is the usual reason.
            if let Ok(entries) = describe(admin, of, false).await
                && !entries.is_empty()
            {
                check_names(&names, &entries)?;
            }
            return Err(error).with_context(|| format!("{} not changed", of.name()));
        }
    }
    match dry_run {
        true => anstream::println!("{} could be changed", of.name()),
        false => anstream::println!("changed {}", of.name()),
    }
    Ok(())
}

fn name_of(change: &ConfigOp) -> String {
    match change {
        ConfigOp::Set { name, .. }
        | ConfigOp::Delete { name }
        | ConfigOp::Append { name, .. }
        | ConfigOp::Subtract { name, .. } => name.clone(),
        _ => String::new(),
    }
}

fn show(entries: &[ConfigEntry], explain: bool, json: bool) {
    if json {
        print_json(&values(entries));
    } else if explain {
        for entry in entries {
            let value = value(entry).unwrap_or_default();
            anstream::println!("{}={value} ({})", entry.name, source(entry));
            if let Some(told) = &entry.documentation {
                anstream::println!("    {told}");
            }
        }
    } else if entries.is_empty() {
        anstream::println!("nothing differs from the default; --all shows everything");
    } else {
        anstream::print!("{}", settings_table(entries));
    }
}

/// Returns whether somebody has set it.
pub(crate) fn differs(entry: &ConfigEntry) -> bool {
    source(entry) != "default"
}

/// Returns settings as JSON.
pub(crate) fn values(entries: &[ConfigEntry]) -> Value {
    let values = entries.iter().map(|entry| {
        json!({
            "name": entry.name,
            "value": entry.value,
            "source": source(entry),
            "readOnly": entry.read_only,
            "sensitive": entry.is_sensitive,
        })
    });
    values.collect()
}

/// Returns settings as a table.
pub(crate) fn settings_table(entries: &[ConfigEntry]) -> String {
    let mut rows = vec![row(["SETTING", "VALUE", "SET BY"])];
    for entry in entries {
        rows.push(row([
            &entry.name,
            value(entry).unwrap_or_default(),
            source(entry),
        ]));
    }
    table(&rows)
}

fn value(entry: &ConfigEntry) -> Option<&str> {
    match entry.is_sensitive {
        true => Some("(secret)"),
        false => entry.value.as_deref(),
    }
}

/// Returns who has set it, in words for Kafka's `ConfigSource`.
fn source(entry: &ConfigEntry) -> &'static str {
    match entry.config_source {
        1 => "topic",
        2 => "broker",
        3 => "all brokers",
        4 => "broker's file",
        6 => "broker's logger",
        7 => "client metrics",
        8 => "group",
        _ if entry.is_default || entry.config_source == 5 => "default",
        _ => "unknown",
    }
}
