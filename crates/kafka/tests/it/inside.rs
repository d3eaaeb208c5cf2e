//! Random batches, and bombs: see `sealed`.

use std::path::Path;

use kafka::compress::{Compression, compress};
use kafka::record::{BatchBuilder, NewRecord, Producer};
use testkit::mutate;

use crate::sealed;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/batches");

#[test]
fn random_batches_do_no_harm() {
    mutate::run(
        Path::new(CORPUS),
        &["\u{1}\u{0}", "SNAPPY"],
        sealed::records,
    );
}

#[test]
#[ignore = "writes the corpus anew, of which the other test and the fuzzer begin"]
fn corpus() {
    let folder = Path::new(CORPUS);
    std::fs::create_dir_all(folder).expect("a folder");
    let write = |name: String, mode: u8, bytes: &[u8]| {
        let input = [&[mode], bytes].concat();
        std::fs::write(folder.join(name), input).expect("written");
    };
    for (number, codec) in (0u8..).zip(Compression::ALL) {
        let producer = Producer {
            id: 7,
            epoch: 1,
            base_sequence: 4,
        };
        let plain = BatchBuilder::new(codec);
        let numbered = BatchBuilder::new(codec).producer(producer).transactional();
        for (kind, mut builder) in [("plain", plain), ("numbered", numbered)] {
            for value in [Some(&b"value"[..]), None, Some(b"")] {
                builder.push(NewRecord {
                    timestamp: 1_700_000_000_000,
                    key: value.map(|_| &b"key"[..]),
                    value,
                    headers: &[("name", Some(b"x")), ("", None)],
                });
            }
            let batch = builder.build();
            let name = codec.name();
            let twice = [&batch[..], &batch].concat();
            write(format!("{name}-{kind}-twice"), number << 4, &twice);
            write(format!("{name}-{kind}-sealed"), number << 4 | 1, &batch);
        }
        let bomb = compress(codec, &vec![0; 1 << 20]);
        if bomb.len() < 4000 {
            write(format!("{}-bomb", codec.name()), number << 4 | 2, &bomb);
        }
        let small = compress(codec, &b"the quick brown fox ".repeat(20));
        write(format!("{}-body", codec.name()), number << 4 | 2, &small);
        write(
            format!("{}-packed", codec.name()),
            number << 4 | 3,
            b"plain plain plain",
        );
    }
}
