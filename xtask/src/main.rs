//! The developer's commands. `cargo xtask --help` lists them all.

mod bench;
mod fuzz;
mod reference;
mod test;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "The developer's commands",
    arg_required_else_help = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything that must hold before a change lands: format, lints, generated files, all tests, the shop.
    Test(test::Options),

    /// Comparisons with Envoy and Apache Kafka on this machine.
    #[command(subcommand)]
    Bench(bench::Bench),

    /// Random bytes against what reads bytes from outside, for as long as you like.
    Fuzz(fuzz::Options),

    /// Writes the JSON schemas and reference pages of `docs/reference` from the model.
    Reference {
        /// Write nothing, fail when a file is not as it would be written.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Test(options) => test::run(&options),
        Command::Bench(bench) => bench::run(&bench),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Reference { check } => reference::run(check),
    }
}
