use proptest::prelude::*;

use super::*;

fn limits(yaml: &str) -> Limits {
    Limits::new(&serde_saphyr::from_str(yaml).expect("an outlier detection"))
}

fn host(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], index as u16 + 1))
}

fn tallies(counts: &[(u32, u32)]) -> Vec<Tally> {
    let tally = |(index, (requests, failures)): (usize, &(u32, u32))| Tally {
        address: host(index),
        requests: *requests,
        failures: *failures,
    };
    counts.iter().enumerate().map(tally).collect()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Fails so often in a row; returns after which failure the endpoint is put aside.
fn fails(yaml: &str, verdict: Verdict, endpoints: usize) -> Option<(u32, Reason)> {
    let limits = limits(yaml);
    let mut machine = Machine::new(limits.clone());
    let mut streaks = Streaks::default();
    (1..=20).find_map(|count| {
        streaks = streaks.after(verdict, limits.split);
        let reason = machine.failed(host(0), streaks, endpoints, Instant::now(), 0)?;
        Some((count, reason))
    })
}

#[test]
fn failures_in_a_row_put_an_endpoint_aside() {
    use Reason::*;
    use Verdict::*;
    assert_eq!(fails("{}", ServerError, 2), Some((5, Consecutive5xx)));
    assert_eq!(fails("{}", LocalOrigin, 2), Some((5, Consecutive5xx)));
    assert_eq!(fails("{}", Success, 2), None);
    let two = "{ consecutive_5xx: 2 }";
    assert_eq!(fails(two, ServerError, 2), Some((2, Consecutive5xx)));
    assert_eq!(fails("{ consecutive_5xx: 0 }", ServerError, 2), None);
    let gateway = "{ consecutive_gateway_failure: 3 }";
    assert_eq!(
        fails(gateway, GatewayFailure, 2),
        Some((3, ConsecutiveGatewayFailure))
    );
    assert_eq!(fails(gateway, ServerError, 2), Some((5, Consecutive5xx)));
    let local = "{ consecutive_local_origin_failure: 2 }";
    assert_eq!(
        fails(local, LocalOrigin, 2),
        Some((2, ConsecutiveLocalOriginFailure))
    );
    let split = "{ split_external_local_origin_errors: true, consecutive_5xx: 1 }";
    assert_eq!(
        fails(split, LocalOrigin, 2),
        Some((5, ConsecutiveLocalOriginFailure))
    );
    assert_eq!(fails(split, GatewayFailure, 2), Some((1, Consecutive5xx)));
}

#[test]
fn what_is_not_enforced_happens_to_nobody() {
    let never = "{ enforcing_consecutive_5xx: 0 }";
    assert_eq!(fails(never, Verdict::ServerError, 2), None);
    assert_eq!(
        fails("{ max_ejection_percent: 0 }", Verdict::ServerError, 2),
        None
    );
}

#[test]
fn the_last_endpoint_stays() {
    assert_eq!(fails("{}", Verdict::ServerError, 1), None);
    let mut machine = Machine::new(limits("{ consecutive_5xx: 1, max_ejection_percent: 100 }"));
    let streaks = Streaks::default().after(Verdict::ServerError, false);
    let now = Instant::now();
    let aside = (0..3)
        .filter(|index| machine.failed(host(*index), streaks, 3, now, 0).is_some())
        .count();
    assert_eq!(aside, 2);
}

#[test]
fn a_success_begins_the_count_anew() {
    let mut streaks = Streaks::default();
    for _ in 0..4 {
        streaks = streaks.after(Verdict::GatewayFailure, false);
    }
    assert_eq!(streaks.after(Verdict::Success, false), Streaks::default());
    let other = streaks.after(Verdict::ServerError, false);
    assert_eq!((other.server_error, other.gateway), (5, 0));
}

#[test]
fn time_aside_grows_with_each_time_and_shrinks_again() {
    let mut machine = Machine::new(limits("{ consecutive_5xx: 1, max_ejection_time: 100s }"));
    let streaks = Streaks::default().after(Verdict::ServerError, false);
    let idle = tallies(&[(0, 0), (0, 0)]);
    let mut now = Instant::now();
    let aside = |machine: &mut Machine, now: &mut Instant| {
        assert!(machine.failed(host(0), streaks, 2, *now, 0).is_some());
        assert_eq!(machine.failed(host(0), streaks, 2, *now, 0), None, "twice");
        let since = *now;
        loop {
            *now += seconds(10);
            if !machine.tick(&idle, *now, || 0).is_empty() {
                return (*now - since).as_secs();
            }
        }
    };
    let times: Vec<u64> = (0..5).map(|_| aside(&mut machine, &mut now)).collect();
    assert_eq!(times, [30, 60, 90, 100, 100]);
    for _ in 0..10 {
        now += seconds(10);
        assert!(machine.tick(&idle, now, || 0).is_empty());
    }
    assert_eq!(aside(&mut machine, &mut now), 30);
}

#[test]
fn a_success_rate_far_below_the_others_puts_aside() {
    let tick = |yaml: &str, counts: &[(u32, u32)]| {
        Machine::new(limits(yaml)).tick(&tallies(counts), Instant::now(), || 0)
    };
    let bad_fourth = [(200, 1), (200, 0), (200, 2), (200, 100), (200, 0)];
    let eject = |index, reason| vec![Effect::Eject(host(index), reason)];
    assert_eq!(tick("{}", &bad_fourth), eject(3, Reason::SuccessRate));
    assert_eq!(tick("{}", &bad_fourth[..4]), [], "too few endpoints");
    assert_eq!(tick("{}", &[(99, 50); 5]), [], "too few requests");
    assert_eq!(tick("{}", &[(200, 100); 5]), [], "all alike");
    assert_eq!(tick("{ enforcing_success_rate: 0 }", &bad_fourth), []);

    let percent = "{ enforcing_success_rate: 0, failure_percentage_threshold: 50 }";
    assert_eq!(
        tick(percent, &bad_fourth),
        eject(3, Reason::FailurePercentage)
    );
    let higher = "{ enforcing_success_rate: 0, failure_percentage_threshold: 51 }";
    assert_eq!(tick(higher, &bad_fourth), []);
}

#[test]
fn what_left_is_forgotten() {
    let mut machine = Machine::new(limits("{ consecutive_5xx: 1 }"));
    let streaks = Streaks::default().after(Verdict::ServerError, false);
    let now = Instant::now();
    assert!(machine.failed(host(0), streaks, 2, now, 0).is_some());
    assert_eq!(machine.tick(&tallies(&[])[..], now, || 0), []);
    // Else nobody could be put aside in its place.
    assert!(machine.failed(host(1), streaks, 2, now, 0).is_some());
}

#[derive(Debug, Clone)]
enum Step {
    Fail(usize, Verdict),
    Tick(u64, Vec<(u32, u32)>),
}

fn step(hosts: usize) -> impl Strategy<Value = Step> {
    let verdict = prop_oneof![
        Just(Verdict::Success),
        Just(Verdict::ServerError),
        Just(Verdict::GatewayFailure),
        Just(Verdict::LocalOrigin),
    ];
    let counts = prop::collection::vec((0u32..400, 0u32..400), hosts);
    prop_oneof![
        4 => (0..hosts, verdict).prop_map(|(host, verdict)| Step::Fail(host, verdict)),
        1 => (1u64..60, counts).prop_map(|(seconds, counts)| Step::Tick(seconds, counts)),
    ]
}

proptest! {
    /// Whatever happens: never more aside than allowed (one where any may), never all, nobody twice, nobody comes back
    /// too early, and everybody comes back.
    #[test]
    fn the_machine_keeps_its_promises(
        (hosts, percent, steps) in (1usize..12, 0usize..=100).prop_flat_map(|(hosts, percent)| {
            (Just(hosts), Just(percent), prop::collection::vec(step(hosts), 1..200))
        })
    ) {
        let limits = limits(&format!(
            "{{ consecutive_5xx: 2, max_ejection_percent: {percent}, base_ejection_time: 20s, \
                max_ejection_time: 60s, success_rate_minimum_hosts: 2, failure_percentage_threshold: 60 }}"
        ));
        let mut machine = Machine::new(limits);
        let mut streaks = vec![Streaks::default(); hosts];
        let mut aside: HashMap<SocketAddr, Instant> = HashMap::new();
        let mut now = Instant::now();
        for step in steps {
            let effects = match step {
                Step::Fail(index, verdict) => {
                    streaks[index] = streaks[index].after(verdict, false);
                    let reason = machine.failed(host(index), streaks[index], hosts, now, 0);
                    if machine.reached(streaks[index]).is_some() {
                        streaks[index] = Streaks::default();
                    }
                    reason.map(|reason| Effect::Eject(host(index), reason)).into_iter().collect()
                }
                Step::Tick(more, counts) => {
                    now += seconds(more);
                    machine.tick(&tallies(&counts), now, || 0)
                }
            };
            for effect in effects {
                match effect {
                    Effect::Eject(address, _) => {
                        prop_assert!(aside.insert(address, now).is_none(), "nobody twice");
                    }
                    Effect::Return(address) => {
                        let since = aside.remove(&address).expect("only who was aside");
                        prop_assert!(now - since >= seconds(20), "not too early");
                    }
                }
            }
            let most = if percent == 0 { 0 } else { (hosts * percent / 100).max(1).min(hosts - 1) };
            prop_assert!(aside.len() <= most, "{} of {hosts} at {percent} %", aside.len());
        }
        now += seconds(60);
        let idle = tallies(&vec![(0, 0); hosts]);
        prop_assert_eq!(machine.tick(&idle, now, || 0).len(), aside.len(), "all come back");
    }
}
