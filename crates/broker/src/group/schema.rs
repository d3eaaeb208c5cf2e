//! What is written to `__consumer_offsets`: Kafka's own record schemas, so that its tools can read them.
//!
//! Keys start with their version, which tells what they are: 0 and 1 an offset (group, topic,
//! partition), 2 a group (its id). A record without a value deletes.

use bytes::Bytes;
use kafka::wire::{DecodeError, EncodeError, Reader, Wire, Writer};

use super::terms::{MemberSnapshot, Snapshot};

const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;
const OFFSET_VALUE: i16 = 3;
const GROUP_VALUE: i16 = 3;

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    Offset {
        group: String,
        topic: String,
        partition: i32,
    },
    Group {
        group: String,
    },
}

/// How far a group has come in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
    pub at_ms: i64,
    /// Its place among all that was committed; not stored, the log's order tells it.
    pub order: u64,
}

/// Returns `None` for records of kinds that are not ours.
pub(crate) fn read_key(bytes: &Bytes) -> Result<Option<Key>, DecodeError> {
    let r = &mut Reader::new(bytes);
    match i16::read(r)? {
        0 | OFFSET_KEY => Ok(Some(Key::Offset {
            group: Wire::read(r)?,
            topic: Wire::read(r)?,
            partition: Wire::read(r)?,
        })),
        GROUP_KEY => Ok(Some(Key::Group {
            group: Wire::read(r)?,
        })),
        _ => Ok(None),
    }
}

pub(crate) fn write_key(key: &Key) -> Result<Bytes, EncodeError> {
    let mut w = Writer::new();
    match key {
        Key::Offset {
            group,
            topic,
            partition,
        } => {
            OFFSET_KEY.write(&mut w);
            group.write(&mut w);
            topic.write(&mut w);
            partition.write(&mut w);
        }
        Key::Group { group } => {
            GROUP_KEY.write(&mut w);
            group.write(&mut w);
        }
    }
    w.into_bytes()
}

pub(crate) fn read_offset(bytes: &Bytes) -> Result<Committed, DecodeError> {
    let r = &mut Reader::new(bytes);
    let version = i16::read(r)?;
    Ok(Committed {
        offset: Wire::read(r)?,
        leader_epoch: if version >= 3 { Wire::read(r)? } else { -1 },
        metadata: Wire::read(r)?,
        at_ms: Wire::read(r)?,
        order: 0,
    })
}

pub(crate) fn write_offset(committed: &Committed) -> Result<Bytes, EncodeError> {
    let mut w = Writer::new();
    OFFSET_VALUE.write(&mut w);
    committed.offset.write(&mut w);
    committed.leader_epoch.write(&mut w);
    committed.metadata.write(&mut w);
    committed.at_ms.write(&mut w);
    w.into_bytes()
}

pub(crate) fn read_group(bytes: &Bytes) -> Result<Snapshot, DecodeError> {
    let r = &mut Reader::new(bytes);
    let version = i16::read(r)?;
    let protocol_type = String::read(r)?;
    let mut snapshot = Snapshot {
        protocol_type: Some(protocol_type).filter(|name| !name.is_empty()),
        generation: Wire::read(r)?,
        protocol: Wire::read(r)?,
        leader: Wire::read(r)?,
        since_ms: if version >= 2 { Wire::read(r)? } else { -1 },
        members: Vec::new(),
    };
    let members = i32::read(r)?;
    for _ in 0..members {
        let id = Wire::read(r)?;
        let instance_id = if version >= 3 { Wire::read(r)? } else { None };
        let client_id = Wire::read(r)?;
        let client_host = Wire::read(r)?;
        let rebalance_timeout_ms = if version >= 1 {
            Some(Wire::read(r)?)
        } else {
            None
        };
        let session_timeout_ms = Wire::read(r)?;
        snapshot.members.push(MemberSnapshot {
            id,
            instance_id,
            client_id,
            client_host,
            session_timeout_ms,
            rebalance_timeout_ms: rebalance_timeout_ms.unwrap_or(session_timeout_ms),
            subscription: Bytes::copy_from_slice(&Bytes::read(r)?),
            assignment: Bytes::copy_from_slice(&Bytes::read(r)?),
        });
    }
    Ok(snapshot)
}

pub(crate) fn write_group(snapshot: &Snapshot) -> Result<Bytes, EncodeError> {
    let mut w = Writer::new();
    GROUP_VALUE.write(&mut w);
    snapshot
        .protocol_type
        .clone()
        .unwrap_or_default()
        .write(&mut w);
    snapshot.generation.write(&mut w);
    snapshot.protocol.write(&mut w);
    snapshot.leader.write(&mut w);
    snapshot.since_ms.write(&mut w);
    i32::try_from(snapshot.members.len())
        .unwrap_or(i32::MAX)
        .write(&mut w);
    for member in &snapshot.members {
        member.id.write(&mut w);
        member.instance_id.write(&mut w);
        member.client_id.write(&mut w);
        member.client_host.write(&mut w);
        member.rebalance_timeout_ms.write(&mut w);
        member.session_timeout_ms.write(&mut w);
        member.subscription.write(&mut w);
        member.assignment.write(&mut w);
    }
    w.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for key in [
            Key::Offset {
                group: "g".into(),
                topic: "t".into(),
                partition: 7,
            },
            Key::Group { group: "g".into() },
        ] {
            let bytes = write_key(&key).expect("short");
            assert_eq!(read_key(&bytes), Ok(Some(key)));
        }
        let committed = Committed {
            offset: 42,
            leader_epoch: 3,
            metadata: "here".into(),
            at_ms: 1_700_000_000_000,
            order: 0,
        };
        let bytes = write_offset(&committed).expect("short");
        assert_eq!(read_offset(&bytes), Ok(committed));
        let snapshot = Snapshot {
            protocol_type: Some("consumer".into()),
            generation: 5,
            protocol: Some("range".into()),
            leader: Some("m".into()),
            since_ms: 9,
            members: vec![MemberSnapshot {
                id: "m".into(),
                instance_id: None,
                client_id: "c".into(),
                client_host: "/127.0.0.1".into(),
                session_timeout_ms: 10,
                rebalance_timeout_ms: 20,
                subscription: Bytes::from_static(b"sub"),
                assignment: Bytes::from_static(b"part"),
            }],
        };
        let bytes = write_group(&snapshot).expect("short");
        assert_eq!(read_group(&bytes), Ok(snapshot));
    }

    #[test]
    fn the_bytes_are_kafkas() {
        let key = Key::Offset {
            group: "g".into(),
            topic: "t".into(),
            partition: 7,
        };
        let bytes = write_key(&key).expect("short");
        assert_eq!(&bytes[..], b"\0\x01\0\x01g\0\x01t\0\0\0\x07");
    }

    #[test]
    fn damaged_bytes_are_errors() {
        for bytes in [&b""[..], b"\0\x01\0\x05a", b"\0\x02\0\x01"] {
            assert!(read_key(&Bytes::copy_from_slice(bytes)).is_err());
        }
        assert!(read_group(&Bytes::from_static(b"\0\x03\0\0\0\0\0\x01")).is_err());
        assert_eq!(read_key(&Bytes::from_static(b"\0\x09rest")), Ok(None));
    }
}
