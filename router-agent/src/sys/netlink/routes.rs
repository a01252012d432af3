//! IPv4 routes of the main table: one at a time, all of them, and a hundred thousand writes at once.
//!
//! Many writes share one send, and only the last of them asks for an acknowledgement: the kernel carries messages
//! out in order and answers those that fail unasked. Routes are decoded here and not by the crate that decodes the
//! rest, which keeps every attribute of every route of a dump.
//! Absent: IPv6, nexthop objects, routes of other tables.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkBuffer,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Netlink, errno, messages};

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    pub destination: IpNet,
    /// `None`: the destination is on the link itself.
    pub gateway: Option<IpAddr>,
    /// 0: none, for a route that leads nowhere, or by a nexthop object that is not told.
    pub link: u32,
    /// Of several routes to one destination the one with the least is used.
    pub metric: u32,
    pub source: Option<IpAddr>,
    /// Who installed it.
    pub protocol: u8,
    /// The links of its further next hops.
    pub further: Vec<u32>,
}

impl Route {
    /// Every link that it uses.
    pub(crate) fn links(&self) -> impl Iterator<Item = u32> {
        std::iter::once(self.link).chain(self.further.iter().copied())
    }
}

/// What the kernel says of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub route: Route,
    /// It leads somewhere; else packets for it are dropped.
    pub unicast: bool,
}

/// What to do with a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// Install it; fails if anybody has one to the same destination with the same metric.
    Add,
    /// Install it in place of the first to the same destination with the same metric; fails if there is none.
    Replace,
    /// Either of the two.
    Put,
    /// Take it away; one that is not there counts as deleted.
    Delete,
}

impl Write {
    const fn flags(self) -> u16 {
        match self {
            Self::Add => NLM_F_CREATE | NLM_F_EXCL,
            Self::Replace => NLM_F_REPLACE,
            Self::Put => NLM_F_CREATE | NLM_F_REPLACE,
            Self::Delete => 0,
        }
    }

    fn message(self, route: &Route) -> RouteNetlinkMessage {
        let mut message = message(route);
        if matches!(self, Self::Delete) {
            message.header.scope = RouteScope::NoWhere;
            message.header.kind = RouteType::Unspec;
            RouteNetlinkMessage::DelRoute(message)
        } else {
            RouteNetlinkMessage::NewRoute(message)
        }
    }

    fn outcome(self, errno: i32) -> Option<io::Error> {
        let gone = matches!(self, Self::Delete) && errno == libc::ESRCH;
        (errno != 0 && !gone).then(|| io::Error::from_raw_os_error(errno))
    }
}

/// Writes to one send: as many as can all fail without the answers outgrowing a receive buffer of the default size.
const CHUNK: usize = 128;

impl Netlink {
    /// The unicast routes of the main table, or those that `protocol` installed.
    pub(crate) fn routes(&mut self, protocol: Option<u8>) -> io::Result<Vec<Route>> {
        let mut found = Vec::new();
        self.main_table(protocol, |entry| found.extend(entry.unicast.then_some(entry.route))).map(|()| found)
    }

    /// Tells `each` of every route of the main table, or of those that `protocol` installed, in the kernel's order.
    pub(crate) fn main_table(&mut self, protocol: Option<u8>, mut each: impl FnMut(Entry)) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = protocol.map_or(RouteProtocol::Unspec, RouteProtocol::from);
        self.send(&RouteNetlinkMessage::GetRoute(message), NLM_F_REQUEST | NLM_F_DUMP)?;
        // A trie that changes under a dump is not dumped anew: what changed has its own event.
        self.receive_all(&mut |message| each_route(NetlinkBuffer::new(message).payload(), &mut each))
    }

    /// Installs a route, in place of one to the same destination with the same metric.
    pub(crate) fn put_route(&mut self, route: &Route) -> io::Result<()> {
        self.write_one(Write::Put, route)
    }

    /// Deletes a route; one that is not there counts as deleted.
    pub(crate) fn delete_route(&mut self, route: &Route) -> io::Result<()> {
        self.write_one(Write::Delete, route)
    }

    fn write_one(&mut self, write: Write, route: &Route) -> io::Result<()> {
        match self.write_routes(&[(write, route.clone())]).pop() {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }

    /// Carries all out in order, and goes on after one that fails. Returns the places of those that failed.
    pub(crate) fn write_routes(&mut self, writes: &[(Write, Route)]) -> Vec<(usize, io::Error)> {
        let mut failed = Vec::new();
        for (number, chunk) in writes.chunks(CHUNK).enumerate() {
            let first = number * CHUNK;
            match self.write_chunk(chunk) {
                Ok(errors) => failed.extend(errors.into_iter().map(|(at, error)| (first + at, error))),
                // What has been carried out of it is not known: reading again tells.
                Err(error) => failed.extend((first..first + chunk.len()).map(|at| (at, copy(&error)))),
            }
        }
        failed
    }

    fn write_chunk(&mut self, chunk: &[(Write, Route)]) -> io::Result<Vec<(usize, io::Error)>> {
        let mut bytes = Vec::with_capacity(chunk.len() * 64);
        let first = self.sequence.wrapping_add(1);
        for (at, (write, route)) in chunk.iter().enumerate() {
            let acknowledge = if at + 1 == chunk.len() { NLM_F_ACK } else { 0 };
            let flags = NLM_F_REQUEST | write.flags() | acknowledge;
            self.append(&write.message(route), flags, &mut bytes);
        }
        self.socket.send(&bytes, 0)?;
        let mut failed = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for message in messages(&datagram) {
                let header = NetlinkBuffer::new(message);
                // Answers to an earlier chunk whose reading broke off are passed over.
                let at = header.sequence_number().wrapping_sub(first) as usize;
                let Some((write, _)) = chunk.get(at) else { continue };
                let Some(errno) = errno(header.message_type(), header.payload()) else { continue };
                failed.extend(write.outcome(errno).map(|error| (at, error)));
                if at + 1 == chunk.len() {
                    return Ok(failed);
                }
            }
        }
    }
}

fn copy(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

fn message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(route.protocol);
    message.header.scope = if route.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
    message.header.kind = RouteType::Unicast;
    message.header.destination_prefix_length = route.destination.prefix_len();
    let attributes = &mut message.attributes;
    if let IpAddr::V4(address) = route.destination.network() {
        attributes.push(RouteAttribute::Destination(RouteAddress::Inet(address)));
    }
    if let Some(IpAddr::V4(gateway)) = route.gateway {
        attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
    }
    if route.link != 0 {
        attributes.push(RouteAttribute::Oif(route.link));
    }
    if route.metric != 0 {
        attributes.push(RouteAttribute::Priority(route.metric));
    }
    if let Some(IpAddr::V4(source)) = route.source {
        attributes.push(RouteAttribute::PrefSource(RouteAddress::Inet(source)));
    }
    message
}

/// Calls `each` if `payload`, what follows the header of a message about a route, is one of the main table's, to be
/// used for every type of service.
pub(super) fn each_route(payload: &[u8], each: &mut dyn FnMut(Entry)) {
    // struct rtmsg of linux/rtnetlink.h: family, lengths of destination and source, type of service, table, protocol,
    // scope, type, flags.
    let Some(([family, length, _, tos, table, protocol, _, kind, ..], attributes)) =
        payload.split_first_chunk::<12>()
    else {
        return;
    };
    if i32::from(*family) != libc::AF_INET || *tos != 0 {
        return;
    }
    let mut destination = Ipv4Addr::UNSPECIFIED;
    let (mut full_table, mut metric) = (u32::from(*table), 0);
    let (mut source, mut hop, mut further) = (None, Hop::default(), Vec::new());
    for (kind, value) in attributes_of(attributes) {
        match kind {
            libc::RTA_DST => destination = address(value).unwrap_or(destination),
            libc::RTA_PREFSRC => source = address(value).map(IpAddr::from),
            libc::RTA_PRIORITY => metric = number(value).unwrap_or(metric),
            libc::RTA_TABLE => full_table = number(value).unwrap_or(full_table),
            libc::RTA_MULTIPATH => {
                let mut hops = hops(value);
                hop = hops.next().unwrap_or_default();
                further = hops.map(|hop| hop.link).collect();
            }
            _ => hop.note(kind, value),
        }
    }
    let unicast = *kind == libc::RTN_UNICAST;
    let main = full_table == u32::from(RouteHeader::RT_TABLE_MAIN);
    let Ok(destination) = Ipv4Net::new(destination, *length) else { return };
    if main {
        let Hop { gateway, link } = hop;
        let (destination, protocol) = (destination.into(), *protocol);
        each(Entry {
            route: Route { destination, gateway, link, metric, source, protocol, further },
            unicast,
        });
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Hop {
    gateway: Option<IpAddr>,
    link: u32,
}

impl Hop {
    fn note(&mut self, kind: u16, value: &[u8]) {
        match kind {
            libc::RTA_OIF => self.link = number(value).unwrap_or_default(),
            libc::RTA_GATEWAY => self.gateway = address(value).map(IpAddr::from),
            // An IPv4 route by an IPv6 neighbour: family, then address.
            libc::RTA_VIA => {
                let octets = value.get(2..).and_then(|octets| octets.first_chunk::<16>());
                self.gateway = octets.map(|octets| IpAddr::from(*octets));
            }
            _ => {}
        }
    }
}

/// The next hops of a multipath route: a struct rtnexthop each (length, flags, weight, link), then attributes.
fn hops(bytes: &[u8]) -> impl Iterator<Item = Hop> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let ([a, b, _, _, link @ ..], _) = rest.split_first_chunk::<8>()?;
        let length = usize::from(u16::from_ne_bytes([*a, *b]));
        let mut hop = Hop { gateway: None, link: u32::from_ne_bytes(*link) };
        for (kind, value) in attributes_of(rest.get(8..length)?) {
            hop.note(kind, value);
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(hop)
    })
}

/// Type and value of each attribute; ends at one that claims a length it cannot have.
fn attributes_of(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const KIND: u16 = 0x3fff;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let ([a, b, c, d], _) = rest.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([*a, *b]));
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((u16::from_ne_bytes([*c, *d]) & KIND, value))
    })
}

fn address(value: &[u8]) -> Option<Ipv4Addr> {
    value.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets))
}

fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::{in_namespace, run};

    const HOST: &str = "ip link add eth0 type bridge; ip link set eth0 up; ip addr add 192.0.2.1/24 dev eth0";

    fn link() -> u32 {
        Netlink::open().unwrap().link_named("eth0").unwrap().unwrap().index
    }

    fn route(destination: &str, last: u8) -> Route {
        let gateway = Some([192, 0, 2, last].into());
        let destination = destination.parse().unwrap();
        Route {
            destination,
            gateway,
            link: link(),
            metric: 0,
            source: None,
            protocol: 17,
            further: Vec::new(),
        }
    }

    fn entries(netlink: &mut Netlink) -> Vec<Entry> {
        let mut found = Vec::new();
        netlink.main_table(None, |entry| found.push(entry)).unwrap();
        found
    }

    #[test]
    fn what_is_written_is_read_back_as_written_and_deleted_exactly() {
        in_namespace(|| {
            run(HOST);
            let mut netlink = Netlink::open().unwrap();
            let plain = route("10.1.0.0/16", 2);
            let behind = Route { metric: 50, ..route("10.1.0.0/16", 3) };
            let source = Route { source: Some([192, 0, 2, 1].into()), ..route("0.0.0.0/0", 4) };
            let on_link = Route { gateway: None, ..route("10.2.0.0/16", 0) };
            let all = [source, plain.clone(), behind.clone(), on_link];
            let writes: Vec<_> = all.iter().map(|route| (Write::Add, route.clone())).collect();
            assert!(netlink.write_routes(&writes).is_empty());
            assert_eq!(netlink.routes(Some(17)).unwrap(), all);
            netlink.delete_route(&plain).unwrap();
            assert!(netlink.routes(Some(17)).unwrap().contains(&behind));
            netlink.delete_route(&behind).unwrap();
            netlink.delete_route(&behind).unwrap();
            assert_eq!(netlink.routes(Some(17)).unwrap().len(), 2);
        });
    }

    #[test]
    fn of_many_writes_those_that_fail_are_named_and_all_others_are_done() {
        in_namespace(|| {
            run(HOST);
            let mut netlink = Netlink::open().unwrap();
            // More than two sends; what fails is the first, some in the middle, the last of a send, and the last.
            let unreachable = |number: usize| [0, 77, 78, CHUNK - 1, CHUNK, 2 * CHUNK + 1].contains(&number);
            let writes: Vec<_> = (0..2 * CHUNK + 2)
                .map(|number| {
                    let mut route = route(&format!("10.{}.{}.0/24", number / 256, number % 256), 2);
                    if unreachable(number) {
                        route.gateway = Some([203, 0, 113, 1].into());
                    }
                    (Write::Add, route)
                })
                .collect();
            let failed: Vec<_> = netlink
                .write_routes(&writes)
                .into_iter()
                .map(|(at, error)| (at, error.raw_os_error().unwrap()))
                .collect();
            let expected = [0, 77, 78, CHUNK - 1, CHUNK, 2 * CHUNK + 1].map(|at| (at, libc::ENETUNREACH));
            assert_eq!(failed, expected);
            assert_eq!(netlink.routes(Some(17)).unwrap().len(), writes.len() - expected.len());
            // All of a send fail, and the socket is good for more.
            let again = netlink.write_routes(&writes);
            assert_eq!(again.len(), writes.len());
            assert_eq!(netlink.link_named("eth0").unwrap().unwrap().index, link());
        });
    }

    #[test]
    fn add_and_replace_do_what_they_say_and_nothing_else() {
        in_namespace(|| {
            run(HOST);
            let mut netlink = Netlink::open().unwrap();
            let mut errno = |write: Write, last: u8| {
                let failed = netlink.write_routes(&[(write, route("10.1.0.0/16", last))]).pop();
                failed.map(|(_, error)| error.raw_os_error().unwrap())
            };
            assert_eq!(errno(Write::Replace, 2), Some(libc::ENOENT));
            assert_eq!(errno(Write::Add, 2), None);
            assert_eq!(errno(Write::Add, 3), Some(libc::EEXIST));
            assert_eq!(errno(Write::Replace, 3), None);
            assert!(run("ip route show 10.1.0.0/16").contains("via 192.0.2.3 dev eth0 proto 17"));
            assert_eq!(errno(Write::Put, 4), None);
            assert_eq!(errno(Write::Delete, 4), None);
        });
    }

    #[test]
    fn a_delete_of_ours_leaves_the_same_route_of_another_protocol() {
        in_namespace(|| {
            run(HOST);
            run("ip route add 10.1.0.0/16 via 192.0.2.2 proto static");
            Netlink::open().unwrap().delete_route(&route("10.1.0.0/16", 2)).unwrap();
            assert!(run("ip route show 10.1.0.0/16").contains("proto static"));
        });
    }

    #[test]
    fn routes_of_every_shape_are_understood() {
        in_namespace(|| {
            run(HOST);
            run("ip route add 10.1.0.0/16 nexthop via 192.0.2.2 nexthop via 192.0.2.3 dev eth0");
            run("ip route add unreachable 10.2.0.0/16; ip route add 10.3.0.0/16 via inet6 fe80::1 dev eth0");
            run("ip route add 10.4.0.0/16 via 192.0.2.2 table 100");
            run("ip route add 10.5.0.0/16 tos 0x10 via 192.0.2.2");
            let mut netlink = Netlink::open().unwrap();
            let found = entries(&mut netlink);
            let of = |text: &str| found.iter().find(|entry| entry.route.destination == text.parse().unwrap());
            let several = &of("10.1.0.0/16").unwrap().route;
            assert_eq!((several.gateway, &several.further), (Some([192, 0, 2, 2].into()), &vec![link()]));
            let nowhere = of("10.2.0.0/16").unwrap();
            assert_eq!((nowhere.unicast, nowhere.route.link), (false, 0));
            assert_eq!(of("10.3.0.0/16").unwrap().route.gateway, Some("fe80::1".parse().unwrap()));
            assert!(of("10.4.0.0/16").is_none(), "of another table");
            assert!(of("10.5.0.0/16").is_none(), "for one type of service only");
            assert!(netlink.routes(None).unwrap().iter().all(|route| route.link != 0));
        });
    }

    #[test]
    fn a_message_cut_short_or_with_a_length_that_lies_does_no_harm() {
        in_namespace(|| {
            run(HOST);
            run("ip route add 10.1.0.0/16 nexthop via 192.0.2.2 nexthop via 192.0.2.3 dev eth0");
            let mut netlink = Netlink::open().unwrap();
            let mut message = RouteMessage::default();
            message.header.address_family = AddressFamily::Inet;
            netlink.send(&RouteNetlinkMessage::GetRoute(message), NLM_F_REQUEST | NLM_F_DUMP).unwrap();
            let mut found = 0;
            let cut = &mut |message: &[u8]| {
                let payload = NetlinkBuffer::new(message).payload();
                (0..payload.len()).for_each(|end| each_route(&payload[..end], &mut |_| {}));
                for at in 12..payload.len() {
                    let mut bytes = payload.to_vec();
                    bytes[at] = 0xff;
                    each_route(&bytes, &mut |_| found += 1);
                }
            };
            netlink.receive_all(cut).unwrap();
            assert!(found > 0, "most bytes that are changed are of a value");
        });
    }
}
