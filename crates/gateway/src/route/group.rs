//! Rules that match the same share their requests by weight, as Ambassador's canaries do.

use super::rule::{HostRule, PathKind, Rule, Target, Test};

/// The size of the space a draw comes from.
pub(super) const WHOLE: u64 = 1 << 32;

/// Rules that match the same.
#[derive(Debug)]
pub(super) struct Group {
    /// At least one, in the order of their thresholds.
    pub(super) members: Vec<Member>,
    /// The rule that gets copies.
    pub(super) shadow: Option<u32>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// The index of the rule.
    pub(super) rule: u32,
    /// Takes the draws that are below, unless an earlier member does. `WHOLE` takes all. Rounded up, so that the draws below
    /// are those below the exact share.
    pub(super) below: u64,
}

/// What the user should know about some rules.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) rules: Vec<u32>,
    pub(super) what: String,
    /// Whether the rules take no part because of it.
    pub(super) refused: bool,
    /// Whether that is because no Host takes them.
    pub(super) unreached: bool,
}

impl Finding {
    pub(super) fn refused(rules: Vec<u32>, what: String) -> Self {
        Self {
            rules,
            what,
            refused: true,
            unreached: false,
        }
    }
}

/// What decides both which rules form a group and in which order groups are tried: the greatest key first.
///
/// Ambassador's list `[precedence, len(prefix), Σ header lengths, Σ query lengths, prefix, method, header keys, query
/// keys]`. A rule without a method has the empty one here, so that it comes after those with one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    precedence: i32,
    prefix_len: usize,
    headers_len: usize,
    query_len: usize,
    prefix: String,
    method: String,
    fields: Vec<String>,
}

impl Key {
    /// Says why this key comes after a greater one.
    pub(super) fn why_after(&self, winner: &Key) -> String {
        if self.precedence != winner.precedence {
            return format!(
                "its precedence {} is lower than {}",
                self.precedence, winner.precedence
            );
        }
        if self.prefix_len != winner.prefix_len {
            return format!(
                "its prefix `{}` is shorter than `{}`",
                self.prefix, winner.prefix
            );
        }
        let field = if self.headers_len != winner.headers_len {
            "it says less about host and headers"
        } else if self.query_len != winner.query_len {
            "it says less about the query"
        } else if self.prefix != winner.prefix {
            "of prefixes with the same length, the later one in the alphabet comes first"
        } else if self.method.is_empty() {
            "it says nothing about the method"
        } else {
            "all else is equal, and the later one in the alphabet comes first"
        };
        field.to_owned()
    }

    pub(super) fn new(rule: &Rule) -> Self {
        let mut headers: Vec<(&str, (String, bool))> = rule
            .headers
            .iter()
            .map(|header| (header.name.as_str(), owned(header.test.written())))
            .collect();
        match &rule.host {
            HostRule::Unsaid => (),
            HostRule::Glob(glob) => headers.push((":authority", (glob.to_string(), false))),
            HostRule::Regex(regex) => headers.push((":authority", (regex.text().to_owned(), true))),
        }
        let mut query: Vec<(&str, (String, bool))> = rule
            .query
            .iter()
            .map(|query| (&*query.name, owned(query.test.written())))
            .collect();
        headers.sort();
        query.sort();
        let method = rule.method.as_ref().map(Test::written);
        Self {
            precedence: rule.precedence,
            prefix_len: rule.path.text.chars().count(),
            headers_len: length(&headers),
            query_len: length(&query),
            prefix: rule.path.text.clone(),
            method: method
                .map(|(text, regex)| keyed("", text, regex))
                .unwrap_or_default(),
            // What is between the two keeps a header apart from a query parameter.
            fields: fields(&headers)
                .chain([String::new()])
                .chain(fields(&query))
                .collect(),
        }
    }
}

fn owned((text, regex): (&str, bool)) -> (String, bool) {
    (text.to_owned(), regex)
}

/// Ambassador's length of headers: name and value, and one more for a regular expression.
fn length(fields: &[(&str, (String, bool))]) -> usize {
    let len = |text: &str| text.chars().count();
    fields
        .iter()
        .map(|(name, (value, regex))| len(name) + len(value) + usize::from(*regex))
        .sum()
}

fn fields(fields: &[(&str, (String, bool))]) -> impl Iterator<Item = String> {
    fields
        .iter()
        .map(|(name, (value, regex))| keyed(name, value, *regex))
}

fn keyed(name: &str, value: &str, regex: bool) -> String {
    format!("{name}-{value}{}", if regex { "\0regex" } else { "" })
}

/// Forms a group of rules with equal keys, in the order of their names; the first that is no shadow decides what all must
/// agree on.
pub(super) fn form(
    rules: &[Rule],
    mut members: Vec<u32>,
    findings: &mut Vec<Finding>,
) -> Option<Group> {
    members.sort_by_key(|&rule| {
        let rule = &rules[rule as usize];
        (rule.shadow, &rule.name)
    });
    let lead = &rules[members[0] as usize];
    let mut shadow = None;
    let mut shared = Vec::with_capacity(members.len());
    for rule in members {
        match objection(lead, &rules[rule as usize], shadow, &shared) {
            Some(why) => findings.push(Finding::refused(vec![rule], why)),
            None if rules[rule as usize].shadow => shadow = Some(rule),
            None => shared.push(rule),
        }
    }
    if shared.is_empty() {
        if let Some(shadow) = shadow {
            let why = "a shadow needs a route with the same match to copy from".into();
            findings.push(Finding::refused(vec![shadow], why));
        }
        return None;
    }
    match thresholds(rules, &shared) {
        Ok(members) => {
            let rest = WHOLE - members.iter().map(|member| member.below).max().unwrap_or(0);
            if rest > 0 {
                let what = format!(
                    "the weights of these routes leave {} % to the next route that matches, or to 404",
                    (rest * 100 + WHOLE / 2) / WHOLE
                );
                findings.push(Finding {
                    rules: shared,
                    what,
                    refused: false,
                    unreached: false,
                });
            }
            Some(Group { members, shadow })
        }
        Err(why) => {
            findings.push(Finding::refused(shared, why));
            None
        }
    }
}

/// Why `rule` cannot join the group of `lead`.
fn objection(lead: &Rule, rule: &Rule, shadow: Option<u32>, shared: &[u32]) -> Option<String> {
    let other = &lead.name;
    let kind = |rule: &Rule| match rule.path.kind {
        PathKind::Prefix => "a prefix",
        PathKind::Exact => "an exact path",
        PathKind::Segments(_) => "a pattern",
        PathKind::Regex(_) => "a regular expression",
    };
    if kind(lead) != kind(rule) {
        let (ours, theirs) = (kind(rule), kind(lead));
        return Some(format!(
            "`prefix` is {ours} here but {theirs} in `{other}`, which matches the same"
        ));
    }
    let publishes = |rule: &Rule| matches!(rule.target, Target::Publish(_));
    if !std::ptr::eq(lead, rule) && (publishes(lead) || publishes(rule)) {
        return Some(format!(
            "`{other}` matches the same, and a publish route shares with nobody"
        ));
    }
    if rule.shadow {
        return shadow.map(|_| "there is another shadow for the same match".to_owned());
    }
    if rule.redirect.is_some() != lead.redirect.is_some() {
        return Some(format!(
            "redirects and services cannot share a match, see `{other}`"
        ));
    }
    if rule.redirect.is_some() && !shared.is_empty() {
        return Some(format!("`{other}` redirects the same match already"));
    }
    let differs = |(field, value): &&(&'static str, String), among: &Rule| {
        !among
            .agreed
            .iter()
            .any(|(name, other)| name == field && other == value)
    };
    let missing = lead.agreed.iter().find(|field| differs(field, rule));
    let added = rule.agreed.iter().find(|field| differs(field, lead));
    let (field, _) = missing.or(added)?;
    Some(format!(
        "`{field}` differs from that of `{other}`, which matches the same"
    ))
}

/// Turns weights into thresholds for one draw.
///
/// - a single member takes all
/// - members without a weight share what the others leave
/// - when all have weights that make less than 100, the rest goes to the next group
fn thresholds(rules: &[Rule], members: &[u32]) -> Result<Vec<Member>, String> {
    let weight = |rule: u32| rules[rule as usize].weight;
    if let Some((rule, weight)) = members
        .iter()
        .find_map(|&rule| weight(rule).filter(|&w| w > 100).map(|w| (rule, w)))
    {
        let name = &rules[rule as usize].name;
        return Err(format!(
            "the weight of `{name}` is {weight}, but 100 is the whole"
        ));
    }
    if let [rule] = members {
        return Ok(vec![Member {
            rule: *rule,
            below: WHOLE,
        }]);
    }
    let told: u64 = members
        .iter()
        .filter_map(|&rule| weight(rule))
        .map(u64::from)
        .sum();
    if told > 100 {
        return Err(format!(
            "the weights of these routes make {told} together, but 100 is the whole"
        ));
    }
    let mut below_percent = 0;
    let mut shares = Vec::with_capacity(members.len());
    for &rule in members {
        if let Some(weight) = weight(rule) {
            below_percent += u64::from(weight);
            shares.push(Member {
                rule,
                below: (below_percent * WHOLE).div_ceil(100),
            });
        }
    }
    let silent: Vec<u32> = members
        .iter()
        .copied()
        .filter(|&rule| weight(rule).is_none())
        .collect();
    let count = silent.len() as u64;
    for (rule, nth) in silent.into_iter().zip(1..) {
        let below = ((told * count + (100 - told) * nth) * WHOLE).div_ceil(100 * count);
        shares.push(Member { rule, below });
    }
    Ok(shares)
}

impl Group {
    /// Returns the member that takes the draw and that `accepts`. The draw is only made when it matters.
    pub(super) fn pick(
        &self,
        draw: &mut dyn FnMut() -> u32,
        accepts: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        if let [Member { rule, below: WHOLE }] = self.members[..] {
            return accepts(rule).then_some(rule);
        }
        let draw = u64::from(draw());
        let mut takers = self.members.iter().filter(|member| draw < member.below);
        takers
            .find(|member| accepts(member.rule))
            .map(|member| member.rule)
    }
}
