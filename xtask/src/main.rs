//! The developer's commands. `cargo xtask --help` lists them all.

mod bench;
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
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Test(options) => test::run(&options),
        Command::Bench(bench) => bench::run(&bench),
    }
}
