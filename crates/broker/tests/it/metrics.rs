//! What the metrics tell of topics, partitions and groups.

use crate::groups;
use crate::stage::{Stage, batch, produce};

#[tokio::test]
async fn partitions_and_groups_are_told_as_they_are_now() {
    let metrics = observe::metrics::Metrics::default();
    let registry = metrics.clone();
    let stage = Stage::open_with(|options| options.metrics = registry).await;
    let mut client = stage.client().await;
    client.create("t", 2, &[]).await;
    let request = produce("t", -1, batch(&["a", "b"]));
    _ = client.ask(9, request).await;
    groups::settle(&mut client).await;
    let told = metrics.encode();
    let requests = told.lines().find_map(|line| {
        let number = line.strip_prefix("nuncio_client_requests_total{client_id=\"test\"} ")?;
        number.parse::<u64>().ok()
    });
    // One to make the topic, one to produce, three to join and to sync.
    assert_eq!(requests, Some(5), "{told}");
    for line in [
        "nuncio_partition_start_offset{topic=\"t\",partition=\"0\"} 0\n",
        "nuncio_partition_end_offset{topic=\"t\",partition=\"0\"} 2\n",
        "nuncio_partition_end_offset{topic=\"t\",partition=\"1\"} 0\n",
        "nuncio_partition_log_bytes{topic=\"t\",partition=\"1\"} 0\n",
        "nuncio_group_members{group=\"g\"} 1\n",
        "nuncio_group_state{group=\"g\",state=\"Stable\"} 1\n",
        "nuncio_client_throttled_seconds_total{client_id=\"test\"} 0\n",
        "nuncio_broker_metrics_left_out{kind=\"group\"} 0\n",
    ] {
        assert!(told.contains(line), "`{line}` is missing in\n{told}");
    }
}
