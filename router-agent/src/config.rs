//! What the flags and the environment come to: everything checked, each part with its own section. A part that is
//! off is `None`, so its settings do not exist.

mod routing;
mod serving;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use router_core::peering::Terms;

use crate::ask::SOCKET;
use crate::flags::Flags;
use crate::pflag::Signed;

pub(crate) use self::serving::{Listen, Metrics};

/// The configuration of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) api: Api,
    /// Name of this node's object, and whose word it is.
    pub(crate) node_name: String,
    pub(crate) node_name_source: &'static str,
    pub(crate) services: Option<Services>,
    pub(crate) cni: Option<Cni>,
    pub(crate) routing: Option<Routing>,
    /// Where health is asked.
    pub(crate) health: Option<Listen>,
    pub(crate) metrics: Option<Metrics>,
    /// Where sub-commands ask.
    pub(crate) socket: PathBuf,
}

/// How the API server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Api {
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Replaces the server of whatever configuration is used.
    pub(crate) master: Option<String>,
    /// How long the first lists may take.
    pub(crate) sync_timeout: Duration,
}

/// The service proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Services {
    pub(crate) cluster_ip_ranges: Vec<IpNet>,
    /// How often everything is compared with the kernel.
    pub(crate) sync_period: Duration,
    pub(crate) fast_path: bool,
    pub(crate) attach: Attach,
}

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attach {
    /// tcx if its links can be pinned in a bpffs that outlives us, else clsact.
    Auto,
    Tcx,
    Clsact,
}

/// The CNI file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cni {
    pub(crate) path: PathBuf,
    /// Set the MTU too.
    pub(crate) auto_mtu: bool,
}

/// BGP, and the routes learned by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Routing {
    pub(crate) terms: Terms,
    pub(crate) hold_time: u16,
    pub(crate) graceful_restart: Option<GracefulRestart>,
    /// Where the admin API listens; nowhere if it is off.
    pub(crate) admin: Vec<SocketAddr>,
    /// Give pods' packets a node's address on their way out of the cluster.
    pub(crate) pod_egress: bool,
    /// How often learned routes are compared with the kernel.
    pub(crate) sync_period: Duration,
}

/// Graceful restart of BGP, ours and the peers'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GracefulRestart {
    /// How long peers keep our routes; seconds, 12 bits.
    pub(crate) restart_time: u16,
    /// How long a restarted agent waits for its peers' tables at most.
    pub(crate) deferral_time: Duration,
}

/// What the flags leave to the environment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    pub(crate) node_name: Option<String>,
    pub(crate) cni_conf_file: Option<PathBuf>,
    pub(crate) host_name: Option<String>,
    pub(crate) socket: Option<PathBuf>,
}

impl Environment {
    /// The process's own.
    pub(crate) fn read() -> Self {
        let text = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            node_name: text("NODE_NAME"),
            cni_conf_file: text("KUBE_ROUTER_CNI_CONF_FILE").map(PathBuf::from),
            socket: text("KUBE_ROUTER_SOCKET").map(PathBuf::from),
            host_name: nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()),
        }
    }
}

/// Where the CNI file is if nobody says otherwise.
const CNI_CONF_FILE: &str = "/etc/cni/net.d/10-kuberouter.conf";

impl Flags {
    /// The configuration, or everything that is wrong with it.
    pub(crate) fn resolve(self, environment: Environment) -> Result<Config, Vec<String>> {
        let mut wrong = Vec::new();
        let services = self.services(&mut wrong);
        let sync_timeout = positive("cache-sync-timeout", self.cache_sync_timeout, &mut wrong);
        let (node_name, node_name_source) = node_name(&self.hostname_override, &environment, &mut wrong);
        let cni = (self.run_router && self.enable_cni).then(|| Cni {
            path: environment.cni_conf_file.unwrap_or_else(|| CNI_CONF_FILE.into()),
            auto_mtu: self.auto_mtu,
        });
        let routing = routing::resolve(&self, &mut wrong);
        let (health, metrics) = serving::resolve(&self, &mut wrong);
        let config = Config {
            api: Api {
                kubeconfig: filled(self.kubeconfig).map(PathBuf::from),
                master: filled(self.master),
                sync_timeout,
            },
            node_name,
            node_name_source,
            services: self.run_service_proxy.then_some(services),
            cni,
            routing: self.run_router.then_some(routing),
            health,
            metrics,
            socket: environment.socket.unwrap_or_else(|| SOCKET.into()),
        };
        if wrong.is_empty() { Ok(config) } else { Err(wrong) }
    }

    fn services(&self, wrong: &mut Vec<String>) -> Services {
        if self.dataplane != "ebpf" {
            wrong.push(format!("--dataplane: {:?} is not accepted; accepted is \"ebpf\"", self.dataplane));
        }
        let attach = match self.attach.as_str() {
            "tcx" => Attach::Tcx,
            "clsact" => Attach::Clsact,
            other => {
                if other != "auto" {
                    wrong.push(format!(
                        "--attach: {other:?} is not accepted; accepted are \"auto\", \"tcx\", \"clsact\""
                    ));
                }
                Attach::Auto
            }
        };
        Services {
            cluster_ip_ranges: cluster_ip_ranges(&self.service_cluster_ip_range, wrong),
            sync_period: positive("ipvs-sync-period", self.ipvs_sync_period, wrong),
            fast_path: self.fast_path,
            attach,
        }
    }
}

fn node_name(flag: &str, environment: &Environment, wrong: &mut Vec<String>) -> (String, &'static str) {
    let sources = [
        (filled(flag.to_owned()), "--hostname-override"),
        (environment.node_name.clone(), "NODE_NAME"),
        (environment.host_name.clone(), "the host's name"),
    ];
    let known = sources.into_iter().find_map(|(name, source)| Some((name?, source)));
    known.unwrap_or_else(|| {
        wrong.push("the host has no name; give the Node's by --hostname-override or NODE_NAME".to_owned());
        (String::new(), "")
    })
}

fn cluster_ip_ranges(items: &[String], wrong: &mut Vec<String>) -> Vec<IpNet> {
    const FLAG: &str = "--service-cluster-ip-range";
    if !(1..=2).contains(&items.len()) {
        wrong.push(format!("{FLAG}: one or two ranges are accepted, not {}", items.len()));
    }
    let mut ranges = Vec::new();
    for item in items {
        match item.parse::<IpNet>() {
            Ok(range @ IpNet::V4(_)) => ranges.push(range.trunc()),
            Ok(IpNet::V6(_)) => wrong.push(format!("{FLAG}: {item} is of a family that is off (IPv6)")),
            Err(_) => wrong.push(format!("{FLAG}: {item:?} is no range such as 10.96.0.0/12")),
        }
    }
    ranges
}

fn positive(flag: &str, value: Signed, wrong: &mut Vec<String>) -> Duration {
    if value.negative || value.length.is_zero() {
        let sign = if value.negative { "-" } else { "" };
        wrong.push(format!("--{flag}: must be above 0, not {sign}{:?}", value.length));
    }
    value.length
}

fn filled(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(args: &[&str], environment: Environment) -> Result<Config, Vec<String>> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        Flags::parse(&args).unwrap().0.resolve(environment)
    }

    fn host() -> Environment {
        Environment { host_name: Some("host".into()), ..Environment::default() }
    }

    #[test]
    fn the_node_is_named_by_flag_then_environment_then_host() {
        let both = Environment { node_name: Some("env".into()), ..host() };
        let named = |args, environment| {
            let config = resolve(args, environment).unwrap();
            (config.node_name, config.node_name_source)
        };
        assert_eq!(
            named(&["--hostname-override=flag"], both.clone()),
            ("flag".into(), "--hostname-override")
        );
        assert_eq!(named(&[], both), ("env".into(), "NODE_NAME"));
        assert_eq!(named(&[], host()), ("host".into(), "the host's name"));
        assert!(resolve(&[], Environment::default()).is_err());
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let args = ["--dataplane=ipvs", "--attach=xdp", "--ipvs-sync-period=0", "--cache-sync-timeout=-1s"];
        let wrong = resolve(&args, host()).unwrap_err();
        let expected = [
            "--dataplane: \"ipvs\" is not accepted; accepted is \"ebpf\"",
            "--attach: \"xdp\" is not accepted; accepted are \"auto\", \"tcx\", \"clsact\"",
            "--ipvs-sync-period: must be above 0, not 0ns",
            "--cache-sync-timeout: must be above 0, not -1s",
        ];
        assert_eq!(wrong, expected);
    }

    #[test]
    fn bad_ranges_are_named() {
        let rows = [
            (
                "--service-cluster-ip-range=",
                "--service-cluster-ip-range: one or two ranges are accepted, not 0",
            ),
            (
                "--service-cluster-ip-range=10.0.0.1",
                "--service-cluster-ip-range: \"10.0.0.1\" is no range such as 10.96.0.0/12",
            ),
            (
                "--service-cluster-ip-range=10.96.0.0/12,fd00::/108",
                "--service-cluster-ip-range: fd00::/108 is of a family that is off (IPv6)",
            ),
        ];
        for (arg, expected) in rows {
            assert_eq!(resolve(&[arg], host()), Err(vec![expected.to_owned()]));
        }
    }

    #[test]
    fn what_is_off_has_no_settings() {
        let config = resolve(&["--run-service-proxy=false", "--enable-cni=false"], host()).unwrap();
        assert_eq!((config.services, config.cni), (None, None));
        assert_eq!(resolve(&["--run-router=false"], host()).unwrap().cni, None);
        let path = resolve(&[], host()).unwrap().cni.unwrap().path;
        assert_eq!(path, PathBuf::from("/etc/cni/net.d/10-kuberouter.conf"));
    }
}
