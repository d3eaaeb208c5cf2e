//! Requests about streams groups. Whether their topics may be made is asked where they are made.

use std::any::Any;

use kafka::messages::streams_group_describe::{DescribedGroup, StreamsGroupDescribeRequest};
use kafka::messages::streams_group_heartbeat::StreamsGroupHeartbeatRequest;

use super::{Answer, GROUP, Guard, Kind, NOT_ASKED, Operation, TOPIC, after, of, take, whole};
use crate::api::streams_groups::names;
use crate::dispatch::Call;

pub(super) fn heartbeat(call: &Call, request: &mut dyn Any) -> Guard {
    let refused = request
        .downcast_ref()
        .and_then(|request: &StreamsGroupHeartbeatRequest| {
            let topics = request.topology.iter().flat_map(names);
            call.joining(&request.group_id, topics)
        });
    whole::<StreamsGroupHeartbeatRequest>(request, refused, |response, code| {
        response.error_code = code;
    })
}

pub(super) fn describe(call: &Call, request: &mut dyn Any) -> Guard {
    let asking = call.clone();
    of::<StreamsGroupDescribeRequest>(request, move |request| {
        let denied = take(&mut request.group_ids, |group| {
            asking.group(Operation::Describe, group).is_none()
        });
        after(move |response: &mut Answer<StreamsGroupDescribeRequest>| {
            for group in &mut response.groups {
                if group.authorized_operations != NOT_ASKED {
                    let all = group.authorized_operations;
                    let may = asking.operations(Kind::Group, &group.group_id, all);
                    group.authorized_operations = may;
                }
                // Who may not see a topic may not see who reads it.
                let parts = group.topology.iter().flat_map(|one| &one.subtopologies);
                let mut topics = parts.flatten().flat_map(|part| {
                    let own = part.repartition_source_topics.iter();
                    let own = own.chain(&part.state_changelog_topics);
                    let named = part
                        .source_topics
                        .iter()
                        .chain(&part.repartition_sink_topics);
                    named.chain(own.map(|topic| &topic.name))
                });
                if topics.any(|topic| !asking.may_topic(Operation::Describe, topic)) {
                    group.error_code = TOPIC.code();
                    group.error_message = Some(super::groups::HIDDEN_TOPICS.to_owned());
                    (group.members, group.topology) = (Vec::new(), None);
                }
            }
            let refused = denied.into_iter().map(|group_id| DescribedGroup {
                error_code: GROUP.code(),
                group_id,
                authorized_operations: NOT_ASKED,
                ..DescribedGroup::default()
            });
            response.groups.extend(refused);
        })
    })
}
