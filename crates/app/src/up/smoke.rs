//! The user's own test of the whole: a program called `smoke` beside `nuncio.yaml`.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use tokio::process::Command;
use tokio::time;

/// How long it may take.
const SMOKE_MAX: Duration = Duration::from_mins(10);

/// Returns the program, where the folder has one.
pub(crate) fn find(folder: &Path) -> Option<PathBuf> {
    // Its own folder is where it runs, so that a relative path would be seen from there.
    let program = std::path::absolute(folder.join("smoke")).ok()?;
    program.is_file().then_some(program)
}

/// Runs it in its folder, and returns how it ended. When this is dropped, it is killed.
pub(crate) async fn run(
    program: &Path,
    environment: impl Iterator<Item = (&str, String)>,
) -> anyhow::Result<ExitStatus> {
    let mut child = Command::new(program)
        .current_dir(program.parent().unwrap_or(Path::new(".")))
        .envs(environment)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("could not start the smoke test `{}`", program.display()))?;
    let ended = time::timeout(SMOKE_MAX, child.wait()).await;
    let ended = ended.with_context(|| format!("the smoke test takes longer than {SMOKE_MAX:?}"))?;
    ended.context("could not wait for the smoke test")
}
