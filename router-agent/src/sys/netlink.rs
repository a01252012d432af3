//! Route netlink: links, addresses, routes and queueing disciplines, of this namespace and of those that have an
//! id here; and the events that say when to ask again.
//!
//! Requests are synchronous: the kernel answers a request before `send` returns, so there is nothing to wait for.
//! A [`Netlink`] belongs to the namespace of the thread that opened it, wherever it is used later.
//! With `NETLINK_GET_STRICT_CHK` the kernel heeds the target namespace of a dump instead of ignoring it.
//! Absent: what the answers mean (`node/links.rs`).

mod events;
mod messages;

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkBuffer, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{RouteHeader, RouteMessage, RouteProtocol};
use netlink_packet_route::tc::TcMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

pub(crate) use self::events::{Changes, Events};

use self::messages::{address_of, discipline_of, link_of, route_message, routes_of};

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

    /// Sets a device's MTU in bytes.
    pub(crate) fn set_mtu(&mut self, index: u32, mtu: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::Mtu(mtu));
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
            for bytes in split(&datagram) {
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
fn split(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = NetlinkBuffer::new_checked(rest).ok()?.length() as usize;
        let message = rest.get(..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(message)
    })
}
