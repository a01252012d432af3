//! Policies, and the sets that their conditions name.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DefinedSet {
    #[prost(int32, tag = "1")]
    pub(crate) defined_type: i32,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(string, repeated, tag = "3")]
    pub(crate) list: Vec<String>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) prefixes: Vec<PrefixRange>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PrefixRange {
    #[prost(string, tag = "1")]
    pub(crate) ip_prefix: String,
    #[prost(uint32, tag = "2")]
    pub(crate) mask_length_min: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) mask_length_max: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PolicyAssignment {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(int32, tag = "2")]
    pub(crate) direction: i32,
    #[prost(message, repeated, tag = "4")]
    pub(crate) policies: Vec<Policy>,
    #[prost(int32, tag = "5")]
    pub(crate) default_action: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Policy {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) statements: Vec<Statement>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Statement {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) conditions: Option<Conditions>,
    #[prost(message, optional, tag = "3")]
    pub(crate) actions: Option<Actions>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Conditions {
    #[prost(message, optional, tag = "1")]
    pub(crate) prefix_set: Option<MatchSet>,
    #[prost(message, optional, tag = "2")]
    pub(crate) neighbor_set: Option<MatchSet>,
    /// -1 is "no condition" to every client, whatever the enumeration says.
    #[prost(int32, tag = "7")]
    pub(crate) rpki_result: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MatchSet {
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Actions {
    #[prost(int32, tag = "1")]
    pub(crate) route_action: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) community: Option<CommunityAction>,
    #[prost(message, optional, tag = "4")]
    pub(crate) as_prepend: Option<AsPrependAction>,
    #[prost(message, optional, tag = "6")]
    pub(crate) nexthop: Option<NexthopAction>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CommunityAction {
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
    #[prost(string, repeated, tag = "2")]
    pub(crate) communities: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AsPrependAction {
    #[prost(uint32, tag = "1")]
    pub(crate) asn: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) repeat: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct NexthopAction {
    #[prost(bool, tag = "2")]
    pub(crate) is_self: bool,
}
