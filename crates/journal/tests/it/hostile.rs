//! A folder whose files hold anything at all: opening it never panics, and never serves what is not a
//! batch.

use std::fs;

use journal::Log;
use kafka::record;
use proptest::prelude::*;

use crate::support::*;

const FILES: [&str; 8] = [
    "00000000000000000000.log",
    "00000000000000000000.index",
    "00000000000000000000.timeindex",
    "00000000000000000003.snapshot",
    "00000000000000000005.log",
    "leader-epoch-checkpoint",
    "partition.metadata",
    "checkpoint",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_in_any_file(
        files in proptest::collection::vec(
            (0..FILES.len(), proptest::collection::vec(any::<u8>(), 0..200)),
            1..5,
        ),
        clean in any::<bool>(),
    ) {
        let home = Home::new();
        let (mut log, _) = home.open(small());
        append_numbers(&mut log, 0, 4);
        if clean { log.close().expect("closed") } else { drop(log) }
        for (file, bytes) in &files {
            fs::write(home.dir.join(FILES[*file]), bytes).expect("written");
        }
        let Ok((mut log, _)) = Log::open(&home.dir, None, small(), NOW) else { return Ok(()) };
        let reader = log.reader();
        for offset in reader.start_offset()..reader.end_offset() {
            if let Ok(slice) = reader.read(offset, 1000, true, i64::MAX) {
                for batch in record::batches(&slice.bytes) {
                    batch.expect("whole").verify().expect("good");
                }
            }
            _ = reader.offset_for_timestamp(offset, i64::MAX);
        }
        _ = reader.latest_by_timestamp();
        let end = log.end_offset();
        append_numbers(&mut log, end, 3);
        prop_assert_eq!(dump(&log.reader(), end), numbers(end, end + 3));
    }
}

#[test]
fn a_log_never_ends_before_its_start() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    append_numbers(&mut log, 0, 4);
    log.delete_before(4).expect("deleted");
    drop(log);
    fs::write(home.dir.join(FILES[0]), "").expect("emptied");
    let (mut log, _) = home.open(small());
    assert_eq!((log.start_offset(), log.end_offset()), (4, 4));
    append_numbers(&mut log, 4, 1);
    assert_eq!(dump(&log.reader(), 4), "4=4");
}
