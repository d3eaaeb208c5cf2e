//! The transaction machine as tables: what is asked in each state, and what follows.

use std::collections::BTreeSet;
use std::fmt::Write;

use expect_test::{Expect, expect};

use super::machine::{End, Next, Start, Transaction, identity};
use super::terms::{EPOCH_MAX, Metadata, Refusal, Rules, State, Version};
use crate::group::coordinator::Place;

/// The producer id that a new transactional id gets; fresh ones follow.
const FIRST: i64 = 10;

struct Stage {
    now: i64,
    transaction: Transaction,
    /// Being stored.
    next: Option<Metadata>,
    fresh: i64,
}

/// Plays a script, one step a line, and compares what followed from each.
///
/// Steps: `start [ID:EPOCH]`, `add PLACES [as ID:EPOCH] [v2]`, `verify PLACE [as ID:EPOCH]`,
/// `commit|abort [as ID:EPOCH] [v2]`, `written` (all markers), `wait MS`, `expire`. What has to be stored is,
/// unless the line ends with `...`: then `stored` or `lost` comes later.
#[track_caller]
fn check(script: &str, expected: Expect) {
    check_from(Transaction::new(FIRST, 0), script, expected);
}

#[track_caller]
fn check_from(transaction: Transaction, script: &str, expected: Expect) {
    let mut stage = Stage {
        now: 1000,
        transaction,
        next: None,
        fresh: FIRST,
    };
    let mut told = String::new();
    for line in script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let outcome = stage.play(line);
        writeln!(told, "{line:<28} {outcome}").expect("a string takes all");
    }
    expected.assert_eq(&told);
}

fn places(word: &str) -> BTreeSet<Place> {
    word.split(',').map(|name| (name.into(), 0)).collect()
}

impl Stage {
    fn play(&mut self, line: &str) -> String {
        let (line, hold) = match line.strip_suffix(" ...") {
            Some(line) => (line, true),
            None => (line, false),
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        let named = words.iter().find_map(|word| {
            let (id, epoch) = word.split_once(':')?;
            Some((id.parse().ok()?, epoch.parse().ok()?))
        });
        let ours = self.transaction.metadata();
        let (producer_id, epoch) = named.unwrap_or((ours.producer_id, ours.epoch));
        let version = match words.contains(&"v2") {
            true => Version::V2,
            false => Version::V1,
        };
        self.fresh += 1;
        let fresh = Some(self.fresh);
        let place = || words.get(1).map(|word| places(word)).unwrap_or_default();
        let end = |commit| End {
            producer_id,
            epoch,
            commit,
            version,
        };
        let now = self.now;
        let next = match words[0] {
            "start" => self
                .transaction
                .start(now, 500, named, fresh)
                .map(|start| match start {
                    Start::Store(next) | Start::Abort(next) => Some(next),
                }),
            "add" => {
                let added = self
                    .transaction
                    .add(now, producer_id, epoch, &place(), version);
                added.map(to_store)
            }
            "verify" => {
                let place = place().pop_first().expect("a place");
                self.transaction
                    .verify(producer_id, epoch, &place)
                    .map(|()| None)
            }
            "commit" => self.transaction.end(now, end(true), fresh).map(to_store),
            "abort" => self.transaction.end(now, end(false), fresh).map(to_store),
            "written" => Ok(self.transaction.complete(now)),
            "wait" => {
                self.now += words[1].parse::<i64>().expect("a number");
                Ok(self.transaction.tick(self.now))
            }
            "expire" => {
                let rules = Rules {
                    timeout_max_ms: 1000,
                    expiration_ms: 10_000,
                };
                Ok(self.transaction.expire(now, &rules))
            }
            "stored" => {
                let next = self.next.take().expect("something is being stored");
                self.transaction.stored(next);
                return self.shown();
            }
            "lost" => {
                self.next.take().expect("something is being stored");
                self.transaction.lost();
                return self.shown();
            }
            other => panic!("no such step: {other}"),
        };
        match next {
            Err(refusal) => format!("{refusal:?}"),
            Ok(None) => "ok".to_owned(),
            Ok(Some(next)) => {
                self.transaction.begin(&next);
                self.next = Some(next);
                if hold {
                    return "storing".to_owned();
                }
                self.play("stored")
            }
        }
    }

    fn shown(&self) -> String {
        let now = self.transaction.metadata();
        let places: Vec<&str> = now.places.iter().map(|place| &*place.0).collect();
        let (id, epoch) = identity(now);
        let mut shown = format!("{} {}:{}", now.state.name(), now.producer_id, now.epoch);
        if (id, epoch) != (now.producer_id, now.epoch) {
            shown += &format!(" then {id}:{epoch}");
        }
        if !places.is_empty() {
            shown += &format!(" [{}]", places.join(" "));
        }
        shown
    }
}

fn to_store(next: Next) -> Option<Metadata> {
    match next {
        Next::Done => None,
        Next::Store(next) => Some(next),
    }
}

#[test]
fn the_first_version() {
    check(
        "start
         verify a
         commit
         abort
         add a
         add a
         verify a
         verify b
         add b
         commit
         commit
         abort
         add c
         verify a
         written
         commit
         abort
         add c
         abort
         abort
         written
         abort
         commit",
        expect![[r#"
            start                        Empty 10:0
            verify a                     NotInTransaction
            commit                       InvalidState
            abort                        InvalidState
            add a                        Ongoing 10:0 [a]
            add a                        ok
            verify a                     ok
            verify b                     NotInTransaction
            add b                        Ongoing 10:0 [a b]
            commit                       PrepareCommit 10:0 [a b]
            commit                       Concurrent
            abort                        InvalidState
            add c                        Concurrent
            verify a                     Concurrent
            written                      CompleteCommit 10:0
            commit                       ok
            abort                        InvalidState
            add c                        Ongoing 10:0 [c]
            abort                        PrepareAbort 10:0 [c]
            abort                        Concurrent
            written                      CompleteAbort 10:0
            abort                        ok
            commit                       InvalidState
        "#]],
    );
}

#[test]
fn the_second_version() {
    check(
        "start
         commit v2
         abort v2
         written
         abort v2
         written
         add a v2
         commit as 10:2 v2
         commit as 10:1 v2
         written
         commit as 10:2 v2
         abort as 10:2 v2
         commit as 10:3 v2
         add a as 10:2 v2
         add a v2
         abort v2
         abort as 10:3 v2
         written
         abort as 10:3 v2
         commit v2",
        expect![[r#"
            start                        Empty 10:0
            commit v2                    InvalidState
            abort v2                     PrepareAbort 10:1
            written                      CompleteAbort 10:1
            abort v2                     PrepareAbort 10:2
            written                      CompleteAbort 10:2
            add a v2                     Ongoing 10:2 [a]
            commit as 10:2 v2            PrepareCommit 10:3 [a]
            commit as 10:1 v2            Fenced
            written                      CompleteCommit 10:3
            commit as 10:2 v2            ok
            abort as 10:2 v2             InvalidState
            commit as 10:3 v2            InvalidState
            add a as 10:2 v2             Fenced
            add a v2                     Ongoing 10:3 [a]
            abort v2                     PrepareAbort 10:4 [a]
            abort as 10:3 v2             Concurrent
            written                      CompleteAbort 10:4
            abort as 10:3 v2             ok
            commit v2                    InvalidState
        "#]],
    );
}

#[test]
fn a_start_fences_and_aborts() {
    check(
        "start
         add a
         start
         start
         commit as 10:0
         written
         add a as 10:0
         start
         add b as 10:1
         add b",
        expect![[r#"
            start                        Empty 10:0
            add a                        Ongoing 10:0 [a]
            start                        PrepareAbort 10:1 [a]
            start                        Concurrent
            commit as 10:0               Fenced
            written                      CompleteAbort 10:1
            add a as 10:0                Fenced
            start                        Empty 10:2
            add b as 10:1                Fenced
            add b                        Ongoing 10:2 [b]
        "#]],
    );
}

#[test]
fn a_producer_may_go_on_with_what_it_has() {
    check(
        "start 7:3
         start 10:0
         start 10:0
         start 10:1
         start 10:0
         start 10:9
         start 11:2
         start
         start 10:2",
        expect![[r#"
            start 7:3                    Empty 10:0
            start 10:0                   Empty 10:1
            start 10:0                   Empty 10:1
            start 10:1                   Empty 10:2
            start 10:0                   Fenced
            start 10:9                   Fenced
            start 11:2                   Fenced
            start                        Empty 10:3
            start 10:2                   Fenced
        "#]],
    );
}

#[test]
fn one_step_at_a_time() {
    check(
        "start ...
         start
         add a as 10:0
         stored
         add a ...
         add a
         commit
         start
         verify a
         lost
         verify a
         add a
         add b ...
         verify a
         verify b
         stored
         commit ...
         verify a
         lost
         abort
         written ...
         written
         stored",
        expect![[r#"
            start ...                    storing
            start                        Concurrent
            add a as 10:0                Concurrent
            stored                       Empty 10:0
            add a ...                    storing
            add a                        Concurrent
            commit                       Concurrent
            start                        Concurrent
            verify a                     Concurrent
            lost                         Empty 10:0
            verify a                     NotInTransaction
            add a                        Ongoing 10:0 [a]
            add b ...                    storing
            verify a                     ok
            verify b                     Concurrent
            stored                       Ongoing 10:0 [a b]
            commit ...                   storing
            verify a                     Concurrent
            lost                         Ongoing 10:0 [a b]
            abort                        PrepareAbort 10:0 [a b]
            written ...                  storing
            written                      ok
            stored                       CompleteAbort 10:0
        "#]],
    );
}

#[test]
fn time_is_up() {
    check(
        "start
         wait 10000
         add a
         wait 500
         add b
         wait 1
         commit as 10:0
         written
         commit as 10:0
         start 10:0
         expire
         wait 10000
         expire ...
         start
         stored",
        expect![[r#"
            start                        Empty 10:0
            wait 10000                   ok
            add a                        Ongoing 10:0 [a]
            wait 500                     ok
            add b                        Ongoing 10:0 [a b]
            wait 1                       PrepareAbort 10:1 [a b]
            commit as 10:0               Fenced
            written                      CompleteAbort 10:1
            commit as 10:0               Fenced
            start 10:0                   Empty 10:1
            expire                       ok
            wait 10000                   ok
            expire ...                   storing
            start                        Concurrent
            stored                       Dead 10:1
        "#]],
    );
}

#[test]
fn epochs_run_out() {
    let almost = Transaction::restore(Metadata {
        epoch: EPOCH_MAX - 1,
        timeout_ms: 500,
        ..Transaction::new(FIRST, 0).metadata().clone()
    });
    check_from(
        almost,
        "add a v2
         commit v2
         written
         add a v2
         commit v2
         written
         commit as 10:32766 v2
         abort as 10:32766 v2
         add a as 10:32766 v2
         add a v2
         commit v2",
        expect![[r#"
            add a v2                     Ongoing 10:32765 [a]
            commit v2                    PrepareCommit 10:32766 [a]
            written                      CompleteCommit 10:32766
            add a v2                     Ongoing 10:32766 [a]
            commit v2                    PrepareCommit 10:32767 then 19:0 [a]
            written                      CompleteCommit 19:0
            commit as 10:32766 v2        ok
            abort as 10:32766 v2         InvalidState
            add a as 10:32766 v2         UnknownMapping
            add a v2                     Ongoing 19:0 [a]
            commit v2                    PrepareCommit 19:1 [a]
        "#]],
    );
    let last = Transaction::restore(Metadata {
        epoch: EPOCH_MAX,
        timeout_ms: 500,
        ..Transaction::new(FIRST, 0).metadata().clone()
    });
    check_from(
        last,
        "add a
         start
         written
         start 10:32766
         start 10:32766
         start 10:5
         start",
        expect![[r#"
            add a                        Ongoing 10:32766 [a]
            start                        PrepareAbort 10:32767 [a]
            written                      CompleteAbort 10:32767
            start 10:32766               Empty 17:0
            start 10:32766               Empty 17:0
            start 10:5                   Fenced
            start                        Empty 17:1
        "#]],
    );
}

#[test]
fn a_fresh_id_is_asked_for_when_it_is_needed() {
    let last = Transaction::restore(Metadata {
        epoch: EPOCH_MAX,
        ..Transaction::new(FIRST, 0).metadata().clone()
    });
    assert_eq!(last.start(0, 1, None, None), Err(Refusal::NeedsId));
    let end = End {
        producer_id: FIRST,
        epoch: EPOCH_MAX,
        commit: false,
        version: Version::V2,
    };
    assert_eq!(last.end(0, end, None), Err(Refusal::NeedsId));
    assert_eq!(last.metadata().state, State::Empty);
}
