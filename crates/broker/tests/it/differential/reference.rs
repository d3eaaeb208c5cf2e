//! What the reference says of Apache Kafka, and of us.

use std::collections::BTreeSet;

use broker::compatibility;
use kafka::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use kafka::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse,
};

use super::{Answer, Both, Side};

pub(super) async fn run(both: &mut Both) {
    let versions = ApiVersionsRequest {
        client_software_name: "test".into(),
        client_software_version: "1".into(),
        ..ApiVersionsRequest::default()
    };
    let offered = |answer: ApiVersionsResponse| -> BTreeSet<(i16, i16, i16)> {
        let keys = answer.api_keys.iter();
        keys.map(|one| (one.api_key, one.min_version, one.max_version))
            .collect()
    };
    let told = |spans: fn(&compatibility::Api) -> Option<(i16, i16)>| -> BTreeSet<_> {
        let apis = compatibility::apis();
        let all = apis.iter();
        all.filter_map(|api| spans(api).map(|(first, last)| (api.key, first, last)))
            .collect()
    };
    let theirs: ApiVersionsResponse = given(&mut both.theirs, 4, versions.clone()).await;
    assert_eq!(
        offered(theirs),
        told(|api| api.theirs),
        "what Apache Kafka offers"
    );
    let ours: ApiVersionsResponse = given(&mut both.ours, 4, versions).await;
    assert_eq!(offered(ours), told(|api| api.ours), "what is offered here");

    let settings = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: 4,
            resource_name: "1".into(),
            configuration_keys: None,
        }],
        ..DescribeConfigsRequest::default()
    };
    let names = |answer: DescribeConfigsResponse| -> BTreeSet<String> {
        let configs = answer.results[0].configs.iter();
        configs.map(|config| config.name.clone()).collect()
    };
    let known =
        |names: Vec<&str>| -> BTreeSet<String> { names.into_iter().map(str::to_owned).collect() };
    let theirs: DescribeConfigsResponse = given(&mut both.theirs, 4, settings.clone()).await;
    let (mut theirs, told) = (names(theirs), known(compatibility::broker_settings()));
    theirs.remove("no.such"); // an earlier step has set it
    let differing: Vec<_> = theirs.symmetric_difference(&told).collect();
    assert!(
        differing.is_empty(),
        "Apache Kafka's settings: {differing:?}"
    );
    let ours: DescribeConfigsResponse = given(&mut both.ours, 4, settings).await;
    let (ours, told) = (names(ours), known(compatibility::told().collect()));
    let differing: Vec<_> = ours.symmetric_difference(&told).collect();
    assert!(differing.is_empty(), "our settings: {differing:?}");
}

async fn given<R: kafka::messages::Request>(
    side: &mut Side,
    version: i16,
    request: R,
) -> R::Response {
    match side.ask(version, request).await {
        Answer::Given(answer) => answer,
        Answer::Closed | Answer::Silent => panic!("no answer"),
    }
}
