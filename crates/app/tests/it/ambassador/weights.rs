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
