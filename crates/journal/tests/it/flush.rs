//! One flush for many appends, on the writer's thread or another.

use journal::{AppendError, Config};

use crate::support::*;

#[test]
fn appending_goes_on_while_a_flush_runs_elsewhere() {
    let home = Home::new();
    let (mut log, _) = home.open(Config::default());
    append(&mut log, &batch(&["a"]));
    let flush = log.begin_flush().expect("usable").expect("something to do");
    append(&mut log, &batch(&["b"]));
    let (flush, result) = std::thread::spawn(move || {
        let result = flush.run();
        (flush, result)
    })
    .join()
    .expect("ran");
    assert_eq!(log.end_flush(&flush, result).expect("flushed"), 1);
    assert!(log.dirty());
    assert_eq!(log.flush().expect("flushed"), 2);
    assert!(!log.dirty());
    assert!(log.begin_flush().expect("usable").is_none());
}

#[test]
fn after_a_failed_flush_the_log_takes_nothing_more() {
    let home = Home::new();
    let (mut log, _) = home.open(Config::default());
    append(&mut log, &batch(&["a"]));
    let flush = log.begin_flush().expect("usable").expect("something to do");
    let lost = log.end_flush(&flush, Err(std::io::Error::other("the disk is gone")));
    assert!(matches!(lost, Err(AppendError::Disk(_))), "{lost:?}");
    assert_eq!(log.stable_offset(), 0);
    assert!(matches!(log.flush(), Err(AppendError::Failed)));
    let refused = log.append(&batch(&["b"]), NOW, journal::producer::Origin::Client);
    assert!(matches!(refused, Err(AppendError::Failed)), "{refused:?}");
    drop(log);
    let (mut log, _) = home.open(Config::default());
    append(&mut log, &batch(&["b"]));
    assert_eq!(dump(&log.reader(), 0), "0=a 1=b");
}

#[test]
fn a_roll_does_not_rely_on_a_flush_that_still_runs() {
    let home = Home::new();
    let (mut log, _) = home.open(Config::default());
    append(&mut log, &batch(&["a"]));
    let slow = log.begin_flush().expect("usable").expect("something to do");
    log.roll(NOW).expect("rolled");
    assert_eq!(log.stable_offset(), 1);
    append(&mut log, &batch(&["b"]));
    let result = slow.run();
    assert_eq!(log.end_flush(&slow, result).expect("flushed"), 1);
    assert_eq!(log.flush().expect("flushed"), 2);
}

#[test]
fn a_flush_that_ends_well_after_another_failed_proves_nothing() {
    let home = Home::new();
    let (mut log, _) = home.open(Config::default());
    append(&mut log, &batch(&["a"]));
    let first = log.begin_flush().expect("usable").expect("something to do");
    append(&mut log, &batch(&["b"]));
    let second = log.begin_flush().expect("usable").expect("something to do");
    log.end_flush(&first, Err(std::io::Error::other("gone")))
        .expect_err("failed");
    let late = log.end_flush(&second, Ok(()));
    assert!(matches!(late, Err(AppendError::Failed)), "{late:?}");
    assert_eq!(log.stable_offset(), 0);
}

#[test]
fn a_roll_leaves_everything_before_it_on_disk() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    while home.names(".log").len() < 2 {
        append(&mut log, &batch(&["x"]));
    }
    assert_eq!(log.stable_offset(), log.end_offset() - 1);
}
