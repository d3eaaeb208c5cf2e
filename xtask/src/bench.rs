//! Comparisons with the incumbents on this machine. The method and the latest results are in `bench/README.md`.

mod broker;
mod contender;
mod gateway;
mod process;
mod reload;

use clap::Subcommand;

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// CPU time for each request: Nuncio against Envoy, and 10,000 routes against one.
    Gateway(gateway::Options),

    /// How soon a change of the configuration is live, what it costs, and whether clients notice.
    Reload(reload::Options),

    /// Throughput for each CPU second, latency, start and memory: Nuncio against Apache Kafka.
    Broker(broker::Options),
}

pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    match bench {
        Bench::Gateway(options) => gateway::run(options),
        Bench::Reload(options) => reload::run(options),
        Bench::Broker(options) => broker::run(options),
    }
}
