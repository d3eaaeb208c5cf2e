//! What each client says it saw, and whether that can all be true.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// A partition and an offset in it.
type Place = (i64, i64);

/// Everything that the clients have told.
#[derive(Default)]
pub(super) struct History {
    /// Where the record with this number is, as the producer was told.
    acked: BTreeMap<u64, Place>,
    failed: BTreeSet<u64>,
    /// What the members told, each with its clock and the member's number.
    events: Vec<(u64, usize, Value)>,
    read: usize,
    /// The highest next offset of each partition that the broker has confirmed.
    committed: BTreeMap<i64, i64>,
}

impl History {
    /// Takes in one line of client `who`.
    #[track_caller]
    pub(super) fn take(&mut self, who: usize, line: &str) {
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            panic!("not JSON: {line:.400}")
        };
        match event["event"].as_str() {
            Some("acked") => {
                for place in event["places"].as_array().into_iter().flatten() {
                    let number = place[0].as_u64().expect("records have numbers");
                    let place = (integer(&place[1]), integer(&place[2]));
                    let before = self.acked.insert(number, place);
                    assert_eq!(before, None, "record {number} was acknowledged twice");
                }
            }
            Some("failed") => {
                self.failed
                    .insert(event["number"].as_u64().expect("records have numbers"));
            }
            Some(kind) => {
                self.read += usize::from(kind == "record");
                if kind == "committed" {
                    raise(&mut self.committed, &event);
                }
                let at = event["at"].as_u64().expect("events have a clock");
                self.events.push((at, who, event));
            }
            None => panic!("not an event: {line:.400}"),
        }
    }

    /// Returns how many records were acknowledged.
    pub(super) fn acked(&self) -> usize {
        self.acked.len()
    }

    /// Returns how many records the members have read.
    pub(super) fn read(&self) -> usize {
        self.read
    }

    /// Returns how many records lie below the group's confirmed offsets.
    pub(super) fn committed(&self) -> i64 {
        self.committed.values().sum()
    }

    /// Holds the log, as a fresh reader found it, against what everybody was told.
    #[track_caller]
    pub(super) fn check(mut self, log: &Value, sent: usize) {
        let mut at: BTreeMap<Place, u64> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for record in log.as_array().into_iter().flatten() {
            let (place, number) = read(record);
            let before = at.insert(place, number);
            assert_eq!(before, None, "two records at {place:?}");
            assert!(seen.insert(number), "record {number} is in the log twice");
            assert!(
                !self.failed.contains(&number),
                "record {number} had failed, and is there"
            );
        }
        assert_eq!(seen.len(), sent, "records in the log");

        for (number, place) in &self.acked {
            let found = at.get(place);
            assert_eq!(
                found,
                Some(number),
                "record {number} was acknowledged at {place:?}"
            );
        }

        // One producer, numbers that rise: so must they in each partition, over offsets without a gap.
        let mut last: BTreeMap<i64, (i64, u64)> = BTreeMap::new();
        for (&(partition, offset), &number) in &at {
            if let Some((offset_before, number_before)) = last.insert(partition, (offset, number)) {
                assert_eq!(offset, offset_before + 1, "a gap in partition {partition}");
                assert!(
                    number_before < number,
                    "order in partition {partition} at {offset}"
                );
            }
        }
        self.check_group(&at);
    }

    /// Members read on from what the group had committed, without a gap or a step back, and saw what the log has.
    #[track_caller]
    fn check_group(&mut self, log: &BTreeMap<Place, u64>) {
        self.events.sort_by_key(|(at, _, _)| *at);
        let (mut confirmed, mut attempted) = (BTreeMap::new(), BTreeMap::new());
        // Of each member and partition: the next offset, or from where its first may be.
        let mut next: BTreeMap<(usize, i64), Next> = BTreeMap::new();
        let mut everything = BTreeSet::new();
        for (_, who, event) in &self.events {
            match event["event"].as_str().unwrap_or_default() {
                "assigned" => {
                    next.retain(|(member, _), _| member != who);
                    for partition in event["partitions"].as_array().into_iter().flatten() {
                        let partition = integer(partition);
                        let from = confirmed.get(&partition).copied().unwrap_or(0);
                        next.insert((*who, partition), Next::AtLeast(from));
                    }
                }
                "revoked" => next.retain(|(member, _), _| member != who),
                "committing" => raise(&mut attempted, event),
                "committed" => raise(&mut confirmed, event),
                "record" => {
                    let ((partition, offset), number) = read(event);
                    let place = (partition, offset);
                    assert_eq!(
                        log.get(&place),
                        Some(&number),
                        "a member read this at {place:?}"
                    );
                    everything.insert(place);
                    let expected = next.insert((*who, partition), Next::Exactly(offset + 1));
                    let upto = attempted.get(&partition).copied().unwrap_or(0);
                    match expected {
                        Some(Next::Exactly(next)) => {
                            assert_eq!(offset, next, "member {who} in partition {partition}");
                        }
                        Some(Next::AtLeast(from)) => assert!(
                            (from..=upto).contains(&offset),
                            "member {who} begins partition {partition} at {offset}; \
                             confirmed {from}, committed at most {upto}"
                        ),
                        None => {
                            panic!("member {who} reads partition {partition} without having it")
                        }
                    }
                }
                _ => (),
            }
        }
        assert_eq!(
            everything.len(),
            log.len(),
            "records that the group has read"
        );
    }
}

enum Next {
    AtLeast(i64),
    Exactly(i64),
}

/// Returns where a record was read, and its number: values are `p-17......`.
#[track_caller]
fn read(record: &Value) -> (Place, u64) {
    let hex = record["value"].as_str().unwrap_or_default();
    let digits = hex
        .strip_prefix("702d")
        .unwrap_or_else(|| panic!("not our value: {record}"));
    // The digits 0 to 9 are 30 to 39 in hexadecimal.
    let pairs = digits
        .as_bytes()
        .chunks(2)
        .take_while(|pair| pair[0] == b'3');
    let number = pairs.fold(0, |number, pair| number * 10 + u64::from(pair[1] - b'0'));
    (
        (integer(&record["partition"]), integer(&record["offset"])),
        number,
    )
}

fn raise(offsets: &mut BTreeMap<i64, i64>, event: &Value) {
    for (partition, offset) in event["offsets"].as_object().into_iter().flatten() {
        let partition = partition.parse().expect("partitions are numbers");
        let highest = offsets.entry(partition).or_insert(0);
        *highest = integer(offset).max(*highest);
    }
}

#[track_caller]
fn integer(value: &Value) -> i64 {
    value
        .as_i64()
        .unwrap_or_else(|| panic!("not a number: {value}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(number: u64, offset: i64) -> Value {
        let value: String = format!("p-{number}..")
            .bytes()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        json!({ "event": "record", "partition": 0, "offset": offset, "value": value })
    }

    /// Each event happens after the one before.
    fn history(events: &[Value]) -> History {
        let mut history = History::default();
        for (at, event) in events.iter().enumerate() {
            let mut event = event.clone();
            event["at"] = json!(at);
            history.take(0, &event.to_string());
        }
        history
    }

    fn acked(number: u64, offset: i64) -> Value {
        json!({ "event": "acked", "places": [[number, 0, offset]] })
    }

    fn assigned() -> Value {
        json!({ "event": "assigned", "partitions": [0] })
    }

    fn commits(offset: i64) -> [Value; 2] {
        ["committing", "committed"]
            .map(|event| json!({ "event": event, "offsets": { "0": offset } }))
    }

    #[test]
    fn an_honest_history_passes() {
        let [asked, confirmed] = commits(1);
        let events = [
            acked(0, 0),
            acked(1, 1),
            assigned(),
            record(0, 0),
            asked,
            confirmed,
            assigned(),
            record(1, 1),
        ];
        history(&events).check(&json!([record(0, 0), record(1, 1)]), 2);
    }

    #[test]
    #[should_panic(expected = "record 1 was acknowledged at (0, 1)")]
    fn a_lost_record_is_found() {
        history(&[acked(0, 0), acked(1, 1)]).check(&json!([record(0, 0)]), 1);
    }

    #[test]
    #[should_panic(expected = "record 0 is in the log twice")]
    fn a_duplicate_is_found() {
        history(&[acked(0, 0)]).check(&json!([record(0, 0), record(0, 1)]), 2);
    }

    #[test]
    #[should_panic(expected = "order in partition 0 at 1")]
    fn a_swap_is_found() {
        history(&[]).check(&json!([record(1, 0), record(0, 1)]), 2);
    }

    #[test]
    #[should_panic(expected = "begins partition 0 at 0; confirmed 1")]
    fn an_offset_that_went_back_is_found() {
        let [asked, confirmed] = commits(1);
        let events = [
            assigned(),
            record(0, 0),
            asked,
            confirmed,
            assigned(),
            record(0, 0),
        ];
        history(&events).check(&json!([record(0, 0)]), 1);
    }

    #[test]
    #[should_panic(expected = "member 0 in partition 0")]
    fn a_gap_in_what_a_member_reads_is_found() {
        let log = json!([record(0, 0), record(1, 1), record(2, 2)]);
        history(&[assigned(), record(0, 0), record(2, 2)]).check(&log, 3);
    }
}
