//! The life of consumer groups on the wire: from FindCoordinator to DeleteGroups.

use bytes::Bytes;
use kafka::error::ErrorCode;
use kafka::messages::delete_groups::{
    DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse,
};
use kafka::messages::describe_groups::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};
use kafka::messages::find_coordinator::{
    Coordinator, FindCoordinatorRequest, FindCoordinatorResponse,
};
use kafka::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use kafka::messages::join_group::{JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember};
use kafka::messages::leave_group::{
    LeaveGroupRequest, LeaveGroupResponse, MemberIdentity, MemberResponse,
};
use kafka::messages::list_groups::{ListGroupsRequest, ListGroupsResponse, ListedGroup};
use kafka::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};
use uuid::Uuid;

use crate::dispatch::Call;
use crate::group::coordinator::{Kind, MemberView, View};
use crate::group::member::Protocol;
use crate::group::terms::{Join, Joined, Refusal, Sync, Synced};
use crate::node::NODE_ID;

const KEY_TYPE_GROUP: i8 = 0;
const KEY_TYPE_TRANSACTION: i8 = 1;
const KEY_TYPE_SHARE: i8 = 2;
/// From this version on, the keeper of a share partition's state may be looked for.
const SHARE_KEYS_FROM: i16 = 6;
/// Most that a member may tell about itself, and most that a leader may assign: it stays in memory.
pub(super) const MEMBER_BYTES_MAX: usize = 1 << 20;
const ASSIGNMENTS_BYTES_MAX: usize = 16 << 20;
/// From this version of SyncGroup on, members say the protocol that they believe the group to have.
const PROTOCOL_NEEDED_FROM: i16 = 5;
/// Read, delete, describe, describe configs, alter configs: nobody is refused anything yet.
pub(super) const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

/// The whole mapping from the groups' refusals to Kafka's errors.
pub(crate) fn code_of(refusal: Refusal) -> ErrorCode {
    match refusal {
        Refusal::UnknownMember => ErrorCode::UnknownMemberId,
        Refusal::FencedInstance => ErrorCode::FencedInstanceId,
        Refusal::IllegalGeneration => ErrorCode::IllegalGeneration,
        Refusal::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        Refusal::InconsistentProtocol => ErrorCode::InconsistentGroupProtocol,
        Refusal::MemberIdRequired => ErrorCode::MemberIdRequired,
        Refusal::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
        Refusal::GroupFull => ErrorCode::GroupMaxSizeReached,
        Refusal::NotStored => ErrorCode::CoordinatorNotAvailable,
        Refusal::InvalidGroupId => ErrorCode::InvalidGroupId,
        Refusal::NonEmpty => ErrorCode::NonEmptyGroup,
        Refusal::NotFound => ErrorCode::GroupIdNotFound,
        Refusal::Subscribed => ErrorCode::GroupSubscribedToTopic,
        Refusal::FencedProducer => ErrorCode::InvalidProducerEpoch,
        Refusal::FencedEpoch => ErrorCode::FencedMemberEpoch,
        Refusal::StaleEpoch => ErrorCode::StaleMemberEpoch,
        Refusal::UnreleasedInstance => ErrorCode::UnreleasedInstanceId,
        Refusal::InvalidPattern => ErrorCode::InvalidRegularExpression,
        Refusal::OldCommit => ErrorCode::UnsupportedVersion,
        Refusal::InvalidRequest => ErrorCode::InvalidRequest,
        Refusal::InvalidTopology => ErrorCode::StreamsInvalidTopology,
        Refusal::TooLarge => ErrorCode::InvalidRequest,
    }
}

fn code<T>(result: &Result<T, Refusal>) -> i16 {
    match result {
        Ok(_) => ErrorCode::None.code(),
        Err(refusal) => code_of(*refusal).code(),
    }
}

pub(crate) async fn find(call: Call, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let (error, message) = match request.key_type {
        KEY_TYPE_GROUP | KEY_TYPE_TRANSACTION => (ErrorCode::None, None::<String>),
        KEY_TYPE_SHARE if call.version >= SHARE_KEYS_FROM => (ErrorCode::None, None),
        _ => (ErrorCode::InvalidRequest, None),
    };
    let reached = &call.client.reached;
    let (node_id, host, port) = match error {
        ErrorCode::None => (NODE_ID, reached.host.clone(), i32::from(reached.port)),
        _ => (-1, String::new(), -1),
    };
    let coordinators = request.coordinator_keys.into_iter().map(|key| {
        if request.key_type == KEY_TYPE_SHARE && !is_share_key(&key) {
            return Coordinator {
                key,
                node_id: -1,
                port: -1,
                error_code: ErrorCode::InvalidRequest.code(),
                ..Coordinator::default()
            };
        }
        Coordinator {
            key,
            node_id,
            host: host.clone(),
            port,
            error_code: error.code(),
            error_message: message.clone(),
        }
    });
    FindCoordinatorResponse {
        error_code: error.code(),
        error_message: message.clone(),
        node_id,
        host: host.clone(),
        port,
        coordinators: coordinators.collect(),
        ..FindCoordinatorResponse::default()
    }
}

/// Whether a text names a share partition: a group, a topic's id and an index, with colons between.
fn is_share_key(key: &str) -> bool {
    const TOPIC_ID_CHARS: usize = 22;
    let mut parts = key.rsplitn(3, ':');
    let index = parts
        .next()
        .is_some_and(|index| index.parse::<i32>().is_ok());
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let topic = parts
        .next()
        .is_some_and(|id| id.len() == TOPIC_ID_CHARS && id.bytes().all(is_digit));
    let group = parts.next().is_some_and(|group| !group.trim().is_empty());
    index && topic && group
}

pub(crate) async fn join(call: Call, request: JoinGroupRequest) -> JoinGroupResponse {
    let own = request
        .group_instance_id
        .as_deref()
        .unwrap_or(&call.client_id);
    let rebalance_timeout_ms = match request.rebalance_timeout_ms {
        timeout if timeout < 0 => request.session_timeout_ms,
        timeout => timeout,
    };
    let join = Join {
        ticket: 0, // the coordinator draws it
        fresh_id: format!("{own}-{}", Uuid::new_v4()),
        member_id: request.member_id,
        instance_id: request.group_instance_id.clone(),
        client_id: call.client_id.clone(),
        client_host: format!("/{}", call.client.peer.ip().to_canonical()),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms,
        protocol_type: request.protocol_type,
        protocols: request
            .protocols
            .into_iter()
            .map(|protocol| Protocol {
                name: protocol.name,
                // What stays with the group must not hold on to the frame that it came in.
                metadata: Bytes::copy_from_slice(&protocol.metadata),
            })
            .collect(),
        id_required: call.version >= 4 && request.group_instance_id.is_none(),
        may_skip_assignment: call.version >= 9,
    };
    let size: usize = join
        .protocols
        .iter()
        .map(|one| one.metadata.len() + one.name.len())
        .sum();
    let answer = if size > MEMBER_BYTES_MAX {
        Err((Refusal::TooLarge, join.member_id))
    } else {
        let member_id = join.member_id.clone();
        tokio::select! {
            answer = call.core().groups.join(&call.core().topics, &request.group_id, join) => answer,
            // The client asks again, and finds the broker that comes after us.
            () = call.client.stop.cancelled() => Err((Refusal::NotStored, member_id)),
        }
    };
    match answer {
        Ok(joined) => joined_answer(joined),
        Err((refusal, member_id)) => JoinGroupResponse {
            error_code: code_of(refusal).code(),
            generation_id: -1,
            // Before version 7 there is no null; it is written as an empty string then.
            protocol_name: None,
            member_id,
            ..JoinGroupResponse::default()
        },
    }
}

fn joined_answer(joined: Joined) -> JoinGroupResponse {
    JoinGroupResponse {
        generation_id: joined.generation,
        protocol_type: joined.protocol_type,
        protocol_name: joined.protocol,
        leader: joined.leader,
        skip_assignment: joined.skip_assignment,
        member_id: joined.member_id,
        members: joined
            .members
            .into_iter()
            .map(
                |(member_id, group_instance_id, metadata)| JoinGroupResponseMember {
                    member_id,
                    group_instance_id,
                    metadata,
                },
            )
            .collect(),
        ..JoinGroupResponse::default()
    }
}

pub(crate) async fn sync(call: Call, request: SyncGroupRequest) -> SyncGroupResponse {
    let sync = Sync {
        ticket: 0, // the coordinator draws it
        member_id: request.member_id,
        instance_id: request.group_instance_id,
        generation: request.generation_id,
        protocol_type: request.protocol_type,
        protocol: request.protocol_name,
        assignments: request
            .assignments
            .into_iter()
            .map(|one| (one.member_id, Bytes::copy_from_slice(&one.assignment)))
            .collect(),
    };
    let size: usize = sync
        .assignments
        .iter()
        .map(|(_, assignment)| assignment.len())
        .sum();
    let named = sync.protocol_type.is_some() && sync.protocol.is_some();
    let answer = if call.version >= PROTOCOL_NEEDED_FROM && !named {
        Err(Refusal::InconsistentProtocol)
    } else if request.group_id.is_empty() {
        Err(Refusal::InvalidGroupId)
    } else if size > ASSIGNMENTS_BYTES_MAX {
        Err(Refusal::TooLarge)
    } else {
        tokio::select! {
            answer = call.core().groups.sync(&request.group_id, sync) => answer,
            () = call.client.stop.cancelled() => Err(Refusal::NotStored),
        }
    };
    match answer {
        Ok(Synced {
            protocol_type,
            protocol,
            assignment,
        }) => SyncGroupResponse {
            protocol_type,
            protocol_name: protocol,
            assignment,
            ..SyncGroupResponse::default()
        },
        Err(refusal) => SyncGroupResponse {
            error_code: code_of(refusal).code(),
            ..SyncGroupResponse::default()
        },
    }
}

pub(crate) async fn heartbeat(call: Call, request: HeartbeatRequest) -> HeartbeatResponse {
    let result = match request.group_id.is_empty() {
        true => Err(Refusal::InvalidGroupId),
        false => call.core().groups.heartbeat(
            &request.group_id,
            &request.member_id,
            request.group_instance_id.as_deref(),
            request.generation_id,
        ),
    };
    HeartbeatResponse {
        error_code: code(&result),
        ..HeartbeatResponse::default()
    }
}

pub(crate) async fn leave(call: Call, request: LeaveGroupRequest) -> LeaveGroupResponse {
    if request.group_id.is_empty() {
        return LeaveGroupResponse {
            error_code: ErrorCode::InvalidGroupId.code(),
            ..LeaveGroupResponse::default()
        };
    }
    let single = call.version < 3;
    let members = if single {
        vec![MemberIdentity {
            member_id: request.member_id,
            ..MemberIdentity::default()
        }]
    } else {
        request.members
    };
    let leavers: Vec<(String, Option<String>)> = members
        .into_iter()
        .map(|member| (member.member_id, member.group_instance_id))
        .collect();
    let core = call.core();
    let results = core
        .groups
        .leave(&core.topics, &request.group_id, &leavers)
        .await;
    let error_code = match &results[..] {
        [only] if single => code(only),
        _ => ErrorCode::None.code(),
    };
    let members = leavers
        .into_iter()
        .zip(results)
        .map(|(leaver, result)| MemberResponse {
            member_id: leaver.0,
            group_instance_id: leaver.1,
            error_code: code(&result),
        });
    LeaveGroupResponse {
        error_code,
        members: members.collect(),
        ..LeaveGroupResponse::default()
    }
}

pub(crate) async fn describe(call: Call, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let operations = match request.include_authorized_operations {
        true => GROUP_OPERATIONS,
        false => i32::MIN,
    };
    let describe = |group_id: String| match call.core().groups.view(&group_id) {
        Some(view) if view.kind == Kind::Classic => described(view, operations),
        _ => {
            let newer = call.version >= 6;
            let code = if newer {
                ErrorCode::GroupIdNotFound
            } else {
                ErrorCode::None
            };
            DescribedGroup {
                error_code: code.code(),
                error_message: newer.then(|| format!("Group {group_id} not found.")),
                group_id,
                group_state: "Dead".into(),
                authorized_operations: operations,
                ..DescribedGroup::default()
            }
        }
    };
    DescribeGroupsResponse {
        groups: request.groups.into_iter().map(describe).collect(),
        ..DescribeGroupsResponse::default()
    }
}

fn described(view: View, authorized_operations: i32) -> DescribedGroup {
    let stable = view.state == "Stable";
    let member = |member: MemberView| DescribedGroupMember {
        member_metadata: if stable {
            member.metadata
        } else {
            Bytes::new()
        },
        member_assignment: member.assignment,
        member_id: member.id,
        group_instance_id: member.instance_id,
        client_id: member.client_id,
        client_host: member.client_host,
    };
    DescribedGroup {
        error_code: ErrorCode::None.code(),
        error_message: None,
        group_id: view.id,
        group_state: view.state.to_owned(),
        protocol_type: view.protocol_type,
        members: view.members.into_iter().map(member).collect(),
        protocol_data: if stable { view.protocol } else { String::new() },
        authorized_operations,
    }
}

pub(crate) async fn list(call: Call, request: ListGroupsRequest) -> ListGroupsResponse {
    let any = |wanted: &[String], found: &str| {
        wanted.is_empty() || wanted.iter().any(|one| one.eq_ignore_ascii_case(found))
    };
    let views = call.core().groups.views().into_iter().filter(|view| {
        any(&request.states_filter, view.state) && any(&request.types_filter, view.kind.name())
    });
    let groups = views.map(|view| ListedGroup {
        group_id: view.id,
        protocol_type: view.protocol_type,
        group_state: view.state.to_owned(),
        group_type: view.kind.name().to_owned(),
    });
    ListGroupsResponse {
        groups: groups.collect(),
        ..ListGroupsResponse::default()
    }
}

pub(crate) async fn delete(call: Call, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group_id in request.groups_names {
        let core = call.core();
        let mut result = core.groups.delete(&group_id).await;
        if result.is_ok() {
            let forgotten = core.shares.forget(core.shares.of_group(&group_id)).await;
            result = forgotten.map_err(|_| Refusal::NotStored);
        }
        results.push(DeletableGroupResult {
            group_id,
            error_code: code(&result),
            ..DeletableGroupResult::default()
        });
    }
    DeleteGroupsResponse {
        results,
        ..DeleteGroupsResponse::default()
    }
}
