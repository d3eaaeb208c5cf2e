//! The same bytes mean the same to the `kafka-protocol` crate, for every message and version.

use kafka::messages::Message;
use kafka::messages::streams_group_describe::{
    StreamsGroupDescribeRequest, StreamsGroupDescribeResponse,
};
use kafka::messages::streams_group_heartbeat::{
    StreamsGroupHeartbeatRequest, StreamsGroupHeartbeatResponse,
};
use kafka::wire::Reader;

use crate::{cases, random, table::Versions};

/// How often each version of each message is tried.
const ROUNDS: u64 = 12;

/// APIs that the other implementation does not know.
pub(crate) const YOUNGER: [&str; 2] = ["StreamsGroupDescribe", "StreamsGroupHeartbeat"];

#[test]
fn every_message_of_an_api_is_tried() {
    let names: Vec<&str> = cases::all().iter().map(|case| case.name).collect();
    for file in random::tables().iter().filter(|file| file.api.is_some()) {
        for message in &file.messages {
            let known = names.contains(&message.name.as_str());
            let alone = YOUNGER.iter().any(|name| message.name.starts_with(name));
            assert!(known || alone, "{} is missing", message.name);
        }
    }
}

#[test]
fn bytes_survive_decoding_and_encoding_where_there_is_no_other_implementation() {
    fn survive<T: Message>(name: &str) {
        let tables = random::tables();
        let mut messages = tables.iter().flat_map(|file| &file.messages);
        let message = messages.find(|message| message.name == name);
        let message = message.unwrap_or_else(|| panic!("{name} has no table"));
        for seed in 1..=ROUNDS {
            let bytes = random::bytes(message, 0, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let mut reader = Reader::new(&bytes);
            let decoded = T::decode(&mut reader, 0).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(reader.remaining(), 0, "{name}, seed {seed}");
            let again = decoded.to_bytes(0).expect("what was decoded");
            assert_eq!(again, bytes, "{name}, seed {seed}");
        }
    }
    survive::<StreamsGroupHeartbeatRequest>("StreamsGroupHeartbeatRequest");
    survive::<StreamsGroupHeartbeatResponse>("StreamsGroupHeartbeatResponse");
    survive::<StreamsGroupDescribeRequest>("StreamsGroupDescribeRequest");
    survive::<StreamsGroupDescribeResponse>("StreamsGroupDescribeResponse");
}

#[test]
fn bytes_survive_decoding_and_encoding_here_and_there() {
    let tables = random::tables();
    let messages: Vec<_> = tables.iter().flat_map(|file| &file.messages).collect();
    for case in cases::all() {
        let message = messages
            .iter()
            .find(|message| message.name == case.name)
            .unwrap_or_else(|| panic!("{} has no table", case.name));
        let Versions { first, last } = message.versions;
        for version in first..=last {
            for seed in 1..=ROUNDS {
                let at = format!("{} v{version}, seed {seed}", case.name);
                let bytes =
                    random::bytes(message, version, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));

                let ours =
                    (case.ours)(&bytes, version).unwrap_or_else(|error| panic!("{at}: {error}"));
                assert_eq!(ours.left, 0, "{at}: bytes left, in {}", ours.text);
                assert_eq!(
                    ours.bytes, bytes,
                    "{at}: our bytes differ, of {}",
                    ours.text
                );

                if version > case.their_last {
                    continue;
                }
                let theirs =
                    (case.theirs)(&bytes, version).unwrap_or_else(|error| panic!("{at}: {error}"));
                assert_eq!(theirs.left, 0, "{at}: they leave bytes");
                assert_eq!(
                    theirs.bytes, bytes,
                    "{at}: their bytes differ, of {}",
                    theirs.text
                );
                same(&at, &ours.text, &theirs.text);
            }
        }
    }
}

#[test]
fn defaults_are_the_same() {
    for case in cases::all() {
        let (ours, theirs) = (case.defaults)();
        same(case.name, &ours, &theirs);
    }
}

/// Fields that are younger than the other implementation, or that only versions have which Kafka
/// has dropped since. Each has one word, by default or always.
const ONE_SIDED: [(&str, &str); 12] = [
    ("ApiVersionsRequest", "cluster_id"),
    ("ApiVersionsRequest", "node_id"),
    ("DeleteGroupsResponse", "error_message"),
    ("DescribeLogDirsResponse", "is_cordoned"),
    ("DescribeShareGroupOffsetsResponse", "lag"),
    ("ShareAcknowledgeRequest", "is_renew_ack"),
    ("ShareAcknowledgeResponse", "acquisition_lock_timeout_ms"),
    ("ShareFetchRequest", "is_renew_ack"),
    ("ShareFetchRequest", "partition_max_bytes"),
    ("ShareFetchRequest", "share_acquire_mode"),
    ("TxnOffsetCommit", "topic_id"),
    ("WriteTxnMarkersRequest", "transaction_version"),
];

/// Compares the values of two messages by the names of their fields.
#[track_caller]
fn same(at: &str, ours: &str, theirs: &str) {
    let (mut ours, mut theirs) = (plain(ours), plain(theirs));
    for (_, field) in ONE_SIDED
        .iter()
        .filter(|(message, _)| at.starts_with(message))
    {
        for words in [&mut ours, &mut theirs] {
            while let Some(found) = words.iter().position(|word| word == field) {
                words.drain(found..found + 3); // the name, the colon, the value
            }
        }
    }
    assert_eq!(ours, theirs, "{at}: the values differ");
}

/// Reduces debug text to names and values: without the types, and without what only they have.
fn plain(text: &str) -> Vec<String> {
    let text = text
        .replace(", unknown_tagged_fields: {}", "")
        .replace("unknown_tagged_fields: {}", "");
    let mut words = Vec::new();
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => quoted(rest),
            'b' if rest.starts_with("b\"") => 1 + quoted(&rest[1..]),
            first if first.is_alphanumeric() || "_-.".contains(first) => rest
                .find(|letter: char| !letter.is_alphanumeric() && !"_-.+".contains(letter))
                .unwrap_or(rest.len()),
            first => first.len_utf8(),
        };
        let word = &rest[..length];
        rest = &rest[length..];
        let type_name = first.is_uppercase() && word != "None";
        if !type_name && !matches!(word, " " | "," | "(" | ")") {
            words.push(word.trim_matches('_').to_owned());
        }
    }
    words
}

/// Returns the length of the string literal that the text starts with.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => (),
        }
    }
    text.len()
}

#[test]
fn comparing_sees_a_difference() {
    assert_eq!(
        plain(r#"A { x: Some("a, \"b"), y: [1, -2] }"#),
        plain(r#"B { x: N("a, \"b"), y: [1, -2], unknown_tagged_fields: {} }"#)
    );
    assert_ne!(plain("A { x: 1, y: 2 }"), plain("A { x: 2, y: 1 }"));
    assert_ne!(plain("A { x: 1 }"), plain("A { y: 1 }"));
    assert_ne!(plain("A { x: None }"), plain(r#"A { x: Some("") }"#));
}
