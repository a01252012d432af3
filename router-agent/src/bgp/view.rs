//! What the speaker tells about itself, and how it is asked: values for whoever shows them (the admin API, the `bgp`
//! command, metrics). A question travels by channel to the one task that owns the speaker's state and is answered there,
//! between two events of the network; what is costly about an answer (bytes, text) is done by who asked.
//!
//! A moment is a `Duration` since the agent's start, as everywhere in the speaker. Passwords are absent.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use router_bgp::asn::Asn;
use router_bgp::family::{Family, Prefix};
use router_bgp::message::attribute::Attributes;
use router_bgp::policy::Policies;
use router_bgp::rib::{Counts, Lookup};
use router_bgp::session::{DownReason, Session, State, Statistics};
use tokio::sync::{mpsc, oneshot};

/// A question to the speaker's task. Who has gone away in the meantime is owed no answer.
#[derive(Debug)]
pub(crate) enum Ask {
    Global(oneshot::Sender<GlobalView>),
    /// All peers, or the one of that address; an unknown one is no peer.
    Peers(Option<IpAddr>, oneshot::Sender<Vec<PeerView>>),
    Paths(Table, Lookup, oneshot::Sender<Result<Vec<DestinationView>, Refusal>>),
    /// How much a table holds, by counters.
    Summary(Table, Family, oneshot::Sender<Result<SummaryView, Refusal>>),
    Policies(oneshot::Sender<Arc<Policies>>),
    /// Something done to one session, or to all.
    Act(Option<IpAddr>, Verb, oneshot::Sender<Result<(), Refusal>>),
    /// Events from now on. The speaker never waits for a reader: one whose channel is full is dropped.
    Watch(Watch, mpsc::Sender<WatchEvent>),
}

/// Why the speaker does not answer or act, in GoBGP's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("neighbor that has {0} doesn't exist")]
    UnknownPeer(IpAddr),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct GlobalView {
    pub(crate) asn: Asn,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) listen_port: u16,
    pub(crate) listen_addresses: Vec<IpAddr>,
}

/// A configured neighbour.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PeerView {
    pub(crate) address: IpAddr,
    /// What it is to us: the node's name, or the flag that names it.
    pub(crate) description: String,
    pub(crate) local_asn: Asn,
    pub(crate) peer_asn: Asn,
    /// Seconds that we offer, of which keepalives are sent each third part.
    pub(crate) hold_time: u16,
    pub(crate) connect_retry: Duration,
    /// Not disabled by [`Verb::Disable`].
    pub(crate) enabled: bool,
    pub(crate) state: State,
    /// The session, while there is one.
    pub(crate) session: Option<Session>,
    /// Our end of the connection, and the peer's port. Without a connection, as far as configured.
    pub(crate) local_address: Option<IpAddr>,
    pub(crate) local_port: Option<u16>,
    pub(crate) peer_port: Option<u16>,
    /// When the session last came up, and last went down.
    pub(crate) up_at: Option<Duration>,
    pub(crate) down_at: Option<Duration>,
    pub(crate) last_down: Option<DownReason>,
    pub(crate) statistics: Statistics,
    /// Messages that wait to be written.
    pub(crate) queued: u32,
    pub(crate) families: Vec<PeerFamilyView>,
    /// What graceful restart is configured to; `None` is off.
    pub(crate) graceful_restart: Option<GracefulRestartView>,
}

/// A family of a peer. Counts are kept, never walked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PeerFamilyView {
    pub(crate) family: Family,
    pub(crate) counts: Counts,
    pub(crate) end_of_rib_received: bool,
    pub(crate) end_of_rib_sent: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct GracefulRestartView {
    pub(crate) restart_time: Duration,
    pub(crate) deferral_time: Duration,
    /// The peer is away, and its routes are kept for it.
    pub(crate) peer_restarting: bool,
    /// We have just started, and announce nothing before the others have told all.
    pub(crate) local_restarting: bool,
}

/// One of the speaker's tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Table {
    /// The Loc-RIB, with every path that was a candidate.
    Global,
    /// What a peer sent, before policy.
    AdjIn(IpAddr),
    /// What we sent, after policy.
    AdjOut(IpAddr),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DestinationView {
    pub(crate) prefix: Prefix,
    /// In the global table best first.
    pub(crate) paths: Vec<PathView>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PathView {
    /// `None` only in a withdrawal of which no more is known than the prefix.
    pub(crate) attributes: Option<Arc<Attributes>>,
    /// Whom it came from; `None` is ourselves.
    pub(crate) source: Option<SourceView>,
    pub(crate) learned_at: Duration,
    pub(crate) best: bool,
    /// Kept for a peer that restarts.
    pub(crate) stale: bool,
    /// Takes no part in the selection.
    pub(crate) filtered: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SourceView {
    pub(crate) address: IpAddr,
    pub(crate) asn: Asn,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) external: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SummaryView {
    pub(crate) destinations: u64,
    pub(crate) paths: u64,
    /// Of an Adj-RIB-In.
    pub(crate) accepted: u64,
}

/// What can be done to a session. A communication is text for the peer's operator (RFC 9003).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verb {
    /// Ends the session (Cease, Administrative Reset); it comes up again.
    Reset {
        communication: String,
    },
    /// Asks the peer for its routes again, sends it ours again, or both.
    SoftReset {
        inbound: bool,
        outbound: bool,
    },
    /// Ends the session (Cease, Administrative Shutdown); it comes up again, as in GoBGP.
    Shutdown {
        communication: String,
    },
    /// The same, and stays down.
    Disable {
        communication: String,
    },
    Enable,
}

/// Which events a watcher is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Watch {
    pub(crate) best: bool,
    pub(crate) adj_in: bool,
    pub(crate) peers: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum WatchEvent {
    /// Changes of best paths, or what a peer sent.
    Paths(Vec<PathChange>),
    /// A session changed its state, or a peer was enabled or disabled.
    Peer(Box<PeerView>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PathChange {
    pub(crate) prefix: Prefix,
    pub(crate) path: PathView,
    pub(crate) withdrawn: bool,
}
