//! Record batches made of bytes: whatever one says of itself, reading it ends, within its bounds and without a panic.
//!
//! The first byte says what is done with the others; `fuzz/` runs the same with coverage.

use kafka::compress::{self, Compression, decompress};
use kafka::record::check::{self, Rules};
use kafka::record::{Batch, HEADER_LEN, LENGTH_END, MAGIC, Records, batches, rewrite};

/// What may come out of a batch here.
const INFLATED_MAX: usize = 256 * 1024;

/// One input.
pub(crate) fn records(input: &[u8]) {
    let [mode, bytes @ ..] = input else { return };
    let codec = Compression::ALL[usize::from(*mode >> 4) % Compression::ALL.len()];
    match mode % 4 {
        0 => each(bytes),
        1 => one(&sealed(bytes, codec)),
        2 => inflates(codec, bytes),
        _ => {
            let packed = compress::compress(codec, bytes);
            let again = decompress(codec, &packed, bytes.len()).expect("ours is readable");
            assert_eq!(again, bytes);
        }
    }
}

fn inflates(codec: Compression, bytes: &[u8]) {
    if let Ok(output) = decompress(codec, bytes, INFLATED_MAX) {
        assert!(output.len() <= INFLATED_MAX);
    }
}

/// Gives bytes what every batch needs: a length, the format's number, and a checksum that is right.
fn sealed(bytes: &[u8], codec: Compression) -> Vec<u8> {
    let mut batch = bytes.to_vec();
    batch.resize(batch.len().max(HEADER_LEN), 0);
    let length = i32::try_from(batch.len() - LENGTH_END).expect("inputs are short");
    batch[..8].fill(0);
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[16] = MAGIC as u8;
    batch[22] = batch[22] & !0b111 | codec.id();
    batch[23] &= 0x7f;
    let checksum = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&checksum.to_be_bytes());
    batch
}

fn each(bytes: &[u8]) {
    let mut all = batches(bytes);
    while let Some(batch) = all.next() {
        let Ok(batch) = batch else { break };
        let range = all.range_of_last(&batch);
        assert_eq!(batch.bytes(), &bytes[range]);
        look(&batch);
    }
}

fn one(bytes: &[u8]) {
    let (batch, rest) = Batch::split_first(bytes).expect("sealed");
    assert!(rest.is_empty());
    batch.verify().expect("sealed");
    look(&batch);
    if check::produced(bytes, true).is_err() {
        return;
    }
    let Ok(records) = Records::read(&batch, INFLATED_MAX) else {
        return;
    };
    let rules = Rules {
        keyed: true,
        timestamps: 0..=i64::MAX,
    };
    let Ok(refused) = check::records(&batch, &records, &rules) else {
        return;
    };
    assert!(refused.len() <= records.iter().count());
    let told = |records: &Records<'_>| -> Vec<_> {
        let each = records.iter().map(|record| record.expect("checked"));
        each.map(|record| {
            let headers: Vec<_> = record
                .headers()
                .map(|header| (header.key.into_owned(), header.value.map(<[u8]>::to_vec)))
                .collect();
            let value = record.value.map(<[u8]>::to_vec);
            (
                record.offset,
                record.timestamp,
                record.key.map(<[u8]>::to_vec),
                value,
                headers,
            )
        })
        .collect()
    };
    for codec in Compression::ALL {
        let packed = rewrite::repacked(&batch, &records, codec.into());
        let (again, _) = Batch::split_first(&packed).expect("ours");
        again.verify().expect("ours");
        let inflated = Records::read(&again, INFLATED_MAX).expect("it was within the bound before");
        assert_eq!(told(&inflated), told(&records), "{codec:?}");
    }
}

fn look(batch: &Batch<'_>) {
    _ = batch.verify();
    _ = batch.last_sequence();
    _ = (batch.next_offset(), batch.delete_horizon());
    let emptied = rewrite::none(batch);
    let (emptied, _) = Batch::split_first(&emptied).expect("ours");
    assert_eq!(emptied.last_offset(), batch.last_offset());
    let Ok(records) = Records::read(batch, INFLATED_MAX) else {
        return;
    };
    for record in &records {
        let Ok(record) = record else { break };
        assert!(record.headers().count() <= batch.bytes().len().max(INFLATED_MAX));
        _ = record.header("traceparent");
    }
}
