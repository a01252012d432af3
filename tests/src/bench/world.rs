//! The node of an arm, in a guest: `kube-bridge` with two pods, connection tracking, and the same firewall in every
//! arm; then the Services, by whoever maps them there.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::arms::{Arm, Kind};
use super::load::SERVER_PORT;

/// The two pods: name, which is that of the namespace, address and MAC.
pub(super) const CLIENT: (&str, Ipv4Addr, [u8; 6]) =
    ("client", Ipv4Addr::new(10, 244, 1, 5), [2, 0, 0, 0, 1, 5]);
pub(super) const SERVER: (&str, Ipv4Addr, [u8; 6]) =
    ("server", Ipv4Addr::new(10, 244, 1, 6), [2, 0, 0, 0, 1, 6]);
pub(super) const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
pub(super) const BRIDGE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(super) const SERVICE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The port of every Service.
pub(super) const SERVICE_PORT: u16 = 80;

/// Takes away what the arm before has made.
const CLEAN_UP: &str = "
    for pod in client server; do ip netns del $pod; ip link del pod-$pod; done
    for link in kube-bridge eth0 kube-svc kube-dummy-if; do ip link del $link; done
    nft flush ruleset
    test -e /proc/net/ip_vs && ipvsadm -C
    if test -e /proc/net/ip_tables_names; then echo '*nat\nCOMMIT' | iptables-legacy-restore; fi
    true";

/// What every node has. Pods have host routes, so that packets between them are routed in both directions, whoever
/// maps addresses; bridges call iptables, as Kubernetes asks of a node.
const NODE_SCRIPT: &str = "set -e
    sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
    sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0
    sysctl -qw net.bridge.bridge-nf-call-iptables=1
    ip link add kube-bridge address 02:00:00:00:00:01 type bridge
    ip link set kube-bridge up
    ip addr add 10.244.1.1/24 dev kube-bridge
    ip link add eth0 type dummy
    ip link set eth0 up
    ip addr add 192.168.77.2/24 dev eth0
    ip route add default via 192.168.77.1 dev eth0
    ip link add kube-svc address 02:00:00:00:00:02 type veth peer name kube-svc-far address 02:00:00:00:00:02
    ip link set kube-svc arp off up
    ip link set kube-svc-far arp off up";

/// What the agent's own rules say, by nft: masquerade of what pods send out of the cluster, and its accepts.
const FIREWALL: &str = r#"
table ip node {
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 oifname != "kube-bridge" masquerade
    }
    chain forward {
        type filter hook forward priority filter; policy accept;
        iifname "kube-bridge" accept
        oifname "kube-bridge" accept
        iifname "kube-svc" accept
        oifname "kube-svc" accept
    }
    chain input {
        type filter hook input priority filter; policy accept;
        meta mark & 0x08000000 == 0x08000000 accept
        iifname "kube-svc" accept
    }
}
"#;

/// Makes the node, and its Services unless they are ours to make.
pub(super) fn make(arm: Arm) -> Result<()> {
    shell(CLEAN_UP)?;
    shell(NODE_SCRIPT)?;
    for pod in [CLIENT, SERVER] {
        shell(&pod_script(pod, arm.kind == Kind::Bridged))?;
    }
    feed("nft", &["-f", "-"], FIREWALL)?;
    match arm.kind {
        Kind::Ipvs => ipvs(arm),
        Kind::Iptables => feed("iptables-legacy-restore", &["--noflush"], &iptables(arm)?),
        Kind::Nft => feed("nft", &["-f", "-"], &nft(arm)?),
        _ => Ok(()),
    }
}

fn pod_script((name, address, mac): (&str, Ipv4Addr, [u8; 6]), bridged: bool) -> String {
    let mac = mac.map(|octet| format!("{octet:02x}")).join(":");
    let addressed = if bridged {
        format!("ip -n {name} addr add {address}/24 dev eth0")
    } else {
        format!(
            "ip -n {name} addr add {address}/32 dev eth0
            ip -n {name} route add 10.244.1.1 dev eth0"
        )
    };
    format!(
        "set -e
        ip netns add {name}
        ip netns exec {name} sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
        ip link add pod-{name} type veth peer name eth0 netns {name} address {mac}
        ip link set pod-{name} master kube-bridge up
        ip -n {name} link set lo up
        ip -n {name} link set eth0 up
        {addressed}
        ip -n {name} route add default via 10.244.1.1"
    )
}

/// The address of a Service.
pub(super) fn vip(index: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 1)) + index)
}

/// Each Service's port: its index, address and protocol. The one that is dialled serves UDP as well.
pub(super) fn ports(arm: Arm) -> impl Iterator<Item = (u32, Ipv4Addr, &'static str)> {
    let tcp = (0..arm.services).map(|index| (index, vip(index), "tcp"));
    tcp.chain((arm.services > 0).then(|| (arm.dialled(), vip(arm.dialled()), "udp")))
}

fn ipvs(arm: Arm) -> Result<()> {
    shell(
        "set -e\nsysctl -qw net.ipv4.vs.conntrack=1\nip link add kube-dummy-if type dummy\nip link set kube-dummy-if up",
    )?;
    let mut addresses = String::new();
    for index in 0..arm.services {
        writeln!(addresses, "addr add {}/32 dev kube-dummy-if", vip(index))?;
    }
    feed("ip", &["-batch", "-"], &addresses)?;
    let mut services = String::new();
    for (_, address, protocol) in ports(arm) {
        let kind = if protocol == "tcp" { 't' } else { 'u' };
        writeln!(services, "-A -{kind} {address}:{SERVICE_PORT} -s rr")?;
        writeln!(services, "-a -{kind} {address}:{SERVICE_PORT} -r {}:{SERVER_PORT} -m", SERVER.1)?;
    }
    feed("ipvsadm", &["-R"], &services)
}

/// As kube-proxy writes them for a Service with one endpoint.
fn iptables(arm: Arm) -> Result<String> {
    let mut text =
        "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n".to_owned();
    let mut rules = String::new();
    for (index, address, protocol) in ports(arm) {
        let (service, endpoint) = (format!("SVC-{protocol}-{index}"), format!("SEP-{protocol}-{index}"));
        let note = format!("-m comment --comment \"bench/service-{index}:{protocol}\"");
        writeln!(text, ":{service} - [0:0]\n:{endpoint} - [0:0]")?;
        let dialled = format!("-d {address}/32 -p {protocol} -m {protocol} --dport {SERVICE_PORT}");
        writeln!(rules, "-A KUBE-SERVICES {dialled} {note} -j {service}")?;
        writeln!(rules, "-A {service} ! -s 10.244.0.0/16 {dialled} {note} -j KUBE-MARK-MASQ")?;
        writeln!(rules, "-A {service} {note} -j {endpoint}")?;
        writeln!(rules, "-A {endpoint} -s {}/32 {note} -j KUBE-MARK-MASQ", SERVER.1)?;
        let to = format!("{}:{SERVER_PORT}", SERVER.1);
        writeln!(rules, "-A {endpoint} -p {protocol} -m {protocol} {note} -j DNAT --to-destination {to}")?;
    }
    text.push_str(
        "-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -j MASQUERADE
",
    );
    Ok(text + &rules + "COMMIT\n")
}

/// The service's chain holds the endpoint's rules, since there is one to choose from: kinder than kube-proxy's.
fn nft(arm: Arm) -> Result<String> {
    let mut text = "table ip services {\n".to_owned();
    let mut elements = Vec::new();
    for (index, address, protocol) in ports(arm) {
        writeln!(text, "chain s-{protocol}-{index} {{")?;
        writeln!(text, "ip saddr != 10.244.0.0/16 meta mark set mark or 0x4000")?;
        writeln!(text, "meta l4proto {protocol} dnat to {}:{SERVER_PORT}\n}}", SERVER.1)?;
        elements.push(format!("{address} . {protocol} . {SERVICE_PORT} : goto s-{protocol}-{index}"));
    }
    writeln!(text, "map ports {{ type ipv4_addr . inet_proto . inet_service : verdict;")?;
    writeln!(text, "elements = {{ {} }} }}", elements.join(",\n"))?;
    for hook in ["prerouting", "output"] {
        writeln!(text, "chain {hook} {{ type nat hook {hook} priority -100;")?;
        writeln!(text, "ip daddr . meta l4proto . th dport vmap @ports\n}}")?;
    }
    Ok(text + "}\n")
}

fn shell(script: &str) -> Result<()> {
    let out = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).output()?;
    ensure!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

/// Runs a program on a text.
fn feed(program: &str, arguments: &[&str], text: &str) -> Result<()> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| program.to_owned())?;
    // What it did not read it says in its status.
    let _ = child.stdin.take().context("no standard input")?.write_all(text.as_bytes());
    let out = child.wait_with_output()?;
    let errors = String::from_utf8_lossy(&out.stderr);
    ensure!(
        out.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        errors.lines().next().unwrap_or_default()
    );
    Ok(())
}
