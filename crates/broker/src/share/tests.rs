//! What the machine of a share partition does, step by step.

use std::sync::Arc;

use super::machine::{Machine, Renewal};
use super::terms::{
    Acquired, Fetched, Kept, Limits, Mode, Range, Refusal, Said, Snapshot, Verdict, Wish,
};

const LIMITS: Limits = Limits {
    deliveries_max: 5,
    locks_max: 100,
};
const LOCK: i64 = 30;

fn wish(member: &str, records_max: i64, now: i64) -> Wish {
    Wish {
        member: Arc::from(member),
        mode: Mode::Batches,
        batch_size: 100,
        records_max,
        until: now + LOCK,
        limits: LIMITS,
    }
}

/// Reads from where the machine wants to.
fn read(machine: &Machine, batches: &[(i64, i64)]) -> Fetched {
    let from = machine.next_fetch();
    let batches = batches.iter().filter(|(_, last)| *last >= from);
    Fetched {
        from,
        batches: batches.copied().collect(),
        aborted: Vec::new(),
    }
}

fn take(machine: &mut Machine, wish: &Wish, batches: &[(i64, i64)]) -> Vec<(i64, i64, i32)> {
    let fetched = read(machine, batches);
    let acquired = machine.acquire(wish, &fetched);
    let tuple = |range: Acquired| (range.first, range.last, range.deliveries);
    acquired.into_iter().map(tuple).collect()
}

fn say(
    machine: &mut Machine,
    member: &str,
    first: i64,
    last: i64,
    verdicts: &[Verdict],
) -> Result<(), Refusal> {
    let said = Said {
        first,
        last,
        verdicts: verdicts.to_vec(),
    };
    let ticket = machine.acknowledge(member, &[said], Renewal::Until(1000), LIMITS)?;
    if let Some(ticket) = ticket {
        assert!(machine.stored(ticket, true, 0, LIMITS));
    }
    Ok(())
}

#[test]
fn whole_batches_go_out_even_if_fewer_records_are_wanted() {
    let mut machine = Machine::new(0);
    let batches = [(0, 4), (5, 9), (10, 14)];
    assert_eq!(take(&mut machine, &wish("a", 7, 0), &batches), [(0, 9, 1)]);
    assert_eq!(
        take(&mut machine, &wish("b", 1, 0), &batches),
        [(10, 14, 1)]
    );
    assert_eq!(machine.next_fetch(), 15);
}

#[test]
fn no_record_more_than_wanted_goes_out_when_the_limit_is_strict() {
    let mut machine = Machine::new(0);
    let strict = |member| Wish {
        mode: Mode::Records,
        ..wish(member, 7, 0)
    };
    let batches = [(0, 4), (5, 9)];
    assert_eq!(take(&mut machine, &strict("a"), &batches), [(0, 6, 1)]);
    assert_eq!(machine.next_fetch(), 7);
    assert_eq!(take(&mut machine, &strict("b"), &batches), [(7, 9, 1)]);
    assert_eq!(take(&mut machine, &strict("c"), &batches), []);
}

#[test]
fn long_reads_are_told_in_ranges_at_the_borders_of_batches() {
    let mut machine = Machine::new(0);
    let wish = Wish {
        batch_size: 4,
        ..wish("a", 100, 0)
    };
    let batches = [(0, 2), (3, 5), (6, 8), (9, 11)];
    assert_eq!(take(&mut machine, &wish, &batches), [(0, 5, 1), (6, 11, 1)]);
}

#[test]
fn what_is_accepted_is_done_and_what_is_released_comes_again() {
    let mut machine = Machine::new(0);
    let batches = [(0, 9)];
    take(&mut machine, &wish("a", 100, 0), &batches);
    use Verdict::{Accept, Reject, Release};
    say(&mut machine, "a", 0, 2, &[Accept, Accept, Release]).expect("taken");
    assert_eq!(machine.start(), 2);
    say(&mut machine, "a", 3, 3, &[Reject]).expect("taken");
    say(&mut machine, "a", 4, 9, &[Accept]).expect("taken");
    assert_eq!(machine.start(), 2);
    assert_eq!(
        take(&mut machine, &wish("b", 100, 0), &batches),
        [(2, 2, 2)]
    );
    say(&mut machine, "b", 2, 2, &[Accept]).expect("taken");
    assert_eq!((machine.start(), machine.in_flight()), (10, 0));
}

#[test]
fn nothing_is_done_before_it_is_durable() {
    let mut machine = Machine::new(0);
    let batches = [(0, 1)];
    take(&mut machine, &wish("a", 100, 0), &batches);
    let said = |verdict| Said {
        first: 0,
        last: 1,
        verdicts: vec![verdict],
    };
    let renewal = Renewal::Refused;
    let ticket = machine.acknowledge("a", &[said(Verdict::Accept)], renewal, LIMITS);
    let ticket = ticket.expect("taken").expect("to be stored");
    assert_eq!(machine.start(), 0);
    assert_eq!(machine.snapshot().done, 2, "as it will be");
    let again = machine.acknowledge("a", &[said(Verdict::Accept)], renewal, LIMITS);
    assert_eq!(again, Err(Refusal::RecordState));
    assert!(!machine.tick(1000, LIMITS), "it waits for the disk");
    machine.stored(ticket, false, 10, LIMITS);
    assert_eq!(machine.wakes_at(), Some(LOCK), "the member has it still");
    let ticket = machine.acknowledge("a", &[said(Verdict::Release)], renewal, LIMITS);
    let ticket = ticket.expect("taken").expect("to be stored");
    machine.stored(ticket, false, LOCK, LIMITS);
    assert_eq!(machine.next_fetch(), 0, "its time was over meanwhile");
}

#[test]
fn only_who_has_a_record_may_speak_of_it() {
    let mut machine = Machine::new(5);
    assert_eq!(
        say(&mut machine, "a", 5, 5, &[Verdict::Accept]),
        Err(Refusal::RecordState)
    );
    take(&mut machine, &wish("a", 100, 0), &[(5, 9)]);
    for (member, first, last, expected) in [
        ("b", 5, 9, Err(Refusal::RecordState)),
        ("a", 5, 10, Err(Refusal::Past)),
        ("a", 10, 12, Err(Refusal::Past)),
        ("a", 1, 3, Ok(())),
        ("a", 3, 6, Ok(())),
        ("a", 6, 7, Ok(())),
    ] {
        let outcome = say(&mut machine, member, first, last, &[Verdict::Accept]);
        assert_eq!(outcome, expected, "{member} {first} {last}");
    }
    assert_eq!(machine.start(), 8);
}

#[test]
fn an_acknowledgement_is_taken_as_a_whole_or_not_at_all() {
    let mut machine = Machine::new(0);
    take(&mut machine, &wish("a", 5, 0), &[(0, 4)]);
    take(&mut machine, &wish("b", 5, 0), &[(0, 4), (5, 9)]);
    let before = machine.snapshot();
    assert_eq!(
        say(&mut machine, "a", 0, 9, &[Verdict::Accept]),
        Err(Refusal::RecordState)
    );
    assert_eq!(machine.snapshot(), before);
    say(&mut machine, "a", 0, 4, &[Verdict::Accept]).expect("its own");
}

#[test]
fn a_record_comes_again_when_its_time_is_over_but_not_for_ever() {
    let mut machine = Machine::new(0);
    let batches = [(0, 0)];
    for delivery in 1..=LIMITS.deliveries_max {
        assert_eq!(
            take(&mut machine, &wish("a", 1, 0), &batches),
            [(0, 0, delivery)]
        );
        assert!(!machine.tick(LOCK - 1, LIMITS));
        assert!(machine.tick(LOCK, LIMITS));
    }
    assert_eq!(machine.start(), 1, "given up");
}

#[test]
fn a_member_may_ask_for_more_time() {
    let mut machine = Machine::new(0);
    take(&mut machine, &wish("a", 5, 0), &[(0, 4)]);
    let renew = [Said {
        first: 1,
        last: 2,
        verdicts: vec![Verdict::Renew],
    }];
    let refused = machine.acknowledge("a", &renew, Renewal::Refused, LIMITS);
    assert_eq!(refused, Err(Refusal::RecordState));
    let renewed = machine.acknowledge("a", &renew, Renewal::Until(50), LIMITS);
    assert_eq!(renewed, Ok(None), "nothing to be stored");
    assert!(machine.tick(LOCK, LIMITS));
    assert_eq!(machine.wakes_at(), Some(50));
    assert_eq!(
        take(&mut machine, &wish("b", 5, 0), &[(0, 4)]),
        [(0, 0, 2), (3, 4, 2)]
    );
}

#[test]
fn a_member_that_is_gone_has_nothing() {
    let mut machine = Machine::new(0);
    take(&mut machine, &wish("a", 2, 0), &[(0, 1)]);
    take(&mut machine, &wish("b", 2, 0), &[(0, 1), (2, 3)]);
    assert!(machine.release("a", LIMITS));
    assert!(!machine.release("a", LIMITS));
    assert_eq!(
        take(&mut machine, &wish("c", 9, 0), &[(0, 1), (2, 3)]),
        [(0, 1, 2)]
    );
}

#[test]
fn records_that_came_back_often_go_out_in_smaller_numbers() {
    let mut machine = Machine::new(0);
    let batches = [(0, 7)];
    let fail = |machine: &mut Machine| {
        let got = take(machine, &wish("a", 100, 0), &batches);
        assert!(machine.release("a", LIMITS));
        got
    };
    assert_eq!(fail(&mut machine), [(0, 7, 1)]);
    assert_eq!(fail(&mut machine), [(0, 7, 2)]);
    assert_eq!(fail(&mut machine), [(0, 7, 3)]);
    assert_eq!(fail(&mut machine), [(0, 3, 4)], "half of them");
    assert_eq!(fail(&mut machine), [(0, 0, 5)], "the last time, alone");
    assert_eq!(machine.start(), 1, "given up");
    assert_eq!(fail(&mut machine), [(1, 1, 5)]);
}

#[test]
fn there_is_a_limit_to_what_is_under_way() {
    let mut machine = Machine::new(0);
    let limits = Limits {
        locks_max: 10,
        ..LIMITS
    };
    let wish = |member| Wish {
        limits,
        ..wish(member, 100, 0)
    };
    let batches = [(0, 3), (4, 7), (8, 11), (12, 15)];
    assert_eq!(take(&mut machine, &wish("a"), &batches), [(0, 11, 1)]);
    assert!(!machine.can_acquire(limits));
    assert_eq!(take(&mut machine, &wish("b"), &batches), []);
    say(&mut machine, "a", 5, 5, &[Verdict::Release]).expect("taken");
    assert!(machine.can_acquire(limits));
    assert_eq!(take(&mut machine, &wish("b"), &batches), [(5, 5, 2)]);
}

#[test]
fn what_the_log_does_not_hold_is_passed_over() {
    let mut machine = Machine::new(0);
    assert_eq!(take(&mut machine, &wish("a", 9, 0), &[(4, 6)]), [(4, 6, 1)]);
    assert_eq!(machine.start(), 4);
    assert_eq!(
        take(&mut machine, &wish("a", 9, 0), &[(4, 6), (9, 9)]),
        [(9, 9, 1)]
    );
    say(&mut machine, "a", 4, 9, &[Verdict::Accept]).expect("with what is missing between");
    assert_eq!(machine.start(), 10);

    // Compaction has taken what came back.
    take(&mut machine, &wish("a", 9, 0), &[(10, 12), (13, 14)]);
    assert!(machine.release("a", LIMITS));
    assert_eq!(
        take(&mut machine, &wish("a", 9, 0), &[(13, 14)]),
        [(13, 14, 2)]
    );
    assert_eq!(machine.start(), 13);
}

#[test]
fn the_log_begins_later() {
    let mut machine = Machine::new(0);
    take(&mut machine, &wish("a", 9, 0), &[(0, 9)]);
    assert!(!machine.cut(0));
    assert!(machine.cut(5));
    assert_eq!(machine.start(), 5);
    say(&mut machine, "a", 0, 6, &[Verdict::Accept]).expect("what is left");
    assert_eq!(machine.start(), 7);
    assert!(machine.cut(20));
    assert_eq!((machine.start(), machine.next_fetch()), (20, 20));
}

#[test]
fn aborted_records_are_not_delivered() {
    let mut machine = Machine::new(0);
    let fetched = Fetched {
        from: 0,
        batches: vec![(0, 1), (2, 4), (5, 5), (6, 8)],
        aborted: vec![(2, 4), (6, 8)],
    };
    let acquired = machine.acquire(&wish("a", 100, 0), &fetched);
    let tuple = |range: &Acquired| (range.first, range.last);
    assert_eq!(
        acquired.iter().map(tuple).collect::<Vec<_>>(),
        [(0, 1), (5, 5)]
    );
    say(&mut machine, "a", 0, 1, &[Verdict::Accept]).expect("taken");
    assert_eq!(machine.start(), 5);
    say(&mut machine, "a", 5, 5, &[Verdict::Accept]).expect("taken");
    assert_eq!(machine.start(), 9);
}

#[test]
fn a_restart_forgets_what_members_have_and_nothing_else() {
    let mut machine = Machine::new(0);
    let batches = [(0, 9)];
    take(&mut machine, &wish("a", 100, 0), &batches);
    use Verdict::{Accept, Release};
    say(&mut machine, "a", 2, 3, &[Accept, Release]).expect("taken");
    let range = |first, last, state, deliveries| Range {
        first,
        last,
        state,
        deliveries,
    };
    let expected = Snapshot {
        start: 0,
        done: 1,
        ranges: vec![
            range(2, 2, Kept::Acknowledged, 1),
            range(3, 3, Kept::Available, 1),
        ],
    };
    assert_eq!(machine.snapshot(), expected);
    let mut machine = Machine::restore(&expected, 10).expect("a start is known");
    assert_eq!(
        take(&mut machine, &wish("b", 100, 0), &batches),
        [(0, 1, 1), (3, 3, 2), (4, 9, 1)]
    );
    assert!(Machine::restore(&Snapshot::new(-1), 10).is_none());
    let lost = Machine::restore(&expected, 1).expect("a start is known");
    assert_eq!(
        (lost.start(), lost.next_fetch()),
        (0, 0),
        "records that the log has lost"
    );
}
