//! `nuncio explain`: which route a request takes, why, what is done to it there, and why the others lost. Nothing is sent.
//! The answer comes from files, or from a running process.

mod remote;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use gateway::explain::explain;
use gateway::route::Table;
use gateway::route::explain::{Explanation, Outcome, Question};
use model::Severity;

use crate::check;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  nuncio explain nuncio.yaml -- GET http://shop.example/orders/1 -H 'x-tenant: acme'\n  \
                  nuncio explain --admin http://127.0.0.1:8877 -- http://shop.example/orders/1"
)]
pub(crate) struct Arguments {
    /// Files and folders with the configuration; `./nuncio.yaml` when nothing is said.
    config: Vec<PathBuf>,
    /// Asks the running process with this admin API, which also knows its endpoints.
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    admin: Option<String>,
    /// The client's IP address, for load balancers that go by it.
    #[arg(long, value_name = "IP")]
    client: Option<IpAddr>,
    /// The answer as JSON.
    #[arg(long)]
    json: bool,
    /// The request: [METHOD] URL [-H 'name: value']...
    #[arg(
        last = true,
        required = true,
        value_name = "REQUEST",
        allow_hyphen_values = true
    )]
    request: Vec<String>,
}

/// A request as it was written, before anybody has looked into it.
struct Asked<'a> {
    method: &'a str,
    url: &'a str,
    headers: Vec<String>,
    client: Option<IpAddr>,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let asked = asked(&arguments.request, arguments.client)?;
    // What is wrong with the question is told here, whoever answers it.
    let question = Question {
        client: asked.client,
        ..Question::read(asked.method, asked.url, &asked.headers)?
    };
    let (explanation, told) = match &arguments.admin {
        Some(admin) => remote::ask(admin, &asked).await?,
        None => from_files(arguments.config, &question)?,
    };
    if arguments.json {
        anstream::println!("{}", serde_json::to_string_pretty(&told)?);
    } else {
        anstream::print!("{explanation}");
    }
    let found = matches!(
        explanation.outcome,
        Outcome::Routed(_) | Outcome::RedirectedToHttps { .. } | Outcome::Preflight(_)
    );
    Ok(if found {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Returns the answer, and the same as JSON.
fn from_files(
    config: Vec<PathBuf>,
    question: &Question,
) -> anyhow::Result<(Explanation, serde_json::Value)> {
    let read = check::read(config)?;
    let refused = read
        .problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .count();
    if refused > 0 {
        anstream::eprintln!(
            "note: {refused} errors in the configuration; `nuncio check` tells them"
        );
    }
    let (table, _) = Table::build(&read.config);
    let explanation = explain(&read.config, &table, question);
    let told = serde_json::to_value(&explanation)?;
    Ok((explanation, told))
}

/// Reads `[METHOD] URL [-H 'name: value']...`.
fn asked(words: &[String], client: Option<IpAddr>) -> anyhow::Result<Asked<'_>> {
    let mut plain = Vec::new();
    let mut headers = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-H" | "--header" => headers.push(
                words
                    .next()
                    .context("a header is missing after -H")?
                    .clone(),
            ),
            _ => plain.push(word.as_str()),
        }
    }
    let (method, url) = match plain[..] {
        [url] => ("GET", url),
        [method, url] => (method, url),
        _ => anyhow::bail!("a request is [METHOD] URL [-H 'name: value']..."),
    };
    Ok(Asked {
        method,
        url,
        headers,
        client,
    })
}
