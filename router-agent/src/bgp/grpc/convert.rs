//! From what the speaker tells to the messages of the API.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use router_bgp::family::{Family, FamilyCode, Prefix};
use router_bgp::message::notification::error;
use router_bgp::rib::{attribute_bytes, nlri_bytes};
use router_bgp::session::{DownReason, Messages, State};

use super::messages as api;
use super::{Generation, enumerated};
use crate::bgp::view::{
    DestinationView, GlobalView, GracefulRestartView, PathChange, PathView, PeerFamilyView, PeerView,
    SummaryView,
};

/// What is told apart by number, as v3 counts.
const INTERNAL: i32 = 0;
const EXTERNAL: i32 = 1;
const ADMIN_UP: i32 = 0;
const ADMIN_DOWN: i32 = 1;

/// The agent's clock beside the wall's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) started: Instant,
}

impl Clock {
    /// A moment since the agent's start as the wall's clock puts it now: it may have been set since.
    fn timestamp(self, moment: Duration) -> api::Timestamp {
        let ago = self.started.elapsed().saturating_sub(moment);
        let since = SystemTime::now()
            .checked_sub(ago)
            .and_then(|then| then.duration_since(UNIX_EPOCH).ok())
            .unwrap_or_default();
        api::Timestamp {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
        }
    }
}

pub(super) fn family_code(family: FamilyCode) -> api::Family {
    api::Family { afi: i32::from(family.afi), safi: i32::from(family.safi) }
}

fn family(family: Family) -> api::Family {
    family_code(family.code())
}

pub(super) fn global(view: GlobalView) -> api::Global {
    let GlobalView { asn, router_id, listen_port, listen_addresses } = view;
    api::Global {
        asn: asn.0,
        router_id: router_id.to_string(),
        listen_port: i32::from(listen_port),
        listen_addresses: listen_addresses.iter().map(ToString::to_string).collect(),
    }
}

pub(super) fn summary(view: SummaryView) -> api::GetTableResponse {
    let SummaryView { destinations, paths, accepted } = view;
    api::GetTableResponse { num_destination: destinations, num_path: paths, num_accepted: accepted }
}

pub(super) fn destination(view: &DestinationView, clock: Clock) -> api::Destination {
    api::Destination {
        prefix: view.prefix.to_string(),
        paths: view.paths.iter().map(|it| path(&view.prefix, it, clock)).collect(),
    }
}

pub(super) fn change(change: &PathChange, clock: Clock) -> api::Path {
    api::Path { is_withdraw: change.withdrawn, ..path(&change.prefix, &change.path, clock) }
}

fn path(prefix: &Prefix, view: &PathView, clock: Clock) -> api::Path {
    let PathView { attributes, source, learned_at, best, stale, filtered } = view;
    api::Path {
        age: Some(clock.timestamp(*learned_at)),
        best: *best,
        is_withdraw: false,
        family: Some(family(Family::of(prefix))),
        source_asn: source.map_or(0, |source| source.asn.0),
        source_id: source.map(|source| source.router_id.to_string()).unwrap_or_default(),
        filtered: *filtered,
        stale: *stale,
        is_from_external: source.is_some_and(|source| source.external),
        neighbor_ip: source.map(|source| source.address.to_string()).unwrap_or_default(),
        nlri_binary: nlri_bytes(prefix),
        pattrs_binary: attributes.as_ref().map(|all| attribute_bytes(all, prefix)).unwrap_or_default(),
    }
}

pub(super) fn peer<G: Generation>(view: &PeerView, clock: Clock) -> api::Peer {
    api::Peer {
        conf: Some(configuration::<G>(view)),
        route_reflector: Some(api::Empty {}),
        state: Some(state::<G>(view)),
        timers: Some(timers(view, clock)),
        transport: Some(api::Transport {
            local_address: view.local_address.map(|address| address.to_string()).unwrap_or_default(),
            local_port: view.local_port.map(u32::from).unwrap_or_default(),
            remote_address: view.address.to_string(),
            remote_port: view.peer_port.map(u32::from).unwrap_or_default(),
        }),
        route_server: Some(api::Empty {}),
        graceful_restart: Some(graceful_restart(view)),
        afi_safis: view.families.iter().map(|it| peer_family(it, view.graceful_restart.is_some())).collect(),
    }
}

fn kind<G: Generation>(view: &PeerView) -> i32 {
    enumerated::<G>(if view.local_asn == view.peer_asn { INTERNAL } else { EXTERNAL })
}

fn configuration<G: Generation>(view: &PeerView) -> api::PeerConf {
    api::PeerConf {
        description: view.description.clone(),
        local_asn: view.local_asn.0,
        neighbor_address: view.address.to_string(),
        peer_asn: view.peer_asn.0,
        kind: kind::<G>(view),
        admin_down: !view.enabled,
    }
}

fn state<G: Generation>(view: &PeerView) -> api::PeerState {
    let session = view.session.as_ref();
    let reason = view.last_down.as_ref().filter(|_| G::TELLS_WHY_DOWN);
    let capabilities = |all: &[_]| all.iter().map(G::capability).collect();
    api::PeerState {
        description: view.description.clone(),
        local_asn: view.local_asn.0,
        messages: Some(api::Messages {
            received: Some(counts(&view.statistics.received)),
            sent: Some(counts(&view.statistics.sent)),
        }),
        neighbor_address: view.address.to_string(),
        peer_asn: view.peer_asn.0,
        kind: kind::<G>(view),
        queues: Some(api::Queues { output: view.queued }),
        session_state: session_state(view.state),
        admin_state: enumerated::<G>(if view.enabled { ADMIN_UP } else { ADMIN_DOWN }),
        out_q: view.queued,
        flops: view.statistics.flops,
        remote_cap: session.map(|session| capabilities(&session.remote_capabilities)).unwrap_or_default(),
        local_cap: session.map(|session| capabilities(&session.local_capabilities)).unwrap_or_default(),
        router_id: session.map(|session| session.router_id.to_string()).unwrap_or_default(),
        disconnect_reason: reason.map_or(0, disconnect_reason),
        disconnect_message: reason.map(ToString::to_string).unwrap_or_default(),
    }
}

/// The same in both generations.
fn session_state(state: State) -> i32 {
    match state {
        State::Idle => 1,
        State::Connect => 2,
        State::Active => 3,
        State::OpenSent => 4,
        State::OpenConfirm => 5,
        State::Established => 6,
    }
}

/// As v4 counts; v3 has none.
fn disconnect_reason(reason: &DownReason) -> i32 {
    match reason {
        DownReason::AdminDown => 1,
        DownReason::HoldTimerExpired => 2,
        DownReason::NotificationSent(notification) => {
            let (code, subcode) = error::BAD_PEER_AS;
            if (notification.code, notification.subcode) == (code, subcode) { 13 } else { 3 }
        }
        DownReason::NotificationReceived(_) => 4,
        DownReason::ReadFailed => 5,
        DownReason::GracefulRestart => 9,
        DownReason::Dying => 12,
    }
}

fn counts(messages: &Messages) -> api::MessageCounts {
    let Messages { open, update, notification, keepalive, refresh } = *messages;
    api::MessageCounts {
        notification,
        update,
        open,
        keepalive,
        refresh,
        total: open + update + notification + keepalive + refresh,
    }
}

fn timers(view: &PeerView, clock: Clock) -> api::Timers {
    let session = view.session.as_ref();
    let (hold, retry) = (u64::from(view.hold_time), view.connect_retry.as_secs());
    api::Timers {
        config: Some(api::TimersConfig {
            connect_retry: retry,
            hold_time: hold,
            keepalive_interval: hold / 3,
        }),
        state: Some(api::TimersState {
            connect_retry: retry,
            hold_time: hold,
            keepalive_interval: session.map_or(0, |session| session.keepalive_interval.as_secs()),
            negotiated_hold_time: session.map_or(0, |session| session.hold_time.as_secs()),
            uptime: view.up_at.map(|moment| clock.timestamp(moment)),
            downtime: view.down_at.map(|moment| clock.timestamp(moment)),
        }),
    }
}

fn graceful_restart(view: &PeerView) -> api::GracefulRestart {
    let Some(configured) = view.graceful_restart else { return api::GracefulRestart::default() };
    let GracefulRestartView { restart_time, deferral_time, peer_restarting, local_restarting } = configured;
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let offered = view.session.as_ref().and_then(|session| session.graceful_restart.as_ref());
    api::GracefulRestart {
        enabled: true,
        restart_time: seconds(restart_time),
        deferral_time: seconds(deferral_time),
        peer_restart_time: offered.map_or(0, |offered| u32::from(offered.restart_time)),
        peer_restarting,
        local_restarting,
    }
}

fn peer_family(view: &PeerFamilyView, graceful: bool) -> api::AfiSafi {
    let PeerFamilyView { family: which, counts, end_of_rib_received, end_of_rib_sent } = *view;
    let count = |number| u64::try_from(number).unwrap_or(u64::MAX);
    api::AfiSafi {
        mp_graceful_restart: Some(api::MpGracefulRestart {
            config: Some(api::MpGracefulRestartConfig { enabled: graceful }),
            state: Some(api::MpGracefulRestartState {
                enabled: graceful,
                end_of_rib_received,
                end_of_rib_sent,
            }),
        }),
        config: Some(api::AfiSafiConfig { family: Some(family(which)), enabled: true }),
        state: Some(api::AfiSafiState {
            family: Some(family(which)),
            enabled: true,
            received: count(counts.received),
            accepted: count(counts.accepted),
            advertised: count(counts.advertised),
        }),
    }
}
