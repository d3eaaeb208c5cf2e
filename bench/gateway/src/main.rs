//! Both ends of the gateway bench, on one thread each: `load upstream` answers, `load run` asks.
//!
//! They do as little as HTTP/1.1 allows, because they share a core while the proxy has one for itself.

mod run;
mod upstream;

use std::net::SocketAddr;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Both ends of the gateway bench")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answers `…/big` with 1 MiB and everything else with 1 KiB, until it is killed. Prints where it listens.
    Upstream { address: SocketAddr },
    /// Asks on several connections, each waiting for its answer, and prints one line of JSON.
    Run(run::Options),
}

fn main() -> anyhow::Result<()> {
    let command = Arguments::parse().command;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match command {
        Command::Upstream { address } => runtime.block_on(upstream::serve(address)),
        Command::Run(options) => {
            println!("{}", runtime.block_on(run::run(&options))?);
            Ok(())
        }
    }
}
