//! `nuncio acls`: rules of who may do what, at any Kafka-compatible broker.

mod words;

use anyhow::bail;
use clap::Subcommand;
use kafka::messages::create_acls::{AclCreation, CreateAclsRequest};
use kafka::messages::delete_acls::{DeleteAclsFilter, DeleteAclsRequest};
use kafka::messages::describe_acls::DescribeAclsRequest;
use krafka::Kafka;
use serde_json::json;

use self::words::{
    ALLOW, ANY, CLUSTER, DELEGATION_TOKEN, DENY, GROUP, LITERAL, TOPIC, TRANSACTIONAL_ID, USER,
};
use crate::client::{Bootstrap, To, ask, checked, print_json, row, table};

/// The name of the cluster as a resource.
const THE_CLUSTER: &str = "kafka-cluster";
const MATCH: i8 = 2;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Rules, all of them or those that a filter takes.
    List {
        #[command(flatten)]
        filter: Filter,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Add rules: each operation on each resource, for each principal from each host.
    Add(New),
    /// Remove the rules that a filter takes.
    Remove {
        #[command(flatten)]
        filter: Filter,
        /// All rules there are.
        #[arg(long)]
        all: bool,
        /// Show what would be removed, and change nothing.
        #[arg(long)]
        dry_run: bool,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
}

/// What rules speak of.
#[derive(clap::Args)]
struct Resources {
    /// A topic, or `*`.
    #[arg(long, short = 't', value_name = "NAME")]
    topic: Vec<String>,
    /// A consumer group, or `*`.
    #[arg(long, short = 'g', value_name = "NAME")]
    group: Vec<String>,
    /// A transactional id, or `*`.
    #[arg(long, value_name = "NAME")]
    transactional_id: Vec<String>,
    /// The cluster.
    #[arg(long)]
    cluster: bool,
    /// A delegation token.
    #[arg(long, value_name = "NAME")]
    delegation_token: Vec<String>,
    /// A user, such as `User:alice`, for whom tokens are made and described.
    #[arg(long, value_name = "PRINCIPAL")]
    user_principal: Vec<String>,
}

impl Resources {
    fn all(&self) -> Vec<(i8, String)> {
        let named = [
            (TOPIC, &self.topic),
            (GROUP, &self.group),
            (TRANSACTIONAL_ID, &self.transactional_id),
            (DELEGATION_TOKEN, &self.delegation_token),
            (USER, &self.user_principal),
        ];
        let named = named
            .into_iter()
            .flat_map(|(kind, names)| names.iter().map(move |name| (kind, name.clone())));
        let cluster = self.cluster.then(|| (CLUSTER, THE_CLUSTER.to_owned()));
        named.chain(cluster).collect()
    }
}

#[derive(clap::Args)]
struct Filter {
    #[command(flatten)]
    resources: Resources,
    /// Only of this kind: topic, group, cluster, transactional-id, delegation-token or user.
    #[arg(long = "type", value_parser = words::kind, conflicts_with_all = ["topic", "group", "transactional_id", "cluster", "delegation_token", "user_principal"])]
    kind: Option<i8>,
    /// Only rules that name resources so: literal, prefixed, any, or `match` for all that concern a resource of the name.
    ///
    /// Where a resource is named, `list` shows all that concern it, and `remove` takes the rules of exactly that name.
    #[arg(long, value_parser = words::pattern)]
    pattern: Option<i8>,
    /// Only for this principal, such as `User:alice`.
    #[arg(long, value_parser = words::principal)]
    principal: Option<String>,
    /// Only from this host, as the rule writes it.
    #[arg(long)]
    host: Option<String>,
    /// Only of this operation, such as read.
    #[arg(long, value_parser = words::operation)]
    operation: Option<i8>,
    /// Only rules that allow, or deny.
    #[arg(long, value_parser = words::permission)]
    permission: Option<i8>,
}

impl Filter {
    /// Returns whether it takes every rule.
    fn is_empty(&self) -> bool {
        self.resources.all().is_empty()
            && self.kind.is_none()
            && self.pattern.is_none()
            && self.principal.is_none()
            && self.host.is_none()
            && self.operation.is_none()
            && self.permission.is_none()
    }

    /// Returns a filter for each resource that is named, in the protocol's words.
    fn wire(&self, pattern_of_named: i8) -> Vec<DeleteAclsFilter> {
        let filter = |kind, name: Option<String>, pattern| DeleteAclsFilter {
            resource_type_filter: kind,
            resource_name_filter: name,
            pattern_type_filter: self.pattern.unwrap_or(pattern),
            principal_filter: self.principal.clone(),
            host_filter: self.host.clone(),
            operation: self.operation.unwrap_or(ANY),
            permission_type: self.permission.unwrap_or(ANY),
        };
        let named = self.resources.all();
        if named.is_empty() {
            return vec![filter(self.kind.unwrap_or(ANY), None, ANY)];
        }
        let named = named.into_iter();
        named
            .map(|(kind, name)| filter(kind, Some(name), pattern_of_named))
            .collect()
    }
}

/// Rules to be made.
#[derive(clap::Args)]
struct New {
    #[command(flatten)]
    resources: Resources,
    /// How resources are named: literal, or prefixed for all whose names begin so.
    #[arg(long, default_value = "literal", value_parser = words::pattern)]
    pattern: i8,
    /// For whom, such as `User:alice`, or `User:*` for everybody.
    #[arg(long, required = true, value_parser = words::principal)]
    principal: Vec<String>,
    /// From which address; `*`, all, when nothing is said. This broker takes networks too, such as 10.0.0.0/8 (KIP-1276).
    #[arg(long, default_value = "*", value_delimiter = ',')]
    host: Vec<String>,
    /// What: read, write, create, delete, alter, describe, describe-configs, alter-configs, cluster-action, idempotent-write, all.
    #[arg(long, required = true, value_delimiter = ',', value_parser = words::operation)]
    operation: Vec<i8>,
    /// Deny it, which goes before all that allows it.
    #[arg(long)]
    deny: bool,
}

/// A rule that is there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rule {
    kind: i8,
    name: String,
    pattern: i8,
    principal: String,
    host: String,
    operation: i8,
    permission: i8,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::List { filter, json } => {
            let kafka = arguments.bootstrap.connect().await?;
            let rules = find(&kafka, &filter.wire(MATCH)).await?;
            show(&rules, json);
            Ok(())
        }
        Command::Add(new) => add(&arguments.bootstrap, new).await,
        Command::Remove {
            filter,
            all,
            dry_run,
            json,
        } => {
            if filter.is_empty() && !all {
                bail!("that would remove all rules; say which, or --all");
            }
            let kafka = arguments.bootstrap.connect().await?;
            let filters = filter.wire(LITERAL);
            let rules = match dry_run {
                true => find(&kafka, &filters).await?,
                false => remove(&kafka, filters).await?,
            };
            if !json {
                let (count, what) = match (rules.len(), dry_run) {
                    (0, _) => bail!("no such rule"),
                    (count, true) => (count, "would be removed"),
                    (count, false) => (count, "removed"),
                };
                anstream::println!("{what}: {count}");
            }
            show(&rules, json);
            Ok(())
        }
    }
}

async fn find(kafka: &Kafka, filters: &[DeleteAclsFilter]) -> anyhow::Result<Vec<Rule>> {
    let mut rules = Vec::new();
    for filter in filters {
        let request = DescribeAclsRequest {
            resource_type_filter: filter.resource_type_filter,
            resource_name_filter: filter.resource_name_filter.clone(),
            pattern_type_filter: filter.pattern_type_filter,
            principal_filter: filter.principal_filter.clone(),
            host_filter: filter.host_filter.clone(),
            operation: filter.operation,
            permission_type: filter.permission_type,
        };
        let answer = ask(kafka, To::Controller, &request).await?;
        checked(answer.error_code, answer.error_message.as_deref())?;
        for resource in answer.resources {
            rules.extend(resource.acls.into_iter().map(|rule| Rule {
                kind: resource.resource_type,
                name: resource.resource_name.clone(),
                pattern: resource.pattern_type,
                principal: rule.principal,
                host: rule.host,
                operation: rule.operation,
                permission: rule.permission_type,
            }));
        }
    }
    rules.sort();
    rules.dedup();
    Ok(rules)
}

async fn remove(kafka: &Kafka, filters: Vec<DeleteAclsFilter>) -> anyhow::Result<Vec<Rule>> {
    let answer = ask(kafka, To::Controller, &DeleteAclsRequest { filters }).await?;
    let mut rules = Vec::new();
    for result in answer.filter_results {
        checked(result.error_code, result.error_message.as_deref())?;
        for rule in result.matching_acls {
            checked(rule.error_code, rule.error_message.as_deref())?;
            rules.push(Rule {
                kind: rule.resource_type,
                name: rule.resource_name,
                pattern: rule.pattern_type,
                principal: rule.principal,
                host: rule.host,
                operation: rule.operation,
                permission: rule.permission_type,
            });
        }
    }
    rules.sort();
    rules.dedup();
    Ok(rules)
}

async fn add(bootstrap: &Bootstrap, new: New) -> anyhow::Result<()> {
    let resources = new.resources.all();
    if resources.is_empty() {
        bail!("say of what: --topic, --group, --transactional-id or --cluster");
    }
    let permission = if new.deny { DENY } else { ALLOW };
    let mut rules = Vec::new();
    for (kind, name) in &resources {
        for principal in &new.principal {
            for host in &new.host {
                rules.extend(new.operation.iter().map(|operation| Rule {
                    kind: *kind,
                    name: name.clone(),
                    // There is one cluster.
                    pattern: if *kind == CLUSTER {
                        LITERAL
                    } else {
                        new.pattern
                    },
                    principal: principal.clone(),
                    host: host.clone(),
                    operation: *operation,
                    permission,
                }));
            }
        }
    }
    let creations = rules.iter().map(|rule| AclCreation {
        resource_type: rule.kind,
        resource_name: rule.name.clone(),
        resource_pattern_type: rule.pattern,
        principal: rule.principal.clone(),
        host: rule.host.clone(),
        operation: rule.operation,
        permission_type: rule.permission,
    });
    let request = CreateAclsRequest {
        creations: creations.collect(),
    };
    let kafka = bootstrap.connect().await?;
    let answer = ask(&kafka, To::Controller, &request).await?;
    let mut failed = 0;
    for (rule, result) in rules.iter().zip(&answer.results) {
        match checked(result.error_code, result.error_message.as_deref()) {
            Ok(()) => anstream::println!("added {}", sentence(rule)),
            Err(why) => {
                failed += 1;
                anstream::eprintln!("{}: {why}", sentence(rule));
            }
        }
    }
    if failed > 0 {
        bail!("{failed} not added");
    }
    Ok(())
}

/// Says a rule: `ALLOW User:alice READ on TOPIC orders- (PREFIXED) from *`.
fn sentence(rule: &Rule) -> String {
    format!(
        "{} {} {} on {} {} ({}) from {}",
        words::permission_name(rule.permission),
        rule.principal,
        words::operation_name(rule.operation),
        words::kind_name(rule.kind),
        rule.name,
        words::pattern_name(rule.pattern),
        rule.host,
    )
}

fn show(rules: &[Rule], json: bool) {
    if json {
        let values = rules.iter().map(|rule| {
            json!({
                "resourceType": words::kind_name(rule.kind),
                "name": rule.name,
                "pattern": words::pattern_name(rule.pattern),
                "principal": rule.principal,
                "host": rule.host,
                "operation": words::operation_name(rule.operation),
                "permission": words::permission_name(rule.permission),
            })
        });
        return print_json(&values.collect());
    }
    let mut rows = vec![row([
        "TYPE",
        "NAME",
        "PATTERN",
        "PRINCIPAL",
        "HOST",
        "PERMISSION",
        "OPERATION",
    ])];
    rows.extend(rules.iter().map(|rule| {
        row([
            &words::kind_name(rule.kind),
            &rule.name,
            &words::pattern_name(rule.pattern),
            &rule.principal,
            &rule.host,
            &words::permission_name(rule.permission),
            &words::operation_name(rule.operation),
        ])
    }));
    anstream::print!("{}", table(&rows));
}
