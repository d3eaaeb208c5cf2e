//! Frames and headers, byte for byte.

use bytes::{Bytes, BytesMut};
use kafka::{
    frame::{self, FrameError, RequestHeader},
    messages::{
        ApiKey,
        api_versions::{ApiVersionsRequest, ApiVersionsResponse},
        heartbeat::{HeartbeatRequest, HeartbeatResponse},
    },
    wire::{DecodeError, EncodeError, Reader, Writer},
};

/// Returns the only frame in the pieces, without its length.
#[track_caller]
fn only(pieces: Vec<Bytes>) -> Bytes {
    let mut received = BytesMut::from(&pieces.concat()[..]);
    let frame = frame::split(&mut received, 1000)
        .expect("a good length")
        .expect("a whole frame");
    assert!(received.is_empty());
    frame
}

#[test]
fn request_headers_have_tags_when_the_version_is_flexible() {
    for (version, size) in [(3, 13), (4, 14)] {
        let request = HeartbeatRequest::default();
        let frame = only(frame::encode_request(&request, version, 5, Some("abc")).expect("known"));
        let mut reader = Reader::new(&frame);
        let header = RequestHeader::decode(&mut reader).expect("our own bytes");
        assert_eq!(reader.position(), size, "v{version}");
        let client_id = Some("abc".to_owned());
        assert_eq!(
            header,
            RequestHeader {
                api: ApiKey::Heartbeat,
                version,
                correlation_id: 5,
                client_id
            }
        );
    }
}

#[test]
fn headers_agree_with_the_other_implementation() {
    use kafka_protocol::{
        messages,
        protocol::{Decodable, Encodable},
    };
    let known = |api: &ApiKey| !crate::oracle::YOUNGER.contains(&api.name());
    for api in ApiKey::ALL.into_iter().filter(known) {
        let theirs = messages::ApiKey::try_from(api as i16).expect("they know it");
        for version in api.versions() {
            let flexible = frame::is_flexible(api, version);
            assert_eq!(
                theirs.request_header_version(version),
                1 + i16::from(flexible),
                "{api:?} v{version}"
            );
            let tags = flexible && api != ApiKey::ApiVersions;
            assert_eq!(
                theirs.response_header_version(version),
                i16::from(tags),
                "{api:?} v{version}"
            );

            let header = RequestHeader {
                api,
                version,
                correlation_id: -9,
                client_id: Some("é".to_owned()),
            };
            let mut writer = Writer::new();
            header.encode(&mut writer);
            let bytes = writer.into_bytes().expect("short");
            let layout = theirs.request_header_version(version);
            let read =
                messages::RequestHeader::decode(&mut bytes.clone(), layout).expect("they read it");
            assert_eq!(read.client_id.as_deref(), Some("é"));
            let mut again = BytesMut::new();
            read.encode(&mut again, layout).expect("they write it");
            assert_eq!(again.freeze(), bytes);
            assert_eq!(RequestHeader::decode(&mut Reader::new(&bytes)), Ok(header));
        }
    }
}

#[test]
fn response_headers_have_tags_except_for_api_versions() {
    let answer = HeartbeatResponse::default();
    for (version, size) in [(1, 4 + 6), (4, 5 + 7)] {
        let frame =
            only(frame::encode_response::<HeartbeatRequest>(&answer, version, 5).expect("known"));
        assert_eq!(frame.len(), size);
        let read = frame::decode_response::<HeartbeatRequest>(&frame, version);
        assert_eq!(read, Ok((5, answer.clone())));
    }
    let answer = ApiVersionsResponse::default();
    let frame = only(frame::encode_response::<ApiVersionsRequest>(&answer, 3, 5).expect("known"));
    assert_eq!(&frame[..], [0, 0, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0]);
    assert_eq!(
        frame::decode_response::<ApiVersionsRequest>(&frame, 3),
        Ok((5, answer))
    );
}

#[test]
fn a_version_of_the_future_still_has_a_header() {
    let bytes = Bytes::from_static(&[0, 18, 0, 99, 0, 0, 0, 1, 0xff, 0xff, 0]);
    let header = RequestHeader::decode(&mut Reader::new(&bytes)).expect("only the version is odd");
    assert_eq!(
        (header.api, header.version, header.client_id),
        (ApiKey::ApiVersions, 99, None)
    );
}

#[test]
fn unknown_keys_and_short_headers_are_errors() {
    let unknown = Bytes::from_static(&[0x7f, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff]);
    let result = RequestHeader::decode(&mut Reader::new(&unknown));
    assert_eq!(result, Err(FrameError::UnknownApi { key: i16::MAX }));
    for length in 0..11 {
        let bytes = Bytes::from_static(&[0, 18, 0, 3, 0, 0, 0, 1, 0, 1, b'x', 0]).slice(..length);
        let result = RequestHeader::decode(&mut Reader::new(&bytes));
        assert!(
            matches!(result, Err(FrameError::Header(DecodeError::Short { .. }))),
            "{length}"
        );
    }
}

#[test]
fn frames_are_split_at_their_lengths() {
    let mut received = BytesMut::from(&[0, 0, 0, 2, 1, 2, 0, 0, 0, 0, 0, 0][..]);
    assert_eq!(
        frame::split(&mut received, 2),
        Ok(Some(Bytes::from_static(&[1, 2])))
    );
    assert_eq!(frame::split(&mut received, 2), Ok(Some(Bytes::new())));
    assert_eq!(frame::split(&mut received, 2), Ok(None));
    received.extend_from_slice(&[0, 9, 5]);
    assert_eq!(frame::split(&mut received, 9), Ok(None));
    assert!(received.capacity() >= 13, "room for the rest of the frame");
}

#[test]
fn a_length_alone_does_not_reserve_the_frame() {
    let mut received = BytesMut::from(&(100i32 << 20).to_be_bytes()[..]);
    assert_eq!(frame::split(&mut received, 200 << 20), Ok(None));
    assert!((frame::READ_AHEAD_MAX..2 * frame::READ_AHEAD_MAX).contains(&received.capacity()));
}

#[test]
fn frames_beyond_the_limit_are_refused() {
    for length in [-1, 101, i32::MAX] {
        let mut received = BytesMut::from(&length.to_be_bytes()[..]);
        assert_eq!(
            frame::split(&mut received, 100),
            Err(FrameError::Length { length, limit: 100 })
        );
    }
}

#[test]
fn strings_too_long_for_their_length_are_refused() {
    let request = HeartbeatRequest {
        group_id: "g".repeat(40_000),
        ..Default::default()
    };
    let old = frame::encode_request(&request, 3, 1, None);
    assert_eq!(old, Err(EncodeError::TooLong { length: 40_000 }));
    assert!(frame::encode_request(&request, 4, 1, None).is_ok());
}
