//! Each row: what is wrong, the object, the Problems expected, and what still works.

#![expect(clippy::needless_pass_by_value, reason = "a row is written where it is used")]

use serde_json::{Value, json};

use super::*;

fn read<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("narrow types decode whatever has metadata")
}

/// The event, and `reason: text` of each Problem.
fn split(mut events: Vec<Event>) -> (Event, Vec<String>) {
    let Some(Event::Problems(_, found)) = events.pop() else { panic!("{events:?}") };
    let [event] = <[Event; 1]>::try_from(events).unwrap();
    (event, found.iter().map(|problem| format!("{}: {}", problem.reason, problem.text)).collect())
}

fn service_of(spec: Value) -> (Event, Vec<String>) {
    split(service(&read(json!({"metadata": {"namespace": "d", "name": "web"}, "spec": spec}))))
}

/// `VIP:port/protocol name` of each frontend, or "gone".
fn frontends(event: Event) -> Vec<String> {
    let Event::Service(service) = event else { return vec!["gone".into()] };
    let ports = service.ports.iter();
    let all = ports.flat_map(|port| {
        service
            .cluster_ips
            .iter()
            .map(move |vip| format!("{vip}:{}/{} {}", port.port, port.protocol, port.name))
    });
    all.collect()
}

#[test]
fn a_service_is_its_addresses_and_ports() {
    let object = json!({
        "metadata": {"namespace": "d", "name": "web", "creationTimestamp": "1970-01-01T00:01:00Z"},
        "spec": {
            "type": "NodePort", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5", "fd00::5"],
            "ports": [{"port": 80}, {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": "x", "nodePort": 1}],
        },
    });
    let (event, wrong) = split(service(&read(object)));
    assert_eq!(wrong, Vec::<String>::new());
    let Event::Service(service) = &event else { panic!("{event:?}") };
    assert_eq!((service.created, service.key.to_string()), (60, "d/web".into()));
    let expected = ["10.96.0.5:80/TCP ", "fd00::5:80/TCP ", "10.96.0.5:53/UDP dns", "fd00::5:53/UDP dns"];
    assert_eq!(frontends(event), expected);
}

#[test]
fn services_that_are_not_ours_are_gone_without_a_word() {
    let port = json!([{"port": 80}]);
    let specs = [
        json!({"clusterIP": "None", "ports": port}),
        json!({"clusterIP": "none", "ports": port}),
        json!({"clusterIP": "", "ports": port}),
        json!({"ports": port}),
        json!({"type": "ExternalName", "clusterIP": "10.96.0.5", "externalName": "x"}),
    ];
    for spec in specs {
        assert_eq!(service_of(spec.clone()), (Event::ServiceGone(Key::new("d", "web")), vec![]), "{spec}");
    }
    for (label, value, ours) in [
        ("service.kubernetes.io/headless", "", false),
        ("service.kubernetes.io/service-proxy-name", "other", false),
        ("service.kubernetes.io/service-proxy-name", "kube-router", true),
    ] {
        let object = json!({
            "metadata": {"namespace": "d", "name": "web", "labels": {label: value}},
            "spec": {"clusterIP": "10.96.0.5", "ports": port},
        });
        let (event, wrong) = split(service(&read(object)));
        assert_eq!((frontends(event) != ["gone"], wrong), (ours, vec![]), "{label}={value}");
    }
}

#[test]
fn what_is_wrong_with_a_service_is_named_and_the_rest_works() {
    let rows = [
        (
            "an IP that is none",
            json!({"clusterIP": "10.96.0.500", "ports": [{"port": 80}]}),
            vec!["BadClusterIP: its ClusterIP \"10.96.0.500\" is no IP address"],
            vec![],
        ),
        (
            "one of two addresses",
            json!({"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5", "x"], "ports": [{"port": 80}]}),
            vec!["BadClusterIP: its ClusterIP \"x\" is no IP address"],
            vec!["10.96.0.5:80/TCP "],
        ),
        (
            "an address of this host alone",
            json!({"clusterIP": "127.0.0.1", "ports": [{"port": 80}]}),
            vec!["BadClusterIP: its ClusterIP \"127.0.0.1\" is an address that nobody else can reach"],
            vec![],
        ),
        (
            "SCTP beside TCP",
            json!({"clusterIP": "10.96.0.5", "ports": [{"name": "a", "protocol": "SCTP", "port": 1}, {"name": "b", "port": 2}]}),
            vec!["NotBalanced: its port \"a\" is SCTP, which is not balanced"],
            vec!["10.96.0.5:2/TCP b"],
        ),
        (
            "port numbers out of range",
            json!({"clusterIP": "10.96.0.5", "ports": [{"port": 0}, {"name": "b", "port": 70000}, {"name": "c"}, {"name": "d", "port": 4}]}),
            vec![
                "BadPort: the number of its port \"\" is 0",
                "BadPort: the number of its port \"b\" is 70000",
                "BadPort: the number of its port \"c\" is missing",
            ],
            vec!["10.96.0.5:4/TCP d"],
        ),
        ("no ports", json!({"clusterIP": "10.96.0.5"}), vec!["NoPorts: it has no ports"], vec![]),
        (
            "a number where words belong",
            json!({"clusterIP": 7, "ports": [{"port": 80}]}),
            vec!["NotReadable: its spec: invalid type: integer `7`, expected a string"],
            vec!["gone"],
        ),
        (
            "a word where a number belongs",
            json!({"clusterIP": "10.96.0.5", "ports": [{"port": "http"}]}),
            vec!["NotReadable: its spec: invalid type: string \"http\", expected i64"],
            vec!["gone"],
        ),
    ];
    for (case, spec, problems, works) in rows {
        let (event, wrong) = service_of(spec);
        assert_eq!(wrong, problems, "{case}");
        assert_eq!(frontends(event), works, "{case}");
    }
}

fn slice_of(mut object: Value) -> (Event, Vec<String>) {
    if object.get("metadata").is_none() {
        object["metadata"] =
            json!({"namespace": "d", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}});
    }
    split(slice(&read(object)))
}

/// `address flags` of each endpoint, where the flags are r(eady), s(erving), t(erminating).
fn endpoints(event: Event) -> Vec<String> {
    let Event::Slice(slice) = event else { return vec!["gone".into()] };
    let shown = slice.endpoints.iter().map(|endpoint| {
        let flags = [(endpoint.ready, 'r'), (endpoint.serving, 's'), (endpoint.terminating, 't')];
        let flags: String = flags.iter().filter(|(on, _)| *on).map(|(_, letter)| letter).collect();
        format!("{} {flags}", endpoint.address)
    });
    shown.collect()
}

#[test]
fn what_a_slice_leaves_open_is_decided() {
    let object = json!({
        "addressType": "IPv4",
        "ports": [{"port": 8080}, {"name": "all", "port": null}, {"name": "dns", "protocol": "UDP", "port": 53}],
        "endpoints": [
            {"addresses": ["10.1.0.1"]},
            {"addresses": ["10.1.0.2", "10.1.0.3"], "conditions": {"ready": null}},
            {"addresses": ["10.1.0.4"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.1.0.5"], "conditions": {"ready": false}},
        ],
    });
    let (event, wrong) = slice_of(object);
    assert_eq!(wrong, Vec::<String>::new());
    let Event::Slice(slice) = &event else { panic!("{event:?}") };
    let ports: Vec<_> =
        slice.ports.iter().map(|port| (port.name.as_str(), port.protocol, port.port)).collect();
    assert_eq!(ports, [("", Protocol::Tcp, 8080), ("dns", Protocol::Udp, 53)]);
    assert_eq!(endpoints(event), ["10.1.0.1 rs", "10.1.0.2 rs", "10.1.0.4 st", "10.1.0.5 "]);
}

#[test]
fn the_service_of_a_slice_is_found_by_label_then_owner_then_generated_name() {
    let label = json!({"kubernetes.io/service-name": "a"});
    let owner = json!([{"apiVersion": "v1", "kind": "Service", "name": "b", "uid": "u"}]);
    let rows = [
        (json!({"namespace": "d", "labels": label, "ownerReferences": owner, "generateName": "c-"}), "a"),
        (json!({"namespace": "d", "ownerReferences": owner, "generateName": "c-"}), "b"),
        (json!({"namespace": "d", "generateName": "c-d-"}), "c-d"),
    ];
    for (metadata, expected) in rows {
        let (event, _) = slice_of(json!({"metadata": metadata, "addressType": "IPv4"}));
        let Event::Slice(slice) = event else { panic!("{event:?}") };
        assert_eq!(slice.service, Key::new("d", expected));
    }
}

#[test]
fn slices_that_are_not_ours_are_gone_without_a_word() {
    let headless = json!({"namespace": "d", "name": "web-1", "labels": {
        "kubernetes.io/service-name": "web", "service.kubernetes.io/headless": "",
    }});
    let some = json!([{"addresses": ["10.1.0.1"]}]);
    let gone = (Event::SliceGone(Key::new("d", "web-1")), vec![]);
    assert_eq!(slice_of(json!({"metadata": headless, "addressType": "IPv4", "endpoints": some})), gone);
    assert_eq!(slice_of(json!({"addressType": "FQDN", "endpoints": [{"addresses": ["a.b"]}]})), gone);
}

#[test]
fn what_is_wrong_with_a_slice_is_named_and_the_rest_works() {
    let port = json!([{"port": 80}]);
    let rows = [
        (
            "no ports",
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.0.1"]}]}),
            vec!["NoPorts: it has 1 endpoints and no ports"],
            vec!["10.1.0.1 rs"],
        ),
        (
            "an empty list of ports",
            json!({"addressType": "IPv4", "ports": [], "endpoints": [{"addresses": ["10.1.0.1"]}]}),
            vec!["NoPorts: it has 1 endpoints and no ports"],
            vec!["10.1.0.1 rs"],
        ),
        (
            "neither ports nor endpoints",
            json!({"addressType": "IPv4", "ports": null, "endpoints": null}),
            vec![],
            vec![],
        ),
        (
            "addresses that are none, or nobody's, or of the other family",
            json!({"addressType": "IPv4", "ports": port, "endpoints": [
                {"addresses": ["10.1.0.300"]}, {"addresses": ["169.254.169.254"]}, {"addresses": ["fd00::1"]},
                {"addresses": []}, {"addresses": ["10.1.0.1"]},
            ]}),
            vec!["BadAddress: its address \"10.1.0.300\" is no IP address, and 3 more cannot be used"],
            vec!["10.1.0.1 rs"],
        ),
        (
            "an unknown addressType",
            json!({"addressType": "IPX", "ports": port, "endpoints": [{"addresses": ["10.1.0.1"]}]}),
            vec!["BadAddress: its address \"10.1.0.1\" is not of the slice's addressType \"IPX\""],
            vec![],
        ),
        (
            "endpoints that are no list",
            json!({"addressType": "IPv4", "ports": port, "endpoints": "all"}),
            vec!["NotReadable: its endpoints: invalid type: string \"all\", expected a sequence"],
            vec![],
        ),
        (
            "no service",
            json!({"metadata": {"namespace": "d", "name": "web-1"}, "addressType": "IPv4"}),
            vec!["NoService: it names no service"],
            vec!["gone"],
        ),
        (
            "SCTP, of which its service is told",
            json!({"addressType": "IPv4", "ports": [{"protocol": "SCTP", "port": 1}], "endpoints": [{"addresses": ["10.1.0.1"]}]}),
            vec![],
            vec!["10.1.0.1 rs"],
        ),
    ];
    for (case, object, problems, works) in rows {
        let (event, wrong) = slice_of(object);
        assert_eq!(wrong, problems, "{case}");
        assert_eq!(endpoints(event), works, "{case}");
    }
}

fn node_of(annotations: Value, spec: Value, addresses: Value) -> (Node, Vec<String>) {
    let object = json!({
        "metadata": {"name": "n1", "annotations": annotations}, "spec": spec, "status": {"addresses": addresses},
    });
    let (event, wrong) = split(node(&read(object)));
    let Event::Node(_, node) = event else { panic!("{event:?}") };
    (node, wrong)
}

#[test]
fn internal_addresses_of_a_node_come_first() {
    let addresses = json!([
        {"type": "Hostname", "address": "n1"}, {"type": "ExternalIP", "address": "192.0.2.1"},
        {"type": "InternalIP", "address": "10.0.0.1"}, {"type": "InternalIP", "address": "nowhere"},
    ]);
    let (node, wrong) = node_of(json!(null), json!({"podCIDR": "10.1.0.0/24"}), addresses);
    assert_eq!(node.addresses, [IpAddr::from([10, 0, 0, 1]), IpAddr::from([192, 0, 2, 1])]);
    assert_eq!(wrong, ["BadAddress: its InternalIP \"nowhere\" is no IP address"]);
}

#[test]
fn pod_ranges_come_from_annotations_before_the_spec() {
    let addresses = || json!([{"type": "InternalIP", "address": "10.0.0.1"}]);
    let spec = json!({"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00::/64"]});
    let rows = [
        (
            json!({"kube-router.io/pod-cidrs": "10.2.0.0/24, fd01::/64", "kube-router.io/pod-cidr": "10.3.0.0/24"}),
            &spec,
            "10.2.0.0/24 fd01::/64",
            "",
        ),
        (json!({"kube-router.io/pod-cidr": "10.3.0.7/24"}), &spec, "10.3.0.0/24", ""),
        (json!({}), &spec, "10.1.0.0/24 fd00::/64", ""),
        (json!({}), &json!({"podCIDR": "10.1.0.0/24"}), "10.1.0.0/24", ""),
        (json!({}), &json!({}), "", "NoPodCIDR: it has no pod ranges"),
        (
            json!({"kube-router.io/pod-cidrs": "all,10.2.0.0/24"}),
            &spec,
            "10.2.0.0/24",
            "BadPodCIDR: \"all\" in kube-router.io/pod-cidrs is no range",
        ),
    ];
    for (annotations, spec, expected, problem) in rows {
        let (node, wrong) = node_of(annotations.clone(), spec.clone(), addresses());
        let cidrs: Vec<String> = node.pod_cidrs.iter().map(ToString::to_string).collect();
        assert_eq!(
            (cidrs.join(" "), wrong.join(" ")),
            (expected.to_owned(), problem.to_owned()),
            "{annotations}"
        );
    }
}

#[test]
fn a_pod_is_its_addresses_and_whether_it_has_a_veth() {
    let pod_of = |spec: Value, status: Value| {
        let object = json!({"metadata": {"namespace": "d", "name": "p"}, "spec": spec, "status": status});
        let (event, wrong) = split(pod(&read(object)));
        let Event::Pod(pod) = event else { panic!("{event:?}") };
        (pod, wrong)
    };
    let (pod, wrong) = pod_of(
        json!({"containers": [{}]}),
        json!({"podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd00::1"}]}),
    );
    assert_eq!((pod.addresses.len(), pod.host_network, pod.ended, wrong.len()), (2, false, false, 0));
    let (pod, _) = pod_of(json!({"hostNetwork": true}), json!({"phase": "Failed", "podIP": "10.0.0.1"}));
    assert_eq!((pod.addresses.len(), pod.host_network, pod.ended), (1, true, true));
    let (pod, wrong) = pod_of(json!({}), json!({"podIPs": [{"ip": "x"}]}));
    assert_eq!(
        (pod.addresses.len(), wrong),
        (0, vec!["BadAddress: its address \"x\" is no IP address".to_owned()])
    );
    let (pod, wrong) = pod_of(json!({}), json!(null));
    assert_eq!((pod.addresses.len(), wrong.len()), (0, 1));
}
