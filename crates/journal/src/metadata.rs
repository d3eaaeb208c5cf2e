//! The topic's id, in Kafka's `partition.metadata`.

use std::io;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::disk;

const FILE: &str = "partition.metadata";

/// Reads the id of the topic that the partition in this folder belongs to.
pub fn topic_id(dir: &Path) -> io::Result<Option<[u8; 16]>> {
    let text = match std::fs::read_to_string(dir.join(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let id = text
        .strip_prefix("version: 0\ntopic_id: ")
        .and_then(|id| URL_SAFE_NO_PAD.decode(id.trim_end()).ok())
        .and_then(|id| <[u8; 16]>::try_from(id).ok());
    id.map(Some).ok_or_else(|| {
        let message = format!("{FILE} names no topic id");
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

pub(crate) fn write(dir: &Path, topic_id: [u8; 16]) -> io::Result<()> {
    let text = format!(
        "version: 0\ntopic_id: {}\n",
        URL_SAFE_NO_PAD.encode(topic_id)
    );
    disk::replace(&dir.join(FILE), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_kafkas() {
        let dir = tempfile::tempdir().expect("a temp dir");
        assert_eq!(topic_id(dir.path()).expect("no file is fine"), None);
        write(dir.path(), [0xfb; 16]).expect("written");
        let text = std::fs::read_to_string(dir.path().join(FILE)).expect("readable");
        assert_eq!(text, "version: 0\ntopic_id: -_v7-_v7-_v7-_v7-_v7-w\n");
        assert_eq!(topic_id(dir.path()).expect("readable"), Some([0xfb; 16]));
        std::fs::write(dir.path().join(FILE), "nonsense").expect("written");
        assert!(topic_id(dir.path()).is_err());
    }
}
