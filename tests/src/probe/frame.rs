//! Frames that the kernel would not send for us: a claim to another's address, and a packet from it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd as _,
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, PacketBuilder};
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{MsgFlags, send},
};

use super::{ProbeResult, arguments::Arguments, print, sys};

/// How long the gateway has to answer our ARP request.
const NEIGHBOUR: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mac(pub(super) [u8; 6]);

const BROADCAST: Mac = Mac([0xff; 6]);

/// A gratuitous ARP request, which says to all: this address is at this MAC.
pub(super) fn arp(mut arguments: Arguments) -> Result<()> {
    let device: String = arguments.required("--device")?;
    let claim: Ipv4Addr = arguments.required("--claim")?;
    let mac = arguments.option("--mac")?;
    arguments.end()?;
    let mac = mac.map_or_else(|| mac_of(&device), Ok)?;
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        ArpOperation::REQUEST,
        &mac.0,
        &claim.octets(),
        &BROADCAST.0,
        &claim.octets(),
    )
    .context("build the ARP packet")?;
    let builder = PacketBuilder::ethernet2(mac.0, BROADCAST.0).arp(packet);
    let mut frame = Vec::with_capacity(builder.size());
    builder.write(&mut frame).context("write the ARP packet")?;
    transmit(&device, &frame, claim.to_string())
}

/// A UDP packet with a source of our choice, sent to the gateway like any other.
pub(super) fn spoof(mut arguments: Arguments) -> Result<()> {
    let device: String = arguments.required("--device")?;
    let source = endpoint(&arguments.required::<String>("--source")?)?;
    let destination: SocketAddrV4 = arguments.required("--destination")?;
    let gateway = arguments.option("--gateway-mac")?;
    let protocol: String = arguments.word("udp")?;
    arguments.end()?;
    if protocol != "udp" {
        bail!("only udp can be spoofed, not {protocol}");
    }
    let gateway = gateway.map_or_else(|| gateway_mac(&device), Ok)?;
    let builder = PacketBuilder::ethernet2(mac_of(&device)?.0, gateway.0)
        .ipv4(source.ip().octets(), destination.ip().octets(), 64)
        .udp(source.port(), destination.port());
    let payload = b"spoofed\n";
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, payload).context("write the UDP packet")?;
    transmit(&device, &frame, source.to_string())
}

fn transmit(device: &str, frame: &[u8], source: String) -> Result<()> {
    let socket = sys::frame_socket(device)?;
    let sent = send(socket.as_raw_fd(), frame, MsgFlags::empty());
    let error = sent.err().map(|errno| errno.desc().to_lowercase());
    print(&ProbeResult { ok: error.is_none(), source: Some(source), error, ..ProbeResult::default() })
}

/// `IP` or `IP:PORT`; without a port it is one that nobody listens on.
fn endpoint(text: &str) -> Result<SocketAddrV4> {
    let parsed = match text.parse::<Ipv4Addr>() {
        Ok(address) => Ok(SocketAddrV4::new(address, 40_000)),
        Err(_) => text.parse(),
    };
    parsed.with_context(|| format!("{text} is neither an address nor an address and port"))
}

pub(super) fn mac_of(device: &str) -> Result<Mac> {
    getifaddrs()
        .context("list the links")?
        .filter(|link| link.interface_name == device)
        .find_map(|link| link.address?.as_link_addr()?.addr())
        .map(Mac)
        .with_context(|| format!("{device} has no MAC"))
}

/// The first IPv4 address of a link.
pub(super) fn address_of(device: &str) -> Result<Ipv4Addr> {
    getifaddrs()
        .context("list the links")?
        .filter(|link| link.interface_name == device)
        .find_map(|link| Some(link.address?.as_sockaddr_in()?.ip()))
        .with_context(|| format!("{device} has no IPv4 address"))
}

/// From the neighbour table, which a datagram to the gateway fills.
pub(super) fn gateway_mac(device: &str) -> Result<Mac> {
    let gateway = gateway(device)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("open a UDP socket")?;
    let deadline = Instant::now() + NEIGHBOUR;
    loop {
        if let Some(mac) = neighbour(device, gateway)? {
            return Ok(mac);
        }
        if Instant::now() > deadline {
            bail!("the gateway {gateway} does not answer on {device}");
        }
        // The discard port: only the ARP request before it matters.
        socket.send_to(b"\n", (gateway, 9)).with_context(|| format!("send to the gateway {gateway}"))?;
        thread::sleep(Duration::from_millis(20));
    }
}

/// The default gateway on this link. The kernel's table shows addresses as native integers in hexadecimal.
fn gateway(device: &str) -> Result<Ipv4Addr> {
    let table = fs::read_to_string("/proc/self/net/route").context("read the routes")?;
    table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find_map(|row| match row.as_slice() {
            [link, "00000000", gateway, ..] if *link == device => u32::from_str_radix(gateway, 16).ok(),
            _ => None,
        })
        .map(|raw| Ipv4Addr::from(raw.to_ne_bytes()))
        .with_context(|| format!("{device} has no default route"))
}

fn neighbour(device: &str, address: Ipv4Addr) -> Result<Option<Mac>> {
    let table = fs::read_to_string("/proc/self/net/arp").context("read the neighbours")?;
    let address = address.to_string();
    let mac = table.lines().skip(1).find_map(|line| {
        let row: Vec<_> = line.split_whitespace().collect();
        match row.as_slice() {
            [ip, _, _, mac, _, link] if *ip == address && *link == device => mac.parse().ok(),
            _ => None,
        }
    });
    Ok(mac.filter(|mac| *mac != Mac([0; 6])))
}

impl FromStr for Mac {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
        let bytes = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
        bytes.map(Self).with_context(|| format!("{text} is no MAC"))
    }
}
