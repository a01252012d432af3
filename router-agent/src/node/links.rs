//! What the kernel says of this node's devices: pods' veths and what lies behind them, uplinks, the bridge, and the
//! node's own addresses.
//!
//! A pod's veth is a veth that is a port of `kube-bridge`. Its addresses and MAC are asked of the kernel through the
//! id that the other end's namespace has here (`IFLA_LINK_NETNSID`, then `IFLA_TARGET_NETNSID`), never learned from
//! ARP or the bridge's forwarding table, which any pod can forge. No path to the namespace, no CRI and no hostPID is
//! needed.
//!
//! [`view`] and [`difference`] are pure; [`Watcher`] reads and waits. Every event means "ask again", so a lost one
//! costs a question, and nothing is ever derived from the order of events.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use router_core::cluster::{Event, Kind};
use router_core::model::link::LinkEvent;
use router_core::plan::fib::PROTOCOL as LEARNED;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use crate::sys::netlink::{Address, Changes, Discipline, Events, Link, Netlink, Route};

use super::service_link::{FAR, NEAR, PROTOCOL, ServiceLink};

/// The bridge that the CNI plugin makes pods ports of.
pub(crate) const BRIDGE: &str = "kube-bridge";
/// Where an IPVS kube-router keeps VIPs.
const DUMMY: &str = "kube-dummy-if";

/// Events that come within this time of one another are answered together.
const DEBOUNCE: Duration = Duration::from_millis(3);
/// The same where only routes have changed, which a routing daemon does in bursts.
const ROUTE_DEBOUNCE: Duration = Duration::from_millis(100);
/// When a port without an address is looked at again, counted from when it appeared.
const ASK_AGAIN: [Duration; 4] = [
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
];
/// When everything is read again unprompted.
const AUDIT: Duration = Duration::from_mins(1);

/// What was read of this namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub links: Vec<Link>,
    pub addresses: Vec<Address>,
    pub routes: Vec<Route>,
    pub disciplines: Vec<Discipline>,
}

/// What lies at the other end of a pod's veth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub mac: [u8; 6],
    /// Sorted; none: the pod has no address yet.
    pub addresses: Vec<IpAddr>,
}

/// A pod's veth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub name: String,
    pub peer: Option<Peer>,
    /// It has a queueing discipline of its own, which our fast path would go around.
    pub no_fast: bool,
}

/// The devices by what they are to us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub bridge: Option<(u32, [u8; 6])>,
    pub ports: BTreeMap<u32, Port>,
    pub uplinks: BTreeMap<u32, String>,
    pub service: Option<ServiceLink>,
    pub node_addresses: BTreeSet<IpAddr>,
    /// The smallest MTU of the devices by which a packet to a VIP may leave: uplinks and the bridge.
    pub mtu: Option<u32>,
    /// What is routed to `kube-svc`.
    pub service_routes: BTreeSet<IpNet>,
}

/// Sorts a snapshot. `peers` holds what is known behind ports, by their index.
pub(crate) fn view(snapshot: &Snapshot, peers: &BTreeMap<u32, Peer>) -> View {
    let links = &snapshot.links;
    let bridge = links.iter().find(|link| link.name == BRIDGE && link.kind.as_deref() == Some("bridge"));
    let ports = ports(snapshot)
        .map(|link| {
            let port = Port {
                name: link.name.clone(),
                peer: peers.get(&link.index).cloned(),
                no_fast: has_own_discipline(snapshot, link.index),
            };
            (link.index, port)
        })
        .collect();
    View {
        bridge: bridge.and_then(|link| Some((link.index, link.mac?))),
        ports,
        uplinks: links
            .iter()
            .filter(|link| is_uplink(snapshot, link))
            .map(|link| (link.index, link.name.clone()))
            .collect(),
        service: ServiceLink::among(links),
        node_addresses: node_addresses(snapshot),
        mtu: links
            .iter()
            .filter(|link| link.name == BRIDGE || is_uplink(snapshot, link))
            .map(|link| link.mtu)
            .min(),
        service_routes: snapshot
            .routes
            .iter()
            .filter(|route| route.protocol == PROTOCOL)
            .map(|route| route.destination)
            .collect(),
    }
}

/// Veths that are ports of the bridge.
fn ports(snapshot: &Snapshot) -> impl Iterator<Item = &Link> {
    let bridge = snapshot.links.iter().find(|link| link.name == BRIDGE).map(|link| link.index);
    snapshot
        .links
        .iter()
        .filter(move |link| bridge.is_some() && link.master == bridge && link.kind.as_deref() == Some("veth"))
}

fn has_own_discipline(snapshot: &Snapshot, index: u32) -> bool {
    snapshot
        .disciplines
        .iter()
        .any(|found| found.link == index && !matches!(found.kind.as_str(), "noqueue" | "clsact"))
}

/// Every Ethernet device with a global IPv4 address or a route, except those that lead to us or to pods.
fn is_uplink(snapshot: &Snapshot, link: &Link) -> bool {
    let excluded =
        [BRIDGE, NEAR, FAR, DUMMY].contains(&link.name.as_str()) || link.name.starts_with("docker");
    // A VRF's member is an uplink of that VRF; a member of a bridge or bond leads there.
    let master = link.master.and_then(|index| snapshot.links.iter().find(|other| other.index == index));
    let member = master.is_some_and(|master| master.kind.as_deref() != Some("vrf"));
    let addressed = || {
        snapshot
            .addresses
            .iter()
            .any(|address| address.link == link.index && address.global && address.ip.is_ipv4())
    };
    let routed = || snapshot.routes.iter().any(|route| route.links().any(|used| used == link.index));
    link.ethernet && !link.loopback && !excluded && !member && (addressed() || routed())
}

fn node_addresses(snapshot: &Snapshot) -> BTreeSet<IpAddr> {
    let outside: BTreeSet<u32> = snapshot
        .links
        .iter()
        .filter(|link| !link.loopback && link.name != DUMMY)
        .map(|link| link.index)
        .collect();
    snapshot
        .addresses
        .iter()
        .filter(|found| found.global && outside.contains(&found.link) && !found.ip.is_loopback())
        .map(|found| found.ip)
        .collect()
}

/// What leads from one view to the next: what goes first, then what comes.
pub(crate) fn difference(old: &View, new: &View) -> Vec<LinkEvent> {
    let mut events = Vec::new();
    let bound = |view: &View, index: u32| view.ports.get(&index).and_then(|port| bound(index, port));
    for index in
        old.ports.keys().filter(|index| bound(old, **index).is_some() && bound(new, **index).is_none())
    {
        events.push(LinkEvent::Unbound { ifindex: *index });
    }
    for ifindex in old.uplinks.keys().filter(|index| !new.uplinks.contains_key(index)) {
        events.push(LinkEvent::UplinkGone { ifindex: *ifindex });
    }
    match (old.bridge, new.bridge) {
        (Some(_), None) => events.push(LinkEvent::BridgeGone),
        (before, Some(now)) if before != Some(now) => {
            events.push(LinkEvent::Bridge { ifindex: now.0, mac: now.1 });
        }
        _ => {}
    }
    if old.node_addresses != new.node_addresses {
        events.push(LinkEvent::NodeAddresses(new.node_addresses.clone()));
    }
    for (ifindex, name) in new.uplinks.iter().filter(|(index, name)| old.uplinks.get(index) != Some(name)) {
        events.push(LinkEvent::Uplink { ifindex: *ifindex, name: name.clone() });
    }
    for index in new.ports.keys() {
        let now = bound(new, *index);
        if now != bound(old, *index) {
            events.extend(now);
        }
    }
    events
}

fn bound(ifindex: u32, port: &Port) -> Option<LinkEvent> {
    let Port { name, peer, no_fast } = port;
    let Peer { mac, addresses } = peer.as_ref()?;
    (!addresses.is_empty()).then(|| LinkEvent::Bound {
        ifindex,
        name: name.clone(),
        mac: *mac,
        addresses: addresses.clone(),
        no_fast: *no_fast,
    })
}

/// Reads the kernel, and remembers what it said.
#[derive(Debug)]
pub(crate) struct Reader {
    netlink: Netlink,
    snapshot: Snapshot,
    peers: BTreeMap<u32, Peer>,
}

impl Reader {
    /// In the network namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { netlink: Netlink::open()?, snapshot: Snapshot::default(), peers: BTreeMap::new() })
    }

    /// Reads what `changes` says may be different, and the ports that had no address so far.
    pub(crate) fn read(&mut self, changes: &Changes) -> io::Result<View> {
        let before: BTreeMap<u32, Option<i32>> =
            ports(&self.snapshot).map(|port| (port.index, port.peer_namespace)).collect();
        // An event from a namespace where no port of ours ends: perhaps one has just come to end there.
        let known: BTreeSet<i32> = before.values().copied().flatten().collect();
        let foreign = changes.namespaces.iter().any(|id| !known.contains(id));
        let all = changes.overrun;
        if all || changes.own || foreign {
            self.snapshot.links = self.netlink.links()?;
            self.snapshot.addresses = self.netlink.addresses(None)?;
            self.snapshot.disciplines = self.netlink.disciplines()?;
        }
        if all || changes.routes {
            // Learned routes lead only where an address of ours is, which makes an uplink by itself; there may be
            // many, and their events are not heard.
            self.snapshot.routes = self.netlink.routes(None)?;
            self.snapshot.routes.retain(|route| route.protocol != LEARNED);
        }
        let ports: Vec<Link> = ports(&self.snapshot).cloned().collect();
        self.peers.retain(|index, _| ports.iter().any(|port| port.index == *index));
        for port in &ports {
            let touched = port.peer_namespace.is_some_and(|id| changes.namespaces.contains(&id));
            let moved = before.get(&port.index) != Some(&port.peer_namespace);
            let bare = self.peers.get(&port.index).is_none_or(|peer| peer.addresses.is_empty());
            if all || touched || moved || bare {
                match self.ask(port)? {
                    Some(peer) => self.peers.insert(port.index, peer),
                    None => self.peers.remove(&port.index),
                };
            }
        }
        Ok(view(&self.snapshot, &self.peers))
    }

    /// What the kernel says of the other end of a port. A veth whose ends are both here leads to no pod.
    fn ask(&mut self, port: &Link) -> io::Result<Option<Peer>> {
        let (Some(index), Some(namespace)) = (port.peer, port.peer_namespace) else { return Ok(None) };
        let answers = self.netlink.link(index, Some(namespace)).and_then(|link| {
            let addresses = self.netlink.addresses(Some(namespace))?;
            Ok((link, addresses))
        });
        let (link, addresses) = match answers {
            Ok(answers) => answers,
            // The namespace went between two questions; its port's event is on the way.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(mac) = link.and_then(|link| link.mac) else { return Ok(None) };
        let mut addresses: Vec<IpAddr> = addresses
            .into_iter()
            .filter(|found| found.link == index && found.global)
            .map(|found| found.ip)
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        Ok(Some(Peer { mac, addresses }))
    }
}

/// Follows the kernel.
#[derive(Debug)]
pub(crate) struct Watcher {
    events: Events,
    reader: Reader,
    view: View,
    /// When each port without an address appeared, and how often it was asked since.
    waiting: BTreeMap<u32, (Instant, usize)>,
}

impl Watcher {
    /// In the network namespace of the calling thread, which must be inside a tokio runtime.
    pub(crate) fn open() -> Result<Self> {
        // Events first: what changes between the two is then reported, not lost.
        let events = Events::open(LEARNED).context("cannot listen to netlink events")?;
        let reader = Reader::open().context("cannot open a netlink socket")?;
        Ok(Self { events, reader, view: View::default(), waiting: BTreeMap::new() })
    }

    /// Reads everything, then follows. At each change `prepare` is called first, so that programs are attached and
    /// `meta` is right before anybody hears of a device; it is told whether this is an audit, in which it should
    /// take nothing for granted. Ends when nobody listens any more.
    pub(crate) async fn run(
        mut self,
        sender: mpsc::Sender<Event>,
        mut prepare: impl FnMut(&View, bool) + Send,
    ) -> Result<()> {
        let mut changes = Changes { overrun: true, ..Changes::default() };
        let mut audit = Instant::now() + AUDIT;
        let mut listed = false;
        loop {
            let view = self.reader.read(&changes).context("cannot read devices from the kernel")?;
            let auditing = changes.overrun;
            if auditing || view != self.view || changes.own || changes.routes {
                prepare(&view, auditing);
            }
            for event in difference(&self.view, &view) {
                if sender.send(Event::Link(event)).await.is_err() {
                    return Ok(());
                }
            }
            if !listed && sender.send(Event::Listed(Kind::Links)).await.is_err() {
                return Ok(());
            }
            listed = true;
            self.view = view;
            changes = self.next(&mut audit).await?;
        }
    }

    /// Waits for changes, for a port that is due, or for the audit.
    async fn next(&mut self, audit: &mut Instant) -> Result<Changes> {
        let due = self.due();
        tokio::select! {
            changes = self.events.changes() => Ok(self.gather(changes?).await?),
            () = sleep_until(due.unwrap_or(*audit).min(*audit)) => {
                let overrun = Instant::now() >= *audit;
                if overrun {
                    *audit = Instant::now() + AUDIT;
                }
                Ok(Changes { overrun, ..Changes::default() })
            }
        }
    }

    /// What comes shortly after belongs to the same happening.
    async fn gather(&self, mut changes: Changes) -> io::Result<Changes> {
        let only_routes = !changes.own && !changes.overrun && changes.namespaces.is_empty();
        let pause = if only_routes { ROUTE_DEBOUNCE } else { DEBOUNCE };
        let end = Instant::now() + pause;
        while let Ok(more) =
            timeout(end.saturating_duration_since(Instant::now()), self.events.changes()).await
        {
            changes.merge(more?);
        }
        Ok(changes)
    }

    /// When the next port without an address is asked again; counts that as done.
    fn due(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let bare: BTreeSet<u32> = self
            .view
            .ports
            .iter()
            .filter(|(index, port)| bound(**index, port).is_none())
            .map(|(index, _)| *index)
            .collect();
        self.waiting.retain(|index, _| bare.contains(index));
        for index in bare {
            self.waiting.entry(index).or_insert((now, 0));
        }
        let mut next = None;
        for (since, asked) in self.waiting.values_mut() {
            while ASK_AGAIN.get(*asked).is_some_and(|after| *since + *after <= now) {
                *asked += 1;
            }
            let at = ASK_AGAIN.get(*asked).map(|after| *since + *after);
            next = [next, at].into_iter().flatten().min();
        }
        next
    }
}

#[cfg(test)]
mod tests;
