//! Route netlink: links, addresses and queueing disciplines, of this namespace and of those that have an id here;
//! routes (`routes.rs`); and the events that say when to ask again (`events.rs`, `route_events.rs`).
//! Beside it, word of changed nftables tables (`table_events.rs`).
//!
//! Requests are synchronous: the kernel answers a request before `send` returns, so there is nothing to wait for.
//! A [`Netlink`] belongs to the namespace of the thread that opened it, wherever it is used later.
//! With `NETLINK_GET_STRICT_CHK` the kernel heeds the target namespace of a dump instead of ignoring it.
//! Absent: what the answers mean (`node/links.rs`).

mod events;
mod filter;
mod route_events;
mod routes;
mod table_events;

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REQUEST, NetlinkBuffer,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

pub(crate) use events::{Changes, Events};
pub(crate) use route_events::{Notice, RouteEvents};
pub(crate) use routes::{Route, Write};
pub(crate) use table_events::TableEvents;

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
    /// Whom it makes a neighbour: its subnet, or the other end of a point-to-point link.
    pub network: IpNet,
    /// Valid beyond its link and its host.
    pub global: bool,
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

    /// What events name the cause by of what this socket is told to do.
    pub(crate) fn port(&self) -> io::Result<u32> {
        let mut address = SocketAddr::new(0, 0);
        self.socket.get_address(&mut address)?;
        Ok(address.port_number())
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

    /// Every queueing discipline.
    pub(crate) fn disciplines(&mut self) -> io::Result<Vec<Discipline>> {
        let answers = self.dump(&RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default()))?;
        Ok(answers.into_iter().filter_map(discipline_of).collect())
    }

    /// The program of the filter with this priority and handle on each device that has clsact, on either side; a device
    /// that goes meanwhile has none.
    pub(crate) fn filter_programs(&mut self, priority: u16, handle: u32) -> io::Result<Vec<u32>> {
        let mut programs = Vec::new();
        for discipline in self.disciplines()?.into_iter().filter(|discipline| discipline.kind == "clsact") {
            for minor in [TcHandle::MIN_INGRESS, TcHandle::MIN_EGRESS] {
                let mut message = TcMessage::default();
                message.header.index = discipline.link.cast_signed();
                message.header.parent = TcHandle { major: u16::MAX, minor };
                match self.dump(&RouteNetlinkMessage::GetTrafficFilter(message)) {
                    Ok(answers) => programs.extend(
                        answers.into_iter().filter_map(|answer| program_of(answer, priority, handle)),
                    ),
                    Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EINVAL)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(programs)
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
        self.send(message, flags)?;
        let mut answers = Vec::new();
        self.receive_all(&mut |bytes| {
            match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).map(|message| message.payload) {
                Ok(NetlinkPayload::InnerMessage(answer)) => answers.push(answer),
                Ok(_) => {}
                // A device of a kind that is newer than our decoder is not one of those we care for.
                Err(error) => tracing::debug!(%error, "cannot decode a netlink message"),
            }
        })?;
        Ok(answers)
    }

    fn send(&mut self, message: &RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.append(message, flags, &mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }

    /// Adds a request with the next sequence number.
    fn append(&mut self, message: &RouteNetlinkMessage, flags: u16, bytes: &mut Vec<u8>) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = NetlinkMessage::from(message.clone());
        packet.header.flags = flags;
        packet.header.sequence_number = self.sequence;
        packet.finalize();
        let start = bytes.len();
        bytes.resize((start + packet.buffer_len()).next_multiple_of(4), 0);
        if let Some(place) = bytes.get_mut(start..) {
            packet.serialize(place);
        }
    }

    /// Hands every answer to the last request to `each`, up to the acknowledgement, or the end of a dump.
    fn receive_all(&self, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let mut interrupted = false;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for message in messages(&datagram) {
                let header = NetlinkBuffer::new(message);
                if header.sequence_number() != self.sequence {
                    continue;
                }
                interrupted |= header.flags() & NLM_F_DUMP_INTR != 0;
                match errno(header.message_type(), header.payload()) {
                    Some(0) => return Ok(()),
                    Some(code) => return Err(io::Error::from_raw_os_error(code)),
                    None if i32::from(header.message_type()) != libc::NLMSG_DONE => each(message),
                    None if interrupted => return Err(io::ErrorKind::Interrupted.into()),
                    None => return Ok(()),
                }
            }
        }
    }
}

/// The positive errno of an answer: 0 for an acknowledgement; `None` for any other message.
fn errno(kind: u16, payload: &[u8]) -> Option<i32> {
    let code = payload.first_chunk().map(|code| i32::from_ne_bytes(*code))?;
    (i32::from(kind) == libc::NLMSG_ERROR).then_some(code.wrapping_neg())
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
    let (mut ip, mut other) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(local) => ip = Some(*local),
            AddressAttribute::Address(address) => other = Some(*address),
            _ => {}
        }
    }
    let ip = ip.or(other)?;
    let network = IpNet::new(other.unwrap_or(ip), message.header.prefix_len).ok()?.trunc();
    let scope = message.header.scope;
    let global = !matches!(scope, AddressScope::Link | AddressScope::Host | AddressScope::Nowhere);
    Some(Address { link: message.header.index, ip, network, global })
}

fn program_of(message: RouteNetlinkMessage, priority: u16, handle: u32) -> Option<u32> {
    let RouteNetlinkMessage::NewTrafficFilter(message) = message else { return None };
    let is_it =
        message.header.info >> 16 == u32::from(priority) && u32::from(message.header.handle) == handle;
    let mut options = message.attributes.into_iter().filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    let id = |option: &TcOption| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
        _ => None,
    };
    options.find_map(|options| options.iter().find_map(id)).filter(|_| is_it)
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
