//! Records that go from their file to the socket without a way through our memory (`sendfile`).
//!
//! An answer has a gap in their place: bytes of the right length that nobody reads. Where a gap begins in the array that all
//! gaps are cut from tells which stretch of a file goes there.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

use bytes::Bytes;
use journal::Stretch;
use rustix::io::{Errno, retry_on_intr};
use tokio::io::{AsyncWrite, AsyncWriteExt, Interest, WriteHalf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

/// The longest stretch; most clients ask for 1 MiB of a partition.
pub(crate) const STRETCH_MAX: usize = 16 << 20;
/// Most stretches in an answer.
pub(crate) const STRETCHES_MAX: usize = 1024;

/// Most bytes that the kernel is given at a time, so that other connections get their turn.
const SENT_AT_ONCE: usize = 1 << 20;
/// Most bytes that are copied at a time.
const COPIED_AT_ONCE: usize = 64 << 10;

/// Never read, so it takes addresses and no memory.
static GAP: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(vec![0; STRETCH_MAX + STRETCHES_MAX]));

/// Returns what stands in an answer for the stretch with this number.
pub(crate) fn gap(number: usize, len: usize) -> Bytes {
    GAP.slice(number..number + len)
}

/// Returns the number of the stretch that a piece of an answer stands for, if it does.
pub(crate) fn number(piece: &Bytes) -> Option<usize> {
    let begin = GAP.as_ptr().addr();
    let at = piece.as_ptr().addr().checked_sub(begin)?;
    (at < STRETCHES_MAX && !piece.is_empty()).then_some(at)
}

/// Where answers go.
pub(crate) trait Sink: AsyncWrite + Unpin {
    /// The socket, where bytes may go to it as they are.
    fn socket(&self) -> Option<&TcpStream>;
}

impl Sink for OwnedWriteHalf {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self.as_ref())
    }
}

/// Within TLS everything is written anew.
impl<T> Sink for WriteHalf<T>
where
    WriteHalf<T>: AsyncWrite + Unpin,
{
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

/// Sends a part of a stretch from `sent` on, as much as is taken now, and returns how much that was.
///
/// Where the file system or the way to the client does not allow `sendfile`, the bytes are copied, a few at a time.
pub(crate) async fn send<W: Sink>(
    writer: &mut W,
    stretch: &Stretch,
    sent: usize,
) -> io::Result<usize> {
    let position = stretch.position + sent as u64;
    let left = stretch.len - sent;
    if let Some(socket) = writer.socket() {
        let sending = || {
            let mut position = position;
            let most = left.min(SENT_AT_ONCE);
            let send = || rustix::fs::sendfile(socket, &stretch.file, Some(&mut position), most);
            retry_on_intr(send).map_err(io::Error::from)
        };
        match socket.async_io(Interest::WRITABLE, sending).await {
            Err(error) if is_unsupported(&error) => {}
            sent => return whole(sent?),
        }
    }
    let mut bytes = vec![0; left.min(COPIED_AT_ONCE)];
    let read = whole(stretch.file.read_at(&mut bytes, position)?)?;
    writer.write(&bytes[..read]).await
}

/// What was looked at is not there any more when nothing comes: the disk broke.
fn whole(read: usize) -> io::Result<usize> {
    match read {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => Ok(read),
    }
}

/// Returns whether this says that there is no `sendfile` from this file.
fn is_unsupported(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP].contains(&errno))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;

    use bytes::Bytes;
    use journal::Stretch;
    use tokio::io::AsyncReadExt;

    use super::{
        COPIED_AT_ONCE, SENT_AT_ONCE, STRETCH_MAX, STRETCHES_MAX, Sink, gap, number, send,
    };

    /// A stretch in the middle of a file, and its bytes.
    fn stretch(len: usize) -> (Stretch, Vec<u8>) {
        let all: Vec<u8> = (0..len + 2000).map(|at| (at % 251) as u8).collect();
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&all).expect("written");
        let stretch = Stretch {
            file: Arc::new(file),
            position: 1000,
            len,
            records: 1,
            next_offset: 1,
            cut: false,
        };
        (stretch, all[1000..1000 + len].to_vec())
    }

    /// Sends it all; returns the most that was sent at once.
    async fn send_all(mut writer: impl Sink, stretch: &Stretch) -> usize {
        let (mut sent, mut most) = (0, 0);
        while sent < stretch.len {
            let more = send(&mut writer, stretch, sent).await.expect("sent");
            most = most.max(more);
            sent += more;
        }
        most
    }

    #[tokio::test]
    async fn a_stretch_comes_whole_through_a_socket() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("bound");
        let address = listener.local_addr().expect("an address");
        let client = tokio::net::TcpStream::connect(address).await;
        let mut client = client.expect("connected");
        let (stream, _) = listener.accept().await.expect("accepted");
        let (stretch, expected) = stretch(3 * SENT_AT_ONCE + 7);
        let (_reader, writer) = stream.into_split();
        let mut found = vec![0; stretch.len];
        let (most, read) = tokio::join!(send_all(writer, &stretch), client.read_exact(&mut found));
        read.expect("all of it");
        assert!(most <= SENT_AT_ONCE);
        assert!(found == expected);
    }

    #[tokio::test]
    async fn a_stretch_is_copied_where_there_is_no_socket() {
        let (ours, mut theirs) = tokio::io::duplex(5000);
        let (stretch, expected) = stretch(2 * COPIED_AT_ONCE + 7);
        let (_reader, writer) = tokio::io::split(ours);
        let mut found = vec![0; stretch.len];
        let (_, read) = tokio::join!(send_all(writer, &stretch), theirs.read_exact(&mut found));
        read.expect("all of it");
        assert!(found == expected);
    }

    #[tokio::test]
    async fn a_file_that_has_become_shorter_is_an_error() {
        let (ours, _theirs) = tokio::io::duplex(5000);
        let (stretch, _) = stretch(5000);
        stretch.file.set_len(1000).expect("cut");
        let (_reader, mut writer) = tokio::io::split(ours);
        let error = send(&mut writer, &stretch, 0).await.expect_err("gone");
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_gap_tells_its_number_and_nothing_else_does() {
        for at in [0, 1, 77, STRETCHES_MAX - 1] {
            assert_eq!(number(&gap(at, STRETCH_MAX)), Some(at));
            assert_eq!(number(&gap(at, 1).clone()), Some(at));
        }
        assert_eq!(number(&Bytes::new()), None);
        assert_eq!(number(&Bytes::from(vec![0; 4096])), None);
        assert_eq!(number(&Bytes::from_static(b"records")), None);
    }
}
