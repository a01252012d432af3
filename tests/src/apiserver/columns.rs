//! The columns of each kind and how their cells are found, like the real server's printers.

use serde_json::Value;

use super::kinds::Kind;
use super::table::Column;

const fn narrow(name: &'static str) -> Column {
    Column { name, priority: 0 }
}

const fn wide(name: &'static str) -> Column {
    Column { name, priority: 1 }
}

static NAMESPACE: [Column; 3] = [narrow("Name"), narrow("Status"), narrow("Age")];
static NODE: [Column; 10] = [
    narrow("Name"),
    narrow("Status"),
    narrow("Roles"),
    narrow("Age"),
    narrow("Version"),
    wide("Internal-IP"),
    wide("External-IP"),
    wide("OS-Image"),
    wide("Kernel-Version"),
    wide("Container-Runtime"),
];
static POD: [Column; 9] = [
    narrow("Name"),
    narrow("Ready"),
    narrow("Status"),
    narrow("Restarts"),
    narrow("Age"),
    wide("IP"),
    wide("Node"),
    wide("Nominated Node"),
    wide("Readiness Gates"),
];
static SERVICE: [Column; 7] = [
    narrow("Name"),
    narrow("Type"),
    narrow("Cluster-IP"),
    narrow("External-IP"),
    narrow("Port(s)"),
    narrow("Age"),
    wide("Selector"),
];
static ENDPOINT_SLICE: [Column; 5] =
    [narrow("Name"), narrow("AddressType"), narrow("Ports"), narrow("Endpoints"), narrow("Age")];
static NETWORK_POLICY: [Column; 3] = [narrow("Name"), narrow("Pod-Selector"), narrow("Age")];
static DEPLOYMENT: [Column; 8] = [
    narrow("Name"),
    narrow("Ready"),
    narrow("Up-to-date"),
    narrow("Available"),
    narrow("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];
static EVENT: [Column; 10] = [
    narrow("Last Seen"),
    narrow("Type"),
    narrow("Reason"),
    narrow("Object"),
    wide("Subobject"),
    wide("Source"),
    narrow("Message"),
    wide("First Seen"),
    wide("Count"),
    wide("Name"),
];
static LEASE: [Column; 3] = [narrow("Name"), narrow("Holder"), narrow("Age")];

pub(super) fn of(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::Namespace => &NAMESPACE,
        Kind::Node => &NODE,
        Kind::Pod => &POD,
        Kind::Service => &SERVICE,
        Kind::EndpointSlice => &ENDPOINT_SLICE,
        Kind::NetworkPolicy => &NETWORK_POLICY,
        Kind::Deployment => &DEPLOYMENT,
        Kind::Event => &EVENT,
        Kind::Lease => &LEASE,
    }
}

/// One cell a column, in the order of [`of`].
pub(super) fn cells(kind: Kind, object: &Value) -> Vec<String> {
    let name = text(&object["metadata"]["name"]);
    let age = age(&object["metadata"]["creationTimestamp"]);
    let (spec, status) = (&object["spec"], &object["status"]);
    match kind {
        Kind::Namespace => vec![name, text(&status["phase"]), age],
        Kind::Node => node(object, name, age),
        Kind::Pod => pod(object, name, age),
        Kind::Service => vec![
            name,
            text(&spec["type"]),
            or(&text(&spec["clusterIP"]), "<none>"),
            external(object),
            ports(&spec["ports"]),
            age,
            or(&labels(&spec["selector"]), "<none>"),
        ],
        Kind::EndpointSlice => vec![
            name,
            text(&object["addressType"]),
            first_three(
                &items(&object["ports"]).map(|port| text(&port["port"])).collect::<Vec<_>>(),
                "<unset>",
            ),
            first_three(&addresses(object), "<unset>"),
            age,
        ],
        Kind::NetworkPolicy => vec![name, or(&selector(&spec["podSelector"]), "<none>"), age],
        Kind::Deployment => deployment(object, name, age),
        Kind::Event => event(object, name),
        Kind::Lease => vec![name, text(&spec["holderIdentity"]), age],
    }
}

fn node(object: &Value, name: String, age: String) -> Vec<String> {
    let status = &object["status"];
    let ready = items(&status["conditions"]).find(|condition| condition["type"] == "Ready");
    let mut state = match ready.map(|condition| &condition["status"]) {
        Some(value) if value == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object["spec"]["unschedulable"] == true {
        state.push_str(",SchedulingDisabled");
    }
    let roles: Vec<&str> = object["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(label, _)| label.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    let address = |kind: &str| {
        let found = items(&status["addresses"]).find(|address| address["type"] == kind);
        found.map_or_else(|| "<none>".into(), |address| text(&address["address"]))
    };
    let info = |field: &str| or(&text(&status["nodeInfo"][field]), "<unknown>");
    vec![
        name,
        state,
        or(&roles.join(","), "<none>"),
        age,
        text(&status["nodeInfo"]["kubeletVersion"]),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn pod(object: &Value, name: String, age: String) -> Vec<String> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let containers: Vec<&Value> = items(&status["containerStatuses"]).collect();
    let ready = containers.iter().filter(|container| container["ready"] == true).count();
    let restarts: u64 = containers.iter().filter_map(|container| container["restartCount"].as_u64()).sum();
    let state = if object["metadata"]["deletionTimestamp"].is_string() {
        "Terminating".into()
    } else {
        or(&text(&status["reason"]), &text(&status["phase"]))
    };
    let total = items(&spec["containers"]).count();
    let none = || "<none>".to_owned();
    vec![
        name,
        format!("{ready}/{total}"),
        state,
        restarts.to_string(),
        age,
        or(&text(&status["podIP"]), "<none>"),
        or(&text(&spec["nodeName"]), "<none>"),
        none(),
        none(),
    ]
}

fn external(service: &Value) -> String {
    let mut addresses: Vec<String> = Vec::new();
    if service["spec"]["type"] == "ExternalName" {
        return text(&service["spec"]["externalName"]);
    }
    for ingress in items(&service["status"]["loadBalancer"]["ingress"]) {
        addresses.push(or(&text(&ingress["ip"]), &text(&ingress["hostname"])));
    }
    addresses.extend(items(&service["spec"]["externalIPs"]).map(text));
    if addresses.is_empty() && service["spec"]["type"] == "LoadBalancer" {
        return "<pending>".into();
    }
    or(&addresses.join(","), "<none>")
}

fn ports(list: &Value) -> String {
    let port = |port: &Value| {
        let (number, protocol) = (text(&port["port"]), text(&port["protocol"]));
        match port["nodePort"].as_u64() {
            Some(node_port) if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
            _ => format!("{number}/{protocol}"),
        }
    };
    or(&items(list).map(port).collect::<Vec<_>>().join(","), "<none>")
}

fn addresses(slice: &Value) -> Vec<String> {
    items(&slice["endpoints"]).flat_map(|endpoint| items(&endpoint["addresses"])).map(text).collect()
}

fn deployment(object: &Value, name: String, age: String) -> Vec<String> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let count = |field: &str| status[field].as_u64().unwrap_or(0).to_string();
    let containers = || items(&spec["template"]["spec"]["containers"]);
    let joined = |field: &str| containers().map(|one| text(&one[field])).collect::<Vec<_>>().join(",");
    vec![
        name,
        format!("{}/{}", count("readyReplicas"), spec["replicas"].as_u64().unwrap_or(0)),
        count("updatedReplicas"),
        count("availableReplicas"),
        age,
        joined("name"),
        joined("image"),
        or(&selector(&spec["selector"]), "<none>"),
    ]
}

fn event(object: &Value, name: String) -> Vec<String> {
    let regarding = &object["involvedObject"];
    let last = [&object["series"]["lastObservedTime"], &object["lastTimestamp"], &object["eventTime"]];
    let first = [&object["firstTimestamp"], &object["eventTime"]];
    let earliest =
        |times: &[&Value]| times.iter().find(|time| time.is_string()).map_or_else(unknown, |time| age(time));
    let source = or(&text(&object["source"]["component"]), &text(&object["reportingComponent"]));
    vec![
        earliest(&last),
        text(&object["type"]),
        text(&object["reason"]),
        format!("{}/{}", text(&regarding["kind"]).to_lowercase(), text(&regarding["name"])),
        text(&regarding["fieldPath"]),
        source,
        text(&object["message"]).trim().to_owned(),
        earliest(&first),
        object["count"].as_u64().unwrap_or(1).to_string(),
        name,
    ]
}

fn selector(value: &Value) -> String {
    let mut parts = vec![labels(&value["matchLabels"])];
    for expression in items(&value["matchExpressions"]) {
        let values = items(&expression["values"]).map(text).collect::<Vec<_>>().join(",");
        let key = text(&expression["key"]);
        parts.push(match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("DoesNotExist") => format!("!{key}"),
            _ => key,
        });
    }
    parts.retain(|part| !part.is_empty());
    parts.join(",")
}

fn labels(map: &Value) -> String {
    let pairs = map.as_object().into_iter().flatten();
    pairs.map(|(name, value)| format!("{name}={}", text(value))).collect::<Vec<_>>().join(",")
}

fn first_three(all: &[String], none: &str) -> String {
    let head = all.iter().take(3).cloned().collect::<Vec<_>>().join(",");
    match all.len().checked_sub(3) {
        Some(more) if more > 0 => format!("{head} + {more} more..."),
        _ => or(&head, none),
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn or(text: &str, otherwise: &str) -> String {
    if text.is_empty() { otherwise.into() } else { text.into() }
}

fn unknown() -> String {
    "<unknown>".into()
}

/// Time since then, as kubectl shortens it: `45s`, `2m30s`, `7m`, `3h5m`, `12h`, `4d`.
fn age(time: &Value) -> String {
    let Some(then) = time.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok()) else {
        return unknown();
    };
    short(jiff::Timestamp::now().as_second() - then.as_second())
}

fn short(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    let two = |large: i64, unit: char, small: i64, lesser: char| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{lesser}"),
    };
    match seconds {
        ..0 => "0s".into(),
        0..120 => format!("{seconds}s"),
        120..600 => two(seconds / MINUTE, 'm', seconds % MINUTE, 's'),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => two(seconds / HOUR, 'h', seconds % HOUR / MINUTE, 'm'),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => two(seconds / DAY, 'd', seconds % DAY / HOUR, 'h'),
        _ => format!("{}d", seconds / DAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_shortened_as_kubectl_does() {
        for (seconds, expected) in [
            (-5, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (659, "10m"),
            (11_100, "3h5m"),
            (172_799, "47h"),
            (180_000, "2d2h"),
            (864_000, "10d"),
        ] {
            assert_eq!(short(seconds), expected);
        }
    }

    #[test]
    fn every_kind_has_a_cell_for_each_column_even_of_an_empty_object() {
        for kind in Kind::ALL {
            assert_eq!(cells(kind, &Value::Null).len(), of(kind).len(), "{kind}");
        }
    }
}
