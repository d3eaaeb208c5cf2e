//! The compiled table. Host index, then path tree, then a short list in the order of the rules.
//!
//! The rank of a group is its place in Ambassador's order, and the lowest rank that matches wins. Groups are filed by the
//! authority they are for and there by the beginning of their path, so that only groups which are likely to match are
//! looked at. A group that every Host takes is filed once for all; one that only some Hosts take (by labels) is filed
//! with each of them.

use std::collections::BTreeMap;

use ahash::{HashMap, HashMapExt};
use kit::aside::let_others;
use model::{
    host::{InsecureAction, Selector},
    publish::Segment,
};

use super::{
    Found, Match, Miss, Request,
    group::{self, Finding, Group, Key},
    host::{Authority, Glob, Names},
    paths::{Filing, Paths},
    rule::{self, HostRule, PathKind, Rule, Target},
};

/// Paths below this are never redirected to HTTPS or rejected when a route wants them.
const ACME: &str = "/.well-known/acme-challenge/";

/// All routes, ready to be asked.
#[derive(Debug)]
pub struct Table {
    rules: Vec<Rule>,
    /// In the order in which they are tried.
    groups: Vec<Group>,
    hosts: Vec<VirtualHost>,
    by_name: Names<u32>,
    shared: Names<Paths>,
    /// For each host, what only it and some others take.
    own: Vec<Names<Paths>>,
    /// Rules that take no part, and why.
    left_out: BTreeMap<u32, String>,
}

/// A virtual host: one `hostname`, which may come from several Host objects.
#[derive(Debug)]
pub(super) struct VirtualHost {
    pub(super) name: Glob,
    pub(super) insecure: InsecureAction,
    /// What Mappings must be labelled with to be taken, one entry for each Host object; nothing asked for is `None`.
    pub(super) selectors: Vec<Option<Selector>>,
}

impl VirtualHost {
    /// The host of a configuration without Hosts.
    pub(super) fn built_in() -> Self {
        Self {
            name: Glob::Any,
            insecure: InsecureAction::Route,
            selectors: vec![None],
        }
    }

    /// Whether the labels and the presence of a hostname are right for this host.
    pub(super) fn takes(&self, rule: &Rule) -> bool {
        self.selectors.iter().any(|selector| match selector {
            None => !matches!(rule.host, HostRule::Unsaid),
            Some(selector) => selector.matches(&rule.labels),
        })
    }

    pub(super) fn overlaps(&self, rule: &Rule) -> bool {
        match &rule.host {
            HostRule::Unsaid | HostRule::Regex(_) => true,
            HostRule::Glob(glob) => self.name.overlaps_but_for_port(glob),
        }
    }
}

/// One answer of the table: a rule with a name of its own for as long as the table lives.
#[derive(Debug, Clone, Copy)]
pub struct Route<'t> {
    /// Counts from 0, below [`Table::len`]; a place for what the exchange keeps for each route.
    pub id: usize,
    pub(super) rule: &'t Rule,
}

impl<'t> Route<'t> {
    /// Where it comes from.
    pub fn target(self) -> Target {
        self.rule.target
    }

    /// `name.namespace` of the object it comes from.
    pub fn name(self) -> &'t str {
        &self.rule.name
    }

    /// Percentage of the requests that a shadow gets.
    pub fn weight(self) -> Option<u32> {
        self.rule.weight
    }

    /// Whether it answers with a redirect.
    pub fn redirects(self) -> bool {
        self.rule.redirect.is_some()
    }

    /// Returns what the names in a publish route stand for, as it is in the path.
    pub fn params<'a>(self, path: &'a str) -> Vec<(&'a str, &'a str)>
    where
        't: 'a,
    {
        let segments: &'a [Segment] = match &self.rule.path.kind {
            PathKind::Segments(segments) => segments,
            _ => &[],
        };
        rule::captures(segments, path)
            .into_iter()
            .flatten()
            .collect()
    }
}

impl Table {
    /// Compiles rules for hosts. What is wrong is told, the rest works.
    pub(super) fn compile(rules: Vec<Rule>, hosts: Vec<VirtualHost>) -> (Self, Vec<Finding>) {
        let mut findings = Vec::new();
        let mut ranked = Vec::new();
        for (key, members) in by_key(&rules, &hosts, &mut findings) {
            let_others();
            for (hosts, members) in shares(&rules, &hosts, &members) {
                if let Some(group) = group::form(&rules, members, &mut findings) {
                    ranked.push((key.clone(), group, hosts));
                }
            }
        }
        ranked.sort_by(|a, b| b.0.cmp(&a.0));

        let mut shared = Filing::default();
        let mut own: Vec<Filing> = hosts.iter().map(|_| Filing::default()).collect();
        let mut groups = Vec::with_capacity(ranked.len());
        for ((_, group, of), rank) in ranked.into_iter().zip(0..) {
            let_others();
            match of {
                None => shared.add(&rules, &group, rank),
                Some(of) => of
                    .iter()
                    .for_each(|&host| own[host].add(&rules, &group, rank)),
            }
            groups.push(group);
        }
        findings.sort_by(|a, b| a.rules.cmp(&b.rules));
        findings.dedup();
        let refused = findings.iter().filter(|finding| finding.refused);
        let left_out = refused
            .flat_map(|finding| {
                finding
                    .rules
                    .iter()
                    .map(|&rule| (rule, finding.what.clone()))
            })
            .collect();
        let by_name = Names::collect(hosts.iter().map(|host| host.name.clone()).zip(0..));
        let table = Self {
            rules,
            groups,
            hosts,
            by_name,
            shared: shared.finish(),
            own: own.into_iter().map(Filing::finish).collect(),
            left_out,
        };
        (table, findings)
    }

    /// Returns how many routes there are, those included that never match.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is no route at all.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns the route with this id.
    pub fn route(&self, id: usize) -> Route<'_> {
        Route {
            id,
            rule: &self.rules[id],
        }
    }

    /// Returns all routes, in the order of their ids.
    pub fn routes(&self) -> impl Iterator<Item = Route<'_>> {
        (0..self.len()).map(|id| self.route(id))
    }

    /// Finds the route for a request. Allocates nothing in all usual cases.
    ///
    /// `draw` is a random number out of all of `u32`; it is only drawn when weights have to decide, and then once.
    pub fn find(&self, request: &Request<'_>, draw: impl FnMut() -> u32) -> Found<'_> {
        let authority = Authority::new(request.authority);
        let Some(&host) = self.by_name.best(&authority) else {
            return Found::None(Miss::Host);
        };
        let host = host as usize;
        let action = match self.hosts[host].insecure {
            _ if request.secure || request.path.starts_with(ACME) => InsecureAction::Route,
            action => action,
        };
        if action == InsecureAction::Reject {
            return Found::None(Miss::Insecure);
        }
        match self.search(host, request, &authority, draw) {
            None => Found::None(Miss::Route),
            Some(found) if action == InsecureAction::Redirect => Found::Secure(found),
            Some(found) => Found::Route(found),
        }
    }

    fn search(
        &self,
        host: usize,
        request: &Request<'_>,
        authority: &Authority<'_>,
        mut draw: impl FnMut() -> u32,
    ) -> Option<Match<'_>> {
        let mut drawn = None;
        let mut draw = || *drawn.get_or_insert_with(&mut draw);
        let mut member = None;
        let best = self.lowest(host, request, authority, |rank| {
            let taken = self.pick(&self.groups[rank as usize], request, authority, &mut draw);
            member = taken.or(member);
            taken.is_some()
        });
        let (group, id) = (self.groups.get(best as usize)?, member? as usize);
        let rule = &self.rules[id];
        Some(Match {
            route: Route { id, rule },
            shadow: group.shadow.map(|id| self.route(id as usize)),
            matched: rule.path.matched(request.path),
        })
    }

    /// Returns the lowest rank of a group that may match and that `accepts` takes; `u32::MAX` when there is none.
    pub(super) fn lowest(
        &self,
        host: usize,
        request: &Request<'_>,
        authority: &Authority<'_>,
        mut accepts: impl FnMut(u32) -> bool,
    ) -> u32 {
        let own = self.own[host].matches(authority);
        let all = self.shared.matches(authority).chain(own);
        all.fold(u32::MAX, |best, paths| {
            let found = paths.lowest(request, authority, best, &mut accepts);
            found.unwrap_or(best)
        })
    }

    /// Returns the member of the group that takes the request.
    fn pick(
        &self,
        group: &Group,
        request: &Request<'_>,
        authority: &Authority<'_>,
        draw: &mut dyn FnMut() -> u32,
    ) -> Option<u32> {
        let rule = |id: u32| &self.rules[id as usize];
        let path = |id: u32| rule(id).path.matches(request.path);
        let lead = group.members[0].rule;
        if group.members.len() == 1 && !path(lead) {
            return None;
        }
        if rule(lead).loss_but_for_path(request, authority).is_some() {
            return None;
        }
        group.pick(draw, path)
    }

    /// Whether some of these hosts take the rule.
    pub(super) fn is_taken_by(&self, rule: u32, hosts: &[VirtualHost]) -> bool {
        let rule = &self.rules[rule as usize];
        hosts
            .iter()
            .any(|host| host.takes(rule) && host.overlaps(rule))
    }

    /// Returns, for each route that shares requests by weight, those it shares them with, in the order of their names.
    pub(crate) fn companions(&self) -> BTreeMap<usize, Vec<usize>> {
        let mut all: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for group in self.groups.iter().filter(|group| group.members.len() > 1) {
            let ids = group.members.iter().map(|member| member.rule as usize);
            for id in ids.clone() {
                let companions = all.entry(id).or_default();
                companions.extend(ids.clone().filter(|other| *other != id));
            }
        }
        for companions in all.values_mut() {
            companions.sort_by_key(|id| (&self.rules[*id].name, *id));
            companions.dedup();
        }
        all
    }

    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    pub(super) fn host(&self, authority: &Authority<'_>) -> Option<&VirtualHost> {
        self.by_name
            .best(authority)
            .map(|&host| &self.hosts[host as usize])
    }

    pub(super) fn left_out(&self, id: usize) -> Option<&str> {
        self.left_out
            .get(&u32::try_from(id).ok()?)
            .map(String::as_str)
    }
}

/// Sorts the rules by what they match; those that no host takes are left out.
fn by_key(
    rules: &[Rule],
    hosts: &[VirtualHost],
    findings: &mut Vec<Finding>,
) -> HashMap<Key, Vec<u32>> {
    let mut keys: HashMap<Key, Vec<u32>> = HashMap::with_capacity(rules.len());
    for (rule, id) in rules.iter().zip(0..) {
        let_others();
        if hosts
            .iter()
            .any(|host| host.takes(rule) && host.overlaps(rule))
        {
            keys.entry(Key::new(rule)).or_default().push(id);
            continue;
        }
        let why = match &rule.host {
            HostRule::Unsaid => {
                "no Host takes it: it has no `hostname`, and no Host selects it by its labels"
                    .into()
            }
            HostRule::Glob(glob) if !hosts.iter().any(|host| host.overlaps(rule)) => {
                format!("no Host takes it: none has a `hostname` that goes with `{glob}`")
            }
            _ => {
                "no Host takes it: its labels are not what their `mappingSelector` asks for".into()
            }
        };
        findings.push(Finding {
            unreached: true,
            ..Finding::refused(vec![id], why)
        });
    }
    keys
}

/// Splits rules with the same key by the hosts that take them. `None` stands for all hosts.
fn shares(
    rules: &[Rule],
    hosts: &[VirtualHost],
    members: &[u32],
) -> Vec<(Option<Vec<usize>>, Vec<u32>)> {
    let takes = |host: &VirtualHost, id: u32| host.takes(&rules[id as usize]);
    if hosts
        .iter()
        .all(|host| members.iter().all(|&id| takes(host, id)))
    {
        return vec![(None, members.to_vec())];
    }
    let mut shares: BTreeMap<Vec<u32>, Vec<usize>> = BTreeMap::new();
    for (index, host) in hosts.iter().enumerate() {
        if !host.overlaps(&rules[members[0] as usize]) {
            continue;
        }
        let taken: Vec<u32> = members
            .iter()
            .copied()
            .filter(|&id| takes(host, id))
            .collect();
        if !taken.is_empty() {
            shares.entry(taken).or_default().push(index);
        }
    }
    shares
        .into_iter()
        .map(|(members, hosts)| (Some(hosts), members))
        .collect()
}
