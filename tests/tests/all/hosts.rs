//! The lab's hosts: they come and go whole, keep apart, and are as hostile as they should be.

use std::fs;
use std::io::Read as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use router_tests::binaries::lab_binary;
use router_tests::node::{Node, NodeOptions, sweep, unique_prefix};
use router_tests::topology::hostile::{self, Chain};
use router_tests::topology::{NODE, Offload, REMOTE, REMOTE_PODS, ROUTER, Topology, TopologyOptions, UPLINK};

/// Processes in the network namespace that was this one.
fn processes_in(namespace: &Path) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").expect("/proc is there").flatten().map(|entry| entry.path());
    processes
        .filter(|process| fs::read_link(process.join("ns/net")).is_ok_and(|link| link == namespace))
        .collect()
}

/// What this process sees mounted where a node mounts; other tests may well mount elsewhere meanwhile.
fn mounts() -> Vec<String> {
    const PLACES: [&str; 6] =
        ["/run", "/sys", "/sys/fs/bpf", "/sys/fs/cgroup", "/etc/cni/net.d", "/var/lib/cni"];
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is there");
    let at_ours = |line: &&str| line.split(' ').nth(1).is_some_and(|place| PLACES.contains(&place));
    mounts.lines().filter(at_ours).map(str::to_owned).collect()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Opens a connection and says how that failed.
fn connect(node: &Node, address: Ipv4Addr, port: u16) -> String {
    let script = format!("exec 3<>/dev/tcp/{address}/{port}");
    let failed = node.run(&["timeout", "1", "bash", "-c", &script]);
    failed.expect_err("nobody listens").to_string()
}

/// Nobody listens anywhere here, so the other end refuses: a packet went there, and one came back.
fn assert_reaches(node: &Node, address: Ipv4Addr) {
    let error = connect(node, address, 22);
    assert!(error.contains("Connection refused"), "{} to {address}: {error}", node.name);
}

#[test]
fn a_stopped_node_leaves_nothing_behind() {
    let before = mounts();
    let node = Node::start(&unique_prefix("whole"), "node1", NodeOptions::default()).unwrap();
    let (pid, cgroup) = (node.pid(), node.cgroup_path().to_owned());
    let namespace = fs::read_link(node.netns_path()).unwrap();
    let link = format!("kr{pid}");
    node.ip(&format!("link add {link} type bridge\nlink set {link} up\n")).unwrap();
    assert!(node.links().unwrap().contains(&link));
    let mut stray = node.command("sleep").arg("1000").spawn().unwrap();
    eventually("a program enters the node", || processes_in(&namespace).len() == 2);
    assert_eq!(mounts(), before, "a node mounts nothing outside");
    assert!(!Path::new("/sys/class/net").join(&link).exists(), "a node's link is not the host's");

    node.stop().unwrap();
    assert!(!stray.wait().unwrap().success(), "a program of the node ends with it");
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the holder is gone");
    assert!(!cgroup.exists(), "the control group is gone");
    assert_eq!(processes_in(&namespace), Vec::<PathBuf>::new());
    assert_eq!(mounts(), before);
    assert!(!Path::new("/sys/class/net").join(&link).exists());
}

#[test]
fn a_node_ends_when_whoever_started_it_is_killed() {
    let prefix = unique_prefix("orphan");
    let model = Node::start(&prefix, "model", NodeOptions::HOST).unwrap();
    let group = model.cgroup_path().with_file_name(format!("{prefix}-orphan"));
    let mut owner = Command::new("sleep").arg("1000").stdout(Stdio::piped()).spawn().unwrap();
    let mut holder = Command::new(lab_binary().unwrap())
        .arg("holder")
        .arg(&group)
        .arg("orphan")
        .stdin(owner.stdout.take().unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    holder.stdout.take().unwrap().read_exact(&mut ready).unwrap();
    assert_eq!(&ready, b"ready\n");
    let namespace = fs::read_link(format!("/proc/{}/ns/net", holder.id())).unwrap();
    let mut stray = Command::new(lab_binary().unwrap());
    stray.arg("enter").arg(holder.id().to_string()).arg(&group).args(["--", "sleep", "1000"]);
    let mut stray = stray.spawn().unwrap();
    eventually("a program enters the node", || processes_in(&namespace).len() == 2);

    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(holder.wait().unwrap().success());
    assert!(!stray.wait().unwrap().success());
    assert!(!group.exists());
}

#[test]
fn what_a_killed_holder_leaves_is_swept_by_prefix() {
    let prefix = unique_prefix("sweep");
    let node = Node::start(&prefix, "node1", NodeOptions::HOST).unwrap();
    let other = Node::start(&unique_prefix("sweep"), "node1", NodeOptions::HOST).unwrap();
    let namespace = fs::read_link(node.netns_path()).unwrap();
    let mut stray = node.command("sleep").arg("1000").spawn().unwrap();
    eventually("a program enters the node", || processes_in(&namespace).len() == 2);
    assert!(Command::new("kill").args(["-9", &node.pid().to_string()]).status().unwrap().success());

    assert_eq!(sweep(&prefix).unwrap(), 1);
    assert!(!stray.wait().unwrap().success());
    assert!(!node.cgroup_path().exists());
    assert!(other.cgroup_path().exists(), "another prefix is another's");
}

#[test]
fn a_node_has_its_own_name_directories_and_mounts() {
    let node = Node::start(&unique_prefix("own"), "node1", NodeOptions::default()).unwrap();
    assert_eq!(node.run(&["hostname"]).unwrap().trim(), "node1");
    assert_eq!(node.run(&["ls", "-A", "/etc/cni/net.d", "/var/lib/cni"]).unwrap().lines().count(), 3);
    node.write("/etc/cni/net.d/10-kuberouter.conflist", "{}").unwrap();
    assert_eq!(fs::read_to_string(node.path("/etc/cni/net.d/10-kuberouter.conflist")).unwrap(), "{}");
    assert!(!Path::new("/etc/cni/net.d/10-kuberouter.conflist").exists());
    let own = node.run(&["cat", "/proc/self/cgroup"]).unwrap();
    assert!(own.lines().any(|line| line == "0::/"), "the node's control group is its root: {own}");

    let bare =
        Node::start(&unique_prefix("own"), "bare", NodeOptions { bpffs: false, cgroup: true }).unwrap();
    let mounts = bare.run(&["cat", "/proc/self/mounts"]).unwrap();
    assert!(!mounts.lines().any(|line| line.starts_with("bpf /sys/fs/bpf ")), "{mounts}");
}

#[test]
fn two_nodes_see_neither_each_other_s_bpffs_nor_control_groups() {
    let prefix = unique_prefix("two");
    let first = Node::start(&prefix, "node1", NodeOptions::default()).unwrap();
    let second = Node::start(&prefix, "node2", NodeOptions::default()).unwrap();
    for folder in ["/sys/fs/bpf/kube-router", "/sys/fs/cgroup/kubepods"] {
        first.run(&["mkdir", folder]).unwrap();
        first.run(&["test", "-d", folder]).unwrap();
        second.run(&["test", "!", "-e", folder]).unwrap();
        assert!(!Path::new(folder).exists(), "{folder} is not the host's either");
    }
    assert!(first.cgroup_path().join("kubepods").exists());
    assert!(!second.cgroup_path().join("kubepods").exists());
    first.stop().unwrap();
    second.run(&["true"]).unwrap();
}

#[test]
fn a_failing_program_is_told_by_what_it_wrote() {
    let node = Node::start(&unique_prefix("fails"), "node1", NodeOptions::HOST).unwrap();
    let error = node.run(&["ip", "link", "show", "nowhere"]).unwrap_err().to_string();
    assert!(error.contains("node1") && error.contains("nowhere"), "{error}");
    let error = node.run(&["no-such-program"]).unwrap_err().to_string();
    assert!(error.contains("cannot run no-such-program"), "{error}");
}

#[test]
fn packets_flow_between_node_router_and_remote_pods() {
    for offload in [Offload::AsFound, Offload::Off] {
        let options = TopologyOptions { offload, ..TopologyOptions::default() };
        let topology = Topology::start(&unique_prefix("flow"), options).unwrap();
        assert_reaches(&topology.node, ROUTER);
        assert_reaches(&topology.node, REMOTE);
        assert_reaches(&topology.node, REMOTE_PODS[0]);
        assert_reaches(&topology.remote, NODE);
        assert_reaches(&topology.router, REMOTE_PODS[1]);
        assert_eq!(topology.checksum_errors(&[]).unwrap(), 0);
        let features = topology.node.run(&["ethtool", "-k", UPLINK]).unwrap();
        let expected = if offload == Offload::Off { "tx-checksumming: off" } else { "tx-checksumming: on" };
        assert!(features.contains(expected), "{features}");
    }
}

#[test]
fn without_a_default_route_the_remote_pods_are_still_known() {
    let options = TopologyOptions { default_route: false, ..TopologyOptions::default() };
    let topology = Topology::start(&unique_prefix("route"), options).unwrap();
    let pod = REMOTE_PODS[0].to_string();
    assert_eq!(topology.node.run(&["ip", "route", "show", "default"]).unwrap(), "");
    assert!(topology.node.run(&["ip", "route", "get", &pod]).unwrap().contains("via 192.168.77.1"));
    assert_reaches(&topology.node, REMOTE_PODS[0]);
    let error = connect(&topology.node, REMOTE, 22);
    assert!(error.contains("Network is unreachable"), "{error}");
}

#[test]
fn a_packet_too_big_for_the_far_link_is_answered_by_the_router() {
    let topology = Topology::start(&unique_prefix("mtu"), TopologyOptions::default()).unwrap();
    let node = &topology.node;
    let pod = REMOTE_PODS[0].to_string();
    let send = || node.run(&["bash", "-c", &format!("head -c 1450 /dev/zero >/dev/udp/{pod}/9")]).unwrap();
    let route = || node.run(&["ip", "route", "get", &pod]).unwrap();
    send();
    thread::sleep(Duration::from_millis(50));
    assert!(!route().contains("mtu"), "{}", route());
    topology.narrow_far_link(1400).unwrap();
    send();
    eventually("the node learns the path MTU", || route().contains("mtu 1400"));
    assert_reaches(&topology.remote, NODE);
}

#[test]
fn a_hostile_host_drops_what_nobody_accepts() {
    let options = TopologyOptions { bridge_nf_call: true, ..TopologyOptions::default() };
    let topology = Topology::start(&unique_prefix("hostile"), options).unwrap();
    let node = &topology.node;
    node.ip(
        "link add kube-bridge type bridge\naddr add 10.244.1.1/24 dev kube-bridge\nlink set kube-bridge up\n",
    )
    .unwrap();
    let read = |path: &str| node.run(&["cat", path]).unwrap();
    assert_eq!(read("/proc/sys/net/bridge/bridge-nf-call-iptables").trim(), "1");
    for link in ["all", "default", UPLINK, "kube-bridge"] {
        assert_eq!(read(&format!("/proc/sys/net/ipv4/conf/{link}/rp_filter")).trim(), "1", "{link}");
    }
    let pod = Ipv4Addr::new(10, 244, 1, 5);

    let before = hostile::drops(node, Chain::Forward).unwrap();
    connect(&topology.remote, pod, 80);
    let after = hostile::drops(node, Chain::Forward).unwrap();
    assert!(after.policy > before.policy, "a forwarded SYN: {before:?} {after:?}");

    let before = hostile::drops(node, Chain::Input).unwrap();
    connect(&topology.remote, NODE, 9999);
    let after = hostile::drops(node, Chain::Input).unwrap();
    assert!(after.policy > before.policy, "a SYN for the node: {before:?} {after:?}");
    assert_reaches(&topology.remote, NODE);

    node.run(&["iptables", "-I", "FORWARD", "-p", "tcp", "--dport", "80", "-j", "ACCEPT"]).unwrap();
    let before = hostile::drops(node, Chain::Forward).unwrap();
    connect(&topology.remote, pod, 80);
    let after = hostile::drops(node, Chain::Forward).unwrap();
    assert_eq!(after.policy, before.policy, "an accepting rule before them opens the host");
}

#[test]
fn a_hostile_host_drops_what_conntrack_calls_invalid_first() {
    let topology = Topology::start(&unique_prefix("invalid"), TopologyOptions::default()).unwrap();
    let node = &topology.node;
    node.ip(
        "link add kube-bridge type bridge\naddr add 10.244.1.1/24 dev kube-bridge\nlink set kube-bridge up\n",
    )
    .unwrap();
    // An answer (SYN and ACK) to what nobody asked: the router makes it out of a SYN.
    let rules = "table ip lab {
        chain out {
            type filter hook forward priority 0; policy accept;
            tcp dport 80 tcp flags set 18
        }
    }";
    topology.router.run_with(&["nft", "-f", "-"], rules).unwrap();
    node.run(&["iptables", "-A", "FORWARD", "-p", "tcp", "-j", "ACCEPT"]).unwrap();

    let before = hostile::drops(node, Chain::Forward).unwrap();
    connect(&topology.remote, Ipv4Addr::new(10, 244, 1, 5), 80);
    let after = hostile::drops(node, Chain::Forward).unwrap();
    assert!(after.invalid > before.invalid, "{before:?} {after:?} {}", hostile::describe(node).unwrap());
    assert_eq!(after.policy, before.policy);
}
