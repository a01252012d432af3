//! The messages of GoBGP's API, as far as they are read or filled here; fields that are absent have their zero value
//! on the other side. One definition serves both generations, for their field numbers agree (v3.10 and v4.8,
//! <https://github.com/osrg/gobgp/blob/v4.8.0/proto/api/gobgp.proto>). What differs is written by a
//! [`Generation`](super::Generation): the numbers of enumerations, which are plain integers here, and messages that
//! one packs in `Any` and the other in a `oneof`, which are bytes here (on the wire a message is nothing else).

mod capability;
mod peer;
mod policy;

pub(crate) use capability::*;
pub(crate) use peer::*;
pub(crate) use policy::*;
use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Timestamp {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(crate) nanos: i32,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Family {
    #[prost(int32, tag = "1")]
    pub(crate) afi: i32,
    #[prost(int32, tag = "2")]
    pub(crate) safi: i32,
}

// Requests.

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ListPeerRequest {
    #[prost(string, tag = "1")]
    pub(crate) address: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ResetPeerRequest {
    #[prost(string, tag = "1")]
    pub(crate) address: String,
    #[prost(string, tag = "2")]
    pub(crate) communication: String,
    #[prost(bool, tag = "3")]
    pub(crate) soft: bool,
    #[prost(int32, tag = "4")]
    pub(crate) direction: i32,
}

/// Of `ShutdownPeer`, `EnablePeer` (which says nothing to the peer) and `DisablePeer`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PeerVerbRequest {
    #[prost(string, tag = "1")]
    pub(crate) address: String,
    #[prost(string, tag = "2")]
    pub(crate) communication: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GetTableRequest {
    #[prost(int32, tag = "1")]
    pub(crate) table_type: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) family: Option<Family>,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ListPathRequest {
    #[prost(int32, tag = "1")]
    pub(crate) table_type: i32,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "3")]
    pub(crate) family: Option<Family>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) prefixes: Vec<TableLookupPrefix>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TableLookupPrefix {
    #[prost(string, tag = "1")]
    pub(crate) prefix: String,
    #[prost(int32, tag = "2")]
    pub(crate) kind: i32,
}

/// Of `ListPolicy` and `ListStatement`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct NameRequest {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ListDefinedSetRequest {
    #[prost(int32, tag = "1")]
    pub(crate) defined_type: i32,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ListPolicyAssignmentRequest {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(int32, tag = "2")]
    pub(crate) direction: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WatchEventRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) peer: Option<Empty>,
    #[prost(message, optional, tag = "2")]
    pub(crate) table: Option<WatchTable>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WatchTable {
    #[prost(message, repeated, tag = "1")]
    pub(crate) filters: Vec<WatchFilter>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WatchFilter {
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
    #[prost(bool, tag = "2")]
    pub(crate) init: bool,
}

// Answers.

/// An answer of one field, which is how nearly all are made.
macro_rules! answer {
    ($($name:ident { $field:ident: $kind:ty },)*) => { $(
        #[derive(Clone, PartialEq, Message)]
        pub(crate) struct $name {
            #[prost(message, optional, tag = "1")]
            pub(crate) $field: Option<$kind>,
        }
    )* };
}

answer! {
    GetBgpResponse { global: Global },
    ListPeerResponse { peer: Peer },
    ListPathResponse { destination: Destination },
    ListPolicyResponse { policy: Policy },
    ListStatementResponse { statement: Statement },
    ListDefinedSetResponse { defined_set: DefinedSet },
    ListPolicyAssignmentResponse { assignment: PolicyAssignment },
}

#[derive(Clone, PartialEq, Message)]
#[expect(clippy::struct_field_names, reason = "these are the API's own")]
pub(crate) struct GetTableResponse {
    #[prost(uint64, tag = "1")]
    pub(crate) num_destination: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) num_path: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) num_accepted: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WatchEventResponse {
    #[prost(message, optional, tag = "2")]
    pub(crate) peer: Option<PeerEvent>,
    #[prost(message, optional, tag = "3")]
    pub(crate) table: Option<TableEvent>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PeerEvent {
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) peer: Option<Peer>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TableEvent {
    #[prost(message, repeated, tag = "2")]
    pub(crate) paths: Vec<Path>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Global {
    #[prost(uint32, tag = "1")]
    pub(crate) asn: u32,
    #[prost(string, tag = "2")]
    pub(crate) router_id: String,
    #[prost(int32, tag = "3")]
    pub(crate) listen_port: i32,
    #[prost(string, repeated, tag = "4")]
    pub(crate) listen_addresses: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Destination {
    #[prost(string, tag = "1")]
    pub(crate) prefix: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) paths: Vec<Path>,
}

/// Clients take `nlri_binary` and `pattrs_binary` where they are filled. `nlri` (1) and `pattrs` (2), which would say the
/// same again in messages of their own, are absent.
#[derive(Clone, PartialEq, Message)]
#[expect(clippy::struct_excessive_bools, reason = "these are the API's own")]
pub(crate) struct Path {
    #[prost(message, optional, tag = "3")]
    pub(crate) age: Option<Timestamp>,
    #[prost(bool, tag = "4")]
    pub(crate) best: bool,
    #[prost(bool, tag = "5")]
    pub(crate) is_withdraw: bool,
    #[prost(message, optional, tag = "9")]
    pub(crate) family: Option<Family>,
    #[prost(uint32, tag = "10")]
    pub(crate) source_asn: u32,
    #[prost(string, tag = "11")]
    pub(crate) source_id: String,
    #[prost(bool, tag = "12")]
    pub(crate) filtered: bool,
    #[prost(bool, tag = "13")]
    pub(crate) stale: bool,
    #[prost(bool, tag = "14")]
    pub(crate) is_from_external: bool,
    #[prost(string, tag = "15")]
    pub(crate) neighbor_ip: String,
    #[prost(bytes = "vec", tag = "20")]
    pub(crate) nlri_binary: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "21")]
    pub(crate) pattrs_binary: Vec<Vec<u8>>,
}
