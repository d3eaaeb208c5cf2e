//! The group machine as tables: a script of what clients do, and what each of them is told.

use std::collections::BTreeMap;
use std::fmt::Write;

use bytes::Bytes;
use expect_test::{Expect, expect};

use super::machine::Group;
use super::member::Protocol;
use super::terms::{After, Effect, Join, Rules, Snapshot, Sync};

/// Plays scripts: one line a step, each client under a name of its own.
struct Stage {
    now: i64,
    rules: Rules,
    group: Group,
    out: String,
    tickets: BTreeMap<u64, String>,
    member_ids: BTreeMap<String, String>,
    generations: BTreeMap<String, i32>,
    stores: Vec<(Snapshot, After)>,
    last_stored: Option<Snapshot>,
    fresh: u64,
}

/// Runs `script` and compares all that happened.
///
/// Verbs: `join NAME [v4] [static=I] [id=ID] [proto=a,b] [meta=M] [v9]`, `sync NAME [gen=N] NAME:PART ..`,
/// `beat NAME`, `leave NAME..`, `commit NAME`, `wait MS`, `stored`, `lost`, `restart`, `forget NAME`.
#[track_caller]
fn check(rules: Rules, script: &str, expected: Expect) {
    let mut stage = Stage {
        now: 0,
        group: Group::new(0),
        rules,
        out: String::new(),
        tickets: BTreeMap::new(),
        member_ids: BTreeMap::new(),
        generations: BTreeMap::new(),
        stores: Vec::new(),
        last_stored: None,
        fresh: 0,
    };
    for line in script.lines().map(str::trim).filter(|l| !l.is_empty()) {
        stage.play(line);
    }
    expected.assert_eq(&stage.out);
}

impl Stage {
    fn play(&mut self, line: &str) {
        writeln!(self.out, "> {line}").expect("a string takes all");
        let mut words = line.split_whitespace();
        let verb = words.next().expect("a line has a verb");
        let rest: Vec<&str> = words.collect();
        let mut effects = Vec::new();
        match verb {
            "join" => self.join(&rest, &mut effects),
            "sync" => self.sync(&rest, &mut effects),
            "beat" => {
                let (id, generation, instance) = self.who(&rest);
                let result = self
                    .group
                    .heartbeat(self.now, &id, instance.as_deref(), generation);
                self.say(&format!("{}: {}", rest[0], told(&result)));
            }
            "commit" => {
                let (id, generation, instance) = self.who(&rest);
                let result = self
                    .group
                    .may_commit(self.now, &id, instance.as_deref(), generation);
                self.say(&format!("{}: {}", rest[0], told(&result)));
            }
            "leave" => {
                let leavers: Vec<_> = rest
                    .iter()
                    .map(|name| match name.strip_prefix("static=") {
                        Some(instance) => (String::new(), Some(instance.to_owned())),
                        None => (self.member_id(name), None),
                    })
                    .collect();
                let results = self
                    .group
                    .leave(self.now, &leavers, &self.rules, &mut effects);
                for (name, result) in rest.iter().zip(results) {
                    self.say(&format!("{name}: {}", told(&result)));
                }
            }
            "wait" => {
                let until = self.now + rest[0].parse::<i64>().expect("milliseconds");
                while let Some(at) = self.group.wakes_at().filter(|at| *at <= until) {
                    self.now = at;
                    self.group.tick(at, &self.rules, &mut effects);
                }
                self.now = until;
            }
            "stored" | "lost" => {
                let (snapshot, after) = self.stores.remove(0);
                let durable = verb == "stored";
                if durable {
                    self.last_stored = Some(snapshot);
                }
                self.group
                    .stored(self.now, after, durable, &self.rules, &mut effects);
            }
            "restart" => {
                self.group = match self.last_stored.clone() {
                    Some(snapshot) => Group::restore(snapshot, self.now),
                    None => Group::new(self.now),
                };
            }
            "forget" => {
                self.member_ids.remove(rest[0]);
            }
            other => panic!("unknown verb {other}"),
        }
        self.tell(effects);
        let line = format!(
            "= {} gen {} leader {} members {}",
            self.group.state().name(),
            self.group.generation(),
            self.group.leader().unwrap_or("-"),
            self.group.members().len(),
        );
        self.say(&line);
    }

    fn say(&mut self, line: &str) {
        writeln!(self.out, "  {line}").expect("a string takes all");
    }

    fn member_id(&self, name: &str) -> String {
        self.member_ids.get(name).cloned().unwrap_or_default()
    }

    fn who(&self, words: &[&str]) -> (String, i32, Option<String>) {
        let option = |key: &str| words.iter().find_map(|word| word.strip_prefix(key));
        let generation = option("gen=").map_or_else(
            || self.generations.get(words[0]).copied().unwrap_or(-1),
            |text| text.parse().expect("a number"),
        );
        let id = option("id=").map_or_else(|| self.member_id(words[0]), str::to_owned);
        (id, generation, option("static=").map(str::to_owned))
    }

    fn ticket(&mut self, name: &str) -> u64 {
        self.fresh += 1;
        self.tickets.insert(self.fresh, name.to_owned());
        self.fresh
    }

    fn join(&mut self, words: &[&str], effects: &mut Vec<Effect>) {
        let (member_id, _, instance_id) = self.who(words);
        let option = |key: &str| words.iter().find_map(|word| word.strip_prefix(key));
        let ticket = self.ticket(words[0]);
        let meta = option("meta=").unwrap_or(words[0]).to_owned();
        let join = Join {
            ticket,
            member_id,
            fresh_id: format!("{}-{ticket}", words[0]),
            instance_id,
            client_id: words[0].to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            session_timeout_ms: option("session=").map_or(10_000, |ms| ms.parse().expect("ms")),
            rebalance_timeout_ms: 60_000,
            protocol_type: option("type=").unwrap_or("consumer").to_owned(),
            protocols: option("proto=")
                .unwrap_or("range")
                .split(',')
                .map(|name| Protocol {
                    name: name.to_owned(),
                    metadata: Bytes::from(meta.clone()),
                })
                .collect(),
            id_required: words.contains(&"v4"),
            may_skip_assignment: words.contains(&"v9"),
        };
        self.group.join(self.now, join, &self.rules, effects);
    }

    fn sync(&mut self, words: &[&str], effects: &mut Vec<Effect>) {
        let (member_id, generation, instance_id) = self.who(words);
        let ticket = self.ticket(words[0]);
        let sync = Sync {
            ticket,
            member_id,
            instance_id,
            generation,
            protocol_type: Some("consumer".to_owned()),
            protocol: None,
            assignments: words
                .iter()
                .filter_map(|word| word.split_once(':'))
                .map(|(name, part)| (self.member_id(name), Bytes::from(part.to_owned())))
                .collect(),
        };
        self.group.sync(self.now, sync, effects);
    }

    fn tell(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Joined(ticket, answer) => {
                    let name = self.tickets.remove(&ticket).expect("answered once");
                    match answer {
                        Ok(joined) => {
                            self.member_ids
                                .insert(name.clone(), joined.member_id.clone());
                            self.generations.insert(name.clone(), joined.generation);
                            let members: Vec<String> = joined
                                .members
                                .iter()
                                .map(|(id, _, meta)| {
                                    format!("{id}={}", String::from_utf8_lossy(meta))
                                })
                                .collect();
                            self.say(&format!(
                                "{name}: joined as {} gen {} by {} leader {}{} [{}]",
                                joined.member_id,
                                joined.generation,
                                joined.protocol.unwrap_or_default(),
                                joined.leader,
                                if joined.skip_assignment { " skip" } else { "" },
                                members.join(" "),
                            ));
                        }
                        Err((refusal, id)) => {
                            if !id.is_empty() {
                                self.member_ids.insert(name.clone(), id.clone());
                            }
                            self.say(&format!("{name}: {refusal:?} {id}"));
                        }
                    }
                }
                Effect::Synced(ticket, answer) => {
                    let name = self.tickets.remove(&ticket).expect("answered once");
                    let text = match answer {
                        Ok(synced) => {
                            format!("has {}", String::from_utf8_lossy(&synced.assignment))
                        }
                        Err(refusal) => format!("{refusal:?}"),
                    };
                    self.say(&format!("{name}: {text}"));
                }
                Effect::Store(snapshot, after) => {
                    self.say(&format!("store gen {}", snapshot.generation));
                    self.stores.push((snapshot, after));
                }
            }
        }
    }
}

fn told<E: std::fmt::Debug>(result: &Result<(), E>) -> String {
    match result {
        Ok(()) => "ok".to_owned(),
        Err(refusal) => format!("{refusal:?}"),
    }
}

fn no_delay() -> Rules {
    Rules::default()
}

fn delay(initial_delay_ms: i64) -> Rules {
    Rules {
        initial_delay_ms,
        ..Rules::default()
    }
}

#[test]
fn one_member_gets_everything() {
    check(
        no_delay(),
        "join a v4
         join a v4
         sync a a:p0,p1
         stored
         beat a
         commit a
         leave a",
        expect![[r#"
            > join a v4
              a: MemberIdRequired a-1
              = Empty gen 0 leader - members 0
            > join a v4
              a: joined as a-1 gen 1 by range leader a-1 [a-1=a]
              = CompletingRebalance gen 1 leader a-1 members 1
            > sync a a:p0,p1
              store gen 1
              = CompletingRebalance gen 1 leader a-1 members 1
            > stored
              a: has p0,p1
              = Stable gen 1 leader a-1 members 1
            > beat a
              a: ok
              = Stable gen 1 leader a-1 members 1
            > commit a
              a: ok
              = Stable gen 1 leader a-1 members 1
            > leave a
              a: ok
              store gen 2
              = Empty gen 2 leader - members 0
        "#]],
    );
}

#[test]
fn a_second_member_makes_the_first_join_again() {
    check(
        no_delay(),
        "join a
         sync a a:p0,p1
         stored
         join b
         beat a
         commit a
         join a
         beat b
         commit b
         sync b
         sync a a:p0 b:p1
         stored
         beat a
         beat b",
        expect![[r#"
            > join a
              a: joined as a-1 gen 1 by range leader a-1 [a-1=a]
              = CompletingRebalance gen 1 leader a-1 members 1
            > sync a a:p0,p1
              store gen 1
              = CompletingRebalance gen 1 leader a-1 members 1
            > stored
              a: has p0,p1
              = Stable gen 1 leader a-1 members 1
            > join b
              = PreparingRebalance gen 1 leader a-1 members 2
            > beat a
              a: RebalanceInProgress
              = PreparingRebalance gen 1 leader a-1 members 2
            > commit a
              a: ok
              = PreparingRebalance gen 1 leader a-1 members 2
            > join a
              a: joined as a-1 gen 2 by range leader a-1 [a-1=a b-3=b]
              b: joined as b-3 gen 2 by range leader a-1 []
              = CompletingRebalance gen 2 leader a-1 members 2
            > beat b
              b: ok
              = CompletingRebalance gen 2 leader a-1 members 2
            > commit b
              b: RebalanceInProgress
              = CompletingRebalance gen 2 leader a-1 members 2
            > sync b
              = CompletingRebalance gen 2 leader a-1 members 2
            > sync a a:p0 b:p1
              store gen 2
              = CompletingRebalance gen 2 leader a-1 members 2
            > stored
              a: has p0
              b: has p1
              = Stable gen 2 leader a-1 members 2
            > beat a
              a: ok
              = Stable gen 2 leader a-1 members 2
            > beat b
              b: ok
              = Stable gen 2 leader a-1 members 2
        "#]],
    );
}

#[test]
fn an_empty_group_gathers_for_a_while() {
    check(
        delay(3_000),
        "join a
         wait 2999
         join b
         wait 1
         wait 2999
         wait 1",
        expect![[r#"
            > join a
              = PreparingRebalance gen 0 leader a-1 members 1
            > wait 2999
              = PreparingRebalance gen 0 leader a-1 members 1
            > join b
              = PreparingRebalance gen 0 leader a-1 members 2
            > wait 1
              = PreparingRebalance gen 0 leader a-1 members 2
            > wait 2999
              = PreparingRebalance gen 0 leader a-1 members 2
            > wait 1
              a: joined as a-1 gen 1 by range leader a-1 [a-1=a b-2=b]
              b: joined as b-2 gen 1 by range leader a-1 []
              = CompletingRebalance gen 1 leader a-1 members 2
        "#]],
    );
}

#[test]
fn gathering_ends_at_the_rebalance_timeout() {
    check(
        delay(40_000),
        "join a
         wait 30000
         join b
         wait 10000
         join c
         wait 20000",
        expect![[r#"
            > join a
              = PreparingRebalance gen 0 leader a-1 members 1
            > wait 30000
              = PreparingRebalance gen 0 leader a-1 members 1
            > join b
              = PreparingRebalance gen 0 leader a-1 members 2
            > wait 10000
              = PreparingRebalance gen 0 leader a-1 members 2
            > join c
              = PreparingRebalance gen 0 leader a-1 members 3
            > wait 20000
              a: joined as a-1 gen 1 by range leader a-1 [a-1=a b-2=b c-3=c]
              b: joined as b-2 gen 1 by range leader a-1 []
              c: joined as c-3 gen 1 by range leader a-1 []
              = CompletingRebalance gen 1 leader a-1 members 3
        "#]],
    );
}

#[test]
fn a_silent_member_is_given_up() {
    check(
        no_delay(),
        "join a
         sync a a:p0
         stored
         wait 9999
         beat a
         wait 9999
         wait 1
         beat a",
        expect![[r#"
            > join a
              a: joined as a-1 gen 1 by range leader a-1 [a-1=a]
              = CompletingRebalance gen 1 leader a-1 members 1
            > sync a a:p0
              store gen 1
              = CompletingRebalance gen 1 leader a-1 members 1
            > stored
              a: has p0
              = Stable gen 1 leader a-1 members 1
            > wait 9999
              = Stable gen 1 leader a-1 members 1
            > beat a
              a: ok
              = Stable gen 1 leader a-1 members 1
            > wait 9999
              = Stable gen 1 leader a-1 members 1
            > wait 1
              store gen 2
              = Empty gen 2 leader - members 0
            > beat a
              a: UnknownMember
              = Empty gen 2 leader - members 0
        "#]],
    );
}

#[test]
fn a_member_that_does_not_come_back_is_left_behind() {
    check(
        no_delay(),
        "join a session=60000
         sync a a:p0
         stored
         join b session=60000
         wait 59999
         wait 1
         beat a",
        expect![[r#"
            > join a session=60000
              a: joined as a-1 gen 1 by range leader a-1 [a-1=a]
              = CompletingRebalance gen 1 leader a-1 members 1
            > sync a a:p0
              store gen 1
              = CompletingRebalance gen 1 leader a-1 members 1
            > stored
              a: has p0
              = Stable gen 1 leader a-1 members 1
            > join b session=60000
              = PreparingRebalance gen 1 leader a-1 members 2
            > wait 59999
              = PreparingRebalance gen 1 leader a-1 members 2
            > wait 1
              b: joined as b-3 gen 2 by range leader b-3 [b-3=b]
              = CompletingRebalance gen 2 leader b-3 members 1
            > beat a
              a: UnknownMember
              = CompletingRebalance gen 2 leader b-3 members 1
        "#]],
    );
}

#[test]
fn a_member_that_never_syncs_is_removed() {
    check(
        no_delay(),
        "join a
         sync a
         stored
         join b session=120000
         join a
         sync a a:p0 b:p1
         stored
         wait 9000
         beat a
         wait 9000
         beat a
         wait 9000
         beat a
         wait 9000
         beat a
         wait 9000
         beat a
         wait 9000
         beat a
         wait 9000
         beat a",
        expect![[r#"
            > join a
              a: joined as a-1 gen 1 by range leader a-1 [a-1=a]
              = CompletingRebalance gen 1 leader a-1 members 1
            > sync a
              store gen 1
              = CompletingRebalance gen 1 leader a-1 members 1
            > stored
              a: has 
              = Stable gen 1 leader a-1 members 1
            > join b session=120000
              = PreparingRebalance gen 1 leader a-1 members 2
            > join a
              a: joined as a-1 gen 2 by range leader a-1 [a-1=a b-3=b]
              b: joined as b-3 gen 2 by range leader a-1 []
              = CompletingRebalance gen 2 leader a-1 members 2
            > sync a a:p0 b:p1
              store gen 2
              = CompletingRebalance gen 2 leader a-1 members 2
            > stored
              a: has p0
              = Stable gen 2 leader a-1 members 2
            > wait 9000
              = Stable gen 2 leader a-1 members 2
            > beat a
              a: ok
              = Stable gen 2 leader a-1 members 2
            > wait 9000
              = Stable gen 2 leader a-1 members 2
            > beat a
              a: ok
              = Stable gen 2 leader a-1 members 2
            > wait 9000
              = Stable gen 2 leader a-1 members 2
            > beat a
              a: ok
              = Stable gen 2 leader a-1 members 2
            > wait 9000
              = Stable gen 2 leader a-1 members 2
            > beat a
              a: ok
              = Stable gen 2 leader a-1 members 2
            > wait 9000
              = Stable gen 2 leader a-1 members 2
            > beat a
              a: ok
              = Stable gen 2 leader a-1 members 2
            > wait 9000
              = Stable gen 2 leader a-1 members 2
            > beat a
              a: ok
              = Stable gen 2 leader a-1 members 2
            > wait 9000
              = PreparingRebalance gen 2 leader a-1 members 1
            > beat a
              a: RebalanceInProgress
              = PreparingRebalance gen 2 leader a-1 members 1
        "#]],
    );
}

#[test]
fn an_id_that_was_handed_out_expires() {
    check(
        no_delay(),
        "join a v4
         join b
         wait 10000
         join a v4",
        expect![[r#"
            > join a v4
              a: MemberIdRequired a-1
              = Empty gen 0 leader - members 0
            > join b
              = PreparingRebalance gen 0 leader b-2 members 1
            > wait 10000
              b: joined as b-2 gen 1 by range leader b-2 [b-2=b]
              = CompletingRebalance gen 1 leader b-2 members 1
            > join a v4
              a: UnknownMember a-1
              = CompletingRebalance gen 1 leader b-2 members 1
        "#]],
    );
}

#[test]
fn generations_and_members_are_checked_in_order() {
    check(
        no_delay(),
        "join a
         sync a gen=0
         sync a id=nobody
         beat a gen=7
         beat a id=nobody
         beat a static=nobody
         commit a
         commit a gen=-1 id=
         commit a gen=0
         sync a a:p0
         stored
         commit a
         commit a gen=0
         commit a gen=-1 id=
         leave nobody",
        expect![[r#"
            > join a
              a: joined as a-1 gen 1 by range leader a-1 [a-1=a]
              = CompletingRebalance gen 1 leader a-1 members 1
            > sync a gen=0
              a: IllegalGeneration
              = CompletingRebalance gen 1 leader a-1 members 1
            > sync a id=nobody
              a: UnknownMember
              = CompletingRebalance gen 1 leader a-1 members 1
            > beat a gen=7
              a: IllegalGeneration
              = CompletingRebalance gen 1 leader a-1 members 1
            > beat a id=nobody
              a: UnknownMember
              = CompletingRebalance gen 1 leader a-1 members 1
            > beat a static=nobody
              a: UnknownMember
              = CompletingRebalance gen 1 leader a-1 members 1
            > commit a
              a: RebalanceInProgress
              = CompletingRebalance gen 1 leader a-1 members 1
            > commit a gen=-1 id=
              a: UnknownMember
              = CompletingRebalance gen 1 leader a-1 members 1
            > commit a gen=0
              a: IllegalGeneration
              = CompletingRebalance gen 1 leader a-1 members 1
            > sync a a:p0
              store gen 1
              = CompletingRebalance gen 1 leader a-1 members 1
            > stored
              a: has p0
              = Stable gen 1 leader a-1 members 1
            > commit a
              a: ok
              = Stable gen 1 leader a-1 members 1
            > commit a gen=0
              a: IllegalGeneration
              = Stable gen 1 leader a-1 members 1
            > commit a gen=-1 id=
              a: UnknownMember
              = Stable gen 1 leader a-1 members 1
            > leave nobody
              nobody: UnknownMember
              = Stable gen 1 leader a-1 members 1
        "#]],
    );
}

#[test]
fn protocols_must_meet() {
    check(
        no_delay(),
        "join a proto=roundrobin,range
         join b proto=sticky
         join c type=connect
         join b proto=range,sticky
         join a proto=roundrobin,range",
        expect![[r#"
            > join a proto=roundrobin,range
              a: joined as a-1 gen 1 by roundrobin leader a-1 [a-1=a]
              = CompletingRebalance gen 1 leader a-1 members 1
            > join b proto=sticky
              b: InconsistentProtocol 
              = CompletingRebalance gen 1 leader a-1 members 1
            > join c type=connect
              c: InconsistentProtocol 
              = CompletingRebalance gen 1 leader a-1 members 1
            > join b proto=range,sticky
              = PreparingRebalance gen 1 leader a-1 members 2
            > join a proto=roundrobin,range
              a: joined as a-1 gen 2 by range leader a-1 [a-1=a b-4=b]
              b: joined as b-4 gen 2 by range leader a-1 []
              = CompletingRebalance gen 2 leader a-1 members 2
        "#]],
    );
}

#[test]
fn the_most_liked_common_protocol_wins() {
    check(
        delay(1_000),
        "join a proto=x,y
         join b proto=y,x
         join c proto=z,y,x
         wait 2000",
        expect![[r#"
            > join a proto=x,y
              = PreparingRebalance gen 0 leader a-1 members 1
            > join b proto=y,x
              = PreparingRebalance gen 0 leader a-1 members 2
            > join c proto=z,y,x
              = PreparingRebalance gen 0 leader a-1 members 3
            > wait 2000
              a: joined as a-1 gen 1 by y leader a-1 [a-1=a b-2=b c-3=c]
              b: joined as b-2 gen 1 by y leader a-1 []
              c: joined as c-3 gen 1 by y leader a-1 []
              = CompletingRebalance gen 1 leader a-1 members 3
        "#]],
    );
}

#[test]
fn a_session_timeout_out_of_range_is_refused() {
    check(
        no_delay(),
        "join a session=5999
         join a session=1800001",
        expect![[r#"
            > join a session=5999
              a: InvalidSessionTimeout 
              = Empty gen 0 leader - members 0
            > join a session=1800001
              a: InvalidSessionTimeout 
              = Empty gen 0 leader - members 0
        "#]],
    );
}

#[test]
fn a_lost_store_starts_over() {
    check(
        no_delay(),
        "join a
         sync a a:p0
         lost
         join a
         sync a a:p0
         stored",
        expect![[r#"
            > join a
              a: joined as a-1 gen 1 by range leader a-1 [a-1=a]
              = CompletingRebalance gen 1 leader a-1 members 1
            > sync a a:p0
              store gen 1
              = CompletingRebalance gen 1 leader a-1 members 1
            > lost
              a: NotStored
              = PreparingRebalance gen 1 leader a-1 members 1
            > join a
              a: joined as a-1 gen 2 by range leader a-1 [a-1=a]
              = CompletingRebalance gen 2 leader a-1 members 1
            > sync a a:p0
              store gen 2
              = CompletingRebalance gen 2 leader a-1 members 1
            > stored
              a: has p0
              = Stable gen 2 leader a-1 members 1
        "#]],
    );
}

#[test]
fn a_newcomer_during_the_assignment_interrupts_it() {
    check(
        no_delay(),
        "join a
         sync a a:p0
         join b
         stored
         join a
         sync b
         sync a a:p0 b:p1
         stored",
        expect![[r#"
            > join a
              a: joined as a-1 gen 1 by range leader a-1 [a-1=a]
              = CompletingRebalance gen 1 leader a-1 members 1
            > sync a a:p0
              store gen 1
              = CompletingRebalance gen 1 leader a-1 members 1
            > join b
              a: RebalanceInProgress
              = PreparingRebalance gen 1 leader a-1 members 2
            > stored
              = PreparingRebalance gen 1 leader a-1 members 2
            > join a
              a: joined as a-1 gen 2 by range leader a-1 [a-1=a b-3=b]
              b: joined as b-3 gen 2 by range leader a-1 []
              = CompletingRebalance gen 2 leader a-1 members 2
            > sync b
              = CompletingRebalance gen 2 leader a-1 members 2
            > sync a a:p0 b:p1
              store gen 2
              = CompletingRebalance gen 2 leader a-1 members 2
            > stored
              a: has p0
              b: has p1
              = Stable gen 2 leader a-1 members 2
        "#]],
    );
}

#[test]
fn a_static_member_returns_without_a_rebalance() {
    check(
        no_delay(),
        "join a static=one
         join b static=two
         join a static=one
         sync b static=two
         sync a static=one a:p0 b:p1
         stored
         forget b
         join b static=two
         stored
         sync b static=two
         beat b static=two
         beat b static=two id=b-2
         beat b id=b-2
         sync b static=two id=b-2
         commit b static=two id=b-2",
        expect![[r#"
            > join a static=one
              a: joined as a-1 gen 1 by range leader a-1 [a-1=a]
              = CompletingRebalance gen 1 leader a-1 members 1
            > join b static=two
              = PreparingRebalance gen 1 leader a-1 members 2
            > join a static=one
              a: joined as a-1 gen 2 by range leader a-1 [a-1=a b-2=b]
              b: joined as b-2 gen 2 by range leader a-1 []
              = CompletingRebalance gen 2 leader a-1 members 2
            > sync b static=two
              = CompletingRebalance gen 2 leader a-1 members 2
            > sync a static=one a:p0 b:p1
              store gen 2
              = CompletingRebalance gen 2 leader a-1 members 2
            > stored
              a: has p0
              b: has p1
              = Stable gen 2 leader a-1 members 2
            > forget b
              = Stable gen 2 leader a-1 members 2
            > join b static=two
              store gen 2
              = Stable gen 2 leader a-1 members 2
            > stored
              b: joined as b-6 gen 2 by range leader a-1 []
              = Stable gen 2 leader a-1 members 2
            > sync b static=two
              b: has p1
              = Stable gen 2 leader a-1 members 2
            > beat b static=two
              b: ok
              = Stable gen 2 leader a-1 members 2
            > beat b static=two id=b-2
              b: FencedInstance
              = Stable gen 2 leader a-1 members 2
            > beat b id=b-2
              b: UnknownMember
              = Stable gen 2 leader a-1 members 2
            > sync b static=two id=b-2
              b: FencedInstance
              = Stable gen 2 leader a-1 members 2
            > commit b static=two id=b-2
              b: FencedInstance
              = Stable gen 2 leader a-1 members 2
        "#]],
    );
}

#[test]
fn a_static_leader_may_be_told_to_skip_the_assignment() {
    check(
        no_delay(),
        "join a static=one
         sync a static=one a:p0
         stored
         forget a
         join a static=one v9
         stored
         forget a
         join a static=one
         stored",
        expect![[r#"
            > join a static=one
              a: joined as a-1 gen 1 by range leader a-1 [a-1=a]
              = CompletingRebalance gen 1 leader a-1 members 1
            > sync a static=one a:p0
              store gen 1
              = CompletingRebalance gen 1 leader a-1 members 1
            > stored
              a: has p0
              = Stable gen 1 leader a-1 members 1
            > forget a
              = Stable gen 1 leader a-1 members 1
            > join a static=one v9
              store gen 1
              = Stable gen 1 leader a-3 members 1
            > stored
              a: joined as a-3 gen 1 by range leader a-3 skip [a-3=a]
              = Stable gen 1 leader a-3 members 1
            > forget a
              = Stable gen 1 leader a-3 members 1
            > join a static=one
              store gen 1
              = Stable gen 1 leader a-4 members 1
            > stored
              a: joined as a-4 gen 1 by range leader a-3 []
              = Stable gen 1 leader a-4 members 1
        "#]],
    );
}

#[test]
fn a_static_member_with_other_protocols_causes_a_rebalance() {
    check(
        no_delay(),
        "join a static=one proto=x
         sync a static=one a:p0
         stored
         forget a
         join a static=one proto=y,x",
        expect![[r#"
            > join a static=one proto=x
              a: joined as a-1 gen 1 by x leader a-1 [a-1=a]
              = CompletingRebalance gen 1 leader a-1 members 1
            > sync a static=one a:p0
              store gen 1
              = CompletingRebalance gen 1 leader a-1 members 1
            > stored
              a: has p0
              = Stable gen 1 leader a-1 members 1
            > forget a
              = Stable gen 1 leader a-1 members 1
            > join a static=one proto=y,x
              a: joined as a-3 gen 2 by y leader a-3 [a-3=a]
              = CompletingRebalance gen 2 leader a-3 members 1
        "#]],
    );
}

#[test]
fn a_static_twin_fences_the_one_who_waits() {
    check(
        delay(3_000),
        "join a static=one
         forget a
         join a static=one
         wait 3000",
        expect![[r#"
            > join a static=one
              = PreparingRebalance gen 0 leader a-1 members 1
            > forget a
              = PreparingRebalance gen 0 leader a-1 members 1
            > join a static=one
              a: FencedInstance a-1
              = PreparingRebalance gen 0 leader a-2 members 1
            > wait 3000
              a: joined as a-2 gen 1 by range leader a-2 [a-2=a]
              = CompletingRebalance gen 1 leader a-2 members 1
        "#]],
    );
}

#[test]
fn a_static_member_leaves_by_its_name() {
    check(
        no_delay(),
        "join a static=one
         sync a static=one a:p0
         stored
         leave static=two
         leave static=one",
        expect![[r#"
            > join a static=one
              a: joined as a-1 gen 1 by range leader a-1 [a-1=a]
              = CompletingRebalance gen 1 leader a-1 members 1
            > sync a static=one a:p0
              store gen 1
              = CompletingRebalance gen 1 leader a-1 members 1
            > stored
              a: has p0
              = Stable gen 1 leader a-1 members 1
            > leave static=two
              static=two: UnknownMember
              = Stable gen 1 leader a-1 members 1
            > leave static=one
              static=one: ok
              store gen 2
              = Empty gen 2 leader - members 0
        "#]],
    );
}

#[test]
fn a_static_member_that_is_away_keeps_its_place_for_a_session() {
    check(
        no_delay(),
        "join a static=one session=120000
         sync a static=one a:p0
         stored
         join b
         wait 60000
         sync b a:p0 b:p1
         stored",
        expect![[r#"
            > join a static=one session=120000
              a: joined as a-1 gen 1 by range leader a-1 [a-1=a]
              = CompletingRebalance gen 1 leader a-1 members 1
            > sync a static=one a:p0
              store gen 1
              = CompletingRebalance gen 1 leader a-1 members 1
            > stored
              a: has p0
              = Stable gen 1 leader a-1 members 1
            > join b
              = PreparingRebalance gen 1 leader a-1 members 2
            > wait 60000
              b: joined as b-3 gen 2 by range leader b-3 [a-1=a b-3=b]
              = CompletingRebalance gen 2 leader b-3 members 2
            > sync b a:p0 b:p1
              store gen 2
              = CompletingRebalance gen 2 leader b-3 members 2
            > stored
              b: has p1
              = Stable gen 2 leader b-3 members 2
        "#]],
    );
}

#[test]
fn a_restart_keeps_the_generation_and_its_members() {
    check(
        no_delay(),
        "join a
         sync a a:p0
         stored
         restart
         beat a
         sync a
         commit a
         wait 10000
         restart",
        expect![[r#"
            > join a
              a: joined as a-1 gen 1 by range leader a-1 [a-1=a]
              = CompletingRebalance gen 1 leader a-1 members 1
            > sync a a:p0
              store gen 1
              = CompletingRebalance gen 1 leader a-1 members 1
            > stored
              a: has p0
              = Stable gen 1 leader a-1 members 1
            > restart
              = Stable gen 1 leader a-1 members 1
            > beat a
              a: ok
              = Stable gen 1 leader a-1 members 1
            > sync a
              a: has p0
              = Stable gen 1 leader a-1 members 1
            > commit a
              a: ok
              = Stable gen 1 leader a-1 members 1
            > wait 10000
              store gen 2
              = Empty gen 2 leader - members 0
            > restart
              = Stable gen 1 leader a-1 members 1
        "#]],
    );
}

#[test]
fn a_restart_before_the_store_forgets_the_round() {
    check(
        no_delay(),
        "join a
         sync a a:p0
         restart
         beat a
         join a
         forget a
         join a",
        expect![[r#"
            > join a
              a: joined as a-1 gen 1 by range leader a-1 [a-1=a]
              = CompletingRebalance gen 1 leader a-1 members 1
            > sync a a:p0
              store gen 1
              = CompletingRebalance gen 1 leader a-1 members 1
            > restart
              = Empty gen 0 leader - members 0
            > beat a
              a: UnknownMember
              = Empty gen 0 leader - members 0
            > join a
              a: UnknownMember a-1
              = Empty gen 0 leader - members 0
            > forget a
              = Empty gen 0 leader - members 0
            > join a
              a: joined as a-4 gen 1 by range leader a-4 [a-4=a]
              = CompletingRebalance gen 1 leader a-4 members 1
        "#]],
    );
}

#[test]
fn the_last_leave_keeps_the_generation_across_a_restart() {
    check(
        no_delay(),
        "join a
         sync a a:p0
         stored
         leave a
         stored
         restart
         commit a gen=-1 id=
         join b",
        expect![[r#"
            > join a
              a: joined as a-1 gen 1 by range leader a-1 [a-1=a]
              = CompletingRebalance gen 1 leader a-1 members 1
            > sync a a:p0
              store gen 1
              = CompletingRebalance gen 1 leader a-1 members 1
            > stored
              a: has p0
              = Stable gen 1 leader a-1 members 1
            > leave a
              a: ok
              store gen 2
              = Empty gen 2 leader - members 0
            > stored
              = Empty gen 2 leader - members 0
            > restart
              = Empty gen 2 leader - members 0
            > commit a gen=-1 id=
              a: ok
              = Empty gen 2 leader - members 0
            > join b
              b: joined as b-3 gen 3 by range leader b-3 [b-3=b]
              = CompletingRebalance gen 3 leader b-3 members 1
        "#]],
    );
}

#[test]
fn a_group_has_a_largest_size() {
    check(
        Rules {
            members_max: 2,
            ..Rules::default()
        },
        "join a
         join b v4
         join c
         join b v4",
        expect![[r#"
            > join a
              a: joined as a-1 gen 1 by range leader a-1 [a-1=a]
              = CompletingRebalance gen 1 leader a-1 members 1
            > join b v4
              b: MemberIdRequired b-2
              = CompletingRebalance gen 1 leader a-1 members 1
            > join c
              c: GroupFull 
              = CompletingRebalance gen 1 leader a-1 members 1
            > join b v4
              = PreparingRebalance gen 1 leader a-1 members 2
        "#]],
    );
}
