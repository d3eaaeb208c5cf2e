//! ListConfigResources: what has settings.

use kafka::error::ErrorCode;
use kafka::messages::list_config_resources::{
    ConfigResource, ListConfigResourcesRequest, ListConfigResourcesResponse,
};

use crate::dispatch::Call;
use crate::node::NODE_ID;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;
const ALL: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

pub(crate) async fn list(
    call: Call,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    // Version 0 asks for subscriptions of metrics only, of which there are none.
    let wanted = match (call.version, request.resource_types) {
        (0, _) => vec![CLIENT_METRICS],
        (_, none) if none.is_empty() => ALL.to_vec(),
        (_, some) => some,
    };
    if wanted.iter().any(|kind| !ALL.contains(kind)) {
        return ListConfigResourcesResponse {
            error_code: ErrorCode::UnsupportedVersion.code(),
            ..ListConfigResourcesResponse::default()
        };
    }
    let resource = |resource_type: i8, resource_name: String| ConfigResource {
        resource_name,
        resource_type,
    };
    let mut config_resources = Vec::new();
    for kind in ALL.into_iter().filter(|kind| wanted.contains(kind)) {
        match kind {
            TOPIC => config_resources.extend(
                call.core()
                    .topics
                    .all()
                    .iter()
                    .map(|topic| resource(TOPIC, topic.name.to_string())),
            ),
            BROKER | BROKER_LOGGER => config_resources.push(resource(kind, NODE_ID.to_string())),
            GROUP => {
                let groups = call.core().group_settings.groups();
                let each = groups.into_iter().map(|group| resource(GROUP, group));
                config_resources.extend(each);
            }
            _ => (), // nothing collects the metrics of clients
        }
    }
    ListConfigResourcesResponse {
        config_resources,
        ..ListConfigResourcesResponse::default()
    }
}
