//! What one client writes, every other reads.

use std::thread;

use super::contract::{ALL, Client, Kind, Producing};
use super::data::{self, PARTITIONS};
use super::subject::{Subject, unique};

#[test]
fn what_one_client_writes_every_other_reads() {
    let subject = Subject::start();
    let mut clients: Vec<Client> = ALL
        .into_iter()
        .filter_map(|kind| Client::start(kind, subject.bootstrap()))
        .collect();
    for writer in 0..clients.len() {
        let wrote = clients[writer].kind();
        for codec in wrote.codecs() {
            let topic = unique(&format!("cross-{codec}"));
            let begun = data::now_ms();
            // kcat shows and takes headers as text.
            let mut records = data::sample(false, 0);
            clients[writer].make_topic(&topic, PARTITIONS);
            let producing = Producing {
                topic: &topic,
                codec,
                acks: "all",
                idempotent: false,
            };
            clients[writer].produce(producing, &records);
            if wrote == Kind::Kcat {
                let read = clients[writer].consume(&topic, records.len());
                data::take_timestamps(&mut records, &read, begun);
            }
            // They wait more than they work: all at once.
            thread::scope(|scope| {
                for reader in &mut clients {
                    let kind = reader.kind();
                    if kind != wrote && kind.reads(codec, wrote) {
                        let (topic, records) = (&topic, &records);
                        scope.spawn(move || {
                            let read = reader.consume(topic, records.len());
                            data::check_same(&read, &kind.as_read(records), true);
                        });
                    }
                }
            });
        }
    }
    let names: Vec<String> = clients
        .iter()
        .map(|client| client.kind().to_string())
        .collect();
    testkit::lab::say(&format!(
        "each reads what the others write: {}",
        names.join(", ")
    ));
}
