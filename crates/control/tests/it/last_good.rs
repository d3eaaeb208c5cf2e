//! What was good goes on running when it is made bad.

use std::fs;

use expect_test::{Expect, expect};

use crate::{Lab, route, routes};

/// Starts with one text, puts another in its place, and compares what runs then, and what is told, with what is expected.
#[track_caller]
fn check(before: &str, after: &str, expected: Expect) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut lab = Lab::start("nuncio.yaml", &[("nuncio.yaml", before)]).await;
        assert_eq!(lab.control.current().problems, []);
        lab.write("nuncio.yaml", after);
        lab.until(|now| &*now.sources[0].text == after).await;
        expected.assert_eq(&lab.tell());
    });
}

#[test]
fn a_bad_object_runs_on_as_it_was() {
    check(
        "routes:\n- { name: a, prefix: /a, service: s }\n- { name: b, prefix: /b, service: s }\n",
        "routes:\n- { name: a, prefix: /new, service: 's:x' }\n- { name: b, prefix: /b2, service: s }\n",
        expect![[r#"
            /b2 /a
            nuncio.yaml: warning: the last good version of `Mapping a.default` goes on running
            nuncio.yaml:2:37: error: routes[0].service: `x` is no port, use 1 to 65535 (write `service`, `service.namespace:port` or `https://service`)
        "#]],
    );
}

#[test]
fn an_object_of_the_wrong_shape_runs_on_as_it_was() {
    check(
        "routes:\n- { name: a, prefix: /a, service: s }\n",
        "routes:\n- { name: a, prefx: /a, service: s }\n- { name: b, prefix: /b, service: s }\n",
        expect![[r#"
            /b /a
            nuncio.yaml: warning: the last good version of `Mapping a.default` goes on running
            nuncio.yaml:2:14: error: routes[0].prefx: unknown field `prefx` (did you mean `prefix`?)
        "#]],
    );
}

#[test]
fn a_text_that_cannot_be_read_leaves_all_as_it_was() {
    check(
        "routes:\n- { prefix: /a, service: s }\n- { prefix: /b, service: s }\n",
        "routes:\n- { prefix: /a, service: s\n- { prefix: /c",
        expect![[r#"
            /a /b
            nuncio.yaml: warning: the last good version of `Mapping a.default` goes on running
            nuncio.yaml: warning: the last good version of `Mapping b.default` goes on running
            nuncio.yaml:3:3: error: unclosed bracket '{'
        "#]],
    );
}

#[test]
fn an_object_that_is_gone_is_gone() {
    check(
        "routes:\n- { prefix: /a, service: s }\n- { prefix: /b, service: s }\n",
        "routes:\n- { prefix: /b, service: s }\n",
        expect![[r#"
            /b
        "#]],
    );
}

#[test]
fn objects_that_do_not_fit_together_run_on_as_they_were() {
    check(
        "routes:\n- { prefix: /a, service: s, weight: 50 }\n- { prefix: /a, service: t, weight: 50 }\n",
        "routes:\n- { prefix: /a, service: s, weight: 60 }\n- { prefix: /a, service: t, weight: 50 }\n",
        expect![[r#"
            /a /a
            nuncio.yaml: warning: the last good version of `Mapping a.default` goes on running
            nuncio.yaml:2:37: error: routes[0].weight: the weights for the same requests are 110 percent in all (the others stand in nuncio.yaml:3:3)
            nuncio.yaml:3:37: error: routes[1].weight: the weights for the same requests are 110 percent in all (the others stand in nuncio.yaml:2:3)
        "#]],
    );
}

#[test]
fn a_topic_that_is_made_bad_keeps_its_publishers() {
    check(
        "topics: { t: { partitions: 3 } }\npublish:\n- { route: POST /e, topic: t }\n",
        "topics: { t: { partitions: 0 } }\npublish:\n- { route: POST /e, topic: t }\n",
        expect![[r#"

            nuncio.yaml: warning: the last good version of `Topic t.default` goes on running
            nuncio.yaml:1:28: error: topics.t.partitions: a topic cannot have 0 partitions (use 1 to 10000)
        "#]],
    );
}

#[test]
fn a_topic_that_is_gone_takes_its_publishers_along() {
    check(
        "topics: { t: {} }\npublish:\n- { route: POST /e, topic: t }\n",
        "topics: {}\npublish:\n- { route: POST /e, topic: t }\n",
        expect![[r#"

            nuncio.yaml:3:28: error: publish[0].topic: unknown topic `t` (write it under `topics:`, as in `t: { partitions: 3 }`)
        "#]],
    );
}

#[tokio::test]
async fn only_the_broken_file_stands_still() {
    let mut lab = Lab::start("", &[("a.yaml", &route("/a")), ("b.yaml", &route("/b"))]).await;
    lab.until_routes(&["/a", "/b"]).await;
    lab.write("a.yaml", "routes: [");
    lab.until(|now| !now.problems.is_empty()).await;
    lab.write("b.yaml", &route("/b2"));
    lab.until_routes(&["/b2", "/a"]).await;
    lab.write("a.yaml", &route("/a2"));
    let now = lab.until_routes(&["/a2", "/b2"]).await;
    assert_eq!(now.problems, []);
    fs::remove_file(lab.path("a.yaml")).expect("a file");
    let now = lab.until_routes(&["/b2"]).await;
    assert_eq!(now.problems, []);
}

#[tokio::test]
async fn an_object_stays_the_same_through_many_bad_edits() {
    let mut lab = Lab::start("nuncio.yaml", &[("nuncio.yaml", &route("/a"))]).await;
    for turn in 0..20 {
        lab.write("nuncio.yaml", &format!("routes: [ # {turn}"));
        let now = lab
            .until(|now| now.sources[0].text.ends_with(&format!("# {turn}")))
            .await;
        assert_eq!((routes(&now).as_str(), now.version), ("/a", 1));
    }
}
