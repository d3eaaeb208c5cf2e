//! A small process that outlives ours only to end what we started.
//!
//! It reads the process groups to watch from a pipe. The pipe closes when our process ends, however it ends, `kill
//! -9` included; then the guard asks each group to stop, waits, and kills what is left. A group is told to the guard
//! before its command runs (see `engine/process.rs`), so that no moment is unwatched. What it cannot reach: a process
//! that has left its group (`setsid`), and a machine on which the guard itself is killed first.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Mutex;
use tokio::time;
use tracing::warn;

/// How long the guard may take to end once it has nothing to watch.
const DISMISS_MAX: Duration = Duration::from_secs(2);

/// Ten seconds to stop, as long as an orderly stop gives.
const SCRIPT: &str = r#"
groups=
while read -r what group; do
  rest=
  for other in $groups; do [ "$other" = "$group" ] || rest="$rest $other"; done
  groups=$rest
  [ "$what" = watch ] && groups="$groups $group"
done
for group in $groups; do kill -s TERM -- "-$group"; done
for second in 1 2 3 4 5 6 7 8 9 10; do
  alive=
  for group in $groups; do kill -s 0 -- "-$group" && alive=yes; done
  [ -n "$alive" ] || exit 0
  sleep 1
done
for group in $groups; do kill -s KILL -- "-$group"; done
"#;

/// Our end of the guard.
#[derive(Debug)]
pub(crate) struct Guard {
    running: Mutex<Option<(Child, ChildStdin)>>,
}

impl Guard {
    /// Starts the guard, in a group of its own so that Ctrl-C does not reach it.
    pub(crate) fn start() -> io::Result<Guard> {
        let mut child = Command::new("sh")
            .args(["-c", SCRIPT, "nuncio-guard"])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let pipe = child.stdin.take().expect("stdin is piped");
        Ok(Guard {
            running: Mutex::new(Some((child, pipe))),
        })
    }

    /// From now on `group` ends when we do.
    pub(crate) async fn watch(&self, group: Pid) -> io::Result<()> {
        self.tell("watch", group).await
    }

    /// Tells that `group` is empty, and its number may be given to another.
    pub(crate) async fn forget(&self, group: Pid) {
        if let Err(error) = self.tell("forget", group).await {
            warn!(%error, group = group.as_raw_nonzero(), "the guard of the services is gone");
        }
    }

    async fn tell(&self, what: &str, group: Pid) -> io::Result<()> {
        match &mut *self.running.lock().await {
            Some((_, pipe)) => {
                let message = format!("{what} {}\n", group.as_raw_nonzero());
                pipe.write_all(message.as_bytes()).await
            }
            None => Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the guard was dismissed",
            )),
        }
    }

    /// Ends the guard, after every group was forgotten.
    pub(crate) async fn dismiss(&self) {
        let Some((mut child, pipe)) = self.running.lock().await.take() else {
            return;
        };
        drop(pipe);
        match time::timeout(DISMISS_MAX, child.wait()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => warn!(%error, "could not wait for the guard of the services"),
            // It still ends what was not forgotten, by itself.
            Err(_) => warn!("the guard of the services is still at work"),
        }
    }
}
