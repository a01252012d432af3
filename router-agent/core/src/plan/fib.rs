//! The plane of learned routes: what BGP chose, as routes of protocol 17 in the main table.
//!
//! A prefix of which nobody has said anything is left as it stands until `swept`, so that a restart loses nothing;
//! from then on what stands and was not chosen goes. What is wrong is replaced in place, what is beside it is
//! deleted after. A route is direct or there is none: its next hop lies in a subnet we are connected to.
//! Both families are planned by the same code, since a prefix names its own.
//!
//! Deliberately absent: tunnels, several next hops, and routes of other protocols: where one of those has the very
//! prefix with the metric of ours, it stays and we install nothing.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Group, Owner, Plane};
use crate::cluster::HostView;
use crate::model::node::Node;
use crate::problem::Subject;

/// The protocol number of learned routes, by which users filter and we read back.
pub const PROTOCOL: u8 = 17;

/// The metric with which we install: the kernel's default, which comes before any other.
const METRIC: u32 = 0;

/// What is wanted of learned routes, and what that depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// The next hop that BGP chose for each prefix; `None` where it has none any more.
    pub chosen: BTreeMap<IpNet, Option<IpAddr>>,
    /// BGP has converged for the first time: a prefix not chosen by now is not wanted.
    pub swept: bool,
    pub subnets: Vec<Subnet>,
    pub own: Own,
}

/// A subnet that an address of this host is in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    pub network: IpNet,
    /// Our address in it.
    pub address: IpAddr,
    pub link: u32,
    /// The address is valid beyond its link, so that neighbours may be next hops.
    pub global: bool,
    pub up: bool,
}

/// What is ours by other means than BGP, and must never be led elsewhere by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// This node's pod ranges, and what is routed to `kube-svc`.
    pub ranges: BTreeSet<IpNet>,
    /// The addresses of every node.
    pub addresses: BTreeSet<IpAddr>,
}

impl Own {
    /// From what this host is told, and the other nodes.
    pub fn new<'a>(host: &HostView, others: impl IntoIterator<Item = &'a Node>) -> Self {
        let ranges = host.vip_ranges.iter().chain(&host.pod_cidrs).map(IpNet::trunc).collect();
        let others = others.into_iter().flat_map(|node| &node.addresses);
        Self { ranges, addresses: host.node_addresses.iter().chain(others).copied().collect() }
    }
}

/// A route of ours to some prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub metric: u32,
    pub next_hop: Option<IpAddr>,
    pub link: u32,
    /// There is no more to it: it has no further next hops and names no source.
    pub single: bool,
}

/// What the main table holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Routes of protocol 17, those to one prefix in the order in which the kernel has them.
    pub rows: BTreeMap<(IpNet, u32), Row>,
    /// Prefixes to which somebody else has a route with the metric of ours, by their protocol.
    pub taken: BTreeMap<IpNet, u8>,
}

impl Tables {
    /// Our routes to `prefix`, in the order in which the kernel has them.
    pub fn rows_of(&self, prefix: IpNet) -> impl Iterator<Item = &Row> {
        self.entries(prefix).map(|(_, row)| row)
    }

    /// Adds a route as the kernel reports it, after those to the same prefix that it reported before.
    pub fn note(&mut self, prefix: IpNet, protocol: u8, row: Row) {
        if protocol == PROTOCOL {
            let place = self.entries(prefix).next_back().map_or(0, |((_, place), _)| place.saturating_add(1));
            self.rows.insert((prefix, place), row);
        } else if row.metric == METRIC {
            self.taken.insert(prefix, protocol);
        }
    }

    fn entries(&self, prefix: IpNet) -> impl DoubleEndedIterator<Item = (&(IpNet, u32), &Row)> {
        self.rows.range((prefix, 0)..=(prefix, u32::MAX))
    }
}

/// One write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// To a prefix to which there is none with this metric, of anybody: else it fails.
    Add(IpNet, Row),
    /// In place of the first route with this metric, which is ours: if there is none, it fails.
    Replace(IpNet, Row),
    /// Exactly this one; it counts as deleted if it is not there.
    Delete(IpNet, Row),
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, prefix, row) = match self {
            Self::Add(prefix, row) => ("add", prefix, row),
            Self::Replace(prefix, row) => ("replace", prefix, row),
            Self::Delete(prefix, row) => ("delete", prefix, row),
        };
        write!(f, "{verb} route {prefix}")?;
        if let Some(next_hop) = row.next_hop {
            write!(f, " via {next_hop}")?;
        }
        write!(f, " on link {}", row.link)?;
        if row.metric == METRIC { Ok(()) } else { write!(f, " metric {}", row.metric) }
    }
}

/// Why a prefix that BGP chose gets no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// No packet for it may be forwarded.
    NotADestination,
    /// It is one of our subnets, or lies in one.
    Connected(IpNet),
    /// It is more of the way to its own next hop than the subnet that leads there.
    CoversNextHop(IpAddr),
    /// It is one of our own ranges, or lies in one.
    OwnRange(IpNet),
    /// It is the address of a node.
    NodeAddress,
    /// Prefix and next hop are of two families.
    OtherFamily(IpAddr),
    /// The next hop is an address of this host.
    OwnNextHop(IpAddr),
    /// The next hop names the subnet or everybody in it.
    NotAHost(IpAddr),
    /// The next hop is in none of our subnets.
    Unreachable(IpAddr),
    /// The next hop is in a subnet of ours whose link is down.
    LinkDown(IpAddr),
    /// Somebody else has a route to this very prefix, by this protocol.
    Taken(u8),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotADestination => f.write_str("nothing can be forwarded to it"),
            Self::Connected(subnet) => write!(f, "it is in the connected subnet {subnet}"),
            Self::CoversNextHop(next_hop) => write!(f, "it would lead to its own next hop {next_hop}"),
            Self::OwnRange(range) => write!(f, "it is in this node's own range {range}"),
            Self::NodeAddress => f.write_str("it is the address of a node"),
            Self::OtherFamily(next_hop) => write!(f, "its next hop {next_hop} is of another family"),
            Self::OwnNextHop(next_hop) => write!(f, "its next hop {next_hop} is this host"),
            Self::NotAHost(next_hop) => write!(f, "its next hop {next_hop} is no single host's address"),
            Self::Unreachable(next_hop) => write!(f, "its next hop {next_hop} is in no connected subnet"),
            Self::LinkDown(next_hop) => write!(f, "the link towards its next hop {next_hop} is down"),
            Self::Taken(protocol) => write!(f, "there is a route to it by protocol {protocol}"),
        }
    }
}

/// The route that `prefix` should have by `next_hop`, or why none. Of several links into one subnet the one that is
/// in use stays.
pub fn route(want: &Want, have: &Tables, prefix: IpNet, next_hop: IpAddr) -> Result<Row, Reason> {
    if !is_destination(prefix) {
        return Err(Reason::NotADestination);
    }
    if let Some(subnet) = want.subnets.iter().find(|subnet| subnet.network.contains(&prefix)) {
        let covers = prefix.contains(&next_hop);
        return Err(if covers { Reason::CoversNextHop(next_hop) } else { Reason::Connected(subnet.network) });
    }
    if let Some(range) = within(&want.own.ranges, prefix) {
        return Err(Reason::OwnRange(range));
    }
    if prefix.prefix_len() == prefix.max_prefix_len() && want.own.addresses.contains(&prefix.addr()) {
        return Err(Reason::NodeAddress);
    }
    let link = link_towards(want, have, prefix, next_hop)?;
    let row = Row { metric: METRIC, next_hop: Some(next_hop), link, single: true };
    match have.taken.get(&prefix) {
        Some(protocol) if !have.rows_of(prefix).any(|found| *found == row) => Err(Reason::Taken(*protocol)),
        _ => Ok(row),
    }
}

/// Every prefix that BGP chose and that gets no route.
pub fn refused(want: &Want, have: &Tables) -> impl Iterator<Item = (IpNet, Reason)> {
    let chosen = want.chosen.iter().filter_map(|(prefix, next_hop)| Some((*prefix, (*next_hop)?)));
    chosen.filter_map(|(prefix, next_hop)| Some((prefix, route(want, have, prefix, next_hop).err()?)))
}

/// The plane.
#[derive(Debug)]
pub struct FibPlane;

impl Plane for FibPlane {
    type Want = Want;
    type Tables = Tables;
    type Op = Op;

    fn owners(want: &Want, have: &Tables) -> BTreeSet<Owner> {
        let held = have.rows.keys().map(|(prefix, _)| *prefix);
        want.chosen.keys().copied().chain(held).map(Owner::Route).collect()
    }

    fn plan(want: &Want, have: &Tables, owner: &Owner, _now: Duration) -> Group<Op> {
        let mut group = Group::empty(owner.clone());
        let Owner::Route(prefix) = *owner else { return group };
        let wanted = match want.chosen.get(&prefix) {
            None if !want.swept => return group,
            None | Some(None) => None,
            Some(Some(next_hop)) => route(want, have, prefix, *next_hop).ok(),
        };
        let mut rest: Vec<Row> = have.rows_of(prefix).copied().collect();
        if let Some(wanted) = wanted {
            if rest.contains(&wanted) {
                rest.retain(|row| *row != wanted);
            } else if let Some(place) = rest.iter().position(|row| row.metric == METRIC) {
                rest.remove(place);
                group.puts.push(Op::Replace(prefix, wanted));
            } else {
                group.puts.push(Op::Add(prefix, wanted));
            }
        }
        group.dels.extend(rest.into_iter().map(|row| Op::Delete(prefix, row)));
        group
    }

    fn apply(have: &mut Tables, op: &Op) {
        match *op {
            Op::Add(prefix, row) => have.note(prefix, PROTOCOL, row),
            Op::Replace(prefix, row) => {
                let first = have.entries(prefix).find(|(_, found)| found.metric == row.metric);
                if let Some(place) = first.map(|(place, _)| *place) {
                    have.rows.insert(place, row);
                }
            }
            Op::Delete(prefix, row) => {
                let place = have.entries(prefix).find(|(_, found)| **found == row).map(|(place, _)| *place);
                place.and_then(|place| have.rows.remove(&place));
            }
        }
    }

    fn subject(_: &Want, owner: &Owner) -> Subject {
        Subject::Table(owner.to_string())
    }
}

/// The link into the smallest of our subnets that has `next_hop` in it.
fn link_towards(want: &Want, have: &Tables, prefix: IpNet, next_hop: IpAddr) -> Result<u32, Reason> {
    if prefix.addr().is_ipv4() != next_hop.is_ipv4() {
        return Err(Reason::OtherFamily(next_hop));
    }
    if want.subnets.iter().any(|subnet| subnet.address == next_hop) {
        return Err(Reason::OwnNextHop(next_hop));
    }
    let around = || want.subnets.iter().filter(|subnet| subnet.global && subnet.network.contains(&next_hop));
    let usable = || around().filter(|subnet| subnet.up);
    let Some(length) = usable().map(|subnet| subnet.network.prefix_len()).max() else {
        let down = around().next().is_some();
        return Err(if down { Reason::LinkDown(next_hop) } else { Reason::Unreachable(next_hop) });
    };
    let mut links: Vec<u32> = Vec::new();
    for subnet in usable().filter(|subnet| subnet.network.prefix_len() == length) {
        if !is_host(subnet.network, next_hop) {
            return Err(Reason::NotAHost(next_hop));
        }
        links.push(subnet.link);
    }
    let used = have.rows_of(prefix).find(|row| row.next_hop == Some(next_hop) && links.contains(&row.link));
    used.map(|row| row.link).or(links.into_iter().min()).ok_or(Reason::Unreachable(next_hop))
}

/// Whether `address` may be a single host's in `subnet`. A subnet of two addresses has hosts only (RFC 3021).
fn is_host(subnet: IpNet, address: IpAddr) -> bool {
    let spare = subnet.max_prefix_len() - subnet.prefix_len();
    address.is_ipv6() || spare < 2 || (address != subnet.network() && address != subnet.broadcast())
}

/// The range of `ranges` that is `prefix` or has it in it.
fn within(ranges: &BTreeSet<IpNet>, prefix: IpNet) -> Option<IpNet> {
    std::iter::successors(Some(prefix), IpNet::supernet).find(|range| ranges.contains(range))
}

/// Whether anything may be forwarded to `prefix`: not to this network, loopback, multicast (RFC 6890) or the link's
/// own neighbours (RFC 4291).
fn is_destination(prefix: IpNet) -> bool {
    let none: &[IpNet] = match prefix {
        IpNet::V4(_) => &[v4(0, 8), v4(127, 8), v4(224, 4)],
        IpNet::V6(_) => &[v6(0, 128), v6(1, 128), v6(0xfe80 << 112, 10), v6(0xff << 120, 8)],
    };
    !none.iter().any(|range| range.contains(&prefix))
}

const fn v4(first: u8, length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(first, 0, 0, 0), length))
}

const fn v6(bits: u128, length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), length))
}
