//! Pods as the lab makes them: the CNI chain, the server in them, and what the probe can tell apart.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use router_tests::{
    enter::{Enter, Named, Place},
    probe::{Probe, ProbeCall},
    sandbox::{CONFLIST, PortMapping, Sandbox, Serving, Spec},
    serve::{Listen, Transport},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A bare network namespace in the place of a node, with a conflist whose range is written.
struct Ground {
    node: Place,
    files: TempDir,
}

/// A network namespace that goes with its value.
struct Namespace(String);

static NAMESPACES: AtomicU32 = AtomicU32::new(0);

impl Namespace {
    fn new() -> Self {
        let name = format!("rt-pods-{}-{}", process::id(), NAMESPACES.fetch_add(1, Ordering::Relaxed));
        run(Command::new("ip").args(["netns", "add", &name]));
        run(Command::new("ip").args(["-n", &name, "link", "set", "lo", "up"]));
        Self(name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

impl Enter for Namespace {
    fn command(&self, program: &str) -> Command {
        Named(self.0.clone()).command(program)
    }

    fn name(&self) -> &str {
        &self.0
    }
}

impl Ground {
    fn new() -> Self {
        let ground = Self { node: Arc::new(Namespace::new()), files: tempfile::tempdir().unwrap() };
        let mut conflist: Value = serde_json::from_str(CONFLIST).unwrap();
        let ipam = &mut conflist["plugins"][0]["ipam"];
        ipam["ranges"] = json!([[{ "subnet": "10.244.1.0/24" }]]);
        ipam["dataDir"] = json!(ground.leases());
        fs::write(ground.conflist(), conflist.to_string()).unwrap();
        ground
    }

    fn conflist(&self) -> PathBuf {
        self.files.path().join("10-kuberouter.conflist")
    }

    fn leases(&self) -> PathBuf {
        self.files.path().join("leases")
    }

    fn pod(&self, name: &str) -> Sandbox {
        Sandbox::add(&self.node, name, self.conflist().to_str().unwrap()).unwrap()
    }

    /// A pod that serves 8080 by both protocols.
    fn server(&self, name: &str) -> Sandbox {
        let mut pod = self.pod(name);
        pod.serve(&[(8080, Transport::Tcp), (8080, Transport::Udp)]).unwrap();
        pod
    }

    /// A host behind the node, on a link with this MTU: `192.0.2.2`, and the node is `192.0.2.1`.
    fn neighbour(&self, mtu: u32) -> Namespace {
        let (far, node) = (Namespace::new(), self.node.name());
        let mtu = mtu.to_string();
        run(Command::new("ip")
            .args(["-n", node, "link", "add", "up0", "mtu", &mtu, "type", "veth"])
            .args(["peer", "name", "up0", "mtu", &mtu, "netns", &far.0]));
        for (place, address) in [(node, "192.0.2.1/24"), (far.name(), "192.0.2.2/24")] {
            run(Command::new("ip").args(["-n", place, "address", "add", address, "dev", "up0"]));
            run(Command::new("ip").args(["-n", place, "link", "set", "up0", "up"]));
        }
        run(Command::new("ip").args(["-n", &far.0, "route", "add", "default", "via", "192.0.2.1"]));
        far
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn at(pod: &Sandbox, port: u16) -> String {
    format!("{}:{port}", pod.address())
}

fn links(place: &dyn Enter) -> BTreeSet<String> {
    let links: Value = serde_json::from_str(&run(place.command("ip").args(["-j", "link"]))).unwrap();
    links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_owned()).collect()
}

fn leased(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory.join("mynet")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.parse::<Ipv4Addr>().is_ok()).collect()
}

fn drop_and_reject(place: &dyn Enter) {
    let rules = "table inet t { chain input { type filter hook input priority 0; \
                 meta l4proto { tcp, udp } th dport 82 drop; \
                 meta l4proto { tcp, udp } th dport 83 reject with icmp type admin-prohibited; }; }";
    run(place.command("nft").arg(rules));
}

#[test]
fn two_pods_talk_over_the_bridge_and_the_answer_names_the_pod_and_the_client() {
    let ground = Ground::new();
    let (web, client) = (ground.server("web"), ground.pod("client"));
    assert_ne!(web.address(), client.address());
    assert!(links(&ground.node).contains("kube-bridge"));
    let probe = Probe::new(&client);
    for result in [probe.tcp(&at(&web, 8080)).unwrap(), probe.udp(&at(&web, 8080)).unwrap()] {
        assert_eq!((result.ok, result.backend(), &result.error), (true, Some("web"), &None));
        let seen = result.seen().unwrap();
        assert_eq!(*seen.ip(), client.address());
        assert_eq!(Some(seen.to_string()), result.source);
    }
    assert_eq!(probe.ping(&web.address().to_string()).unwrap().answer, Some(web.address().to_string()));
}

#[test]
fn the_probe_tells_refused_from_timed_out_from_prohibited() {
    let ground = Ground::new();
    let (web, client) = (ground.server("web"), ground.pod("client"));
    drop_and_reject(&web);
    let probe = Probe::new(&client);
    for (port, expected) in [(81, "refused"), (82, "timed out"), (83, "unreachable (icmp code 13)")] {
        for transport in [Transport::Tcp, Transport::Udp] {
            let call = ProbeCall::new(transport, at(&web, port)).timeout(Duration::from_millis(400));
            let results = probe.call(&call).unwrap();
            assert_eq!(results[0].error.as_deref(), Some(expected), "{port}/{transport}");
        }
    }
    let nowhere = probe.tcp(&format!("{}:80", Ipv4Addr::new(198, 51, 100, 1))).unwrap();
    assert!(nowhere.error.unwrap().starts_with("unreachable"));
}

#[test]
fn a_df_probe_learns_the_mtu_of_the_path() {
    let ground = Ground::new();
    let client = ground.pod("client");
    let far = ground.neighbour(1400);
    let listen = Listen { port: 9000, protocol: Transport::Udp };
    let _serving = Serving::start(&far, "far", &[listen]).unwrap();
    let probe = Probe::new(&client);
    let fitting = probe.df(1400, "192.0.2.2:9000", 1).unwrap();
    assert_eq!((fitting[0].backend(), fitting[0].mtu), (Some("far"), Some(1500)));
    let too_long = probe.df(1401, "192.0.2.2:9000", 2).unwrap();
    // First the router says so, then this host knows it.
    for result in too_long {
        assert_eq!((result.error.as_deref(), result.mtu), (Some("frag-needed (mtu 1400)"), Some(1400)));
    }
}

#[test]
fn a_held_flow_answers_each_line_from_the_same_port() {
    let ground = Ground::new();
    let (web, client) = (ground.server("web"), ground.pod("client"));
    for transport in [Transport::Tcp, Transport::Udp] {
        let mut held = Probe::new(&client).hold(&ProbeCall::new(transport, at(&web, 8080))).unwrap();
        assert!(held.opened.ok);
        let first = held.ask("one").unwrap();
        assert_eq!(first.backend(), Some("web"));
        assert_eq!(held.ask("silent").unwrap().answer.as_deref(), Some(""));
        let second = held.ask("two").unwrap();
        assert_eq!((second.answer, second.source), (first.answer, first.source));
    }
}

#[test]
fn a_held_flow_says_when_the_other_side_has_gone() {
    let ground = Ground::new();
    let (mut web, client) = (ground.server("web"), ground.pod("client"));
    let mut held = Probe::new(&client).hold(&ProbeCall::new(Transport::Tcp, at(&web, 8080))).unwrap();
    assert!(held.ask("one").unwrap().ok);
    web.stop_serving();
    assert_eq!(held.ask("two").unwrap().error.as_deref(), Some("closed without an answer"));
    assert_eq!(Probe::new(&client).tcp(&at(&web, 8080)).unwrap().error.as_deref(), Some("refused"));
}

#[test]
fn one_client_port_can_reach_several_servers_at_once_and_again() {
    let ground = Ground::new();
    let (web, other, client) = (ground.server("web"), ground.server("other"), ground.pod("client"));
    let from = SocketAddrV4::new(client.address(), 40_001);
    let probe = Probe::new(&client);
    for transport in [Transport::Tcp, Transport::Udp] {
        let call = |pod: &Sandbox| ProbeCall::new(transport, at(pod, 8080)).from(from);
        let mut held = probe.hold(&call(&web)).unwrap();
        let again = probe.call(&call(&other).count(3)).unwrap();
        assert_eq!(again.len(), 3);
        for result in again {
            assert_eq!((result.backend(), result.seen()), (Some("other"), Some(from)));
        }
        assert_eq!(held.ask("still").unwrap().seen(), Some(from));
    }
}

#[test]
fn many_connections_are_counted_by_backend() {
    let ground = Ground::new();
    let (web, client) = (ground.server("web"), ground.pod("client"));
    let probe = Probe::new(&client);
    for transport in [Transport::Tcp, Transport::Udp] {
        let summary = probe.many(transport, &at(&web, 8080), 500, 8, None).unwrap();
        assert_eq!((summary.ok, summary.failed), (500, 0), "{:?}", summary.errors);
        assert_eq!(summary.backends, [("web".to_owned(), 500)].into());
        assert!(0 < summary.p50_micros && summary.p50_micros <= summary.p99_micros);
    }
    let summary = probe.many(Transport::Tcp, &at(&web, 81), 20, 2, Some(Duration::from_secs(5))).unwrap();
    assert_eq!(summary.errors, [("refused".to_owned(), 20)].into());
}

#[test]
fn a_spoofed_packet_and_a_false_claim_arrive_where_nothing_stops_them() {
    let ground = Ground::new();
    let (victim, culprit) = (ground.pod("victim"), ground.pod("culprit"));
    let far = ground.neighbour(1500);
    // A server that answers shows that the packet came: its answer goes to the victim.
    let _serving = Serving::start(&far, "far", &[Listen { port: 9000, protocol: Transport::Udp }]).unwrap();
    run(victim.command("nft").arg(
        "table inet t { counter answers { }; chain input { type filter hook input priority 0; \
         udp sport 9000 counter name answers; }; }",
    ));
    let source = format!("{}:1234", victim.address());
    assert!(Probe::new(&culprit).spoof("eth0", &source, "192.0.2.2:9000").unwrap().ok);
    wait_for("the answer at the victim", || {
        run(victim.command("nft").args(["list", "counter", "inet", "t", "answers"])).contains("packets 1 ")
    });
    // The node has the victim among its neighbours by now, and believes what it hears last.
    let claimed = victim.address().to_string();
    assert!(Probe::new(&culprit).arp("eth0", &claimed, Some("02:00:00:00:00:66")).unwrap().ok);
    wait_for("the claim at the node", || {
        run(ground.node.command("ip").args(["neigh", "show", &claimed])).contains("02:00:00:00:00:66")
    });
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..100 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{what} did not come");
}

#[test]
fn a_host_port_leads_to_the_pod_until_it_is_removed() {
    let ground = Ground::new();
    let mapping =
        PortMapping { host_port: 18_080, container_port: 8080, protocol: "tcp".into(), host_ip: None };
    let spec =
        Spec { pod: "web".into(), id: format!("{}-w", ground.node.name()), port_mappings: vec![mapping] };
    let mut web = Sandbox::create(&ground.node, spec, ground.conflist().to_str().unwrap()).unwrap();
    web.serve(&[(8080, Transport::Tcp)]).unwrap();
    let far = ground.neighbour(1500);
    let result = Probe::new(&far).tcp("192.0.2.1:18080").unwrap();
    assert_eq!((result.backend(), result.error.as_deref()), (Some("web"), None));
    web.remove().unwrap();
    assert_eq!(Probe::new(&far).tcp("192.0.2.1:18080").unwrap().error.as_deref(), Some("refused"));
}

#[test]
fn a_removed_pod_leaves_no_namespace_no_link_no_address_and_no_process() {
    let ground = Ground::new();
    let before = links(&ground.node);
    let name = {
        let (removed, dropped) = (ground.server("removed"), ground.server("dropped"));
        assert_eq!(leased(&ground.leases()).len(), 2);
        let name = removed.name().to_owned();
        assert!(!run(Command::new("ip").args(["netns", "pids", &name])).is_empty());
        removed.remove().unwrap();
        drop(dropped);
        name
    };
    let prefix = name.trim_end_matches("removed").to_owned();
    let namespaces = run(Command::new("ip").args(["netns", "list"]));
    assert!(!namespaces.contains(&prefix), "{namespaces}");
    assert_eq!(leased(&ground.leases()), Vec::<String>::new());
    let added: Vec<_> = links(&ground.node).difference(&before).cloned().collect();
    assert_eq!(added, ["kube-bridge"]);
    assert!(!process_arguments().any(|arguments| arguments.contains("serve") && arguments.contains(&prefix)));
}

/// The command lines of all processes.
fn process_arguments() -> impl Iterator<Item = String> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let raw = fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&raw).replace('\0', " "))
    })
}

#[test]
fn a_pod_that_cannot_be_made_leaves_nothing() {
    let ground = Ground::new();
    let mut conflist: Value = serde_json::from_str(&fs::read_to_string(ground.conflist()).unwrap()).unwrap();
    conflist["plugins"][1]["type"] = json!("no-such-plugin");
    fs::write(ground.conflist(), conflist.to_string()).unwrap();
    let failed = Sandbox::add(&ground.node, "pod", ground.conflist().to_str().unwrap());
    let error = format!("{:#}", failed.err().unwrap());
    assert!(error.contains("no-such-plugin"), "{error}");
    assert!(
        !run(Command::new("ip").args(["netns", "list"])).contains(&format!("{}-pod", ground.node.name()))
    );
    assert_eq!(leased(&ground.leases()), Vec::<String>::new());
}
