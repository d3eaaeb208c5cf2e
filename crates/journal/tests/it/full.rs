//! A disk that takes no more: nothing acknowledged is lost, and appending goes on when there is room.
//!
//! The limit is that of the process on the size of its files, which cuts a write in the middle as a
//! full disk does. It needs a process of its own, whose signal for it is off.

use std::process::Command;

use journal::producer::Origin;
use journal::{AppendError, Config};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::*;

#[test]
fn a_full_disk_refuses_and_recovers() {
    let done = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().expect("a path"))
        .args([
            "full::on_a_full_disk",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .output()
        .expect("starts");
    let told = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && told.contains("1 passed"), "{told}");
}

#[test]
#[ignore = "run by a_full_disk_refuses_and_recovers, in a process of its own"]
fn on_a_full_disk() {
    let home = Home::new();
    let (mut log, _) = home.open(Config::default());
    append_numbers(&mut log, 0, 3);
    let size = log.reader().size();

    let large = batch(&["3", &"x".repeat(5000)]);
    limit_files(Some(size + 1000));
    for _ in 0..3 {
        let error = log
            .append(&large, NOW, Origin::Client)
            .expect_err("no room");
        assert!(matches!(error, AppendError::Disk(_)), "{error}");
        assert_eq!(log.end_offset(), 3);
        let path = home.dir.join("00000000000000000000.log");
        assert_eq!(
            std::fs::metadata(path).expect("there").len(),
            size,
            "cut back"
        );
    }
    assert_eq!(dump(&log.reader(), 0), numbers(0, 3));
    append_numbers(&mut log, 3, 1); // a small one still fits

    limit_files(None);
    assert_eq!(append(&mut log, &large).base_offset, 4);
    append_numbers(&mut log, 6, 2);
    drop(log);
    let (log, report) = home.open(Config::default());
    assert_eq!((log.end_offset(), report.torn_bytes), (8, 0));
}

fn limit_files(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(
        Resource::Fsize,
        Rlimit {
            current: bytes,
            maximum,
        },
    )
    .expect("allowed");
}
