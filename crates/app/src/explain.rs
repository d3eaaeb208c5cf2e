//! `nuncio explain`: which route a request takes, why, and why the others lost. Nothing is sent.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use gateway::route::Table;
use gateway::route::explain::{Outcome, Question, explain};
use model::Severity;

use crate::check;

#[derive(clap::Args)]
#[command(
    after_help = "Example: nuncio explain nuncio.yaml -- GET http://shop.example/orders/1 -H 'x-tenant: acme'"
)]
pub(crate) struct Arguments {
    /// Files and folders with the configuration; `./nuncio.yaml` when nothing is said.
    config: Vec<PathBuf>,
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

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let question = question(&arguments.request)?;
    let read = check::read(arguments.config)?;
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
    let explanation = explain(&read.config, &table, &question);
    if arguments.json {
        anstream::println!("{}", serde_json::to_string_pretty(&explanation)?);
    } else {
        anstream::print!("{explanation}");
    }
    let found = matches!(
        explanation.outcome,
        Outcome::Routed(_) | Outcome::RedirectedToHttps { .. }
    );
    Ok(if found {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Reads `[METHOD] URL [-H 'name: value']...`.
fn question(words: &[String]) -> anyhow::Result<Question> {
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
    Ok(Question::read(method, url, &headers)?)
}
