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
fn a_failed_log_heals_once_its_bytes_can_be_flushed() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    append_numbers(&mut log, 0, 30);
    log.roll(NOW).expect("rolled");
    append(&mut log, &batch(&["30"]));
    let flush = log.begin_flush().expect("usable").expect("something to do");
    log.end_flush(&flush, Err(std::io::Error::other("no space")))
        .expect_err("failed");
    assert!(log.failed() && log.heal().expect("healed") && !log.failed());
    assert_eq!((log.stable_offset(), log.end_offset()), (31, 31));
    assert!(!log.heal().expect("nothing to do"));
    append_numbers(&mut log, 31, 20);
    drop(log);
    let (log, report) = home.open(small());
    assert_eq!((report.torn_bytes, report.damaged.len()), (0, 0));
    assert_eq!(dump(&log.reader(), 0), numbers(0, 51));
}

#[test]
fn a_failed_log_does_not_heal_when_its_bytes_are_gone() {
    let home = Home::new();
    let (mut log, _) = home.open(Config::default());
    append_numbers(&mut log, 0, 3);
    append(&mut log, &batch(&["3"]));
    let flush = log.begin_flush().expect("usable").expect("something to do");
    log.end_flush(&flush, Err(std::io::Error::other("gone")))
        .expect_err("failed");
    // What the disk has in place of the page that it did not take.
    let path = home.dir.join("00000000000000000000.log");
    let mut bytes = std::fs::read(&path).expect("readable");
    let at = bytes.len() - 4;
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    log.heal().expect_err("damaged");
    assert!(log.failed());
    assert_eq!(log.stable_offset(), 3);
}

#[test]
fn a_roll_does_not_rely_on_a_flush_that_still_runs() {
    let home = Home::new();
    let (mut log, _) = home.open(Config::default());
    append(&mut log, &batch(&["a"]));
    let slow = log.begin_flush().expect("usable").expect("something to do");
    log.roll(NOW).expect("rolled");
    assert!(log.take_rolled() && !log.take_rolled());
    assert_eq!(log.stable_offset(), 0);
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
fn a_roll_is_flushed_with_the_next_flush() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    while home.names(".log").len() < 2 {
        append(&mut log, &batch(&["x"]));
    }
    assert!(log.take_rolled());
    assert_eq!(log.stable_offset(), 0);
    let flush = log.begin_flush().expect("usable").expect("something to do");
    append(&mut log, &batch(&["x"]));
    let done = flush.run();
    let stable = log.end_flush(&flush, done).expect("flushed");
    assert_eq!(stable, log.end_offset() - 1);
    drop(log);
    // The closed segment is not read again.
    let (_, report) = home.open(small());
    assert!(report.scanned_bytes < 200, "{report:?}");
}
