//! Puts the readings of all sources together and keeps the last good version of what is refused.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use kit::aside::let_others;
use model::check::{Checked, check};
use model::read::{Id, Reading, Written};
use model::{Config, Origin, Problem, Severity};

/// The objects that run, by what they are known by.
pub type Running = BTreeMap<Id, Arc<Written>>;

/// What shall run now.
#[derive(Debug, Clone, Default)]
pub struct Merged {
    /// The whole.
    pub config: Config,

    /// The objects in it, the last good for the next time.
    pub running: Running,

    /// Everything that was found.
    pub problems: Vec<Problem>,

    /// Objects whose last good version goes on running because the present one is refused.
    pub kept: BTreeSet<Id>,
}

/// Merges readings. `unread` are files or folders that are there but could not be read.
///
/// An object that is refused runs on in its last good version. So does every object of a text, or part of a text, that could
/// not be read at all, unless the object is written elsewhere now. An object that is simply gone is gone.
pub fn merge(
    readings: &[Arc<Reading>],
    unread: &[Arc<str>],
    files: &[Arc<str>],
    last: &Running,
) -> Merged {
    let mut refused: BTreeSet<Id> = readings
        .iter()
        .flat_map(|reading| reading.refused.iter().cloned())
        .collect();
    let mut problems: Vec<Problem> = readings
        .iter()
        .flat_map(|reading| reading.problems.iter().cloned())
        .collect();
    let mut objects: Vec<Arc<Written>> = readings
        .iter()
        .flat_map(|reading| reading.objects.iter().cloned())
        .collect();

    let here: BTreeSet<Id> = objects.iter().map(|object| object.id.clone()).collect();
    let torn: HashSet<&str> = readings
        .iter()
        .zip(files)
        .filter(|(reading, _)| reading.unreadable)
        .map(|(_, file)| file.as_ref())
        .collect();
    let lost = |object: &Written| {
        let file = object.origin.file.as_ref();
        let inside = |unread: &Arc<str>| {
            file.strip_prefix(unread.trim_end_matches('/'))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        torn.contains(file) || unread.iter().any(inside)
    };
    let mut kept = BTreeSet::new();
    for (id, object) in last {
        let_others();
        if !here.contains(id) && (refused.contains(id) || lost(object)) {
            objects.push(object.clone());
            kept.insert(id.clone());
        }
    }
    refused.retain(|id| !kept.contains(id));

    let mut checked = check(&objects, &refused);
    // What does not fit to the others any more may have fitted in its last good version.
    let mut returned = BTreeSet::new();
    for object in &mut objects {
        let_others();
        if let Some(before) = last.get(&object.id)
            && checked.refused.contains(&object.id)
            && !before.says_the_same(object)
        {
            *object = before.clone();
            returned.insert(before.id.clone());
        }
    }
    if !returned.is_empty() {
        // What is wrong with the new versions is told, not with the old ones, whose text is gone.
        let told = std::mem::take(&mut checked.problems);
        checked = check(&objects, &refused);
        let known: HashSet<&Problem> = told.iter().collect();
        let old: HashSet<String> = returned.iter().map(Id::to_string).collect();
        checked.problems.retain(|problem| {
            !problem
                .object
                .as_ref()
                .is_some_and(|object| old.contains(object))
                && !known.contains(problem)
        });
        checked.problems.extend(told);
        kept.extend(returned);
    }
    let Checked {
        config,
        problems: found,
        refused: unfit,
    } = checked;
    problems.extend(found);
    kept.retain(|id| !unfit.contains(id));
    for id in &kept {
        problems.extend(last.get(id).map(|object| keeps_running(object)));
    }
    let mut running = Running::new();
    for object in objects {
        let_others();
        if !unfit.contains(&object.id) {
            running.entry(object.id.clone()).or_insert(object); // the first of two equal names
        }
    }
    model::load::sort(&mut problems, files.iter().map(AsRef::as_ref));
    Merged {
        config,
        running,
        problems,
        kept,
    }
}

fn keeps_running(object: &Written) -> Problem {
    Problem {
        severity: Severity::Warning,
        origin: Origin {
            file: object.origin.file.clone(),
            line: 0,
            column: 0,
        },
        span: 0..0,
        object: Some(object.id.to_string()),
        path: String::new(),
        what: format!("the last good version of `{}` goes on running", object.id),
        hint: None,
    }
}
