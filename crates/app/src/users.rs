//! `nuncio users`: who proves with SCRAM who he is, at any Kafka-compatible broker.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;

use anyhow::{Context, bail};
use aws_lc_rs::{pbkdf2, rand};
use clap::Subcommand;
use kafka::messages::alter_user_scram_credentials::{
    AlterUserScramCredentialsRequest, ScramCredentialDeletion, ScramCredentialUpsertion,
};
use kafka::messages::describe_user_scram_credentials::{
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResult, UserName,
};
use krafka::Kafka;
use serde_json::json;

use crate::client::{Bootstrap, To, ask, checked, new_password, print_json, row, table};

/// Bytes of salt of a new password.
const SALT_BYTES: usize = 24;
/// How often a password is hashed when nothing is said.
const ITERATIONS: &str = "8192";
/// Kafka's code for a user without credentials.
const RESOURCE_NOT_FOUND: i16 = 91;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Users with the mechanisms that they can prove themselves by.
    List {
        /// Only these users.
        names: Vec<String>,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Add a user, or change a user's password.
    ///
    /// The password is typed twice without being shown, or is the first line of the standard input where that is no terminal. It is
    /// never an argument: other users of the machine could see it.
    #[command(visible_alias = "add")]
    Set {
        name: String,
        /// SCRAM-SHA-256 or SCRAM-SHA-512; both may be named.
        #[arg(long, default_value = "SCRAM-SHA-512", value_delimiter = ',')]
        mechanism: Vec<Mechanism>,
        /// How often the password is hashed: what it costs to guess it, and to log in.
        #[arg(long, default_value = ITERATIONS, value_parser = clap::value_parser!(u32).range(4096..=16384))]
        iterations: u32,
        /// File with the new password, `-` for the standard input.
        #[arg(long, value_name = "FILE")]
        new_password_file: Option<PathBuf>,
    },
    /// Remove users, or one of their mechanisms.
    Remove {
        #[arg(required = true)]
        names: Vec<String>,
        /// Only this mechanism; all that a user has when nothing is said.
        #[arg(long, value_delimiter = ',')]
        mechanism: Vec<Mechanism>,
    },
}

/// How a user proves who he is, by Kafka's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mechanism {
    Sha256 = 1,
    Sha512 = 2,
}

impl std::str::FromStr for Mechanism {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_uppercase().as_str() {
            "SCRAM-SHA-256" => Ok(Mechanism::Sha256),
            "SCRAM-SHA-512" => Ok(Mechanism::Sha512),
            _ => Err("write SCRAM-SHA-256 or SCRAM-SHA-512".to_owned()),
        }
    }
}

/// Returns the name of a mechanism by its number.
fn name_of(mechanism: i8) -> String {
    match mechanism {
        1 => "SCRAM-SHA-256".to_owned(),
        2 => "SCRAM-SHA-512".to_owned(),
        other => format!("mechanism {other}"),
    }
}

impl Mechanism {
    fn salted(self, password: &str, salt: &[u8], iterations: NonZeroU32) -> Vec<u8> {
        let (algorithm, length) = match self {
            Mechanism::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
            Mechanism::Sha512 => (pbkdf2::PBKDF2_HMAC_SHA512, 64),
        };
        let mut out = vec![0; length];
        pbkdf2::derive(algorithm, iterations, salt, password.as_bytes(), &mut out);
        out
    }
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let bootstrap = arguments.bootstrap;
    match arguments.command {
        Command::List { names, json } => list(&bootstrap.connect().await?, &names, json).await,
        Command::Set {
            name,
            mechanism,
            iterations,
            new_password_file,
        } => {
            // Before anything is connected: who types takes his time.
            let password = new_password(new_password_file.as_deref())?;
            let iterations = NonZeroU32::new(iterations).context("no iterations")?;
            let upserts = credentials(&name, mechanism, iterations, &password)?;
            let kafka = bootstrap.connect().await?;
            alter(&kafka, "set", Vec::new(), upserts).await
        }
        Command::Remove { names, mechanism } => {
            let kafka = bootstrap.connect().await?;
            let deletions = deletions(&kafka, &names, &mechanism).await?;
            alter(&kafka, "removed", deletions, Vec::new()).await
        }
    }
}

fn credentials(
    name: &str,
    mut mechanisms: Vec<Mechanism>,
    iterations: NonZeroU32,
    password: &str,
) -> anyhow::Result<Vec<ScramCredentialUpsertion>> {
    mechanisms.sort_unstable();
    mechanisms.dedup();
    let mut upserts = Vec::new();
    for mechanism in mechanisms {
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt)
            .ok()
            .context("no random numbers for a salt")?;
        let salted = mechanism.salted(password, &salt, iterations);
        upserts.push(ScramCredentialUpsertion {
            name: name.to_owned(),
            mechanism: mechanism as i8,
            iterations: i32::try_from(iterations.get())?,
            salt: salt.to_vec().into(),
            salted_password: salted.into(),
        });
    }
    Ok(upserts)
}

async fn described(
    kafka: &Kafka,
    names: &[String],
) -> anyhow::Result<Vec<DescribeUserScramCredentialsResult>> {
    let asked = names.iter().map(|name| UserName { name: name.clone() });
    let request = DescribeUserScramCredentialsRequest {
        users: (!names.is_empty()).then(|| asked.collect()),
    };
    let answer = ask(kafka, To::Controller, &request).await?;
    checked(answer.error_code, answer.error_message.as_deref())?;
    let mut results = answer.results;
    results.sort_by(|left, right| left.user.cmp(&right.user));
    for result in &mut results {
        result.credential_infos.sort_by_key(|info| info.mechanism);
    }
    Ok(results)
}

async fn list(kafka: &Kafka, names: &[String], json: bool) -> anyhow::Result<()> {
    let mut rows = vec![row(["USER", "MECHANISM", "ITERATIONS"])];
    let mut values = Vec::new();
    for found in described(kafka, names).await? {
        match found.error_code {
            RESOURCE_NOT_FOUND => bail!("there is no user `{}`", found.user),
            code => checked(code, found.error_message.as_deref())
                .with_context(|| format!("user `{}`", found.user))?,
        }
        let credentials = found.credential_infos.iter().map(
            |info| json!({ "mechanism": name_of(info.mechanism), "iterations": info.iterations }),
        );
        values.push(json!({ "user": found.user, "credentials": credentials.collect::<Vec<_>>() }));
        rows.extend(found.credential_infos.iter().map(|info| {
            let (mechanism, iterations) = (name_of(info.mechanism), info.iterations.to_string());
            row([&found.user, &mechanism, &iterations])
        }));
    }
    match json {
        true => print_json(&values.into()),
        false => anstream::print!("{}", table(&rows)),
    }
    Ok(())
}

/// Returns what is to be removed: what is named, or everything that each user has.
async fn deletions(
    kafka: &Kafka,
    names: &[String],
    mechanisms: &[Mechanism],
) -> anyhow::Result<Vec<ScramCredentialDeletion>> {
    let mut deletions = Vec::new();
    let deletion = |name: &str, mechanism| ScramCredentialDeletion {
        name: name.to_owned(),
        mechanism,
    };
    if !mechanisms.is_empty() {
        for name in names {
            let named = mechanisms.iter();
            deletions.extend(named.map(|mechanism| deletion(name, *mechanism as i8)));
        }
        return Ok(deletions);
    }
    for found in described(kafka, names).await? {
        match found.error_code {
            RESOURCE_NOT_FOUND => bail!("there is no user `{}`; nothing is removed", found.user),
            code => checked(code, found.error_message.as_deref())
                .with_context(|| format!("user `{}`", found.user))?,
        }
        let had = found.credential_infos.iter();
        deletions.extend(had.map(|info| deletion(&found.user, info.mechanism)));
    }
    Ok(deletions)
}

/// Changes users, one mechanism after the other: no user may be there twice in one request.
async fn alter(
    kafka: &Kafka,
    done: &str,
    deletions: Vec<ScramCredentialDeletion>,
    upsertions: Vec<ScramCredentialUpsertion>,
) -> anyhow::Result<()> {
    let mut told: BTreeMap<String, Option<String>> = BTreeMap::new();
    for mechanism in [Mechanism::Sha256, Mechanism::Sha512] {
        let mechanism = mechanism as i8;
        let deletions = deletions.iter().filter(|one| one.mechanism == mechanism);
        let upsertions = upsertions.iter().filter(|one| one.mechanism == mechanism);
        let request = AlterUserScramCredentialsRequest {
            deletions: deletions.cloned().collect(),
            upsertions: upsertions.cloned().collect(),
        };
        if request.deletions.is_empty() && request.upsertions.is_empty() {
            continue;
        }
        let answer = ask(kafka, To::Controller, &request).await?;
        for result in answer.results {
            let why = match result.error_code {
                RESOURCE_NOT_FOUND => Some("has no such credential".to_owned()),
                code => checked(code, result.error_message.as_deref())
                    .err()
                    .map(|why| why.to_string()),
            };
            let refused = told.entry(result.user).or_default();
            *refused = refused.take().or(why);
        }
    }
    let failed = told.values().flatten().count();
    for (user, why) in told {
        match why {
            None => anstream::println!("{done} {user}"),
            Some(why) => anstream::eprintln!("{user}: {why}"),
        }
    }
    if failed > 0 {
        bail!("{failed} not {done}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_salted_as_rfc_7677_does() {
        // The example of RFC 7677, section 3: user `user`, password `pencil`.
        use base64::Engine as _;
        let salt = base64::engine::general_purpose::STANDARD
            .decode("W22ZaJ0SNY7soEsUEjb6gQ==")
            .expect("base64");
        let iterations = NonZeroU32::new(4096).expect("not zero");
        let salted = Mechanism::Sha256.salted("pencil", &salt, iterations);
        let hex: String = salted.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "c4a49510323ab4f952cac1fa99441939e78ea74d6be81ddf7096e87513dc615d"
        );
    }
}
