//! What is asked of the coordinators of many groups at once, and what their answers mean. Pure.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, Bytes};
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use kafka_protocol::messages::{
    DescribeGroupsRequest, FindCoordinatorRequest, FindCoordinatorResponse, GroupId, OffsetFetchRequest, TopicName,
};
use kafka_protocol::protocol::{Request, StrBytes};

use super::endpoint::Address;
use crate::kafka::admin::{
    AdminError, CommittedOffset, GroupDescription, GroupMember, GroupOffsets, GroupState, TopicPartition, failure,
};

/// First version that names many groups (KIP-699; Kafka 3.0).
pub const FIND: i16 = 4;
/// Groups of one request for coordinators.
pub const FIND_MOST: usize = 1_000;

/// What is asked of each group's coordinator.
pub trait Question {
    type Request: Request;
    type Answer;
    /// Its name in Kafka's protocol.
    const CALL: &'static str;
    const VERSION: i16;
    /// Groups of one request: an answer stays far below the largest that is taken.
    const MOST: usize;
    fn request(&self, groups: &[String]) -> Self::Request;
    fn answers(response: <Self::Request as Request>::Response) -> Vec<(String, Result<Self::Answer, AdminError>)>;
}

/// What the groups have committed (KIP-709; Kafka 3.0).
pub struct Offsets<'a> {
    /// None: all partitions.
    pub partitions: Option<&'a BTreeSet<TopicPartition>>,
    /// Partitions with an open transaction on their offsets fail instead of showing the older one (KIP-447).
    pub require_stable: bool,
}

/// State and members.
pub struct Description;

pub fn find(groups: &[String]) -> FindCoordinatorRequest {
    let keys = groups.iter().map(|group| StrBytes::from_string(group.clone())).collect();
    // Type 0 is a group.
    FindCoordinatorRequest::default().with_key_type(0).with_coordinator_keys(keys)
}

/// Where the coordinator of each group is.
pub fn found(response: FindCoordinatorResponse) -> impl Iterator<Item = (String, Result<Address, AdminError>)> {
    response.coordinators.into_iter().map(|found| {
        let is_found = failure(found.error_code.into(), found.error_message.as_deref().unwrap_or_default());
        let port = u16::try_from(found.port).map_err(|_| AdminError::Incomplete("FindCoordinator"));
        let address = is_found.and(port).map(|port| Address { host: found.host.to_string(), port });
        (found.key.to_string(), address)
    })
}

impl Question for Offsets<'_> {
    type Request = OffsetFetchRequest;
    type Answer = GroupOffsets;
    const CALL: &'static str = "OffsetFetch";
    const VERSION: i16 = 8;
    const MOST: usize = 1_000;

    fn request(&self, groups: &[String]) -> OffsetFetchRequest {
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for partition in self.partitions.into_iter().flatten() {
            topics.entry(&partition.topic).or_default().push(partition.partition);
        }
        let topic = |(name, partitions): (&&str, &Vec<i32>)| {
            OffsetFetchRequestTopics::default()
                .with_name(TopicName(StrBytes::from_string((*name).to_owned())))
                .with_partition_indexes(partitions.clone())
        };
        let group = |group: &String| {
            OffsetFetchRequestGroup::default()
                .with_group_id(GroupId(StrBytes::from_string(group.clone())))
                .with_topics(self.partitions.map(|_| topics.iter().map(topic).collect()))
        };
        OffsetFetchRequest::default()
            .with_groups(groups.iter().map(group).collect())
            .with_require_stable(self.require_stable)
    }

    fn answers(response: <OffsetFetchRequest as Request>::Response) -> Vec<(String, Result<GroupOffsets, AdminError>)> {
        let answer = |group: OffsetFetchResponseGroup| {
            let name = group.group_id.to_string();
            (name, failure(group.error_code.into(), "").map(|()| offsets(group)))
        };
        response.groups.into_iter().map(answer).collect()
    }
}

fn offsets(group: OffsetFetchResponseGroup) -> GroupOffsets {
    let mut offsets = GroupOffsets::default();
    for topic in group.topics {
        for found in topic.partitions {
            let partition = TopicPartition::new(topic.name.as_str(), found.partition_index);
            if let Err(error) = failure(found.error_code.into(), "") {
                offsets.failed.insert(partition, error);
            } else if found.committed_offset >= 0 {
                let metadata = found.metadata.map(|text| text.to_string()).unwrap_or_default();
                offsets.committed.insert(partition, CommittedOffset { offset: found.committed_offset, metadata });
            }
        }
    }
    offsets
}

impl Question for Description {
    type Request = DescribeGroupsRequest;
    type Answer = GroupDescription;
    const CALL: &'static str = "DescribeGroups";
    // Groups that are not there are Dead; from 6 on they are an error.
    const VERSION: i16 = 5;
    const MOST: usize = 500;

    fn request(&self, groups: &[String]) -> DescribeGroupsRequest {
        let groups = groups.iter().map(|group| GroupId(StrBytes::from_string(group.clone())));
        DescribeGroupsRequest::default().with_groups(groups.collect())
    }

    fn answers(
        response: <DescribeGroupsRequest as Request>::Response,
    ) -> Vec<(String, Result<GroupDescription, AdminError>)> {
        let answer = |group: DescribedGroup| {
            let name = group.group_id.to_string();
            let is_described = failure(group.error_code.into(), group.error_message.as_deref().unwrap_or_default());
            (name, is_described.map(|()| description(group)))
        };
        response.groups.into_iter().map(answer).collect()
    }
}

fn description(group: DescribedGroup) -> GroupDescription {
    let state = match group.group_state.as_str() {
        "Stable" => GroupState::Stable,
        "Empty" => GroupState::Empty,
        "Dead" => GroupState::Dead,
        "PreparingRebalance" | "CompletingRebalance" => GroupState::Rebalancing,
        _ => GroupState::Unknown,
    };
    let assignor = group.protocol_data.to_string();
    GroupDescription { state, assignor, members: group.members.into_iter().map(member).collect() }
}

fn member(member: DescribedGroupMember) -> GroupMember {
    GroupMember {
        assignment: assignment(member.member_assignment),
        member_id: member.member_id.to_string(),
        client_id: member.client_id.to_string(),
        host: member.client_host.to_string(),
    }
}

/// What a member consumes. Another member wrote it: what is no assignment is none. Not by the crate's own reader, which takes as
/// much memory as the text says that it needs.
fn assignment(mut bytes: Bytes) -> BTreeSet<TopicPartition> {
    read_assignment(&mut bytes).unwrap_or_default()
}

fn read_assignment(bytes: &mut Bytes) -> Option<BTreeSet<TopicPartition>> {
    // All versions begin alike.
    bytes.try_get_i16().ok()?;
    let mut all = BTreeSet::new();
    for _ in 0..bytes.try_get_i32().ok()? {
        let length = usize::try_from(bytes.try_get_i16().ok()?).ok().filter(|length| *length <= bytes.remaining())?;
        let topic = String::from_utf8(bytes.split_to(length).to_vec()).ok()?;
        for _ in 0..bytes.try_get_i32().ok()? {
            all.insert(TopicPartition::new(topic.as_str(), bytes.try_get_i32().ok()?));
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};

    use super::*;

    #[test]
    fn an_assignment_is_what_it_says_or_nothing() {
        let mut bytes = BytesMut::new();
        bytes.put_i16(9); // A version of tomorrow.
        bytes.put_i32(1);
        bytes.put_i16(1);
        bytes.put_slice(b"t");
        bytes.put_i32(2);
        bytes.put_i32(0);
        bytes.put_i32(7);
        bytes.put_i32(-1); // No user data.
        let bytes = bytes.freeze();
        assert_eq!(assignment(bytes.clone()), [TopicPartition::new("t", 0), TopicPartition::new("t", 7)].into());
        let words = Bytes::from_static(b"a text that is no assignment, whose lengths are in the billions");
        for hostile in [Bytes::new(), bytes.slice(..1), bytes.slice(..12), words] {
            assert_eq!(assignment(hostile.clone()), BTreeSet::new(), "{hostile:?}");
        }
    }
}
