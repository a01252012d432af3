//! What stands inside the bytes of `remote_cap` and `local_cap`.

use prost::Message;

use super::Family;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MultiProtocolCapability {
    #[prost(message, optional, tag = "1")]
    pub(crate) family: Option<Family>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ExtendedNexthopCapability {
    #[prost(message, repeated, tag = "1")]
    pub(crate) tuples: Vec<ExtendedNexthopTuple>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ExtendedNexthopTuple {
    #[prost(message, optional, tag = "1")]
    pub(crate) nlri_family: Option<Family>,
    #[prost(message, optional, tag = "2")]
    pub(crate) nexthop_family: Option<Family>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GracefulRestartCapability {
    #[prost(uint32, tag = "1")]
    pub(crate) flags: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) time: u32,
    #[prost(message, repeated, tag = "3")]
    pub(crate) tuples: Vec<FamilyFlags>,
}

/// Of graceful restart, where the number is flags, and of add-path, where it is the mode: small enough that both
/// kinds of integer look the same.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FamilyFlags {
    #[prost(message, optional, tag = "1")]
    pub(crate) family: Option<Family>,
    #[prost(uint32, tag = "2")]
    pub(crate) flags: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct FourOctetAsnCapability {
    #[prost(uint32, tag = "1")]
    pub(crate) asn: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AddPathCapability {
    #[prost(message, repeated, tag = "1")]
    pub(crate) tuples: Vec<FamilyFlags>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LongLivedGracefulRestartCapability {
    #[prost(message, repeated, tag = "1")]
    pub(crate) tuples: Vec<LongLivedTuple>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LongLivedTuple {
    #[prost(message, optional, tag = "1")]
    pub(crate) family: Option<Family>,
    #[prost(uint32, tag = "2")]
    pub(crate) flags: u32,
    /// Seconds.
    #[prost(uint32, tag = "3")]
    pub(crate) time: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct FqdnCapability {
    #[prost(string, tag = "1")]
    pub(crate) host_name: String,
    #[prost(string, tag = "2")]
    pub(crate) domain_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct UnknownCapability {
    #[prost(uint32, tag = "1")]
    pub(crate) code: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SoftwareVersionCapability {
    #[prost(string, tag = "1")]
    pub(crate) software_version: String,
}
