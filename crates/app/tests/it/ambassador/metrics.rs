//! Case 57: Envoy's metrics under `stats_name`.

use testkit::{raw, wait};

use super::Rig;

#[test]
fn calls_are_counted_under_the_name_for_metrics() {
    let rig = Rig::start(&[
        "Mapping x: { prefix: /x/, service: $a, stats_name: alt }",
        "Mapping y: { prefix: /y/, service: $b }",
    ]);
    for _ in 0..100 {
        assert_eq!(rig.ask("GET /x/").status, 200);
    }
    assert_eq!(rig.ask("GET /x/ Requested-Status=503").status, 503);
    assert_eq!(rig.ask("GET /y/").status, 200);
    let value = |text: &str, start: &str, label: &str| -> Option<u64> {
        let line = text.lines().find(|line| {
            line.starts_with(start)
                && line.contains("envoy_cluster_name=\"alt\"")
                && line.contains(label)
        })?;
        line.rsplit(' ').next()?.parse().ok()
    };
    wait::until("the counts", std::time::Duration::from_secs(10), || {
        let page = raw::http(rig.nuncio.admin(), "GET /metrics HTTP/1.1\nhost: x", "");
        let text = String::from_utf8_lossy(&page.body).into_owned();
        let good = value(
            &text,
            "envoy_cluster_upstream_rq_xx",
            "envoy_response_code_class=\"2\"",
        );
        let bad = value(
            &text,
            "envoy_cluster_upstream_rq_xx",
            "envoy_response_code_class=\"5\"",
        );
        (good == Some(100) && bad == Some(1)).then_some(())
    });
}
