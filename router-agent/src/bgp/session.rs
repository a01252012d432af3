//! A configured neighbour: the state machine, and the connections under it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use router_bgp::asn::Asn;
use router_bgp::family::{Families, Family};
use router_bgp::message::capability::Capability;
use router_bgp::message::header::MAX_LEN;
use router_bgp::message::notification::Notification;
use router_bgp::message::update::Update;
use router_bgp::restart::Progress;
use router_bgp::rib::{PeerFacts, PeerId};
use router_bgp::session::{
    ConnectionId, DownReason, Input, Output, Peer, PeerConfig, RestartTerms, Session, State,
};
use router_core::peering;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::config::GracefulRestart;

use super::sockets::{Arrivals, Link, Reach, dial};

/// Prefixes that a peer may send. Beyond it the session ends: no neighbour of a node has that many.
const PREFIX_LIMIT: usize = 1 << 20;

/// The longest wait between two dials.
const CONNECT_RETRY: Duration = Duration::from_mins(2);

/// What a neighbour's inputs came to, for the tables and the log.
#[derive(Debug)]
pub(super) enum Outcome {
    Up,
    /// The routes of these families are kept.
    Down(DownReason, Families),
    /// What is still stale in these families goes.
    Sweep(Families),
    Update(Update),
    Refresh(Family),
    Said {
        received: bool,
        notification: Notification,
    },
}

/// Terms of our own, the same for all.
#[derive(Clone, Debug)]
pub(super) struct Ourselves {
    pub(super) asn: Asn,
    pub(super) router_id: std::net::Ipv4Addr,
    pub(super) address: IpAddr,
    pub(super) hold_time: u16,
    pub(super) host_name: String,
    pub(super) graceful_restart: Option<GracefulRestart>,
}

#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) id: PeerId,
    pub(super) address: IpAddr,
    pub(super) wanted: peering::Neighbour,
    pub(super) machine: Peer,
    links: BTreeMap<ConnectionId, Link>,
    dialling: Option<JoinHandle<()>>,
    next_connection: u64,
    local: IpAddr,
    reach: Reach,
    arrivals: Arrivals,
    /// UPDATEs written in the whole life of the neighbour.
    pub(super) updates_sent: u64,
    pub(super) up_at: Option<Duration>,
    pub(super) down_at: Option<Duration>,
    pub(super) last_down: Option<DownReason>,
    /// Of this session, the families whose whole table the peer has sent.
    pub(super) end_of_rib: Families,
}

impl Neighbour {
    pub(super) fn new(
        id: PeerId,
        address: IpAddr,
        wanted: peering::Neighbour,
        ourselves: &Ourselves,
        restarting: bool,
        arrivals: Arrivals,
    ) -> Self {
        let peer_asn = Asn(wanted.asn);
        // A peer that is back defers its table no longer than we would, if it has been told the same.
        let graceful_restart = ourselves.graceful_restart.map(|ours| RestartTerms {
            restart_time: ours.restart_time,
            restarting,
            patience: ours.deferral_time,
        });
        let config = PeerConfig {
            local_asn: ourselves.asn,
            peer_asn,
            router_id: ourselves.router_id,
            hold_time: ourselves.hold_time,
            connect_retry: CONNECT_RETRY,
            families: Families::NONE.with(Family::Ipv4Unicast),
            capabilities: vec![Capability::Fqdn {
                host: ourselves.host_name.as_str().into(),
                domain: "".into(),
            }],
            graceful_restart,
            seed: seed(ourselves.router_id, address),
        };
        let reach = if peer_asn == ourselves.asn { Reach::Any } else { Reach::OneHop };
        Self {
            id,
            address,
            wanted,
            machine: Peer::new(config),
            links: BTreeMap::new(),
            dialling: None,
            next_connection: 0,
            local: ourselves.address,
            reach,
            arrivals,
            updates_sent: 0,
            up_at: None,
            down_at: None,
            last_down: None,
            end_of_rib: Families::NONE,
        }
    }

    pub(super) fn is_established(&self) -> bool {
        self.machine.state() == State::Established
    }

    /// The established session's connection.
    pub(super) fn link(&self) -> Option<&Link> {
        self.links.get(&self.machine.session()?.connection)
    }

    /// How far it is with telling us its table.
    pub(super) fn progress(&self) -> Progress {
        let Some(session) = self.machine.session() else { return Progress::Absent };
        if session.context.families.iter().all(|family| self.end_of_rib.contains(family)) {
            return Progress::Whole;
        }
        let awaited = session.graceful_restart.as_ref().is_some_and(|restart| !restart.restarting);
        Progress::Telling { awaited }
    }

    /// Whether it keeps our routes while we restart.
    pub(super) fn keeps_routes(&self) -> bool {
        self.machine.session().is_some_and(|session| session.graceful_restart.is_some())
    }

    /// What the tables have to know of the established session.
    pub(super) fn facts(&self) -> Option<PeerFacts> {
        let session = self.machine.session()?;
        let Session { context, peer_asn, router_id, .. } = session;
        Some(PeerFacts {
            address: self.address,
            asn: *peer_asn,
            router_id: *router_id,
            families: context.families,
            four_octet: context.four_octet,
            extended_messages: context.max_len > MAX_LEN,
            local_address: context.local.unwrap_or(self.local),
            other_address: None,
            extended_next_hop: context.extended_next_hop,
            shared_subnet: None,
            prefix_limit: Some(PREFIX_LIMIT),
        })
    }

    pub(super) fn handle(&mut self, input: Input<'_>, now: Duration) -> Vec<Outcome> {
        self.machine.handle(input, now);
        self.carry_out(now)
    }

    pub(super) fn tick(&mut self, now: Duration) -> Vec<Outcome> {
        self.machine.tick(now);
        self.carry_out(now)
    }

    /// A connection, dialled or accepted.
    pub(super) fn connected(&mut self, stream: TcpStream, outgoing: bool, now: Duration) -> Vec<Outcome> {
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        if outgoing {
            self.dialling = None;
        }
        match Link::start(self.id, connection, stream, self.reach, self.arrivals.clone()) {
            Ok(link) => {
                let local = link.local.ip();
                self.links.insert(connection, link);
                self.handle(Input::Connected { connection, outgoing, local }, now)
            }
            // It broke before it was ours.
            Err(_) if outgoing => self.handle(Input::ConnectFailed, now),
            Err(_) => Vec::new(),
        }
    }

    pub(super) fn dial_failed(&mut self, now: Duration) -> Vec<Outcome> {
        self.dialling = None;
        self.handle(Input::ConnectFailed, now)
    }

    pub(super) fn wrote(&mut self, connection: ConnectionId, length: usize, now: Duration) {
        if let Some(link) = self.links.get_mut(&connection) {
            link.pending = link.pending.saturating_sub(length);
            self.machine.handle(Input::SendProgress(connection), now);
            if link.pending > 0 {
                self.machine.handle(Input::SendBlocked(connection), now);
            }
        }
    }

    /// Octets that wait to be written on the session.
    pub(super) fn pending(&self) -> usize {
        self.link().map_or(0, |link| link.pending)
    }

    /// Queues UPDATEs on the session.
    pub(super) fn send_updates(&mut self, messages: Vec<Arc<[u8]>>, now: Duration) {
        let Some(connection) = self.machine.session().map(|session| session.connection) else { return };
        let Some(link) = self.links.get_mut(&connection) else { return };
        self.updates_sent += messages.len() as u64;
        for message in messages {
            link.send(message);
        }
        self.machine.handle(Input::SendBlocked(connection), now);
    }

    /// Queues one of the machine's own messages. Also a KEEPALIVE that stays unread ends the session one day.
    fn send(&mut self, connection: ConnectionId, bytes: Vec<u8>, now: Duration) {
        if let Some(link) = self.links.get_mut(&connection) {
            link.send(bytes.into());
            self.machine.handle(Input::SendBlocked(connection), now);
        }
    }

    fn carry_out(&mut self, now: Duration) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Connect => {
                    let remote = SocketAddr::new(self.address, self.wanted.port);
                    let task = dial(self.id, self.local, remote, self.reach, self.arrivals.clone());
                    self.give_up_dialling();
                    self.dialling = Some(task);
                }
                Output::Abort => self.give_up_dialling(),
                Output::Send(connection, bytes) => self.send(connection, bytes, now),
                Output::Close(connection) => drop(self.links.remove(&connection)),
                Output::Up(_) => {
                    self.up_at = Some(now);
                    self.end_of_rib = Families::NONE;
                    outcomes.push(Outcome::Up);
                }
                Output::Down(reason, kept) => {
                    self.down_at = Some(now);
                    self.last_down = Some(reason.clone());
                    outcomes.push(Outcome::Down(reason, kept));
                }
                Output::Sweep(families) => outcomes.push(Outcome::Sweep(families)),
                Output::Update(update) => {
                    if let Some(family) = update.end_of_rib {
                        self.end_of_rib = self.end_of_rib.with(family);
                    }
                    outcomes.push(Outcome::Update(update));
                }
                Output::Refresh(family) => outcomes.push(Outcome::Refresh(family)),
                Output::Notification { received, notification } => {
                    outcomes.push(Outcome::Said { received, notification });
                }
            }
        }
        outcomes
    }

    fn give_up_dialling(&mut self) {
        if let Some(task) = self.dialling.take() {
            task.abort();
        }
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.give_up_dialling();
    }
}

/// Different for each pair, and the same at each start.
fn seed(router_id: std::net::Ipv4Addr, peer: IpAddr) -> u64 {
    let mut hasher = DefaultHasher::new();
    (router_id, peer).hash(&mut hasher);
    hasher.finish()
}
