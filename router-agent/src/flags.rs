//! The command line, flag by flag: upstream's names, types and defaults, and ours. Flat, and in its own words;
//! [`crate::config`] makes sense of it.
//!
//! A flag is here once something obeys it. Those of upstream that nothing obeys yet are unknown, not ignored.

use std::time::Duration;

use crate::pflag::{self, Flag, Signed, Store};

/// Every flag's value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "upstream's switches are independent of each other")]
pub(crate) struct Flags {
    pub(crate) advertise_cluster_ip: bool,
    pub(crate) advertise_pod_cidr: bool,
    pub(crate) auto_mtu: bool,
    pub(crate) attach: String,
    pub(crate) bgp_graceful_restart: bool,
    pub(crate) bgp_graceful_restart_deferral_time: Signed,
    pub(crate) bgp_graceful_restart_time: Signed,
    pub(crate) bgp_holdtime: Signed,
    pub(crate) bgp_port: u32,
    pub(crate) cache_sync_timeout: Signed,
    pub(crate) cluster_asn: u32,
    pub(crate) dataplane: String,
    pub(crate) enable_cni: bool,
    pub(crate) enable_ibgp: bool,
    pub(crate) enable_pod_egress: bool,
    pub(crate) fast_path: bool,
    pub(crate) gobgp_admin_address: String,
    pub(crate) gobgp_admin_port: u16,
    pub(crate) health_addr: String,
    pub(crate) health_port: u16,
    pub(crate) help: bool,
    pub(crate) hostname_override: String,
    pub(crate) injected_routes_sync_period: Signed,
    pub(crate) ipvs_sync_period: Signed,
    pub(crate) kubeconfig: String,
    pub(crate) master: String,
    pub(crate) metrics_addr: String,
    pub(crate) metrics_path: String,
    pub(crate) metrics_port: u16,
    pub(crate) peer_router_asns: Vec<u32>,
    pub(crate) peer_router_ips: Vec<std::net::IpAddr>,
    pub(crate) peer_router_ports: Vec<u32>,
    pub(crate) router_id: String,
    pub(crate) run_router: bool,
    pub(crate) run_service_proxy: bool,
    pub(crate) service_cluster_ip_range: Vec<String>,
    pub(crate) verbosity: String,
    pub(crate) version: bool,
}

impl Default for Flags {
    fn default() -> Self {
        let seconds = |seconds| Signed { negative: false, length: Duration::from_secs(seconds) };
        Self {
            advertise_cluster_ip: false,
            advertise_pod_cidr: true,
            auto_mtu: true,
            attach: "auto".into(),
            bgp_graceful_restart: false,
            bgp_graceful_restart_deferral_time: seconds(360),
            bgp_graceful_restart_time: seconds(90),
            bgp_holdtime: seconds(90),
            bgp_port: 179,
            cache_sync_timeout: seconds(60),
            cluster_asn: 0,
            dataplane: "ebpf".into(),
            enable_cni: true,
            enable_ibgp: true,
            enable_pod_egress: true,
            fast_path: true,
            gobgp_admin_address: "127.0.0.1".into(),
            gobgp_admin_port: 50_051,
            health_addr: String::new(),
            health_port: 20_244,
            help: false,
            hostname_override: String::new(),
            injected_routes_sync_period: seconds(60),
            ipvs_sync_period: seconds(300),
            kubeconfig: String::new(),
            master: String::new(),
            metrics_addr: String::new(),
            metrics_path: "/metrics".into(),
            metrics_port: 0,
            peer_router_asns: Vec::new(),
            peer_router_ips: Vec::new(),
            peer_router_ports: Vec::new(),
            router_id: String::new(),
            run_router: true,
            run_service_proxy: true,
            service_cluster_ip_range: vec!["10.96.0.0/12".into()],
            verbosity: "0".into(),
            version: false,
        }
    }
}

impl Flags {
    /// Parses the arguments after the program's name; returns the positional ones beside the flags.
    pub(crate) fn parse(args: &[String]) -> Result<(Self, Vec<String>), String> {
        let mut flags = Self::default();
        let positional = pflag::parse(TABLE, &mut flags, args)?;
        Ok((flags, positional))
    }

    /// What `--help` prints.
    pub(crate) fn usage() -> String {
        pflag::usage("kube-router", TABLE)
    }
}

const fn flag(
    name: &'static str,
    default: &'static str,
    help: &'static str,
    store: Store<Flags>,
) -> Flag<Flags> {
    Flag { name, short: None, default, help, store }
}

const TABLE: &[Flag<Flags>] = &[
    flag(
        "advertise-cluster-ip",
        "false",
        "Announce ClusterIPs to BGP peers outside the cluster.",
        Store::Bool(|flags, value| flags.advertise_cluster_ip = value),
    ),
    flag(
        "advertise-pod-cidr",
        "true",
        "Announce the node's pod ranges to BGP peers outside the cluster; other nodes get them anyway.",
        Store::Bool(|flags, value| flags.advertise_pod_cidr = value),
    ),
    flag(
        "auto-mtu",
        "true",
        "Give kube-bridge and the CNI file the MTU of the node's interface.",
        Store::Bool(|flags, value| flags.auto_mtu = value),
    ),
    flag(
        "attach",
        "\"auto\"",
        "How programs are attached: auto, tcx or clsact.",
        Store::Text(|flags, value| flags.attach = value),
    ),
    flag(
        "bgp-graceful-restart",
        "false",
        "Keep routes while this agent or a BGP peer restarts.",
        Store::Bool(|flags, value| flags.bgp_graceful_restart = value),
    ),
    flag(
        "bgp-graceful-restart-deferral-time",
        "6m0s",
        "How long a restarted agent waits for its BGP peers' tables at most; up to 18 h.",
        Store::Duration(|flags, value| flags.bgp_graceful_restart_deferral_time = value),
    ),
    flag(
        "bgp-graceful-restart-time",
        "1m30s",
        "How long BGP peers keep this node's routes while its agent is away; up to 4095 s.",
        Store::Duration(|flags, value| flags.bgp_graceful_restart_time = value),
    ),
    flag(
        "bgp-holdtime",
        "1m30s",
        "How long a silent BGP peer is waited for; 3 s to 65535 s.",
        Store::Duration(|flags, value| flags.bgp_holdtime = value),
    ),
    flag(
        "bgp-port",
        "179",
        "TCP port of BGP on this node and on the others.",
        Store::U32(|flags, value| flags.bgp_port = value),
    ),
    flag(
        "cache-sync-timeout",
        "1m0s",
        "How long the first list of all watched objects may take.",
        Store::Duration(|flags, value| flags.cache_sync_timeout = value),
    ),
    flag(
        "cluster-asn",
        "0",
        "AS number of the nodes; 0 is 64512.",
        Store::U32(|flags, value| flags.cluster_asn = value),
    ),
    flag(
        "dataplane",
        "\"ebpf\"",
        "What forwards: ebpf.",
        Store::Text(|flags, value| flags.dataplane = value),
    ),
    flag(
        "enable-cni",
        "true",
        "Write the node's pod ranges into the CNI file. Only with --run-router.",
        Store::Bool(|flags, value| flags.enable_cni = value),
    ),
    flag(
        "enable-ibgp",
        "true",
        "Peer with every other node.",
        Store::Bool(|flags, value| flags.enable_ibgp = value),
    ),
    flag(
        "enable-pod-egress",
        "true",
        "Give packets from pods to outside the cluster this node's address. Only with --run-router.",
        Store::Bool(|flags, value| flags.enable_pod_egress = value),
    ),
    flag(
        "fast-path",
        "true",
        "Carry packets past the host's stack where that changes nothing.",
        Store::Bool(|flags, value| flags.fast_path = value),
    ),
    flag(
        "gobgp-admin-address",
        "\"127.0.0.1\"",
        "Address of the admin API that gobgp asks.",
        Store::Text(|flags, value| flags.gobgp_admin_address = value),
    ),
    flag(
        "gobgp-admin-port",
        "50051",
        "Port of the admin API; 0 turns it off.",
        Store::U16(|flags, value| flags.gobgp_admin_port = value),
    ),
    flag(
        "health-addr",
        "",
        "Address of /healthz and /readyz; all of them without it.",
        Store::Text(|flags, value| flags.health_addr = value),
    ),
    flag(
        "health-port",
        "20244",
        "Port of /healthz and /readyz; 0 turns them off.",
        Store::U16(|flags, value| flags.health_port = value),
    ),
    Flag {
        name: "help",
        short: Some('h'),
        default: "",
        help: "Print this and exit.",
        store: Store::Bool(|flags, value| flags.help = value),
    },
    flag(
        "hostname-override",
        "",
        "Name of this node's Node object; else NODE_NAME, else the host's name.",
        Store::Text(|flags, value| flags.hostname_override = value),
    ),
    flag(
        "injected-routes-sync-period",
        "1m0s",
        "How often learned routes are compared with what the kernel holds.",
        Store::Duration(|flags, value| flags.injected_routes_sync_period = value),
    ),
    flag(
        "ipvs-sync-period",
        "5m0s",
        "How often all services are compared with what the kernel holds. The name is upstream's.",
        Store::Duration(|flags, value| flags.ipvs_sync_period = value),
    ),
    flag(
        "kubeconfig",
        "",
        "Path of a kubeconfig; without it the in-cluster configuration is used.",
        Store::Text(|flags, value| flags.kubeconfig = value),
    ),
    flag(
        "master",
        "",
        "URL of the API server, in place of the configuration's.",
        Store::Text(|flags, value| flags.master = value),
    ),
    flag(
        "metrics-addr",
        "",
        "Address of the metrics; all of them without it.",
        Store::Text(|flags, value| flags.metrics_addr = value),
    ),
    flag(
        "metrics-path",
        "\"/metrics\"",
        "HTTP path of the metrics.",
        Store::Text(|flags, value| flags.metrics_path = value),
    ),
    flag(
        "metrics-port",
        "0",
        "Port of the metrics; 0 turns them off.",
        Store::U16(|flags, value| flags.metrics_port = value),
    ),
    flag(
        "peer-router-asns",
        "",
        "AS numbers of the BGP peers outside the cluster, one for each of --peer-router-ips.",
        Store::Numbers(|flags| &mut flags.peer_router_asns),
    ),
    flag(
        "peer-router-ips",
        "",
        "Addresses of BGP peers outside the cluster.",
        Store::Addresses(|flags| &mut flags.peer_router_ips),
    ),
    flag(
        "peer-router-ports",
        "",
        "Their TCP ports, if not 179: none, or one for each.",
        Store::Numbers(|flags| &mut flags.peer_router_ports),
    ),
    flag(
        "router-id",
        "",
        "BGP identifier, an IPv4 address; else the node's own.",
        Store::Text(|flags, value| flags.router_id = value),
    ),
    flag(
        "run-router",
        "true",
        "Give this node's pods their network: the CNI file, BGP and the routes learned by it.",
        Store::Bool(|flags, value| flags.run_router = value),
    ),
    flag(
        "run-service-proxy",
        "true",
        "Balance Services.",
        Store::Bool(|flags, value| flags.run_service_proxy = value),
    ),
    flag(
        "service-cluster-ip-range",
        "[10.96.0.0/12]",
        "Range from which the cluster takes its ClusterIPs.",
        Store::List(|flags| &mut flags.service_cluster_ip_range),
    ),
    Flag {
        name: "v",
        short: Some('v'),
        default: "\"0\"",
        help: "How much to log: 0 what changed, 1 and 2 why, 3 each step, 5 also what libraries say.",
        store: Store::Text(|flags, value| flags.verbosity = value),
    },
    Flag {
        name: "version",
        short: Some('V'),
        default: "",
        help: "Print the version and exit.",
        store: Store::Bool(|flags, value| flags.version = value),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Flags, String> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        Flags::parse(&args).map(|(flags, _)| flags)
    }

    #[test]
    fn every_default_that_usage_names_is_the_default() {
        for flag in TABLE.iter().filter(|flag| !flag.default.is_empty()) {
            let value = flag.default.trim_matches(['"', '[', ']']);
            let parsed = parse(&[&format!("--{}={value}", flag.name)]);
            assert_eq!(parsed, Ok(Flags::default()), "--{}", flag.name);
        }
    }

    #[test]
    fn every_flag_changes_something_of_its_own() {
        let mut results = Vec::new();
        for flag in TABLE {
            let value = match flag.store {
                Store::Bool(_) => (flag.default != "true").to_string(),
                Store::Text(_) | Store::List(_) => "other".to_owned(),
                Store::Duration(_) => "7s".to_owned(),
                Store::U16(_) | Store::U32(_) | Store::Numbers(_) => "7".to_owned(),
                Store::Addresses(_) => "192.0.2.7".to_owned(),
            };
            let parsed = parse(&[&format!("--{}={value}", flag.name)]).unwrap();
            assert_ne!(parsed, Flags::default(), "--{}", flag.name);
            assert!(!results.contains(&parsed), "--{} changes what another does", flag.name);
            results.push(parsed);
        }
    }

    #[test]
    fn flags_that_nothing_obeys_are_unknown() {
        for name in ["run-firewall", "nodes-full-mesh", "enable-ipv6", "masquerade-all"] {
            assert_eq!(parse(&[&format!("--{name}=true")]), Err(format!("unknown flag: --{name}")));
        }
    }

    #[test]
    fn manifests_as_kubespray_writes_them_are_understood() {
        let args = ["--run-router=True", "--run-service-proxy=True", "--enable-cni=False", "-v=0"];
        assert_eq!(parse(&args), Ok(Flags { enable_cni: false, ..Flags::default() }));
    }
}
