//! `nuncio check`: every problem of a configuration at once, with its place.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use gateway::route::Table;
use model::read::Source;
use model::render::{Style, render, summary};
use model::selector::Selector;
use model::{Config, Problem, Severity};

use crate::serve::or_here;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Files and folders with the configuration; `./nuncio.yaml` when nothing is said.
    config: Vec<PathBuf>,
    /// Problems as one JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Read {
        config,
        problems,
        sources,
    } = read(arguments.config)?;
    if arguments.json {
        problems
            .iter()
            .for_each(|problem| anstream::println!("{}", json(problem)));
    } else {
        anstream::print!("{}", render(&problems, &sources, Style::Coloured));
        anstream::println!("{}", verdict(&config, &problems));
    }
    let refused = problems
        .iter()
        .any(|problem| problem.severity == Severity::Error);
    Ok(if refused {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// A configuration as `check` and `explain` see it: nothing is started.
pub(crate) struct Read {
    pub(crate) config: Config,
    /// What the routes' own rules have to say comes last.
    pub(crate) problems: Vec<Problem>,
    pub(crate) sources: Vec<Source>,
}

pub(crate) fn read(named: Vec<PathBuf>) -> anyhow::Result<Read> {
    let files = control::files::read(&or_here(named)?);
    let sources = files.sources;
    let loaded = model::load::load(&sources, &model_options()?);
    let (_, found) = Table::build(&loaded.config);
    let mut problems = files.problems;
    problems.extend(loaded.problems);
    let known: HashSet<Problem> = problems.iter().cloned().collect();
    let found = found
        .into_iter()
        .chain(gateway::check_certificates(&loaded.config))
        .chain(acme::check(&loaded.config));
    problems.extend(found.filter(|problem| !known.contains(problem)));
    model::load::sort(
        &mut problems,
        sources.iter().map(|source| source.name.as_ref()),
    );
    Ok(Read {
        config: loaded.config,
        problems,
        sources,
    })
}

/// Returns what decides which objects count, from the variables that Ambassador reads.
pub(crate) fn model_options() -> anyhow::Result<model::read::Options> {
    let said = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let usual = model::read::Options::default();
    let labels = said("AMBASSADOR_LABEL_SELECTOR").unwrap_or_default();
    let loose = said("DISABLE_STRICT_LABEL_SELECTORS");
    Ok(model::read::Options {
        loose_selectors: loose.is_some_and(|said| said.eq_ignore_ascii_case("true")),
        ambassador_id: said("AMBASSADOR_ID").unwrap_or(usual.ambassador_id),
        namespace: said("AMBASSADOR_NAMESPACE").unwrap_or(usual.namespace),
        single_namespace: said("AMBASSADOR_SINGLE_NAMESPACE").is_some(),
        labels: Selector::parse(&labels)
            .map_err(anyhow::Error::msg)
            .context("could not read AMBASSADOR_LABEL_SELECTOR")?,
    })
}

fn verdict(config: &Config, problems: &[Problem]) -> String {
    let counts = [
        (config.mappings.len(), "route"),
        (config.hosts.len(), "host"),
        (config.topics.len(), "topic"),
        (config.publish.len(), "publish route"),
        (config.subscribe.len(), "subscription"),
        (config.services.len(), "service"),
    ];
    let plural = |(count, noun): &(usize, &str)| match count {
        0 => None,
        1 => Some(format!("1 {noun}")),
        count => Some(format!("{count} {noun}s")),
    };
    let good: Vec<String> = counts.iter().filter_map(plural).collect();
    let good = if good.is_empty() {
        "nothing".to_owned()
    } else {
        good.join(", ")
    };
    match summary(problems) {
        None => format!("good: {good}"),
        Some(problems) => format!("{problems}; good: {good}"),
    }
}

pub(crate) fn json(problem: &Problem) -> serde_json::Value {
    serde_json::json!({
        "severity": match problem.severity { Severity::Error => "error", Severity::Warning => "warning" },
        "file": &*problem.origin.file,
        "line": problem.origin.line,
        "column": problem.origin.column,
        "object": problem.object,
        "path": problem.path,
        "what": problem.what,
        "hint": problem.hint,
    })
}
