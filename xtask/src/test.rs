//! `cargo xtask test`: the one command that says whether the tree is sound.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};

/// Where the shop's data lies in the test: kept from one run to the next, as a user's is.
const SHOP_DATA: &str = "target/shop";

/// How long each fuzz target runs among the tests (`testkit::mutate`): random changes without coverage. The long run with
/// coverage is `cargo xtask fuzz`.
const FUZZ_MS: &str = "10000";

/// What `cargo xtask test` may leave out.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only the Rust tests: no format check, no lints, no shop.
    #[arg(long)]
    quick: bool,
}

/// Runs every step in order and stops at the first that fails.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let started = Instant::now();
    if !options.quick {
        step("format", cargo(["fmt", "--all", "--check"]))?;
        step(
            "lints",
            cargo([
                "clippy",
                "--workspace",
                "--all-targets",
                "--quiet",
                "--",
                "-D",
                "warnings",
            ]),
        )?;
    }
    if !options.quick {
        println!("== generated files");
        crate::reference::run(true)?;
    }
    let mut tests = cargo(["test", "--workspace"]);
    if !options.quick {
        tests.env("NUNCIO_FUZZ_MS", FUZZ_MS);
    }
    step("tests", tests)?;
    if !options.quick {
        step(
            "shop: orders",
            within("examples/shop/orders", "node", ["--test"]),
        )?;
        step(
            "shop: mailer",
            within("examples/shop/mailer", "python3", ["-B", "-m", "unittest"]),
        )?;
        step(
            "shop: inventory",
            within("examples/shop/inventory", "cargo", ["test", "--locked"]),
        )?;
        step(
            "shop",
            cargo([
                "run",
                "--quiet",
                "--package",
                "app",
                "--",
                "up",
                "examples/shop",
                "--ci",
                "--data",
                SHOP_DATA,
                // Free ports: the test runs beside a Nuncio that somebody uses.
                "--gateway",
                "127.0.0.1:0",
                "--kafka",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
            ]),
        )?;
    }
    println!("all steps passed in {} s", started.elapsed().as_secs());
    Ok(())
}

fn step(name: &str, mut command: Command) -> anyhow::Result<()> {
    let started = Instant::now();
    println!("== {name}: {command:?}");
    let status = command
        .status()
        .with_context(|| format!("could not start the step `{name}`"))?;
    if !status.success() {
        bail!("the step `{name}` failed: {status}");
    }
    println!("== {name}: passed in {} s", started.elapsed().as_secs());
    Ok(())
}

fn root() -> &'static Path {
    let parent = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    parent.expect("xtask lies in the workspace")
}

fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

fn within<const N: usize>(folder: &str, program: &str, arguments: [&str; N]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root().join(folder));
    // What Cargo says about this package would make it build the dependencies of the other anew.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        }) {
            command.env_remove(name);
        }
    }
    command
}
