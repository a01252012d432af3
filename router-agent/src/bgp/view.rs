//! What the speaker tells about itself, and how it is asked: plain values for whoever shows them (the admin API, the
//! `bgp` command, metrics). A question travels by channel to the one task that owns the speaker's state and is answered
//! there, between two events of the network; what is costly about an answer (bytes, text) is done by who asked.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use router_bgp::asn::Asn;
use router_bgp::family::{Family, FamilyCode, Prefix};
use router_bgp::message::attribute::Attributes;
use tokio::sync::{mpsc, oneshot};

/// A question to the speaker's task. Who has gone away in the meantime is owed no answer.
#[derive(Debug)]
pub(crate) enum Ask {
    Global(oneshot::Sender<GlobalView>),
    /// All peers, or the one of that address; an unknown one is no peer.
    Peers(Option<IpAddr>, oneshot::Sender<Vec<PeerView>>),
    Paths(PathQuery, oneshot::Sender<Result<Vec<DestinationView>, Refusal>>),
    /// How much a table holds, by counters.
    Summary(Table, Family, oneshot::Sender<Result<SummaryView, Refusal>>),
    Policies(oneshot::Sender<PoliciesView>),
    /// Something done to one session, or to all.
    Act(Option<IpAddr>, Verb, oneshot::Sender<Result<(), Refusal>>),
    /// Events from now on. The speaker never waits for a reader: one whose channel is full is dropped.
    Watch(Watch, mpsc::Sender<WatchEvent>),
}

/// Why the speaker does not answer or act.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("neighbor that has {0} doesn't exist")]
    UnknownPeer(IpAddr),
    #[error("address family: {0} not supported")]
    UnsupportedFamily(Family),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct GlobalView {
    pub(crate) asn: Asn,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) listen_port: u16,
    pub(crate) listen_addresses: Vec<IpAddr>,
}

/// A configured neighbour and its session. Passwords are absent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PeerView {
    pub(crate) address: IpAddr,
    pub(crate) description: String,
    /// What we call ourselves towards it.
    pub(crate) local_asn: Asn,
    /// What it must call itself; `None` takes what its OPEN says.
    pub(crate) configured_asn: Option<Asn>,
    /// What its OPEN said; `None` before the first.
    pub(crate) remote_asn: Option<Asn>,
    /// As its OPEN said; `None` while there is no session.
    pub(crate) router_id: Option<Ipv4Addr>,
    pub(crate) state: SessionState,
    /// Disabled, by configuration or by [`Verb::Disable`].
    pub(crate) admin_down: bool,
    /// The session's ends; of a peer without session only what is configured.
    pub(crate) transport: TransportView,
    pub(crate) configured: TimersView,
    /// What both sides agreed on; `None` while there is no session.
    pub(crate) negotiated: Option<TimersView>,
    /// Since when the session is up, or was the last time.
    pub(crate) up_since: Option<SystemTime>,
    /// Since when it is down, or was the last time.
    pub(crate) down_since: Option<SystemTime>,
    pub(crate) last_down: Option<DownView>,
    /// How often an established session was lost.
    pub(crate) flaps: u32,
    pub(crate) received: MessageCounts,
    pub(crate) sent: MessageCounts,
    /// Messages that wait to be written.
    pub(crate) out_queue: u32,
    pub(crate) families: Vec<PeerFamilyView>,
    /// What we announce, and what the peer did in this session.
    pub(crate) local_capabilities: Vec<Capability>,
    pub(crate) remote_capabilities: Vec<Capability>,
    /// What graceful restart is configured to; `None` is off.
    pub(crate) graceful_restart: Option<GracefulRestartView>,
}

/// RFC 4271 §8.2.2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SessionState {
    Idle,
    Connect,
    Active,
    OpenSent,
    OpenConfirm,
    Established,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct TransportView {
    pub(crate) local_address: Option<IpAddr>,
    pub(crate) local_port: Option<u16>,
    pub(crate) remote_port: Option<u16>,
    pub(crate) passive: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimersView {
    pub(crate) hold: Duration,
    pub(crate) keepalive: Duration,
    pub(crate) connect_retry: Duration,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DownView {
    pub(crate) reason: DownReason,
    /// What there is to say beside that: code and subcode, the peer's communication, an error of the socket.
    pub(crate) text: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DownReason {
    AdminDown,
    HoldTimerExpired,
    NotificationSent,
    NotificationReceived,
    ReadFailed,
    WriteFailed,
    RestartTimerExpired,
    GracefulRestart,
    InvalidMessage,
    BadPeerAs,
    Deconfigured,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct MessageCounts {
    pub(crate) open: u64,
    pub(crate) update: u64,
    pub(crate) notification: u64,
    pub(crate) keepalive: u64,
    pub(crate) refresh: u64,
    /// Messages that had no effect: of no use in their state, or in error and survived.
    pub(crate) discarded: u64,
    pub(crate) withdraw_update: u64,
    pub(crate) withdraw_prefix: u64,
}

/// A family of a peer. Counts are kept, never walked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PeerFamilyView {
    pub(crate) family: Family,
    pub(crate) received: u64,
    pub(crate) accepted: u64,
    pub(crate) advertised: u64,
    /// Whether the peer's End-of-RIB came, and ours went.
    pub(crate) end_of_rib_received: bool,
    pub(crate) end_of_rib_sent: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct GracefulRestartView {
    pub(crate) restart_time: Duration,
    pub(crate) deferral_time: Duration,
    /// What the peer asked for; `None` while it did not.
    pub(crate) peer_restart_time: Option<Duration>,
    pub(crate) peer_restarting: bool,
    pub(crate) local_restarting: bool,
}

/// A capability of an OPEN (RFC 5492).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Capability {
    MultiProtocol(FamilyCode),
    RouteRefresh,
    /// Families, each with the AFI that its next hops may have (RFC 8950).
    ExtendedNextHop(Vec<(FamilyCode, u16)>),
    ExtendedMessage,
    /// Families, each with whether its forwarding state was kept (RFC 4724, RFC 8538).
    GracefulRestart {
        restarting: bool,
        notification: bool,
        time: u16,
        families: Vec<(FamilyCode, bool)>,
    },
    FourOctetAsn(Asn),
    /// Families, each with its mode: 1 receive, 2 send, 3 both (RFC 7911).
    AddPath(Vec<(FamilyCode, u8)>),
    EnhancedRouteRefresh,
    Fqdn {
        host: String,
        domain: String,
    },
    Unknown {
        code: u8,
        value: Vec<u8>,
    },
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
pub(crate) struct PathQuery {
    pub(crate) table: Table,
    pub(crate) family: Family,
    /// Destinations that any of these finds; none at all asks for all. Prefixes are of the family.
    pub(crate) lookups: Vec<Lookup>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lookup {
    Exact(Prefix),
    /// The longest prefix that has the address in it.
    Host(IpAddr),
    /// The prefix and all within it.
    Longer(Prefix),
    /// The prefix and all around it.
    Shorter(Prefix),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DestinationView {
    pub(crate) prefix: Prefix,
    /// In the global table best first.
    pub(crate) paths: Vec<PathView>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts")]
pub(crate) struct PathView {
    /// `None` only in a withdrawal of which no more is known than the prefix.
    pub(crate) attributes: Option<Arc<Attributes>>,
    /// Whom it came from; `None` is ourselves.
    pub(crate) source: Option<SourceView>,
    /// When it came.
    pub(crate) since: SystemTime,
    pub(crate) best: bool,
    /// Kept for a peer that restarts.
    pub(crate) stale: bool,
    /// Denied by import policy, or ineligible.
    pub(crate) filtered: bool,
    pub(crate) next_hop_invalid: bool,
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

/// The routing policy, in whole.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct PoliciesView {
    pub(crate) defined_sets: Vec<DefinedSetView>,
    pub(crate) policies: Vec<PolicyView>,
    pub(crate) import: AssignmentView,
    pub(crate) export: AssignmentView,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DefinedSetView {
    pub(crate) name: String,
    pub(crate) members: Members,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Members {
    /// Prefixes, each with the shortest and the longest that match.
    Prefixes(Vec<(Prefix, u8, u8)>),
    Neighbors(Vec<Prefix>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PolicyView {
    pub(crate) name: String,
    pub(crate) statements: Vec<StatementView>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct StatementView {
    pub(crate) name: String,
    /// Names of sets of which any member has to match; `None` is no condition.
    pub(crate) prefix_set: Option<String>,
    pub(crate) neighbor_set: Option<String>,
    /// `None` leaves it to the next statement.
    pub(crate) accept: Option<bool>,
    pub(crate) next_hop_self: bool,
    /// Our AS number, this often in front of the path.
    pub(crate) prepend: Option<(Asn, u8)>,
    pub(crate) add_communities: Vec<u32>,
}

/// What is done with every route of a direction.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct AssignmentView {
    /// Names of policies, in order.
    pub(crate) policies: Vec<String>,
    /// What becomes of a route that no statement decided.
    pub(crate) default_accept: bool,
}

/// What can be done to a session. A communication is text for the peer's operator (RFC 9003).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verb {
    /// Ends the session (Cease, Administrative Reset); it comes up again.
    Reset { communication: String },
    /// Asks the peer for its routes again, sends it ours again, or both.
    SoftReset { inbound: bool, outbound: bool },
    /// Ends the session (Cease, Administrative Shutdown); it comes up again, as in GoBGP.
    Shutdown { communication: String },
    /// The same, and stays down.
    Disable { communication: String },
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
    /// Changes of the best path.
    Best(Vec<PathChange>),
    /// What a peer sent.
    AdjIn(Vec<PathChange>),
    /// A session changed its state, or a peer was enabled or disabled.
    Peer(Box<PeerView>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PathChange {
    pub(crate) prefix: Prefix,
    pub(crate) path: PathView,
    pub(crate) withdrawn: bool,
}
