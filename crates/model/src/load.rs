//! The whole way from texts to a Config.

use std::collections::{BTreeSet, HashMap};

use crate::check::check;
use crate::read::{Options, Source, read};
use crate::{Config, Problem};

/// What came out of a set of texts.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Everything that is good.
    pub config: Config,

    /// Everything that was found, in the order of the texts.
    pub problems: Vec<Problem>,
}

/// Reads and checks texts. The same texts always give the same result.
pub fn load(sources: &[Source], options: &Options) -> Loaded {
    let mut objects = Vec::new();
    let mut problems = Vec::new();
    let mut refused = BTreeSet::new();
    for source in sources {
        let reading = read(source, options);
        objects.extend(reading.objects);
        problems.extend(reading.problems);
        refused.extend(reading.refused);
    }
    let checked = check(&objects, &refused);
    problems.extend(checked.problems);
    sort(
        &mut problems,
        sources.iter().map(|source| source.name.as_ref()),
    );
    let mut config = checked.config;
    config.namespace = options.namespace.clone();
    Loaded { config, problems }
}

/// Sorts problems by their source, in the order given, and their place in it.
pub fn sort<'a>(problems: &mut [Problem], sources: impl Iterator<Item = &'a str>) {
    let order: HashMap<String, usize> = sources
        .enumerate()
        .map(|(index, name)| (name.to_owned(), index))
        .collect();
    problems.sort_by_cached_key(|problem| {
        let origin = &problem.origin;
        let source = order
            .get(origin.file.as_ref())
            .copied()
            .unwrap_or(usize::MAX);
        (
            source,
            origin.line,
            origin.column,
            problem.severity,
            problem.what.clone(),
        )
    });
}
