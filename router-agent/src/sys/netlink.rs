//! Route netlink: links, addresses, routes and queueing disciplines, of this namespace and of those that have an
//! id here; and the events that say when to ask again.
//!
//! Requests are synchronous: the kernel answers a request before `send` returns, so there is nothing to wait for.
//! A [`Netlink`] belongs to the namespace of the thread that opened it, wherever it is used later.
//! With `NETLINK_GET_STRICT_CHK` the kernel heeds the target namespace of a dump instead of ignoring it.
//! Absent: what the answers mean (`node/links.rs`).

#![expect(
    unsafe_code,
    reason = "the namespace of an event comes in a control message that only recvmsg(2) shows"
)]

use std::collections::BTreeSet;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd as _;

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkBuffer, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use tokio::io::unix::AsyncFd;

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the kernel's, and they do not exclude one another"
)]
pub(crate) struct Link {
    pub index: u32,
    pub name: String,
    /// `veth`, `bridge`, …; hardware has none.
    pub kind: Option<String>,
    pub mac: Option<[u8; 6]>,
    pub mtu: u32,
    /// The bridge, bond or VRF it belongs to.
    pub master: Option<u32>,
    /// The other end of a veth, and the id of its namespace if that is another one than this link's.
    pub peer: Option<u32>,
    pub peer_namespace: Option<i32>,
    pub up: bool,
    pub no_arp: bool,
    pub loopback: bool,
    /// Frames have Ethernet headers.
    pub ethernet: bool,
}

/// An address of a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    pub link: u32,
    pub ip: IpAddr,
    /// Valid beyond its link and its host.
    pub global: bool,
}

/// A unicast route of the main table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    pub destination: IpNet,
    pub link: u32,
    pub source: Option<IpAddr>,
    /// Who installed it.
    pub protocol: u8,
    /// What local processes send at most, if less than the link takes.
    pub mtu: Option<u32>,
}

/// A queueing discipline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Discipline {
    pub link: u32,
    pub kind: String,
    /// It holds the ingress hook, as `clsact` and `ingress` do.
    pub ingress: bool,
}

/// Asks the kernel and tells it what to do.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// In the network namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_netlink_get_strict_chk(true)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Every device.
    pub(crate) fn links(&mut self) -> io::Result<Vec<Link>> {
        let answers = self.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        Ok(answers.into_iter().filter_map(link_of).collect())
    }

    /// One device of the namespace with the id `namespace`, or of this one. `None`: there is none.
    pub(crate) fn link(&mut self, index: u32, namespace: Option<i32>) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.extend(namespace.map(LinkAttribute::IfNetnsId));
        self.one_link(message)
    }

    /// One device of this namespace by its name.
    pub(crate) fn link_named(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.one_link(message)
    }

    fn one_link(&mut self, message: LinkMessage) -> io::Result<Option<Link>> {
        match self.request(&RouteNetlinkMessage::GetLink(message), NLM_F_REQUEST | NLM_F_ACK) {
            Ok(answers) => Ok(answers.into_iter().find_map(link_of)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every address of the namespace with the id `namespace`, or of this one.
    pub(crate) fn addresses(&mut self, namespace: Option<i32>) -> io::Result<Vec<Address>> {
        let mut message = AddressMessage::default();
        message.attributes.extend(namespace.map(AddressAttribute::TargetNetNsId));
        let answers = self.dump(&RouteNetlinkMessage::GetAddress(message))?;
        Ok(answers.into_iter().filter_map(address_of).collect())
    }

    /// The IPv4 unicast routes of the main table, or those that `protocol` installed.
    pub(crate) fn routes(&mut self, protocol: Option<u8>) -> io::Result<Vec<Route>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = protocol.map_or(RouteProtocol::Unspec, RouteProtocol::from);
        let answers = self.dump(&RouteNetlinkMessage::GetRoute(message))?;
        Ok(answers.into_iter().flat_map(routes_of).collect())
    }

    /// Every queueing discipline.
    pub(crate) fn disciplines(&mut self) -> io::Result<Vec<Discipline>> {
        let answers = self.dump(&RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default()))?;
        Ok(answers.into_iter().filter_map(discipline_of).collect())
    }

    /// Creates a veth pair whose ends share a MAC and know no ARP; both down.
    pub(crate) fn add_veth_pair(&mut self, name: &str, peer: &str, mac: [u8; 6]) -> io::Result<()> {
        let end = |name: &str| {
            let mut message = LinkMessage::default();
            message.header.flags = LinkFlags::Noarp;
            message.header.change_mask = LinkFlags::Noarp;
            message.attributes.push(LinkAttribute::IfName(name.to_owned()));
            message.attributes.push(LinkAttribute::Address(mac.to_vec()));
            message
        };
        let mut message = end(name);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(end(peer)))),
        ]));
        self.tell(&RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Creates a bridge.
    pub(crate) fn add_bridge(&mut self, name: &str) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        self.tell(&RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Gives a device this MAC and no ARP.
    pub(crate) fn set_addressless(&mut self, index: u32, mac: [u8; 6]) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Noarp;
        message.header.change_mask = LinkFlags::Noarp;
        message.attributes.push(LinkAttribute::Address(mac.to_vec()));
        self.tell(&RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Sets a device up.
    pub(crate) fn set_up(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.tell(&RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Deletes a device, and the other end of it if it is a veth.
    pub(crate) fn delete_link(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.tell(&RouteNetlinkMessage::DelLink(message), 0)
    }

    /// Installs an IPv4 route in the main table, in place of one to the same destination.
    pub(crate) fn put_route(&mut self, route: &Route) -> io::Result<()> {
        self.tell(&RouteNetlinkMessage::NewRoute(route_message(route)), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Deletes a route; one that is not there counts as deleted.
    pub(crate) fn delete_route(&mut self, route: &Route) -> io::Result<()> {
        match self.tell(&RouteNetlinkMessage::DelRoute(route_message(route)), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            done => done,
        }
    }

    fn tell(&mut self, message: &RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.request(message, NLM_F_REQUEST | NLM_F_ACK | flags).map(drop)
    }

    /// A dump that was changed under way is asked for again.
    fn dump(&mut self, message: &RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        const ATTEMPTS: usize = 8;
        for _ in 1..ATTEMPTS {
            match self.request(message, NLM_F_REQUEST | NLM_F_DUMP) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
        self.request(message, NLM_F_REQUEST | NLM_F_DUMP)
    }

    fn request(&mut self, message: &RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = NetlinkMessage::from(message.clone());
        packet.header.flags = flags;
        packet.header.sequence_number = self.sequence;
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        self.answers()
    }

    /// Reads up to the acknowledgement, or the end of a dump.
    fn answers(&self) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut answers = Vec::new();
        let mut interrupted = false;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for bytes in messages(&datagram) {
                let header = NetlinkBuffer::new(bytes);
                if header.sequence_number() != self.sequence {
                    continue;
                }
                interrupted |= header.flags() & NLM_F_DUMP_INTR != 0;
                match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).map(|message| message.payload)
                {
                    Ok(NetlinkPayload::InnerMessage(answer)) => answers.push(answer),
                    Ok(NetlinkPayload::Error(error)) if error.code.is_some() => {
                        return Err(io::Error::from_raw_os_error(-error.raw_code()));
                    }
                    Ok(NetlinkPayload::Done(_)) if interrupted => {
                        return Err(io::ErrorKind::Interrupted.into());
                    }
                    Ok(NetlinkPayload::Done(_) | NetlinkPayload::Error(_)) => return Ok(answers),
                    Ok(_) => {}
                    // A device of a kind that is newer than our decoder is not one of those we care for.
                    Err(error) => tracing::debug!(%error, "cannot decode a netlink message"),
                }
            }
        }
    }
}

/// The messages of a datagram; ends at one that claims a length it cannot have.
fn messages(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = NetlinkBuffer::new_checked(rest).ok()?.length() as usize;
        let message = rest.get(..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(message)
    })
}

fn link_of(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: None,
        mac: None,
        mtu: 0,
        master: None,
        peer: None,
        peer_namespace: None,
        up: flags.contains(LinkFlags::Up),
        no_arp: flags.contains(LinkFlags::Noarp),
        loopback: flags.contains(LinkFlags::Loopback),
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::Link(index) => link.peer = Some(index),
            LinkAttribute::LinkNetNsId(id) => link.peer_namespace = Some(id),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(link)
}

fn address_of(message: RouteNetlinkMessage) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    // `Local` is ours where both are given: on a point-to-point link `Address` is the other end.
    let mut ip = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(local) => ip = Some(*local),
            AddressAttribute::Address(other) => ip = ip.or(Some(*other)),
            _ => {}
        }
    }
    let scope = message.header.scope;
    let global = !matches!(scope, AddressScope::Link | AddressScope::Host | AddressScope::Nowhere);
    Some(Address { link: message.header.index, ip: ip?, global })
}

/// One route a next hop.
fn routes_of(message: RouteNetlinkMessage) -> Vec<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return Vec::new() };
    let RouteHeader { destination_prefix_length, table, protocol, kind, .. } = message.header;
    let (mut destination, mut source, mut links) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), None, Vec::new());
    let (mut full_table, mut mtu) = (u32::from(table), None);
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = address.into(),
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => source = Some(address.into()),
            RouteAttribute::Oif(index) => links.push(index),
            RouteAttribute::MultiPath(hops) => links.extend(hops.iter().map(|hop| hop.interface_index)),
            RouteAttribute::Table(number) => full_table = number,
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let main = full_table == u32::from(RouteHeader::RT_TABLE_MAIN);
    let Ok(destination) = IpNet::new(destination, destination_prefix_length) else { return Vec::new() };
    if !main || kind != RouteType::Unicast {
        return Vec::new();
    }
    let protocol = u8::from(protocol);
    links.into_iter().map(|link| Route { destination, link, source, protocol, mtu }).collect()
}

fn route_message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(route.protocol);
    message.header.scope = RouteScope::Link;
    message.header.kind = RouteType::Unicast;
    message.header.destination_prefix_length = route.destination.prefix_len();
    let attributes = &mut message.attributes;
    if let IpAddr::V4(address) = route.destination.network() {
        attributes.push(RouteAttribute::Destination(RouteAddress::Inet(address)));
    }
    attributes.push(RouteAttribute::Oif(route.link));
    if let Some(IpAddr::V4(address)) = route.source {
        attributes.push(RouteAttribute::PrefSource(RouteAddress::Inet(address)));
    }
    if let Some(mtu) = route.mtu {
        attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
    }
    message
}

fn discipline_of(message: RouteNetlinkMessage) -> Option<Discipline> {
    let RouteNetlinkMessage::NewQueueDiscipline(message) = message else { return None };
    let kind = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.clone()),
        _ => None,
    })?;
    let link = message.header.index.try_into().ok()?;
    Some(Discipline { link, kind, ingress: message.header.parent == TcHandle::INGRESS })
}

/// What has changed since the last time, as coarsely as the answer is asked for again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Links, addresses or queueing disciplines of this namespace.
    pub own: bool,
    /// Routes of this namespace.
    pub routes: bool,
    /// Links or addresses of the namespaces with these ids.
    pub namespaces: BTreeSet<i32>,
    /// Events were lost: anything may have changed.
    pub overrun: bool,
}

/// The kernel's events: of this namespace, and of every namespace that has an id here.
#[derive(Debug)]
pub(crate) struct Events {
    socket: AsyncFd<Socket>,
}

impl Events {
    /// In the network namespace of the calling thread, which must be inside a tokio runtime.
    pub(crate) fn open() -> io::Result<Self> {
        /// `RTNLGRP_*` of linux/rtnetlink.h: links, queueing disciplines, addresses, IPv4 routes.
        const GROUPS: [u32; 5] = [1, 4, 5, 9, 7];
        /// A burst of a hundred pods starting at once; beyond it we read everything again.
        const BUFFER: i32 = 1 << 20;
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_rx_buf_sz(BUFFER)?;
        socket.set_listen_all_namespaces(true)?;
        socket.bind_auto()?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        // SAFETY: the socket owns its descriptor and gives it to nobody, so it stays this one until both are dropped.
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(Self { socket })
    }

    /// Waits for a change, and returns all that have come in. Can be dropped while it waits and loses nothing.
    pub(crate) async fn changes(&self) -> io::Result<Changes> {
        loop {
            let mut ready = self.socket.readable().await?;
            let changes = drain(self.socket.get_ref())?;
            ready.clear_ready();
            if changes != Changes::default() {
                return Ok(changes);
            }
        }
    }
}

fn drain(socket: &Socket) -> io::Result<Changes> {
    let mut changes = Changes::default();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match receive(socket, &mut buffer) {
            Ok((length, namespace)) => {
                for message in messages(buffer.get(..length).unwrap_or(&[])) {
                    changes.note(NetlinkBuffer::new(message).message_type(), namespace);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changes),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changes.overrun = true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl Changes {
    fn note(&mut self, kind: u16, namespace: Option<i32>) {
        match (kind, namespace) {
            (libc::RTM_NEWLINK | libc::RTM_DELLINK | libc::RTM_NEWADDR | libc::RTM_DELADDR, Some(id)) => {
                self.namespaces.insert(id);
            }
            (libc::RTM_NEWROUTE | libc::RTM_DELROUTE, None) => self.routes = true,
            (_, None) => self.own = true,
            (_, Some(_)) => {}
        }
    }

    /// Adds what came later.
    pub(crate) fn merge(&mut self, other: Self) {
        let Self { own, routes, namespaces, overrun } = other;
        self.own |= own;
        self.routes |= routes;
        self.namespaces.extend(namespaces);
        self.overrun |= overrun;
    }
}

/// One datagram, and the id of the namespace it comes from if that is not ours.
fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<(usize, Option<i32>)> {
    // Aligned as control messages have to be, and room for more of them than netlink sends.
    let mut control = [0u64; 32];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zeroes is a valid msghdr.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: `message` points at `buffer` and `control` with their lengths, and both outlive the call.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let mut namespace = None;
    // SAFETY: the kernel has filled `control` and said in `message` how far.
    let mut entry = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !entry.is_null() {
        // SAFETY: not null, so the macros found a whole header in `control`.
        let header = unsafe { *entry };
        if header.cmsg_level == libc::SOL_NETLINK && header.cmsg_type == libc::NETLINK_LISTEN_ALL_NSID {
            // SAFETY: the data of this message is an int.
            namespace = Some(unsafe { libc::CMSG_DATA(entry).cast::<i32>().read_unaligned() });
        }
        // SAFETY: as for the first.
        entry = unsafe { libc::CMSG_NXTHDR(&raw const message, entry) };
    }
    Ok((length, namespace.filter(|id| *id >= 0)))
}
