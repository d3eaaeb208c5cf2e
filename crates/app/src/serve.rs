//! `nuncio serve`: the gateway, the broker and the bridge on files or folders, until a signal.

mod cluster;
mod diag;
mod entry;
mod kafka;
mod running;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use observe::log::{Filter, Format};
use tokio_util::sync::CancellationToken;

pub(crate) use running::Running;

/// Where gateway, broker and admin API listen when nobody says.
pub(crate) const GATEWAY: &str = "127.0.0.1:8080";
pub(crate) const KAFKA: &str = "127.0.0.1:9092";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Files and folders with the configuration; `./nuncio.yaml` when nothing is said.
    config: Vec<PathBuf>,
    #[command(flatten)]
    place: Place,
    /// Run one part alone.
    #[arg(long, value_enum)]
    role: Option<Role>,
    #[command(flatten)]
    telling: Telling,
}

/// Where data lies and who listens where: the same for `serve` and `up`.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct Place {
    /// Where the broker keeps its data.
    #[arg(long, value_name = "DIR", default_value = "./.nuncio")]
    pub(crate) data: PathBuf,
    /// Where the gateway listens; 127.0.0.1:8080, or the Listeners' ports, when nothing is said.
    #[arg(long, value_name = "ADDR")]
    pub(crate) gateway: Option<SocketAddr>,
    /// Where the broker listens; 127.0.0.1:9092 when nothing is said.
    #[arg(long, value_name = "ADDR")]
    pub(crate) kafka: Option<SocketAddr>,
    /// Where the admin API listens; 127.0.0.1:8877, or the Module's `diag_port`, when nothing is said.
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<SocketAddr>,
}

/// A part that can run alone.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Gateway,
    Broker,
}

/// What is written while running.
#[derive(clap::Args, Clone)]
pub(crate) struct Telling {
    /// What is logged, as in `info` or `broker=debug,warn`; the variable NUNCIO_LOG wins.
    #[arg(long, value_name = "FILTER", default_value = "info,krafka=error")]
    pub(crate) log: String,
    /// Log lines as JSON.
    #[arg(long)]
    pub(crate) log_json: bool,
    /// Write no access lines.
    #[arg(long)]
    pub(crate) no_access_log: bool,
}

impl Telling {
    /// Starts the log.
    pub(crate) fn start(&self) -> anyhow::Result<Filter> {
        let colour =
            anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
        let format = if self.log_json {
            Format::Json
        } else {
            Format::Text { colour }
        };
        observe::log::start(format, &self.log).map_err(anyhow::Error::msg)
    }
}

/// What a [`Running`] is started with.
pub(crate) struct Options {
    pub(crate) config: Vec<PathBuf>,
    pub(crate) place: Place,
    pub(crate) role: Option<Role>,
    pub(crate) access_log: bool,
    /// Where services are that this process itself has given their places.
    pub(crate) told: control::Overlay,
    /// What is logged, where it can be changed.
    pub(crate) log: Option<Filter>,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let log = arguments.telling.start()?;
    let stop = CancellationToken::new();
    kit::stop::on_signals(stop.clone())?;
    let options = Options {
        config: or_here(arguments.config)?,
        place: arguments.place,
        role: arguments.role,
        access_log: !arguments.telling.no_access_log,
        told: control::Overlay::new(),
        log: Some(log),
    };
    let running = Running::start(options).await?;
    for line in running.addresses().lines() {
        anstream::println!("{line}");
    }
    stop.cancelled().await;
    running.end().await;
    Ok(ExitCode::SUCCESS)
}

/// Returns the named files and folders, or `nuncio.yaml` where the command was started, or Ambassador's own folder.
pub(crate) fn or_here(named: Vec<PathBuf>) -> anyhow::Result<Vec<PathBuf>> {
    if !named.is_empty() {
        if let Some(missing) = named.iter().find(|path| !path.exists()) {
            anyhow::bail!("there is no file or folder `{}`", missing.display());
        }
        return Ok(named);
    }
    let here = PathBuf::from("nuncio.yaml");
    if here.exists() {
        return Ok(vec![here]);
    }
    // Where Ambassador without a cluster reads its configuration.
    if let Ok(base) = std::env::var("AMBASSADOR_CONFIG_BASE_DIR")
        && !base.is_empty()
    {
        let folder = PathBuf::from(base).join("ambassador-config");
        anyhow::ensure!(
            folder.exists(),
            "there is no folder `{}`, where AMBASSADOR_CONFIG_BASE_DIR says that the configuration is",
            folder.display()
        );
        return Ok(vec![folder]);
    }
    anyhow::bail!(
        "there is no nuncio.yaml here; name a file or a folder, as in `nuncio serve config/`"
    )
}
