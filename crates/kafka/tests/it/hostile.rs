//! Bytes that mean harm: an error or a value, never a panic, never a huge allocation.

use bytes::Bytes;
use kafka::{
    messages::{Message, metadata::MetadataRequest, produce::ProduceRequest},
    wire::DecodeError,
};

use crate::{cases, random, table::Versions};

/// Calls `hostile` with every message, each of its versions and some well-formed bytes of it.
fn each(mut hostile: impl FnMut(&cases::Case, i16, &Bytes, u64)) {
    let tables = random::tables();
    let messages: Vec<_> = tables.iter().flat_map(|file| &file.messages).collect();
    for case in cases::all() {
        let message = messages
            .iter()
            .find(|message| message.name == case.name)
            .expect("a table");
        let Versions { first, last } = message.versions;
        for version in first..=last {
            for seed in [3, 78] {
                hostile(&case, version, &random::bytes(message, version, seed), seed);
            }
        }
    }
}

#[test]
fn every_cut_is_an_error() {
    each(|case, version, bytes, _| {
        // All of a small message; of one with large records only the ends.
        let ends = (0..bytes.len()).filter(|at| *at < 300 || *at + 100 > bytes.len());
        for end in ends {
            let result = (case.ours)(&bytes.slice(..end), version);
            assert!(
                result.is_err(),
                "{} v{version} cut at {end} was taken",
                case.name
            );
        }
    });
}

#[test]
fn huge_counts_anywhere_do_no_harm() {
    each(|case, version, bytes, seed| {
        let bytes = bytes.slice(..bytes.len().min(200));
        for at in (seed as usize % 2..bytes.len()).step_by(2) {
            for huge in [
                &[0x7f, 0xff, 0xff, 0xff][..],
                &[0xff, 0xff, 0xff, 0xff, 0x0f],
                &[0x80; 6],
            ] {
                let mut bad = bytes.to_vec();
                let end = bad.len().min(at + huge.len());
                bad[at..end].copy_from_slice(&huge[..end - at]);
                _ = (case.ours)(&bad.into(), version); // any answer will do
            }
        }
    });
}

#[test]
fn random_bytes_do_no_harm() {
    each(|case, version, _, seed| {
        let mut state = seed;
        for length in 0..64 {
            let mut next = || {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            };
            let bad: Bytes = (0..length).map(|_| next()).collect::<Vec<u8>>().into();
            _ = (case.ours)(&bad, version); // any answer will do
        }
    });
}

#[test]
fn four_bytes_do_not_ask_for_gigabytes() {
    let bytes = Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff]);
    for version in 0..=8 {
        let result = MetadataRequest::from_bytes(&bytes, version);
        assert_eq!(result, Err(DecodeError::Length { at: 0 }), "v{version}");
    }
}

#[test]
fn null_is_refused_where_a_value_is_required() {
    // Produce 3: transactional id null, acks, timeout, topics null.
    let bytes = Bytes::from_static(&[0xff, 0xff, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(
        ProduceRequest::from_bytes(&bytes, 3),
        Err(DecodeError::Null { at: 8 })
    );
}

#[test]
fn unknown_versions_are_refused() {
    let result = ProduceRequest::from_bytes(&Bytes::new(), 99);
    assert_eq!(
        result,
        Err(DecodeError::Version {
            message: "ProduceRequest",
            version: 99
        })
    );
    assert!(ProduceRequest::default().to_bytes(2).is_err());
}
