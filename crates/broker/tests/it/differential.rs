//! The same requests to Nuncio's broker and to Apache Kafka: answers may differ only where that is meant.
//!
//! Each step is sent to both. What cannot be equal (ids, addresses, the wording of messages) is evened out in
//! `compare.rs`; every other difference fails the test, unless [`INTENDED`] names the step and says why. A step that is
//! named there and does not differ fails as well, so that the list only shrinks.

mod access;
mod admin;
mod cluster;
mod compare;
mod consumers;
mod fetches;
mod group_settings;
mod groups;
mod handover;
mod produces;
mod reference;
mod share;
mod streams;
mod topics;
mod transactions;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kafka::messages::{ApiKey, Request};
use testkit::apache::Apache;
use testkit::lab;
use tokio::time::timeout;

use self::compare::{difference, even};
use crate::stage::{Client, Stage};

const APACHE_HEAP_MB: u32 = 384;
/// How long an answer may take; no request waits for anything.
const SILENCE: Duration = Duration::from_secs(20);
/// How long a change may take until all parts of Apache Kafka know of it.
const SETTLED: Duration = Duration::from_secs(20);
/// Requests that change nothing, and may be asked again.
const LOOKS: &[ApiKey] = &[
    ApiKey::Metadata,
    ApiKey::DescribeTopicPartitions,
    ApiKey::DescribeConfigs,
    ApiKey::ListConfigResources,
    ApiKey::DescribeLogDirs,
    ApiKey::ListOffsets,
    ApiKey::DescribeUserScramCredentials,
    ApiKey::DescribeClientQuotas,
    ApiKey::DescribeAcls,
];

/// Steps whose answers differ on purpose, by the beginning of their names, and why.
const INTENDED: &[(&str, &str)] = &[
    (
        "assigned groups: commit of before",
        "what a member still has it may commit under an earlier epoch by name too, not only by id",
    ),
    (
        "create topics: all settings of a check",
        "a topic that is not made has no id",
    ),
    (
        "create topics: all settings",
        "min.insync.replicas is not a setting that was changed at run time",
    ),
    ("describe configs: all of a topic", "the same"),
    ("describe configs: none of them", "the same"),
    (
        "transactions: write for nobody",
        "whose transaction it is comes before what the log knows",
    ),
    ("metadata: internal", "one partition holds all groups"),
    ("produce: no records", "Apache Kafka never answers"),
    (
        "damaged batches: bytes behind it",
        "what is not a batch is refused, not passed over",
    ),
    ("damaged batches: unknown codec", "an error that says why"),
    (
        "damaged batches: a codec that it is not in",
        "compressed records are stored as they came",
    ),
    (
        "damaged batches: first record's length",
        "records inside of a batch are the consumers' business",
    ),
    (
        "idempotent producers: the last again",
        "a batch that was stored before has the client's time, as at first",
    ),
    ("idempotent producers: the first again", "the same"),
    ("idempotent producers: old but known", "the same"),
    (
        "idempotent producers: epoch -1",
        "no producer has an id and no epoch",
    ),
    (
        "offsets: delete",
        "a group without members and offsets is gone at once, not minutes later",
    ),
    ("offsets: describe", "the same"),
    (
        "describe configs: of a broker",
        "settings of the broker stand in its configuration",
    ),
    ("describe configs: of all brokers", "the same"),
    (
        "incremental alter configs: check strange operation",
        "an error that says why",
    ),
    (
        "incremental alter configs: strange operation",
        "an error that says why",
    ),
    (
        "incremental alter configs: no such broker setting",
        "what nobody reads is refused",
    ),
    (
        "quorum and features: metadata",
        "there is no log of the cluster's own data",
    ),
];

/// Steps that are not built yet, by the beginning of their names; one that is equal by now fails too, and is to be taken out.
const NOT_YET: &[&str] = &[];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_those_of_apache_kafka() {
    let Some(apache) = lab::or_skip(Apache::start(APACHE_HEAP_MB)) else {
        return;
    };
    let stage = Stage::open_with(|options| options.partitions_default = 4).await;
    let mut both = Both {
        ours: Side::new(&stage.address),
        theirs: Side::new(&apache.address()),
        section: "",
        blind: &[],
        settled: SETTLED,
        intended: INTENDED,
        not_yet: NOT_YET,
        steps: BTreeSet::new(),
        differences: Vec::new(),
    };
    groups::settle(&mut both.theirs).await;
    groups::settle(&mut both.ours).await;
    // First: Apache Kafka makes the topic that it needs by itself then.
    both.settled = Duration::from_secs(1);
    transactions::run(&mut both).await;
    both.settled = SETTLED;
    topics::run(&mut both).await;
    produces::run(&mut both).await;
    fetches::run(&mut both).await;
    groups::run(&mut both).await;
    consumers::run(&mut both).await;
    handover::run(&mut both).await;
    share::run(&mut both).await;
    streams::run(&mut both).await;
    admin::run(&mut both).await;
    group_settings::run(&mut both).await;
    cluster::run(&mut both).await;
    reference::run(&mut both).await;
    both.finish();
}

/// Both brokers, and what was found so far.
struct Both {
    ours: Side,
    theirs: Side,
    section: &'static str,
    /// Fields that are not compared at this moment.
    blind: &'static [&'static str],
    settled: Duration,
    intended: &'static [(&'static str, &'static str)],
    not_yet: &'static [&'static str],
    steps: BTreeSet<String>,
    differences: Vec<(String, String)>,
}

impl Both {
    fn section(&mut self, name: &'static str) {
        self.section = name;
    }

    /// Sends a request to both and compares the answers.
    async fn ask<R: Request>(&mut self, step: &str, version: i16, request: R) -> Pair<R> {
        self.ask_each(step, version, request.clone(), request).await
    }

    /// Sends each its own request, for what carries ids that were given out.
    async fn ask_each<R: Request>(
        &mut self,
        step: &str,
        version: i16,
        ours: R,
        theirs: R,
    ) -> Pair<R> {
        let step = format!("{}: {step} (v{version})", self.section);
        assert!(self.steps.insert(step.clone()), "`{step}` is there twice");
        println!("{step}"); // shown when a step gets no answer
        let again = theirs.clone();
        let (ours, mut theirs) = tokio::join!(
            self.ours.ask(version, ours),
            self.theirs.ask(version, theirs)
        );
        let our_text = even::<R>(&ours, self.blind);
        let mut their_text = even::<R>(&theirs, self.blind);
        // Apache Kafka tells of a change before all of its parts know.
        let begun = Instant::now();
        while our_text != their_text
            && LOOKS.contains(&R::KEY)
            && self.listed(&step).is_none()
            && begun.elapsed() < self.settled
        {
            theirs = self.theirs.ask(version, again.clone()).await;
            their_text = even::<R>(&theirs, self.blind);
        }
        if our_text != their_text {
            let difference = difference(&our_text, &their_text);
            self.differences.push((step, difference));
        }
        Pair { ours, theirs }
    }

    /// The same, without comparing some fields.
    async fn ask_but<R: Request>(
        &mut self,
        blind: &'static [&'static str],
        step: &str,
        version: i16,
        request: R,
    ) {
        self.blind = blind;
        self.ask(step, version, request).await;
        self.blind = &[];
    }

    /// Returns the entry under which a step may differ.
    fn listed(&self, step: &str) -> Option<&'static str> {
        let intended = self.intended.iter().map(|(name, _)| *name);
        let mut names = intended.chain(self.not_yet.iter().copied());
        names.find(|name| step.starts_with(name))
    }

    fn finish(self) {
        let mut unused: BTreeSet<&str> = self.intended.iter().map(|(name, _)| *name).collect();
        unused.extend(self.not_yet);
        let mut wrong = String::new();
        for (step, difference) in &self.differences {
            match self.listed(step) {
                Some(name) => _ = unused.remove(name),
                None => wrong += &format!("\n{step}  (- ours, + Apache Kafka)\n{difference}"),
            }
        }
        for name in unused {
            wrong += &format!("\n{name}: named as different, but equal or not asked\n");
        }
        let count = self.steps.len();
        assert!(wrong.is_empty(), "of {count} steps:\n{wrong}");
        let differing = self.differences.len();
        lab::say(&format!(
            "{count} requests answered as Apache Kafka does, but for {differing} that are listed"
        ));
    }
}

/// What became of a request.
enum Answer<T> {
    Given(T),
    Closed,
    /// Nothing came in [`SILENCE`].
    Silent,
}

/// What each side answered.
struct Pair<R: Request> {
    ours: Answer<R::Response>,
    theirs: Answer<R::Response>,
}

impl<R: Request> Pair<R> {
    /// Returns both answers, for a step in which both must answer for the next ones to make sense.
    #[track_caller]
    fn answered(self) -> (R::Response, R::Response) {
        match (self.ours, self.theirs) {
            (Answer::Given(ours), Answer::Given(theirs)) => (ours, theirs),
            _ => panic!("both must answer"),
        }
    }
}

struct Side {
    address: std::net::SocketAddr,
    /// Who it says it is, where the listener asks.
    user: Option<&'static str>,
    client: Option<Client>,
}

impl Side {
    fn new(address: &std::net::SocketAddr) -> Side {
        Side {
            address: *address,
            user: None,
            client: None,
        }
    }

    async fn ask<R: Request>(&mut self, version: i16, request: R) -> Answer<R::Response> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => access::connect(self.address, self.user).await,
        };
        match timeout(SILENCE, client.try_ask(version, request)).await {
            Ok(Some(answer)) => {
                self.client = Some(client);
                Answer::Given(answer)
            }
            Ok(None) => Answer::Closed,
            Err(_) => Answer::Silent,
        }
    }
}
