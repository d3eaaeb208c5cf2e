//! `nuncio up`: runs a folder's services behind the gateway and over the broker, and shows what they say.

mod show;
mod smoke;
mod stream;
mod table;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use control::Published;
use model::{Config, Object, Service};
use observe::log::Format;
use services::Services;
use services::board::Board;
use services::plan::{Plan, Spec, Surroundings};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::check;
use crate::serve::{self, Running};
use crate::up::show::Show;
use crate::up::stream::Stream;
use crate::up::table::Doors;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The folder with `nuncio.yaml`.
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,

    /// Wait until all is healthy, run the program `smoke` of the folder where there is one, and end.
    ///
    /// The exit status is 1 when not all is healthy in time, and else that of `smoke`.
    #[arg(long)]
    ci: bool,

    /// How long all may take to become healthy; what is built before it starts does not count.
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = kit::human::duration)]
    timeout: Duration,

    #[command(flatten)]
    place: serve::Place,

    /// Write the gateway's access lines into the stream too.
    #[arg(long)]
    access_log: bool,
}

/// How a run ended.
enum Outcome {
    /// The user stopped it.
    Stopped,
    /// Not all was healthy in time.
    Unhealthy,
    /// All was healthy, and there is no smoke test.
    Healthy,
    /// The smoke test ended.
    Tested(ExitStatus),
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let folder = &arguments.folder;
    let file = folder.join("nuncio.yaml");
    ensure!(
        file.is_file(),
        "there is no `nuncio.yaml` in `{}`; `nuncio up DIR` names a folder with one",
        folder.display()
    );

    // The stream belongs to the services; of gateway and broker only what somebody should look at is in it.
    let colour = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    let log = observe::log::start(Format::Text { colour }, "warn,krafka=error")
        .map_err(anyhow::Error::msg)?;

    let stop = CancellationToken::new();
    let force = CancellationToken::new();
    on_signals(stop.clone(), force.clone())?;

    // What is wrong with the file is told by whoever runs it; here only its services matter.
    let declared = check::read(vec![file.clone()])?.config.services;
    let mut plan = plan(&declared, &arguments)?;
    let places = declared.iter().zip(plan.services());
    let told = places.map(|(service, placed)| {
        let name = (service.namespace.clone(), service.name.clone());
        (name, vec![placed.address])
    });
    let running = Running::start(serve::Options {
        config: vec![file],
        place: arguments.place.clone(),
        role: None,
        access_log: arguments.access_log,
        told: told.collect(),
        log: Some(log),
    })
    .await?;
    let doors = doors(&running)?;
    plan.surround(Surroundings {
        kafka: doors.kafka.clone(),
        gateway: format!("http://{}", doors.gateway),
    });
    let outcome = beside(&running, &plan, &doors, &arguments, &stop, &force).await;
    running.end().await;

    Ok(match outcome? {
        Outcome::Stopped if arguments.ci => ExitCode::from(130),
        Outcome::Stopped | Outcome::Healthy => ExitCode::SUCCESS,
        Outcome::Unhealthy => ExitCode::FAILURE,
        // A smoke test that was killed by a signal has no status of its own.
        Outcome::Tested(status) => status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .map_or(ExitCode::FAILURE, ExitCode::from),
    })
}

/// Runs the services beside gateway and broker until it is time to stop, and stops them.
async fn beside(
    running: &Running,
    plan: &Plan,
    doors: &Doors,
    arguments: &Arguments,
    stop: &CancellationToken,
    force: &CancellationToken,
) -> anyhow::Result<Outcome> {
    let config = running.control().current().config.clone();
    let (services, lines) =
        Services::start(plan).context("could not start `sh`, which runs the services")?;
    let names = plan
        .services()
        .iter()
        .map(|service| service.spec.name.as_str());
    let mut show = Show {
        stream: Stream::new(anstream::stdout(), names),
        lines,
        board: services.board(),
        stop: stop.clone(),
    };
    tokio::spawn(tell_changes(running.control().published(), stop.clone()));
    let outcome = watch(&mut show, services.board(), &config, arguments, doors, stop).await;

    if stop.is_cancelled() {
        show.text("\nstopping; once more Ctrl-C does not wait for it\n");
    }
    let forced = services.force();
    let mut stopping = std::pin::pin!(services.stop());
    let stopped = async {
        tokio::select! {
            () = &mut stopping => return,
            () = force.cancelled() => forced.cancel(),
        }
        stopping.await;
    };
    show.until(stopped).await;
    outcome
}

/// Says when the declared services have changed. Routes, topics and the like are reloaded as they change; a service is
/// not started anew under those who work with it.
async fn tell_changes(mut published: watch::Receiver<Arc<Published>>, stop: CancellationToken) {
    let declared = |published: &Published| -> Vec<(String, Service)> {
        let services = published.config.services.iter();
        services
            .map(|service| (service.name.clone(), service.spec.clone()))
            .collect()
    };
    let mut known = declared(&published.borrow_and_update());
    while let Some(Ok(())) = stop.run_until_cancelled(published.changed()).await {
        let now = declared(&published.borrow_and_update());
        if now != known {
            warn!(
                "the declared services have changed; they run as before until `nuncio up` is started again"
            );
            known = now;
        }
    }
}

/// Waits for health, shows the table, and goes on as long as it should.
async fn watch<W: std::io::Write>(
    show: &mut Show<W>,
    board: watch::Receiver<Board>,
    config: &Config,
    arguments: &Arguments,
    doors: &Doors,
    stop: &CancellationToken,
) -> anyhow::Result<Outcome> {
    let settled = settled(board.clone(), arguments.timeout);
    let in_time = show.until(stop.run_until_cancelled(settled)).await;
    if in_time.is_none() {
        return Ok(Outcome::Stopped);
    }
    let now = board.borrow().clone();
    show.text(&table::write(&now, config, doors));
    if !arguments.ci {
        show.text("           Ctrl-C stops everything; the data stays\n\n");
        show.until(stop.cancelled()).await;
        return Ok(Outcome::Stopped);
    }

    if !now.healthy() {
        let sick: Vec<String> = now.services.iter().filter_map(table::complaint).collect();
        show.text(&format!("\nnot all is healthy: {}\n", sick.join("; ")));
        return Ok(Outcome::Unhealthy);
    }
    let Some(program) = smoke::find(&arguments.folder) else {
        show.text("\nall is healthy; there is no program `smoke` to test more\n");
        return Ok(Outcome::Healthy);
    };
    show.text("\nall is healthy; smoke test:\n");
    let environment = [
        ("NUNCIO_GATEWAY_URL", format!("http://{}", doors.gateway)),
        ("NUNCIO_ADMIN_URL", format!("http://{}", doors.admin)),
        ("KAFKA_BOOTSTRAP_SERVERS", doors.kafka.clone()),
    ];
    let tested = stop.run_until_cancelled(smoke::run(&program, environment.into_iter()));
    match show.until(tested).await {
        None => Ok(Outcome::Stopped),
        Some(status) => {
            let status = status?;
            show.text(&format!(
                "\nsmoke test: {}\n",
                if status.success() {
                    "passed".to_owned()
                } else {
                    status.to_string()
                }
            ));
            Ok(Outcome::Tested(status))
        }
    }
}

/// Waits until all is healthy, or waiting on is of no use, or the time is over.
async fn settled(mut board: watch::Receiver<Board>, timeout: Duration) {
    let mut end = Instant::now() + timeout;
    loop {
        let building = {
            let now = board.borrow_and_update();
            if now.settled() {
                return;
            }
            now.building()
        };
        if building {
            // A compiler on a small machine has its own limit; the clock starts when it is done.
            if board.changed().await.is_err() {
                return;
            }
            end = Instant::now() + timeout;
        } else if !matches!(time::timeout_at(end, board.changed()).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// Returns where gateway, broker and admin API are, as those on this machine reach them.
fn doors(running: &Running) -> anyhow::Result<Doors> {
    let addresses = running.addresses();
    let near = |address: SocketAddr| match address.ip() {
        ip if !ip.is_unspecified() => address,
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
        IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::LOCALHOST, address.port())),
    };
    Ok(Doors {
        gateway: addresses
            .gateway
            .first()
            .copied()
            .map(near)
            .context("the gateway listens nowhere")?,
        kafka: addresses.kafka.context("there is no broker")?,
        admin: addresses
            .admin
            .map(near)
            .context("the admin API listens nowhere")?,
    })
}

/// Makes the plan from what the user declared.
fn plan(declared: &[Object<Service>], arguments: &Arguments) -> anyhow::Result<Plan> {
    // Services run in folders of their own: what they are told must not depend on ours.
    let absolute = |path: &Path| {
        let absolute = std::path::absolute(path);
        absolute.with_context(|| format!("could not find `{}`", path.display()))
    };
    let folder = absolute(&arguments.folder)?;
    let data = absolute(&arguments.place.data)?.join("services");
    let specs = declared.iter().map(|service| Spec::of(service, &folder));
    Ok(Plan::new(specs.collect(), &data)?)
}

/// The first signal asks for an orderly stop, the second for an immediate one, the third ends us alone.
fn on_signals(stop: CancellationToken, force: CancellationToken) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => (),
                _ = terminate.recv() => (),
                _ = hangup.recv() => (),
            }
        };
        next().await;
        stop.cancel();
        next().await;
        force.cancel();
        next().await;
        std::process::exit(130);
    });
    Ok(())
}
