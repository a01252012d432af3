//! Of the objects we follow, the fields we read. A whole Pod costs 48 KB in memory, this much of it under 2.
//!
//! Nothing here fails to decode because one object is odd: that would cost us all the others in the same list.
//! What has not the form it should have is kept as [`Field::Odd`], for [`super::translate`] to complain about.

use k8s_openapi::api::{core, discovery};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A part of an object, or what stood in its place.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Field<T> {
    Read(T),
    Odd(Value),
}

impl<T: Default> Default for Field<T> {
    fn default() -> Self {
        Self::Read(T::default())
    }
}

impl<T: DeserializeOwned> Field<T> {
    /// The part, or what is wrong with it.
    pub(crate) fn get(&self) -> Result<&T, String> {
        match self {
            Self::Read(part) => Ok(part),
            Self::Odd(value) => {
                let error = serde_json::from_value::<T>(value.clone()).err();
                Err(error.map_or_else(|| format!("{value}"), |error| error.to_string()))
            }
        }
    }
}

#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = core::v1::Service)]
pub(crate) struct Service {
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) spec: Field<ServiceSpec>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServiceSpec {
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    #[serde(rename = "clusterIP")]
    pub(crate) cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    pub(crate) cluster_ips: Option<Vec<String>>,
    pub(crate) ports: Option<Vec<Port>>,
}

/// A port of a Service or a slice.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Port {
    pub(crate) name: Option<String>,
    pub(crate) protocol: Option<String>,
    #[serde(rename = "port")]
    pub(crate) number: Option<i64>,
    /// Of a Service alone.
    #[serde(rename = "nodePort")]
    pub(crate) on_nodes: Option<i64>,
}

#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = discovery::v1::EndpointSlice)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointSlice {
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) address_type: Option<String>,
    #[serde(default)]
    pub(crate) endpoints: Field<Option<Vec<Endpoint>>>,
    #[serde(default)]
    pub(crate) ports: Field<Option<Vec<Port>>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Endpoint {
    pub(crate) addresses: Option<Vec<String>>,
    pub(crate) conditions: Option<Conditions>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Conditions {
    pub(crate) ready: Option<bool>,
    pub(crate) serving: Option<bool>,
    pub(crate) terminating: Option<bool>,
}

#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = core::v1::Node)]
pub(crate) struct Node {
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) spec: Field<NodeSpec>,
    #[serde(default)]
    pub(crate) status: Field<NodeStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pub(crate) pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pub(crate) pod_cidrs: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeStatus {
    pub(crate) addresses: Option<Vec<NodeAddress>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeAddress {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) address: String,
}

#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = core::v1::Pod)]
pub(crate) struct Pod {
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) spec: Field<PodSpec>,
    #[serde(default)]
    pub(crate) status: Field<PodStatus>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodSpec {
    pub(crate) host_network: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodStatus {
    pub(crate) phase: Option<String>,
    #[serde(rename = "podIP")]
    pub(crate) pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pub(crate) pod_ips: Option<Vec<PodIp>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodIp {
    pub(crate) ip: String,
}
