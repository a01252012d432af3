//! The flags of BGP and of pods' way out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use router_core::peering::{External, Terms};

use super::{GracefulRestart, Routing, positive};
use crate::flags::Flags;
use crate::pflag::Signed;

/// The AS number of a cluster that nobody gave one (RFC 6996: the first private one).
const ASN: u32 = 64_512;
/// Where routers listen (RFC 4271 §8.2.1.2).
const PORT: u16 = 179;

pub(super) fn resolve(flags: &Flags, wrong: &mut Vec<String>) -> Routing {
    let terms = Terms {
        asn: cluster_asn(flags.cluster_asn, wrong),
        port: port("bgp-port", flags.bgp_port, wrong),
        router_id: router_id(&flags.router_id, wrong),
        mesh: flags.enable_ibgp,
        externals: externals(flags, wrong),
        advertise_pod_cidrs: flags.advertise_pod_cidr,
        advertise_cluster_ips: flags.advertise_cluster_ip,
    };
    Routing {
        terms,
        hold_time: hold_time(flags.bgp_holdtime, wrong),
        graceful_restart: graceful_restart(flags, wrong),
        admin: admin(flags),
        pod_egress: flags.enable_pod_egress,
        sync_period: positive("injected-routes-sync-period", flags.injected_routes_sync_period, wrong),
    }
}

/// A private AS number (RFC 6996), as upstream demands.
fn cluster_asn(given: u32, wrong: &mut Vec<String>) -> u32 {
    match given {
        0 => ASN,
        64_512..=65_535 | 4_200_000_000..=4_294_967_294 => given,
        _ => {
            wrong.push(format!(
                "--cluster-asn: {given} is not private; accepted are 64512-65535 and 4200000000-4294967294"
            ));
            ASN
        }
    }
}

fn port(flag: &str, given: u32, wrong: &mut Vec<String>) -> u16 {
    let port = u16::try_from(given).ok().filter(|port| *port != 0);
    port.unwrap_or_else(|| {
        wrong.push(format!("--{flag}: {given} is no TCP port; accepted are 1-65535"));
        PORT
    })
}

fn router_id(given: &str, wrong: &mut Vec<String>) -> Option<Ipv4Addr> {
    if given.is_empty() {
        return None;
    }
    let parsed = given.parse::<Ipv4Addr>().ok().filter(|id| !id.is_unspecified());
    if parsed.is_none() {
        wrong.push(format!("--router-id: {given:?} is no IPv4 address such as 192.0.2.1"));
    }
    parsed
}

/// RFC 4271 §4.2: zero is no timer, which upstream does not accept; one and two seconds are forbidden.
fn hold_time(given: Signed, wrong: &mut Vec<String>) -> u16 {
    let range = Duration::from_secs(3)..=Duration::from_secs(u16::MAX.into());
    if given.negative || !range.contains(&given.length) {
        let sign = if given.negative { "-" } else { "" };
        wrong.push(format!("--bgp-holdtime: must be 3 s to 65535 s, not {sign}{:?}", given.length));
    }
    u16::try_from(given.length.as_secs()).unwrap_or(u16::MAX)
}

/// The times are looked at only if it is on, as upstream does.
fn graceful_restart(flags: &Flags, wrong: &mut Vec<String>) -> Option<GracefulRestart> {
    /// What 12 bits hold.
    const RESTART: Duration = Duration::from_secs(4_095);
    const DEFERRAL: Duration = Duration::from_hours(18);
    if !flags.bgp_graceful_restart {
        return None;
    }
    let restart = positive("bgp-graceful-restart-time", flags.bgp_graceful_restart_time, wrong);
    if restart > RESTART {
        wrong.push(format!("--bgp-graceful-restart-time: must be at most 4095 s, not {restart:?}"));
    }
    let deferral_time =
        positive("bgp-graceful-restart-deferral-time", flags.bgp_graceful_restart_deferral_time, wrong);
    if deferral_time > DEFERRAL {
        wrong.push(format!(
            "--bgp-graceful-restart-deferral-time: must be at most 18 h, not {deferral_time:?}"
        ));
    }
    let whole_seconds = restart.as_secs() + u64::from(restart.subsec_nanos() > 0);
    let restart_time = u16::try_from(whole_seconds).unwrap_or(u16::MAX);
    Some(GracefulRestart { restart_time, deferral_time })
}

fn externals(flags: &Flags, wrong: &mut Vec<String>) -> Vec<External> {
    let Flags { peer_router_ips: addresses, peer_router_asns: asns, peer_router_ports: ports, .. } = flags;
    if asns.len() != addresses.len() {
        wrong.push(format!(
            "--peer-router-asns: {} given for {} of --peer-router-ips; give one for each",
            asns.len(),
            addresses.len()
        ));
    }
    if !ports.is_empty() && ports.len() != addresses.len() {
        wrong.push(format!(
            "--peer-router-ports: {} given for {} of --peer-router-ips; give none, or one for each",
            ports.len(),
            addresses.len()
        ));
    }
    for asn in asns.iter().filter(|asn| !may_be_peer(**asn)) {
        wrong.push(format!("--peer-router-asns: {asn} is reserved"));
    }
    let ports = ports.iter().map(|given| port("peer-router-ports", *given, wrong)).collect::<Vec<_>>();
    let ports = ports.into_iter().chain(std::iter::repeat(PORT));
    let peers = addresses.iter().zip(asns).zip(ports);
    peers.map(|((address, asn), port)| External { address: *address, asn: *asn, port }).collect()
}

/// Upstream's list: all but what the registries reserve.
const fn may_be_peer(asn: u32) -> bool {
    matches!(
        asn,
        1..=23_455 | 23_457..=63_999 | 64_512..=65_534 | 131_072..=4_199_999_999 | 4_200_000_000..=4_294_967_294
    )
}

/// An address of this host is listened to beside loopback, so that a `gobgp` without options works.
fn admin(flags: &Flags) -> Vec<SocketAddr> {
    if flags.gobgp_admin_port == 0 {
        return Vec::new();
    }
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let given = flags.gobgp_admin_address.parse().unwrap_or(loopback);
    let beside = (!given.is_loopback() && !given.is_unspecified()).then_some(loopback);
    [given]
        .into_iter()
        .chain(beside)
        .map(|address| SocketAddr::new(address, flags.gobgp_admin_port))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(args: &[&str]) -> (Routing, Vec<String>) {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut wrong = Vec::new();
        let routing = resolve(&Flags::parse(&args).unwrap().0, &mut wrong);
        (routing, wrong)
    }

    #[test]
    fn without_flags_it_is_upstreams() {
        let (routing, wrong) = resolved(&[]);
        assert_eq!(wrong, Vec::<String>::new());
        assert_eq!((routing.terms.asn, routing.terms.port, routing.hold_time), (64_512, 179, 90));
        assert!(
            routing.terms.mesh && routing.terms.advertise_pod_cidrs && !routing.terms.advertise_cluster_ips
        );
        assert!(routing.pod_egress && !resolved(&["--enable-pod-egress=false"]).0.pod_egress);
        assert_eq!(routing.admin, ["127.0.0.1:50051".parse().unwrap()]);
    }

    #[test]
    fn peers_are_paired_with_their_numbers_and_ports() {
        let (routing, wrong) = resolved(&[
            "--peer-router-ips=192.0.2.1,192.0.2.2",
            "--peer-router-asns=65000,65001",
            "--peer-router-ports=1179,179",
        ]);
        assert_eq!(wrong, Vec::<String>::new());
        let external = |text: &str, asn, port| External { address: text.parse().unwrap(), asn, port };
        assert_eq!(
            routing.terms.externals,
            [external("192.0.2.1", 65_000, 1_179), external("192.0.2.2", 65_001, 179)]
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_accepted() {
        let rows = [
            (
                "--cluster-asn=100",
                "--cluster-asn: 100 is not private; accepted are 64512-65535 and 4200000000-4294967294",
            ),
            ("--bgp-port=0", "--bgp-port: 0 is no TCP port; accepted are 1-65535"),
            ("--bgp-port=65536", "--bgp-port: 65536 is no TCP port; accepted are 1-65535"),
            ("--router-id=node", "--router-id: \"node\" is no IPv4 address such as 192.0.2.1"),
            ("--bgp-holdtime=2s", "--bgp-holdtime: must be 3 s to 65535 s, not 2s"),
            ("--bgp-holdtime=65536s", "--bgp-holdtime: must be 3 s to 65535 s, not 65536s"),
            (
                "--peer-router-ips=192.0.2.1",
                "--peer-router-asns: 0 given for 1 of --peer-router-ips; give one for each",
            ),
        ];
        for (arg, message) in rows {
            assert_eq!(resolved(&[arg]).1, [message], "{arg}");
        }
        let peer = ["--peer-router-ips=192.0.2.1", "--peer-router-asns=65535", "--peer-router-ports=1,2"];
        assert_eq!(
            resolved(&peer).1,
            [
                "--peer-router-ports: 2 given for 1 of --peer-router-ips; give none, or one for each",
                "--peer-router-asns: 65535 is reserved",
            ]
        );
    }

    #[test]
    fn graceful_restart_is_off_and_its_times_are_looked_at_when_it_is_on() {
        let absurd = ["--bgp-graceful-restart-time=2h", "--bgp-graceful-restart-deferral-time=19h"];
        assert_eq!(resolved(&absurd).0.graceful_restart, None);
        assert_eq!(resolved(&absurd).1, Vec::<String>::new());
        let on = "--bgp-graceful-restart=true";
        let terms = |restart_time, seconds| {
            Some(GracefulRestart { restart_time, deferral_time: Duration::from_secs(seconds) })
        };
        assert_eq!(resolved(&[on]).0.graceful_restart, terms(90, 360));
        let short = [on, "--bgp-graceful-restart-time=1500ms", "--bgp-graceful-restart-deferral-time=18h"];
        assert_eq!(resolved(&short).0.graceful_restart, terms(2, 64_800));
        assert_eq!(
            resolved(&[on, absurd[0], absurd[1]]).1,
            [
                "--bgp-graceful-restart-time: must be at most 4095 s, not 7200s",
                "--bgp-graceful-restart-deferral-time: must be at most 18 h, not 68400s",
            ]
        );
        assert_eq!(
            resolved(&[on, "--bgp-graceful-restart-time=0s"]).1,
            ["--bgp-graceful-restart-time: must be above 0, not 0ns"]
        );
    }

    #[test]
    fn the_admin_api_listens_on_loopback_too() {
        let admin =
            |args: &[&str]| resolved(args).0.admin.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(admin(&["--gobgp-admin-port=0"]), Vec::<String>::new());
        assert_eq!(admin(&["--gobgp-admin-address=192.0.2.1"]), ["192.0.2.1:50051", "127.0.0.1:50051"]);
        assert_eq!(admin(&["--gobgp-admin-address=0.0.0.0"]), ["0.0.0.0:50051"]);
        assert_eq!(admin(&["--gobgp-admin-address=here"]), ["127.0.0.1:50051"]);
    }
}
