//! The CNI configuration file: text in, text out. Pod ranges and MTU become what the node has now; every key
//! that we do not know stays as it is.
//!
//! Deliberately absent: the file itself. Whoever owns it writes only if the text differs.

use ipnet::IpNet;
use serde_json::{Map, Value, json};

/// What a configuration is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// The node's pod ranges: each is a range set of its own, and no other stays.
    pub pod_cidrs: &'a [IpNet],
    /// Left as it is where `None`.
    pub mtu: Option<u32>,
}

/// Why a configuration cannot be edited.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("it is no JSON")]
    NoJson(#[source] serde_json::Error),
    #[error("it is {0}, not an object")]
    NoObject(&'static str),
    #[error("it has no list \"plugins\", which a .conflist has")]
    NoPlugins,
    #[error("it has no \"type\"")]
    NoType,
    #[error("none of its plugins is of type \"bridge\" (it has {0})")]
    NoBridge(String),
    #[error("its bridge plugin has no object \"ipam\"")]
    NoIpam,
    #[error("\"ipam.ranges\" of its bridge plugin is {0}, not a list of lists")]
    BadRanges(&'static str),
}

/// Edits a configuration: a list of plugins if `is_list` (a name that ends in `.conflist`), else a single one.
pub fn edit(text: &str, is_list: bool, wanted: &Wanted<'_>) -> Result<String, Error> {
    let mut config: Value = serde_json::from_str(text).map_err(Error::NoJson)?;
    let kind = kind_of(&config);
    let top = config.as_object_mut().ok_or(Error::NoObject(kind))?;
    let bridge = if is_list { bridge_of(top)? } else { single(top)? };
    let ipam = bridge.get_mut("ipam").and_then(Value::as_object_mut).ok_or(Error::NoIpam)?;
    set_ranges(ipam, wanted.pod_cidrs)?;
    if let Some(mtu) = wanted.mtu {
        bridge.insert("mtu".into(), mtu.into());
    }
    Ok(config.to_string())
}

/// The first plugin of a list that is a bridge.
fn bridge_of(top: &mut Map<String, Value>) -> Result<&mut Map<String, Value>, Error> {
    let plugins = top.get_mut("plugins").and_then(Value::as_array_mut).ok_or(Error::NoPlugins)?;
    let types: Vec<String> =
        plugins.iter().map(|plugin| type_of(plugin).unwrap_or("no type").to_owned()).collect();
    let bridge = plugins.iter_mut().filter(|plugin| type_of(plugin) == Some("bridge"));
    let listed = if types.is_empty() { "none at all".to_owned() } else { types.join(", ") };
    bridge.filter_map(Value::as_object_mut).next().ok_or(Error::NoBridge(listed))
}

/// A configuration that is itself a bridge plugin.
fn single(top: &mut Map<String, Value>) -> Result<&mut Map<String, Value>, Error> {
    match top.get("type").and_then(Value::as_str) {
        Some("bridge") => Ok(top),
        Some(other) => Err(Error::NoBridge(other.to_owned())),
        None => Err(Error::NoType),
    }
}

fn type_of(plugin: &Value) -> Option<&str> {
    plugin.get("type").and_then(Value::as_str)
}

/// Makes `ranges` the pod ranges: a set that has one of them stays as it is, stale sets go, missing ones come.
fn set_ranges(ipam: &mut Map<String, Value>, pod_cidrs: &[IpNet]) -> Result<(), Error> {
    let subnet = ipam.remove("subnet");
    let mut sets = match ipam.remove("ranges") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(sets)) => sets,
        Some(other) => return Err(Error::BadRanges(kind_of(&other))),
    };
    sets.extend(subnet.map(|subnet| json!([{ "subnet": subnet }])));
    let wanted: Vec<IpNet> = pod_cidrs.iter().map(IpNet::trunc).collect();
    let mut kept: Vec<Value> = Vec::new();
    let mut have: Vec<IpNet> = Vec::new();
    for set in sets {
        let Value::Array(ranges) = set else {
            return Err(Error::BadRanges("a list with something else in it"));
        };
        let current = |range: &Value| subnet_of(range).filter(|subnet| wanted.contains(subnet));
        let mut fresh = Vec::new();
        for range in ranges {
            if let Some(subnet) = current(&range).filter(|subnet| !have.contains(subnet)) {
                have.push(subnet);
                fresh.push(range);
            }
        }
        if !fresh.is_empty() {
            kept.push(Value::Array(fresh));
        }
    }
    let missing = wanted.iter().filter(|cidr| !have.contains(cidr));
    kept.extend(missing.map(|cidr| json!([{ "subnet": cidr.to_string() }])));
    ipam.insert("ranges".into(), Value::Array(kept));
    Ok(())
}

fn subnet_of(range: &Value) -> Option<IpNet> {
    let subnet: IpNet = range.get("subnet")?.as_str()?.parse().ok()?;
    Some(subnet.trunc())
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(text: &str, is_list: bool, cidrs: &[&str], mtu: Option<u32>) -> Result<String, String> {
        let cidrs: Vec<IpNet> = cidrs.iter().map(|text| text.parse().unwrap()).collect();
        edit(text, is_list, &Wanted { pod_cidrs: &cidrs, mtu }).map_err(|error| error.to_string())
    }

    /// What goes in, and what comes out; `10.1.0.0/24` is the node's range, 1500 its MTU.
    const ROWS: &[(&str, bool, &str, &str)] = &[
        (
            "the range is added, keys we do not know stay",
            true,
            r#"{"name":"n","x":[1],"plugins":[{"type":"bridge","isGateway":true,"ipam":{"type":"host-local"}},{"type":"portmap"}]}"#,
            r#"{"name":"n","plugins":[{"ipam":{"ranges":[[{"subnet":"10.1.0.0/24"}]],"type":"host-local"},"isGateway":true,"mtu":1500,"type":"bridge"},{"type":"portmap"}],"x":[1]}"#,
        ),
        (
            "a subnet becomes a range set",
            false,
            r#"{"type":"bridge","ipam":{"subnet":"10.1.0.0/24"}}"#,
            r#"{"ipam":{"ranges":[[{"subnet":"10.1.0.0/24"}]]},"mtu":1500,"type":"bridge"}"#,
        ),
        (
            "a range of yesterday goes",
            false,
            r#"{"type":"bridge","ipam":{"ranges":[[{"subnet":"10.9.0.0/24"}],[{"subnet":"10.1.0.0/24","gateway":"10.1.0.9"}]]}}"#,
            r#"{"ipam":{"ranges":[[{"gateway":"10.1.0.9","subnet":"10.1.0.0/24"}]]},"mtu":1500,"type":"bridge"}"#,
        ),
        (
            "a range is the same range however it is written",
            false,
            r#"{"type":"bridge","ipam":{"ranges":[[{"subnet":"10.1.0.7/24"}]]}}"#,
            r#"{"ipam":{"ranges":[[{"subnet":"10.1.0.7/24"}]]},"mtu":1500,"type":"bridge"}"#,
        ),
    ];

    #[test]
    fn ranges_and_mtu_become_the_nodes() {
        for (case, is_list, before, after) in ROWS {
            let once = edited(before, *is_list, &["10.1.0.0/24"], Some(1500));
            assert_eq!(once.as_deref(), Ok(*after), "{case}");
            assert_eq!(
                edited(after, *is_list, &["10.1.0.0/24"], Some(1500)).as_deref(),
                Ok(*after),
                "{case}, again"
            );
        }
    }

    #[test]
    fn without_an_mtu_the_files_own_stays() {
        let text = r#"{"ipam":{"ranges":[]},"mtu":1400,"type":"bridge"}"#;
        assert_eq!(edited(text, false, &[], None).as_deref(), Ok(text));
    }

    #[test]
    fn both_families_have_a_range_set_each() {
        let after = edited(r#"{"type":"bridge","ipam":{}}"#, false, &["10.1.0.0/24", "fd00:1::/64"], None);
        let ranges =
            r#"{"ipam":{"ranges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":"fd00:1::/64"}]]},"type":"bridge"}"#;
        assert_eq!(after.as_deref(), Ok(ranges));
    }

    #[test]
    fn what_cannot_be_edited_is_named() {
        let rows = [
            ("{", true, "it is no JSON"),
            ("[]", true, "it is a list, not an object"),
            (r#"{"type":"bridge"}"#, true, "it has no list \"plugins\", which a .conflist has"),
            ("{}", false, "it has no \"type\""),
            (r#"{"type":"ptp"}"#, false, "none of its plugins is of type \"bridge\" (it has ptp)"),
            (
                r#"{"plugins":[{"type":"ptp"},{}]}"#,
                true,
                "none of its plugins is of type \"bridge\" (it has ptp, no type)",
            ),
            (r#"{"plugins":[]}"#, true, "none of its plugins is of type \"bridge\" (it has none at all)"),
            (r#"{"type":"bridge"}"#, false, "its bridge plugin has no object \"ipam\""),
            (
                r#"{"type":"bridge","ipam":{"ranges":"all"}}"#,
                false,
                "\"ipam.ranges\" of its bridge plugin is a string, not a list of lists",
            ),
        ];
        for (text, is_list, expected) in rows {
            assert_eq!(edited(text, is_list, &["10.1.0.0/24"], None), Err(expected.to_owned()), "{text}");
        }
    }
}
