use super::*;
use crate::node::service_link::Keeper;
use crate::sys::testing::{Other, in_namespace, run};

/// A bridge, and a pod whose veth is its port.
fn add_pod(pod: &Other, veth: &str) {
    run(&format!("ip link add {veth} type veth peer name eth0 netns {}", pod.pid()));
    run(&format!("ip link set {veth} master kube-bridge up"));
    pod.run("ip link set eth0 up");
}

fn all() -> Changes {
    Changes { overrun: true, ..Changes::default() }
}

fn read() -> View {
    Reader::open().unwrap().read(&all()).unwrap()
}

fn bounds(view: &View) -> Vec<LinkEvent> {
    difference(&View::default(), view)
        .into_iter()
        .filter(|event| matches!(event, LinkEvent::Bound { .. }))
        .collect()
}

fn index(name: &str) -> u32 {
    Netlink::open().unwrap().link_named(name).unwrap().unwrap().index
}

#[test]
fn a_pods_addresses_and_mac_are_learned_through_its_namespace() {
    in_namespace(|| {
        let pod = Other::new();
        run("ip link add kube-bridge type bridge; ip link set kube-bridge up");
        add_pod(&pod, "veth1");
        assert_eq!(bounds(&read()), [], "a pod without an address is bound");
        pod.run("ip link set eth0 address 02:00:00:00:00:07");
        pod.run("ip addr add 10.244.0.7/24 dev eth0");
        pod.run("ip addr add 10.9.9.9/32 dev lo");
        let view = read();
        let [LinkEvent::Bound { name, mac, addresses, no_fast, .. }] = &bounds(&view)[..] else {
            panic!("{view:?}")
        };
        assert_eq!((name.as_str(), *mac), ("veth1", [2, 0, 0, 0, 0, 7]));
        assert_eq!(addresses, &["10.244.0.7".parse::<IpAddr>().unwrap()]);
        assert!(!no_fast);
        run("tc qdisc add dev veth1 root tbf rate 1mbit burst 10k latency 50ms");
        assert!(matches!(bounds(&read())[..], [LinkEvent::Bound { no_fast: true, .. }]));
        run("tc qdisc del dev veth1 root; tc qdisc add dev veth1 clsact");
        assert!(matches!(bounds(&read())[..], [LinkEvent::Bound { no_fast: false, .. }]));
    });
}

#[test]
fn a_veth_whose_both_ends_are_here_is_no_pod() {
    in_namespace(|| {
        run("ip link add kube-bridge type bridge; ip link add here type veth peer name there");
        run("ip link set here master kube-bridge; ip link set there up; ip addr add 10.244.0.9/24 dev there");
        let view = read();
        assert_eq!(view.ports.len(), 1);
        assert_eq!(bounds(&view), []);
    });
}

#[test]
fn uplinks_are_devices_with_an_address_or_a_route_and_nothing_of_ours() {
    in_namespace(|| {
        for device in ["eth0", "eth1", "idle", "kube-dummy-if", "docker0"] {
            run(&format!("ip link add {device} type bridge; ip link set {device} up"));
        }
        run("ip link add kube-bridge type bridge; ip link set kube-bridge up");
        run("ip link add slave type veth peer name beyond; ip link set slave up");
        run("ip link add br0 type bridge; ip link set br0 up; ip link set slave master br0");
        run("ip addr add 192.0.2.1/24 dev eth0; ip route add 198.51.100.0/24 dev eth1");
        run("ip addr add 10.96.0.1/32 dev kube-dummy-if; ip addr add 172.17.0.1/16 dev docker0");
        run("ip addr add 10.244.0.1/24 dev kube-bridge; ip addr add 203.0.113.1/24 dev br0");
        run("ip addr add 203.0.113.9/24 dev slave; ip addr add 169.254.7.7/16 dev idle scope link");
        run("ip addr add 10.7.7.7/32 dev lo; ip route flush dev idle");
        Keeper::open().unwrap().repair().unwrap();
        let view = read();
        let names: Vec<&str> = view.uplinks.values().map(String::as_str).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, ["br0", "eth0", "eth1"]);
        assert!(view.service.is_some());
        let addresses: Vec<String> = view.node_addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.244.0.1", "172.17.0.1", "192.0.2.1", "203.0.113.1", "203.0.113.9"]);
    });
}

#[test]
fn what_goes_is_told_before_what_comes() {
    let port = |address: &str| Port {
        name: "veth".to_owned(),
        peer: Some(Peer { mac: [2; 6], addresses: vec![address.parse().unwrap()] }),
        no_fast: false,
    };
    let old = View {
        bridge: Some((1, [1; 6])),
        ports: BTreeMap::from([(5, port("10.244.0.5"))]),
        uplinks: BTreeMap::from([(2, "eth0".to_owned())]),
        ..View::default()
    };
    let new = View {
        bridge: Some((1, [1; 6])),
        ports: BTreeMap::from([(4, port("10.244.0.5"))]),
        uplinks: BTreeMap::from([(2, "wan".to_owned()), (3, "eth1".to_owned())]),
        ..View::default()
    };
    assert_eq!(difference(&old, &old), []);
    let events = difference(&old, &new);
    assert_eq!(events[0], LinkEvent::Unbound { ifindex: 5 });
    assert_eq!(events[1], LinkEvent::Uplink { ifindex: 2, name: "wan".to_owned() });
    assert_eq!(events[2], LinkEvent::Uplink { ifindex: 3, name: "eth1".to_owned() });
    assert!(matches!(events[3], LinkEvent::Bound { ifindex: 4, .. }));
    assert_eq!(events.len(), 4);
    let gone = difference(&old, &View::default());
    assert_eq!(
        gone,
        [LinkEvent::Unbound { ifindex: 5 }, LinkEvent::UplinkGone { ifindex: 2 }, LinkEvent::BridgeGone]
    );
}

/// Runs the watcher on this thread, with `act` on it too, interleaved at the awaits.
fn watching<F: Future<Output = ()>>(act: impl FnOnce(mpsc::Receiver<Event>) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let watcher = Watcher::open().unwrap();
        let (sender, receiver) = mpsc::channel(64);
        tokio::select! {
            ended = watcher.run(sender, |_, _| {}) => panic!("the watcher ended: {ended:?}"),
            () = act(receiver) => {}
        }
    });
}

async fn expect(receiver: &mut mpsc::Receiver<Event>, what: impl Fn(&LinkEvent) -> bool) -> Duration {
    let start = Instant::now();
    loop {
        let event =
            timeout(Duration::from_secs(5), receiver.recv()).await.expect("no such event in 5 s").unwrap();
        if let Event::Link(event) = event
            && what(&event)
        {
            return start.elapsed();
        }
    }
}

#[test]
fn a_pod_is_bound_at_the_event_of_its_address_and_unbound_when_it_goes() {
    in_namespace(|| {
        run("ip link add kube-bridge type bridge; ip link set kube-bridge up");
        watching(|mut receiver| async move {
            expect(&mut receiver, |event| matches!(event, LinkEvent::Bridge { .. })).await;
            let pod = Other::new();
            add_pod(&pod, "veth1");
            // Later than the last of the questions asked unprompted, so only the event can tell.
            tokio::time::sleep(Duration::from_millis(1300)).await;
            pod.run("ip addr add 10.244.0.7/24 dev eth0");
            let waited = expect(&mut receiver, |event| matches!(event, LinkEvent::Bound { .. })).await;
            assert!(waited < Duration::from_millis(500), "{waited:?}");
            pod.run("ip addr add 10.244.0.8/24 dev eth0");
            expect(
                &mut receiver,
                |event| matches!(event, LinkEvent::Bound { addresses, .. } if addresses.len() == 2),
            )
            .await;
            let port = index("veth1");
            run("ip link set veth1 nomaster");
            expect(&mut receiver, |event| *event == LinkEvent::Unbound { ifindex: port }).await;
        });
    });
}

#[test]
fn an_uplink_that_gets_an_address_or_loses_its_last_is_told() {
    in_namespace(|| {
        run("ip link add eth0 type bridge; ip link set eth0 up");
        watching(|mut receiver| async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            run("ip addr add 192.0.2.1/24 dev eth0");
            expect(&mut receiver, |event| matches!(event, LinkEvent::Uplink { name, .. } if name == "eth0"))
                .await;
            run("ip addr del 192.0.2.1/24 dev eth0");
            expect(&mut receiver, |event| matches!(event, LinkEvent::UplinkGone { .. })).await;
        });
    });
}

#[test]
fn learned_routes_are_not_heard_and_others_are() {
    in_namespace(|| {
        run("ip link add eth0 type bridge; ip link set eth0 up; ip addr add 192.0.2.1/24 dev eth0");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let events = Events::open(LEARNED).unwrap();
            run("ip route add 10.1.0.0/16 via 192.0.2.2 proto 17; ip route del 10.1.0.0/16");
            let heard = timeout(Duration::from_millis(200), events.changes()).await;
            assert!(heard.is_err(), "{heard:?}");
            run("ip route add 10.1.0.0/16 via 192.0.2.2 proto static");
            let heard = timeout(Duration::from_millis(200), events.changes()).await.unwrap().unwrap();
            assert_eq!(heard, Changes { routes: true, ..Changes::default() });
            run("ip route del 10.1.0.0/16");
            assert!(timeout(Duration::from_millis(200), events.changes()).await.unwrap().unwrap().routes);
            run("ip link set eth0 mtu 1400");
            assert!(timeout(Duration::from_millis(200), events.changes()).await.unwrap().unwrap().own);
        });
    });
}
