//! The one binary: `nuncio up`, `serve`, `check`, `explain`, `topics`, `configs`, `groups`, `transactions`,
//! `users`, `acls`, `produce`, `consume`.

mod acls;
mod check;
mod client;
mod configs;
mod consume;
mod explain;
mod groups;
mod place;
mod produce;
mod serve;
mod topics;
mod transactions;
mod up;
mod users;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An API gateway and an event broker in one: the front door and the post of your services.
#[derive(Parser)]
#[command(name = "nuncio", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a folder's services behind the gateway and over the broker, with one command.
    Up(up::Arguments),
    /// Run gateway and broker on files or folders, reloaded as they change.
    Serve(serve::Arguments),
    /// Tell every problem of a configuration at once.
    Check(check::Arguments),
    /// Say which route a request takes, why, and why the others lost.
    Explain(explain::Arguments),
    /// List, describe, create, change and delete topics of any Kafka-compatible broker.
    Topics(topics::Arguments),
    /// Show, set, unset and extend the settings of topics, brokers and groups of any Kafka-compatible broker.
    Configs(configs::Arguments),
    /// List, describe, reset and delete consumer groups of any Kafka-compatible broker.
    Groups(groups::Arguments),
    /// List, describe and abort transactions, and find those that hang.
    Transactions(transactions::Arguments),
    /// List, add, change and remove users who prove who they are with SCRAM, at any Kafka-compatible broker.
    Users(users::Arguments),
    /// List, add and remove rules of who may do what (ACLs), at any Kafka-compatible broker.
    Acls(acls::Arguments),
    /// Send records to a topic of any Kafka-compatible broker.
    Produce(produce::Arguments),
    /// Print records of a topic of any Kafka-compatible broker.
    Consume(consume::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.command) {
        Ok(code) => code,
        Err(error) => {
            anstream::eprintln!("nuncio: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match command {
        Command::Up(arguments) => return runtime.block_on(up::run(arguments)),
        Command::Serve(arguments) => return runtime.block_on(serve::run(arguments)),
        Command::Check(arguments) => return check::run(arguments),
        Command::Explain(arguments) => return runtime.block_on(explain::run(arguments)),
        Command::Topics(arguments) => runtime.block_on(topics::run(arguments))?,
        Command::Configs(arguments) => runtime.block_on(configs::run(arguments))?,
        Command::Transactions(arguments) => runtime.block_on(transactions::run(arguments))?,
        Command::Users(arguments) => runtime.block_on(users::run(arguments))?,
        Command::Acls(arguments) => runtime.block_on(acls::run(arguments))?,
        Command::Groups(arguments) => runtime.block_on(groups::run(arguments))?,
        Command::Produce(arguments) => runtime.block_on(produce::run(arguments))?,
        Command::Consume(arguments) => runtime.block_on(consume::run(arguments))?,
    }
    Ok(ExitCode::SUCCESS)
}
