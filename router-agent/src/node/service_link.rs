//! `kube-svc`: a veth pair of ours in the host's namespace, to which the ranges of VIPs are routed.
//!
//! What a process of this node sends to a VIP goes in at the near end and comes out at the far end, whose ingress
//! program balances it. Both ends have one MAC and no ARP, so nothing is ever resolved there; neither has an
//! address, so no VIP is local. Routes carry a protocol number of ours by which they are read back, and the node's
//! address as their source, so that this works without a default route.
//! Absent: IPv6 ranges.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result, ensure};
use ipnet::{IpNet, Ipv4Net};
use router_common::abi::Address as _;

use crate::sys::netlink::{Link, Netlink, Route};
use crate::sys::sysctl;

/// The end that carries the routes.
pub(crate) const NEAR: &str = "kube-svc";
/// The end whose ingress balances.
pub(crate) const FAR: &str = "kube-svc-far";
/// Who installed our routes, as `ip route` shows it; BGP's have another.
pub(crate) const PROTOCOL: u8 = 117;
/// Both ends': locally administered, the same on every node, since no frame with it leaves one.
const MAC: [u8; 6] = [0x0a, 0x6b, 0x72, 0x73, 0x76, 0x63];

/// What every IPv4 host can receive (RFC 791); below it an MTU is a mistake.
const SMALLEST_MTU: u32 = 576;

/// The pair as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServiceLink {
    pub near: u32,
    pub far: u32,
    pub mac: [u8; 6],
}

impl ServiceLink {
    /// The pair among all devices, if it is in order: each end the other's, one MAC, no ARP, both up.
    pub(crate) fn among(links: &[Link]) -> Option<Self> {
        let end = |name: &str| links.iter().find(|link| link.name == name);
        let (near, far) = (end(NEAR)?, end(FAR)?);
        (are_a_pair(near, far) && [near, far].iter().all(|end| end.up && is_addressless(end)))
            .then_some(Self { near: near.index, far: far.index, mac: MAC })
    }
}

fn are_a_pair(near: &Link, far: &Link) -> bool {
    near.peer == Some(far.index) && near.peer_namespace.is_none() && near.kind.as_deref() == Some("veth")
}

fn is_addressless(end: &Link) -> bool {
    end.mac == Some(MAC) && end.no_arp
}

/// Keeps pair and routes as they should be.
#[derive(Debug)]
pub(crate) struct Keeper {
    netlink: Netlink,
    ranges: Vec<Ipv4Net>,
    source: Option<Ipv4Addr>,
    mtu: Option<u32>,
}

impl Keeper {
    /// In the network namespace of the calling thread.
    pub(crate) fn open() -> Result<Self> {
        let netlink = Netlink::open().context("cannot open a netlink socket")?;
        Ok(Self { netlink, ranges: Vec::new(), source: None, mtu: None })
    }

    /// Routes `ranges` to `kube-svc`, in place of those routed so far. `source` is this node's address, which
    /// processes get that dial a VIP. IPv6 ranges are left out.
    pub(crate) fn set_service_routes(&mut self, ranges: &[IpNet], source: IpAddr) -> Result<()> {
        self.ranges = ranges
            .iter()
            .filter_map(|range| match range {
                IpNet::V4(range) => Some(range.trunc()),
                IpNet::V6(_) => None,
            })
            .collect();
        self.source = match source {
            IpAddr::V4(source) => Some(source),
            IpAddr::V6(_) => None,
        };
        self.repair().map(drop)
    }

    /// The MTU that both ends shall have, from the next repair on: no larger than that of any way out, since what we
    /// send out of a device ourselves is neither fragmented nor answered.
    pub(crate) const fn set_mtu(&mut self, mtu: Option<u32>) {
        self.mtu = mtu;
    }

    /// Makes whatever is missing, and takes routes away that are not wanted. What is right is not touched. Routes of
    /// an agent before this one stay until we know which are wanted: traffic goes on meanwhile.
    pub(crate) fn repair(&mut self) -> Result<ServiceLink> {
        let pair = self.ensure_pair()?;
        if let Some(source) = self.source {
            self.ensure_routes(pair, source)?;
        }
        Ok(pair)
    }

    fn ensure_pair(&mut self) -> Result<ServiceLink> {
        let (near, far) = (self.netlink.link_named(NEAR)?, self.netlink.link_named(FAR)?);
        let whole = matches!((&near, &far), (Some(near), Some(far)) if are_a_pair(near, far));
        if !whole {
            for half in [near, far].into_iter().flatten() {
                ensure!(half.kind.as_deref() == Some("veth"), "{} is a device of somebody else", half.name);
                // The first takes the second with it where they are each other's.
                if self.netlink.link(half.index, None)?.is_some() {
                    self.netlink
                        .delete_link(half.index)
                        .with_context(|| format!("cannot delete {}", half.name))?;
                }
            }
            self.netlink.add_veth_pair(NEAR, FAR, MAC).context("cannot create the veth pair kube-svc")?;
            tracing::info!("created {NEAR} and {FAR}");
        }
        let near = self.ensure_end(NEAR)?;
        let far = self.ensure_end(FAR)?;
        Ok(ServiceLink { near, far, mac: MAC })
    }

    fn ensure_end(&mut self, name: &str) -> Result<u32> {
        let end = self
            .netlink
            .link_named(name)?
            .with_context(|| format!("{name} went away while it was set up"))?;
        settings(name)?;
        if !is_addressless(&end) {
            self.netlink
                .set_addressless(end.index, MAC)
                .with_context(|| format!("cannot set the MAC of {name}"))?;
        }
        if let Some(mtu) = self.mtu.filter(|mtu| *mtu != end.mtu && *mtu >= SMALLEST_MTU) {
            self.netlink.set_mtu(end.index, mtu).with_context(|| format!("cannot set the MTU of {name}"))?;
        }
        if !end.up {
            self.netlink.set_up(end.index).with_context(|| format!("cannot set {name} up"))?;
        }
        Ok(end.index)
    }

    fn ensure_routes(&mut self, pair: ServiceLink, source: Ipv4Addr) -> Result<()> {
        let wanted = self.wanted(pair, source);
        let found = self.netlink.routes(Some(PROTOCOL))?;
        for route in wanted.iter().filter(|route| !found.contains(route)) {
            self.netlink
                .put_route(route)
                .with_context(|| format!("cannot route {} to {NEAR}", route.destination))?;
        }
        // A route that was replaced is gone already, and its destination is wanted.
        let unwanted = |route: &&Route| {
            route.protocol == PROTOCOL
                && !wanted
                    .iter()
                    .any(|wanted| wanted.destination == route.destination && wanted.link == route.link)
        };
        for route in found.iter().filter(unwanted) {
            self.netlink
                .delete_route(route)
                .with_context(|| format!("cannot delete the route to {}", route.destination))?;
        }
        Ok(())
    }

    fn wanted(&self, pair: ServiceLink, source: Ipv4Addr) -> Vec<Route> {
        let own_node = Ipv4Net::from(Ipv4Addr::from(<[u8; 4]>::OWN_NODE_CLIENT));
        let mut wanted: Vec<Route> = self
            .ranges
            .iter()
            .copied()
            .chain([own_node])
            .map(|range| Route {
                destination: range.into(),
                gateway: None,
                link: pair.near,
                metric: 0,
                source: Some(source.into()),
                protocol: PROTOCOL,
                further: Vec::new(),
            })
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }
}

/// No redirects for what turns around here, no packet under one of our own addresses, and no IPv6, which would
/// give the ends addresses.
fn settings(name: &str) -> Result<()> {
    for (setting, value) in
        [("ipv4/conf", "send_redirects=0"), ("ipv4/conf", "accept_local=0"), ("ipv6/conf", "disable_ipv6=1")]
    {
        let Some((key, value)) = value.split_once('=') else { continue };
        let path = format!("net/{setting}/{name}/{key}");
        if sysctl::exists(&path) {
            sysctl::set(&path, value).with_context(|| format!("cannot set {path}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::{in_namespace, run};

    const NODE: &str = "ip link add eth0 type bridge; ip link set eth0 up; ip addr add 192.0.2.1/24 dev eth0";

    fn node() -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))
    }

    fn ranges(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn routes() -> Vec<String> {
        let mut lines: Vec<String> =
            run("ip route show proto 117").lines().map(|line| line.trim().to_owned()).collect();
        lines.sort();
        lines
    }

    #[test]
    fn the_pair_is_made_with_one_mac_no_arp_no_address_and_up() {
        in_namespace(|| {
            let pair = Keeper::open().unwrap().repair().unwrap();
            for end in [NEAR, FAR] {
                let text = run(&format!("ip addr show dev {end}"));
                assert!(text.contains("NOARP") && text.contains(",UP"), "{text}");
                assert!(text.contains("0a:6b:72:73:76:63"), "{text}");
                assert!(!text.contains("inet"), "{text}");
            }
            let links = Netlink::open().unwrap().links().unwrap();
            assert_eq!(ServiceLink::among(&links), Some(pair));
        });
    }

    #[test]
    fn routes_follow_the_ranges_and_what_is_right_is_not_touched() {
        in_namespace(|| {
            run(NODE);
            let mut keeper = Keeper::open().unwrap();
            keeper.set_service_routes(&ranges(&["10.96.0.0/16", "fd00::/108"]), node()).unwrap();
            let first = routes();
            assert_eq!(
                first,
                [
                    "10.96.0.0/16 dev kube-svc scope link src 192.0.2.1",
                    "169.254.255.1 dev kube-svc scope link src 192.0.2.1"
                ]
            );
            run("ip route add 198.51.100.0/24 dev kube-svc proto static");
            keeper.set_service_routes(&ranges(&["10.96.0.0/12", "203.0.113.7/32"]), node()).unwrap();
            assert_eq!(
                routes(),
                [
                    "10.96.0.0/12 dev kube-svc scope link src 192.0.2.1",
                    "169.254.255.1 dev kube-svc scope link src 192.0.2.1",
                    "203.0.113.7 dev kube-svc scope link src 192.0.2.1"
                ]
            );
            assert!(run("ip route show proto static").contains("198.51.100.0/24"), "a foreign route went");
        });
    }

    #[test]
    fn a_changed_node_address_becomes_the_source_of_every_route() {
        in_namespace(|| {
            run(NODE);
            run("ip addr add 192.0.2.2/24 dev eth0");
            let mut keeper = Keeper::open().unwrap();
            keeper.set_service_routes(&ranges(&["10.96.0.0/16"]), node()).unwrap();
            keeper.set_service_routes(&ranges(&["10.96.0.0/16"]), "192.0.2.2".parse().unwrap()).unwrap();
            assert!(routes().iter().all(|line| line.ends_with("src 192.0.2.2")), "{:?}", routes());
            assert_eq!(routes().len(), 2);
        });
    }

    #[test]
    fn a_keeper_that_knows_nothing_yet_leaves_its_predecessors_routes() {
        in_namespace(|| {
            run(NODE);
            Keeper::open().unwrap().set_service_routes(&ranges(&["10.96.0.0/16"]), node()).unwrap();
            let before = routes();
            let mut next = Keeper::open().unwrap();
            next.repair().unwrap();
            assert_eq!(routes(), before);
            next.set_service_routes(&ranges(&["10.97.0.0/16"]), node()).unwrap();
            assert!(routes().iter().all(|line| !line.contains("10.96.0.0")), "{:?}", routes());
        });
    }

    #[test]
    fn a_deleted_pair_and_a_deleted_route_come_back() {
        in_namespace(|| {
            run(NODE);
            let mut keeper = Keeper::open().unwrap();
            keeper.set_service_routes(&ranges(&["10.96.0.0/16"]), node()).unwrap();
            let before = routes();
            run("ip route del 10.96.0.0/16");
            keeper.repair().unwrap();
            assert_eq!(routes(), before);
            run("ip link del kube-svc");
            keeper.repair().unwrap();
            assert_eq!(routes(), before);
        });
    }

    #[test]
    fn both_ends_get_the_mtu_and_follow_it() {
        in_namespace(|| {
            let mut keeper = Keeper::open().unwrap();
            for mtu in [1400, 1450, 9000] {
                keeper.set_mtu(Some(mtu));
                keeper.repair().unwrap();
                for end in [NEAR, FAR] {
                    let text = run(&format!("ip link show dev {end}"));
                    assert!(text.contains(&format!("mtu {mtu} ")), "{text}");
                }
            }
        });
    }

    #[test]
    fn a_half_of_another_pair_is_replaced_and_a_foreign_device_is_not() {
        in_namespace(|| {
            run("ip link add kube-svc type veth peer name other");
            Keeper::open().unwrap().repair().unwrap();
            run("ip link del kube-svc; ip link add kube-svc type bridge");
            let error = Keeper::open().unwrap().repair().unwrap_err();
            assert!(error.to_string().contains("kube-svc is a device of somebody else"), "{error:#}");
        });
    }

    #[test]
    fn the_settings_of_both_ends_are_ours_and_rp_filter_stays_as_found() {
        in_namespace(|| {
            run("echo 1 > /proc/sys/net/ipv4/conf/default/rp_filter");
            Keeper::open().unwrap().repair().unwrap();
            for end in [NEAR, FAR] {
                let read = |key: &str| sysctl::read(&format!("net/ipv4/conf/{end}/{key}")).unwrap();
                assert_eq!((read("send_redirects"), read("rp_filter")), ("0".to_owned(), "1".to_owned()));
            }
        });
    }
}
