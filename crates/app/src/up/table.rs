//! The one table that `up` shows: each service, its state, where it is and what leads to it.

use std::fmt::Write;
use std::net::SocketAddr;

use anstyle::{AnsiColor, Style};
use model::Config;
use model::target::Target;
use services::board::{Board, State, Status};
use services::output::colour;

/// Where the doors are.
#[derive(Debug, Clone)]
pub(crate) struct Doors {
    pub(crate) gateway: SocketAddr,
    pub(crate) kafka: String,
    pub(crate) admin: SocketAddr,
}

/// Writes the table, where the doors are, and a line to try.
pub(crate) fn write(board: &Board, config: &Config, doors: &Doors) -> String {
    let mut rows = vec![["SERVICE", "STATE", "ADDRESS", "ROUTES"].map(str::to_owned)];
    for status in &board.services {
        let routes = routes(config, &status.name).join("  ");
        let state = status.state.to_string();
        rows.push([
            status.name.clone(),
            state,
            status.address.to_string(),
            routes,
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths = [0, 1, 2].map(|column| width(column).unwrap_or_default());

    let mut text = String::from("\n");
    for (number, row) in rows.iter().enumerate() {
        let status = number
            .checked_sub(1)
            .and_then(|place| board.services.get(place));
        let (name, state) = match status {
            Some(status) => (colour(number - 1).on_default(), state_style(status.state)),
            None => (Style::new().dimmed(), Style::new().dimmed()),
        };
        let rest = if status.is_some() {
            Style::new()
        } else {
            Style::new().dimmed()
        };
        // Padded without the colours, whose letters take no room.
        let of_state = format!("{:1$}", row[1], widths[1]);
        let of_rest = format!("{:2$}  {}", row[2], row[3], widths[2]);
        _ = writeln!(
            text,
            "  {name}{:1$}{name:#}  {state}{of_state}{state:#}  {rest}{2}{rest:#}",
            row[0],
            widths[0],
            of_rest.trim_end(),
        );
        if let Some(reason) = status.and_then(told) {
            let width = widths[0];
            _ = writeln!(text, "  {:width$}  {state}{reason}{state:#}", "");
        }
    }

    let Doors {
        gateway,
        kafka,
        admin,
    } = doors;
    _ = write!(
        text,
        "\n  gateway  http://{gateway}\n  broker   {kafka}\n  admin    http://{admin}\n"
    );
    if let Some(path) = path_to_try(config) {
        let bold = Style::new().bold();
        _ = write!(
            text,
            "\n  try      {bold}curl -i http://{gateway}{path}{bold:#}\n"
        );
    }
    text
}

/// Returns the colour that says how good a state is.
pub(crate) fn state_style(state: State) -> Style {
    let colour = match state {
        State::Healthy => AnsiColor::Green,
        State::Unhealthy | State::Failed => AnsiColor::Red,
        State::Waiting | State::Building | State::Starting => AnsiColor::Yellow,
        State::Stopped => return Style::new().dimmed(),
    };
    colour.on_default()
}

/// Returns one service's part of the complaint that not all is healthy.
pub(crate) fn complaint(status: &Status) -> Option<String> {
    match (status.state, told(status)) {
        (State::Healthy, _) => None,
        (state, Some(reason)) => Some(format!("{} is {state} ({reason})", status.name)),
        (state, None) => Some(format!("{} is {state}", status.name)),
    }
}

/// Returns why a service is not healthy.
pub(crate) fn told(status: &Status) -> Option<&str> {
    match status.state {
        State::Healthy | State::Stopped => None,
        _ => status.reason.as_deref(),
    }
}

/// Returns what leads to a service: the prefixes of its routes, and `<-` the topics that are pushed to it.
fn routes(config: &Config, service: &str) -> Vec<String> {
    let leads = |written: &str| {
        Target::parse(written).is_ok_and(|target| {
            // `orders`, `orders.default` and `orders.default.svc` are one.
            target.host.split('.').next() == Some(service) && target.ip().is_none()
        })
    };
    let mapped = config.mappings.iter().map(|mapping| &mapping.spec);
    let mapped = mapped
        .filter(|mapping| leads(&mapping.service))
        .map(
            |mapping| match mapping.hostname.as_deref().or(mapping.host.as_deref()) {
                Some(host) if host != "*" => format!("{host}{}", mapping.prefix),
                _ => mapping.prefix.clone(),
            },
        );
    let pushed = config.subscribe.iter().map(|subscribe| &subscribe.spec);
    let pushed = pushed.filter(|subscribe| leads(&subscribe.service));
    mapped
        .chain(pushed.map(|subscribe| format!("<- {}", subscribe.topic)))
        .collect()
}

/// Returns a path that a GET without anything special can reach.
fn path_to_try(config: &Config) -> Option<&str> {
    let plain = config
        .mappings
        .iter()
        .map(|mapping| &mapping.spec)
        .filter(|mapping| {
            let anybody = mapping.hostname.as_deref().is_none_or(|host| host == "*");
            anybody && mapping.host.is_none() && !mapping.prefix_regex && mapping.headers.is_empty()
        });
    // One that is meant for GET answers it; of the others we do not know.
    let get = plain
        .clone()
        .find(|mapping| mapping.method.as_deref() == Some("GET"));
    get.or_else(|| plain.into_iter().find(|mapping| mapping.method.is_none()))
        .map(|mapping| mapping.prefix.as_str())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::up::stream::tests::{board, plain};

    const CONFIG: &str = "
services:
  orders: { build: ./orders, run: node src/app.js }
  mailer: { run: python3 app.py }
  idle: { run: sleep 9 }
routes:
  - { prefix: /orders/, service: orders }
  - { prefix: /orders/v2/, service: 'http://orders.default:80', hostname: api.example.com }
  - { prefix: /outbox, service: mailer, method: GET }
topics: { orders.placed: {} }
subscribe:
  - { topic: orders.placed, service: mailer, path: /on-order }
";

    #[test]
    fn the_table_says_what_is_where_and_what_is_wrong() {
        let source = model::Source {
            name: "nuncio.yaml".into(),
            text: CONFIG.into(),
        };
        let config = model::load(&[source], &Default::default()).config;
        let mut board = board();
        board.services[0].state = State::Healthy;
        board.services[1].state = State::Failed;
        board.services[1].reason = Some("needs `python3`, which is not installed".into());
        board.services[2].state = State::Stopped;
        let address = |port| ([127, 0, 0, 1], port).into();
        let kafka = "127.0.0.1:9092".to_owned();
        let doors = Doors {
            gateway: address(8080),
            kafka,
            admin: address(8877),
        };
        let text = write(&board, &config, &doors);
        expect![[r#"
            shown:
              SERVICE  STATE    ADDRESS         ROUTES
              orders   healthy  127.0.0.1:4000  /orders/  api.example.com/orders/v2/
              mailer   failed   127.0.0.1:4000  /outbox  <- orders.placed
                       needs `python3`, which is not installed
              idle     stopped  127.0.0.1:4000

              gateway  http://127.0.0.1:8080
              broker   127.0.0.1:9092
              admin    http://127.0.0.1:8877

              try      curl -i http://127.0.0.1:8080/outbox
        "#]]
        .assert_eq(&format!("shown:{}", plain(text.into_bytes())));
    }
}
