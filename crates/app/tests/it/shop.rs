//! The shop under a storm: Nuncio and all services are killed again and again while customers buy.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::process::Process;
use testkit::wait;

/// The first start builds a service with all its dependencies.
const START_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Longer than everything takes to be handed on after the last start.
const LIMIT: Duration = Duration::from_secs(120);

const KILLS: usize = 3;
const CUSTOMERS: usize = 4;

/// Orders that are placed before each kill; enough that it hits all of them somewhere on their way.
const ORDERS_PER_KILL: usize = 60;

/// What `inventory` begins with.
const CUPS: usize = 100_000;

#[test]
fn what_was_sold_is_reserved_and_mailed_exactly_once_after_kills() {
    let data = tempfile::tempdir().expect("a folder of our own");
    let mut sold = Vec::new();
    for _ in 0..KILLS {
        let (mut up, gateway) = start(data.path());
        sold.extend(buy_until_killed(gateway, &mut up));
    }

    let (mut up, gateway) = start(data.path());
    let services = data.path().join("services");
    let stored = orders(&services.join("orders/orders.jsonl"));
    for order in &sold {
        assert!(
            stored.contains(order),
            "order {order} was answered with 201 and is gone"
        );
    }
    // An order whose answer was lost is an order all the same.
    let outbox = services.join("mailer/outbox.jsonl");
    wait::until("both mails for every order", LIMIT, || {
        let mails = mails(&outbox);
        let complete = |order: &String| {
            mails.get(order).is_some_and(|events| {
                events.iter().any(|event| event == "orders.placed")
                    && events.iter().any(|event| event == "inventory.reserved")
            })
        };
        stored.iter().all(complete).then_some(())
    });
    for (order, events) in mails(&outbox) {
        assert_eq!(events.len(), 2, "mails for order {order}: {events:?}");
    }
    let (_, stock) = ask(gateway, "GET", "/inventory/", "").expect("the shop runs");
    assert_eq!(stock["espresso-cup"], json!(CUPS - stored.len()));

    up.terminate();
    assert!(up.wait(LIMIT).success());
}

fn start(data: &Path) -> (Process, SocketAddr) {
    let shop = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop");
    let mut command = Command::new(env!("CARGO_BIN_EXE_nuncio"));
    command.arg("up").arg(shop).arg("--data").arg(data);
    for door in ["--gateway", "--kafka", "--admin"] {
        command.args([door, "127.0.0.1:0"]);
    }
    let mut up = Process::start("nuncio up", command);
    let lines = up.lines_until("the table", START_LIMIT, |line| {
        line.contains("Ctrl-C stops")
    });
    let gateway = lines
        .iter()
        .find_map(|line| line.split_once("gateway  http://"));
    let (_, gateway) = gateway.expect("the gateway's address is shown");
    assert!(
        !lines.iter().any(|line| line.contains("failed")),
        "a service did not start: {lines:#?}"
    );
    (up, gateway.parse().expect("an address is shown"))
}

/// Lets customers buy until Nuncio is killed under them; returns the orders that were answered with 201.
fn buy_until_killed(gateway: SocketAddr, up: &mut Process) -> Vec<String> {
    let closed = AtomicBool::new(false);
    let (sold, counter) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..CUSTOMERS {
            let (sold, closed) = (sold.clone(), &closed);
            scope.spawn(move || {
                let item = json!({ "sku": "espresso-cup", "quantity": 1 });
                let order = json!({ "customer": "ada@example.com", "items": [item] }).to_string();
                while !closed.load(Ordering::Relaxed) {
                    if let Some((201, order)) = ask(gateway, "POST", "/orders/", &order)
                        && let Some(id) = order["order_id"].as_str()
                    {
                        _ = sold.send(id.to_owned());
                    }
                }
            });
        }
        drop(sold);
        let first =
            (0..ORDERS_PER_KILL).map(|_| counter.recv_timeout(LIMIT).expect("the shop sells"));
        let mut orders: Vec<String> = first.collect();
        up.kill();
        closed.store(true, Ordering::Relaxed);
        orders.extend(counter.iter());
        orders
    })
}

/// Asks once, on a connection of its own; `None` when there is no whole answer.
fn ask(gateway: SocketAddr, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
    let mut stream = TcpStream::connect_timeout(&gateway, LIMIT).ok()?;
    stream.set_read_timeout(Some(LIMIT)).ok()?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_str(body).ok()?))
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    // A line that is being written has no end yet.
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    let line = |line: &str| serde_json::from_str(line).expect("each line is JSON");
    complete.lines().map(line).collect()
}

fn orders(path: &Path) -> Vec<String> {
    let id = |line: &Value| line["order"]["order_id"].as_str().map(str::to_owned);
    lines(path).iter().filter_map(id).collect()
}

/// Returns the events of each order that a mail was written for.
fn mails(path: &Path) -> BTreeMap<String, Vec<String>> {
    let mut mails = BTreeMap::<String, Vec<String>>::new();
    for mail in lines(path) {
        let id = mail["id"].as_str().expect("a mail has an id");
        let (event, order) = id.rsplit_once('/').expect("an id is event and order");
        mails
            .entry(order.to_owned())
            .or_default()
            .push(event.to_owned());
    }
    mails
}
