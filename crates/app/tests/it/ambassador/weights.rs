use super::Rig;

/// Case 8.
#[test]
fn canaries_get_their_share() {
    for (weight, range) in [
        ("0", 0..=0),
        ("10", 1..=35),
        ("50", 25..=75),
        ("100", 100..=100),
    ] {
        let rig = Rig::start(&[
            "Mapping main: { prefix: /c/, service: $a }",
            &format!("Mapping canary: {{ prefix: /c/, service: $b, weight: {weight} }}"),
        ]);
        let share = rig.shares("GET /c/", 100);
        assert!(
            range.contains(&share("b")),
            "weight {weight}: {}",
            share("b")
        );
        assert_eq!(share("a") + share("b"), 100);
    }
}

/// Case 59.
#[test]
fn weights_below_or_above_the_whole() {
    let rig = Rig::start(&[
        "Mapping w1: { prefix: /below/, service: $a, weight: 40 }",
        "Mapping w2: { prefix: /below/, service: $b, weight: 40 }",
        "Mapping w3: { prefix: /above/, service: $a, weight: 60 }",
        "Mapping w4: { prefix: /above/, service: $b, weight: 60 }",
        "Mapping single: { prefix: /single/, service: $c, weight: 5 }",
    ]);
    // A share of 80 or 20 of 300 leaves these limits about once in a hundred million runs.
    let share = rig.shares("GET /below/", 300);
    assert!((20..=105).contains(&share("404")), "{}", share("404"));
    assert!(
        share("a") > 70 && share("b") > 70,
        "{} {}",
        share("a"),
        share("b")
    );
    assert_eq!(rig.shares("GET /above/", 10)("404"), 10);
    assert_eq!(rig.shares("GET /single/", 10)("c"), 10);
}

/// Rule 2.3: members without a weight share what is left, one with 100 leaves nothing, and what nobody takes goes to the next
/// route that matches.
#[test]
fn what_is_left_is_shared_or_falls_through() {
    let rig = Rig::start(&[
        "Mapping left-1: { prefix: /left/, service: $a, weight: 40 }",
        "Mapping left-2: { prefix: /left/, service: $b }",
        "Mapping left-3: { prefix: /left/, service: $c }",
        "Mapping whole-1: { prefix: /whole/, service: $a, weight: 100 }",
        "Mapping whole-2: { prefix: /whole/, service: $b }",
        "Mapping fall-1: { prefix: /fall/x/, service: $a, weight: 30 }",
        "Mapping fall-2: { prefix: /fall/x/, service: $b, weight: 30 }",
        "Mapping fall-3: { prefix: /fall/, service: $c }",
        // A header is more to match, so that it comes first, and its weights are its own.
        "Mapping beta-1: { prefix: /left/, headers: { x-beta: '1' }, service: $c }",
    ]);
    let share = rig.shares("GET /left/", 200);
    for (who, expected) in [("a", 80), ("b", 60), ("c", 60)] {
        assert!(share(who).abs_diff(expected) < 40, "{who}: {}", share(who));
    }
    assert_eq!(rig.shares("GET /whole/", 20)("a"), 20);
    let share = rig.shares("GET /fall/x/", 200);
    assert_eq!(share("a") + share("b") + share("c"), 200);
    assert!(share("c").abs_diff(80) < 45, "{}", share("c"));
    assert_eq!(rig.shares("GET /left/ x-beta=1", 20)("c"), 20);
    let told = rig.told();
    assert!(told.contains("40 %"), "the fall is told: {told}");
}
