//! Between the kernel's messages and what the agent knows of: devices, addresses, routes, queueing disciplines.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::tc::{TcAttribute, TcHandle};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Address, Discipline, Link, Route};

pub(super) fn link_of(message: RouteNetlinkMessage) -> Option<Link> {
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

pub(super) fn address_of(message: RouteNetlinkMessage) -> Option<Address> {
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
pub(super) fn routes_of(message: RouteNetlinkMessage) -> Vec<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return Vec::new() };
    let RouteHeader { destination_prefix_length, table, protocol, kind, .. } = message.header;
    let (mut destination, mut source, mut links) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), None, Vec::new());
    let mut full_table = u32::from(table);
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = address.into(),
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => source = Some(address.into()),
            RouteAttribute::Oif(index) => links.push(index),
            RouteAttribute::MultiPath(hops) => links.extend(hops.iter().map(|hop| hop.interface_index)),
            RouteAttribute::Table(number) => full_table = number,
            _ => {}
        }
    }
    let main = full_table == u32::from(RouteHeader::RT_TABLE_MAIN);
    let Ok(destination) = IpNet::new(destination, destination_prefix_length) else { return Vec::new() };
    if !main || kind != RouteType::Unicast {
        return Vec::new();
    }
    let protocol = u8::from(protocol);
    links.into_iter().map(|link| Route { destination, link, source, protocol }).collect()
}

pub(super) fn route_message(route: &Route) -> RouteMessage {
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
    message
}

pub(super) fn discipline_of(message: RouteNetlinkMessage) -> Option<Discipline> {
    let RouteNetlinkMessage::NewQueueDiscipline(message) = message else { return None };
    let kind = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.clone()),
        _ => None,
    })?;
    let link = message.header.index.try_into().ok()?;
    Some(Discipline { link, kind, ingress: message.header.parent == TcHandle::INGRESS })
}
