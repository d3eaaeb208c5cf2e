//! Label selectors as Kubernetes writes them: `app=shop, tier in (front, back), !canary`.

use std::collections::BTreeMap;

/// What labels must be like; all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    label: String,
    is: Is,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Is {
    In(Vec<String>),
    NotIn(Vec<String>),
    There,
    Absent,
}

impl Selector {
    /// Parses a selector; an empty text selects everything.
    ///
    /// # Errors
    /// A sentence about the part that cannot be read.
    pub fn parse(text: &str) -> Result<Selector, String> {
        let parts = split(text).into_iter().map(str::trim);
        let read = parts.filter(|part| !part.is_empty()).map(requirement);
        read.collect::<Result<_, _>>().map(Selector)
    }

    /// Returns whether labels are as wanted.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| {
            let value = labels.get(&requirement.label);
            match &requirement.is {
                Is::In(values) => value.is_some_and(|value| values.contains(value)),
                Is::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Is::There => value.is_some(),
                Is::Absent => value.is_none(),
            }
        })
    }
}

/// Splits at commas outside of brackets.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let comma = |c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => (),
        }
        c == ',' && depth == 0
    };
    text.split(comma).collect()
}

fn requirement(part: &str) -> Result<Requirement, String> {
    let label = |text: &str| {
        let label = text.trim();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        match !label.is_empty() && label.chars().all(plain) {
            true => Ok(label.to_owned()),
            false => Err(format!("`{part}` does not begin with the name of a label")),
        }
    };
    let (name, is) = if let Some((name, value)) = part.split_once("!=") {
        (name, Is::NotIn(vec![value.trim().to_owned()]))
    } else if let Some((name, value)) = part.split_once("==").or(part.split_once('=')) {
        (name, Is::In(vec![value.trim().to_owned()]))
    } else if let Some(name) = part.strip_prefix('!') {
        (name, Is::Absent)
    } else if let Some((words, values)) = part.split_once('(') {
        let values = values
            .trim_end()
            .strip_suffix(')')
            .ok_or_else(|| format!("`{part}` has a `(` without its `)`"))?;
        let values = values
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect();
        match words.split_whitespace().collect::<Vec<_>>().as_slice() {
            [name, "in"] => (*name, Is::In(values)),
            [name, "notin"] => (*name, Is::NotIn(values)),
            _ => {
                return Err(format!(
                    "`{part}` is neither `label in (…)` nor `label notin (…)`"
                ));
            }
        }
    } else {
        (part, Is::There)
    };
    Ok(Requirement {
        label: label(name)?,
        is,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_select_as_in_kubernetes() {
        let labels = BTreeMap::from([
            ("app".to_owned(), "shop".to_owned()),
            ("example.com/tier".to_owned(), "front".to_owned()),
        ]);
        let selects = |text: &str| Selector::parse(text).map(|selector| selector.selects(&labels));
        for text in [
            "",
            "app=shop",
            "app == shop, example.com/tier in (back, front)",
            "app, !canary",
            "app!=blog",
            "canary!=yes",
            "app notin (blog)",
            "canary notin (yes)",
        ] {
            assert_eq!(selects(text), Ok(true), "{text}");
        }
        for text in [
            "app=blog",
            "canary",
            "!app",
            "app!=shop",
            "canary in (yes)",
            "app=shop,canary",
        ] {
            assert_eq!(selects(text), Ok(false), "{text}");
        }
        for text in ["=shop", "app in (a", "app of (a)", "a b", "! "] {
            assert!(selects(text).is_err(), "{text}");
        }
    }
}
