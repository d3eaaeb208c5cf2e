//! Transactions in one partition: what is undecided, what was aborted, and what outlives a restart.

use std::fs;

use journal::producer::{Origin, Refusal};
use journal::{AppendError, Log};
use kafka::record::Marker;

use crate::support::*;

/// The aborted transactions that a reader of `from..up_to` is told of, as `producer@first-last`.
fn aborted(log: &Log, from: i64, up_to: i64) -> String {
    let told = log.reader().aborted(from, up_to).expect("readable");
    let words: Vec<String> = told
        .iter()
        .map(|one| {
            format!(
                "{}@{}-{}",
                one.producer_id, one.first_offset, one.last_offset
            )
        })
        .collect();
    words.join(" ")
}

/// Transactions of 1 and 2 that lie across each other, then more of 1 in later segments.
fn mixed(log: &mut Log) {
    append(log, &of_transaction(1, 0, 0, &["a", "b"])); // 0, 1
    append(log, &of_transaction(2, 0, 0, &["c"])); // 2
    append(log, &batch(&["free"])); // 3
    end(log, Marker::Abort, 1, 0); // 4
    append(log, &of_transaction(1, 0, 2, &["d"])); // 5
    end(log, Marker::Commit, 2, 0); // 6
    end(log, Marker::Commit, 1, 0); // 7
    log.roll(NOW).expect("rolled");
    append(log, &of_transaction(2, 0, 1, &["e"])); // 8
    log.roll(NOW).expect("rolled");
    end(log, Marker::Abort, 2, 0); // 9
    append(log, &of_transaction(1, 0, 3, &["f"])); // 10
    log.flush().expect("flushed");
}

#[test]
fn a_transaction_is_undecided_until_its_marker_is_on_disk() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    let undecided = |log: &Log| match log.reader().undecided_from() {
        i64::MAX => None,
        offset => Some(offset),
    };
    append(&mut log, &batch(&["x"]));
    assert_eq!(undecided(&log), None);
    append(&mut log, &of_transaction(1, 0, 0, &["a", "b"]));
    append(&mut log, &of_transaction(2, 0, 0, &["c"]));
    assert_eq!(undecided(&log), Some(1));
    end(&mut log, Marker::Commit, 1, 0);
    assert_eq!(undecided(&log), Some(1), "the marker may still be lost");
    log.flush().expect("flushed");
    assert_eq!(undecided(&log), Some(3));
    end(&mut log, Marker::Abort, 2, 0);
    let flush = log.begin_flush().expect("usable").expect("something to do");
    end(&mut log, Marker::Abort, 9, 0); // nothing was open: nothing changes
    assert_eq!(undecided(&log), Some(3));
    let result = flush.run();
    log.end_flush(&flush, result).expect("flushed");
    assert_eq!(undecided(&log), None);
}

#[test]
fn readers_are_told_what_was_aborted() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    mixed(&mut log);
    for _ in 0..2 {
        for (from, up_to, expected) in [
            (0, 1, "1@0-4"),
            (0, 10, "1@0-4 2@8-9"),
            (4, 5, "1@0-4"),
            (5, 8, ""),
            (5, 9, "2@8-9"),
            (9, 10, "2@8-9"),
            (10, 11, ""),
        ] {
            assert_eq!(aborted(&log, from, up_to), expected, "{from}..{up_to}");
        }
        assert_eq!(log.reader().undecided_from(), 10);
        drop(log);
        log = home.open(small()).0;
    }
}

#[test]
fn the_index_has_kafkas_format_and_is_made_anew_when_it_is_lost() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    mixed(&mut log);
    log.close().expect("closed");
    let names = home.names(".txnindex");
    assert_eq!(
        names,
        [
            "00000000000000000000.txnindex",
            "00000000000000000009.txnindex"
        ]
    );
    let first = home.dir.join(&names[0]);
    let entry = [
        &0i16.to_be_bytes()[..],
        &1i64.to_be_bytes(), // producer
        &0i64.to_be_bytes(), // first offset
        &4i64.to_be_bytes(), // last offset
        &2i64.to_be_bytes(), // then the transaction of producer 2 was the oldest
    ]
    .concat();
    assert_eq!(fs::read(&first).expect("readable"), entry);
    // Garbage in a closed segment's, and one of the active segment that is gone.
    fs::write(&first, [7; 68]).expect("written");
    fs::remove_file(home.dir.join(&names[1])).expect("removed");
    let (log, _) = home.open(small());
    assert_eq!(aborted(&log, 0, 10), "1@0-4 2@8-9");
    assert_eq!(fs::read(&first).expect("readable"), entry);
}

#[test]
fn cutting_either_end_takes_transactions_along() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    mixed(&mut log);
    log.truncate_to(9, NOW).expect("cut");
    assert_eq!(aborted(&log, 0, 9), "1@0-4");
    assert_eq!(log.reader().undecided_from(), 8, "its marker is gone");
    end(&mut log, Marker::Commit, 2, 0);
    log.flush().expect("flushed");
    assert_eq!(log.reader().undecided_from(), i64::MAX);
    log.delete_before(8).expect("deleted");
    assert_eq!(home.names(".txnindex"), ["00000000000000000009.txnindex"]);
    assert_eq!(aborted(&log, 8, 10), "");
}

#[test]
fn what_does_not_belong_into_a_transaction_is_refused() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    append(&mut log, &of_transaction(1, 3, 0, &["a"]));
    let refusal = |log: &mut Log, bytes: &[u8], origin| match log.append(bytes, NOW, origin) {
        Err(AppendError::Producer(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    let outside = refusal(&mut log, &of_producer(1, 3, 1, &["b"]), Origin::Client);
    assert_eq!(outside, Refusal::OutsideTransaction { producer_id: 1 });
    let old = Marker::Abort.batch(1, 2, 5, NOW);
    let old = refusal(&mut log, &old, Origin::Coordinator);
    assert!(
        matches!(old, Refusal::InvalidEpoch { current: 3, .. }),
        "{old:?}"
    );
    let marker = |epoch| Marker::Abort.batch(1, 4, epoch, NOW);
    log.append(&marker(5), NOW, Origin::Coordinator)
        .expect("appended");
    let fenced = refusal(&mut log, &marker(4), Origin::Coordinator);
    assert_eq!(
        fenced,
        Refusal::CoordinatorFenced {
            epoch: 4,
            current: 5
        }
    );
    // The marker raised the epoch (KIP-890): what is on its way from before is refused.
    let late = refusal(
        &mut log,
        &of_transaction(1, 3, 1, &["late"]),
        Origin::Client,
    );
    assert!(
        matches!(late, Refusal::InvalidEpoch { current: 4, .. }),
        "{late:?}"
    );
    append(&mut log, &of_transaction(1, 4, 0, &["next"]));
}
