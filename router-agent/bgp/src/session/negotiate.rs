//! Our OPEN, the peer's, and what the two agree on.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::connection::ConnectionId;
use crate::asn::Asn;
use crate::family::{Families, Family, FamilyCode};
use crate::message::capability::{Capability, GracefulRestart};
use crate::message::header::{EXTENDED_MAX_LEN, MAX_LEN};
use crate::message::notification::{Notification, error};
use crate::message::open::Open;
use crate::message::update::Context;

/// A neighbour as configured; what changes it makes a new one.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    pub local_asn: Asn,
    pub peer_asn: Asn,
    pub router_id: Ipv4Addr,
    /// Seconds that we offer; 0 for no timer, else at least 3.
    pub hold_time: u16,
    /// The longest wait between two tries.
    pub connect_retry: Duration,
    pub families: Families,
    /// Offered beside what every session offers (multiprotocol, route refresh, four-octet AS, extended message).
    pub capabilities: Vec<Capability>,
    /// `None` is off: then no routes are kept for the peer either.
    pub graceful_restart: Option<RestartTerms>,
    /// Of the jitter; different for every peer.
    pub seed: u64,
}

/// Our part in graceful restart (RFC 4724).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RestartTerms {
    /// How long the peer is asked to keep our routes; seconds, 12 bits.
    pub restart_time: u16,
    /// We have just started, and may have been there before (R). `Input::Restarted` ends it.
    pub restarting: bool,
    /// For how long a peer that is back may leave its stale routes unrefreshed.
    pub patience: Duration,
}

impl PeerConfig {
    pub(super) fn open(&self) -> Open {
        let mut capabilities: Vec<Capability> =
            self.families.iter().map(|family| Capability::Multiprotocol(family.code())).collect();
        capabilities.extend([
            Capability::RouteRefresh,
            Capability::FourOctetAs(self.local_asn),
            Capability::ExtendedMessage,
        ]);
        capabilities.extend(self.graceful_restart.map(|terms| self.restart_capability(terms)));
        capabilities.extend_from_slice(&self.capabilities);
        Open { asn: self.local_asn, hold_time: self.hold_time, router_id: self.router_id, capabilities }
    }

    /// Forwarding state is always kept: it is in the kernel, and nothing of it goes at start.
    fn restart_capability(&self, RestartTerms { restart_time, restarting, .. }: RestartTerms) -> Capability {
        let families = self.families.iter().map(|family| (family.code(), true)).collect();
        Capability::GracefulRestart(GracefulRestart {
            restarting,
            notification: false,
            restart_time,
            families,
        })
    }

    /// Whether this OPEN is of the neighbour that we were told of (RFC 4271 §6.2, RFC 6286 §2.2).
    pub(super) fn check(&self, open: &Open) -> Result<(), Notification> {
        if open.asn != self.peer_asn {
            return Err(Notification::new(error::BAD_PEER_AS, &[]));
        }
        if self.is_internal() && open.router_id == self.router_id {
            return Err(Notification::new(error::BAD_ROUTER_ID, &[]));
        }
        Ok(())
    }

    pub(super) fn is_internal(&self) -> bool {
        self.local_asn == self.peer_asn
    }
}

/// What both ends of an established session agreed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Session {
    pub connection: ConnectionId,
    /// We opened the connection.
    pub outgoing: bool,
    pub peer_asn: Asn,
    pub router_id: Ipv4Addr,
    /// The lower of both offers; zero: no timer.
    pub hold_time: Duration,
    pub keepalive_interval: Duration,
    /// How the UPDATEs of the session are read and written.
    pub context: Context,
    /// The peer answers to ROUTE-REFRESH.
    pub route_refresh: bool,
    /// What the peer offers, whether or not we offer the same.
    pub graceful_restart: Option<GracefulRestart>,
    pub local_capabilities: Box<[Capability]>,
    pub remote_capabilities: Box<[Capability]>,
}

impl Session {
    pub(super) fn new(
        config: &PeerConfig,
        local: IpAddr,
        connection: ConnectionId,
        outgoing: bool,
        remote: Open,
    ) -> Self {
        let ours = config.open().capabilities;
        let theirs = remote.capabilities;
        let both = |wanted: fn(&Capability) -> bool| ours.iter().any(wanted) && theirs.iter().any(wanted);
        let hold_time = Duration::from_secs(config.hold_time.min(remote.hold_time).into());
        let max_len = if both(|capability| matches!(capability, Capability::ExtendedMessage)) {
            EXTENDED_MAX_LEN
        } else {
            MAX_LEN
        };
        let context = Context {
            four_octet: both(|capability| matches!(capability, Capability::FourOctetAs(_))),
            internal: config.is_internal(),
            families: families(&ours).intersection(families(&theirs)),
            extended_next_hop: both(|capability| match capability {
                Capability::ExtendedNextHop(tuples) => tuples.contains(&(Family::Ipv4Unicast.code(), IPV6)),
                _ => false,
            }),
            max_len,
            local: Some(local),
        };
        Self {
            connection,
            outgoing,
            peer_asn: remote.asn,
            router_id: remote.router_id,
            hold_time,
            keepalive_interval: hold_time / 3,
            context,
            route_refresh: theirs.contains(&Capability::RouteRefresh),
            graceful_restart: theirs.iter().find_map(|capability| match capability {
                Capability::GracefulRestart(restart) => Some(restart.clone()),
                _ => None,
            }),
            local_capabilities: ours.into(),
            remote_capabilities: theirs.into(),
        }
    }
}

impl Session {
    /// Of which families the peer keeps up forwarding, or at least wants its routes to be kept, while it restarts.
    pub(super) fn restartable(&self) -> Families {
        self.restart_families(|_| true)
    }

    /// Of which families it says that it has kept up forwarding (F).
    pub(super) fn forwarding(&self) -> Families {
        self.restart_families(|forwarding| forwarding)
    }

    fn restart_families(&self, counts: impl Fn(bool) -> bool) -> Families {
        let offered = self.graceful_restart.iter().flat_map(|restart| &restart.families);
        let families = offered.filter(|(_, forwarding)| counts(*forwarding));
        let families: Families = families.filter_map(|(family, _)| family.known()).collect();
        families.intersection(self.context.families)
    }
}

/// The address family number of IPv6.
const IPV6: u16 = 2;

/// Without any multiprotocol capability a speaker means IPv4 (RFC 4760 §8).
fn families(capabilities: &[Capability]) -> Families {
    let named: Vec<FamilyCode> = capabilities
        .iter()
        .filter_map(|capability| match capability {
            Capability::Multiprotocol(family) => Some(*family),
            _ => None,
        })
        .collect();
    if named.is_empty() {
        return Families::NONE.with(Family::Ipv4Unicast);
    }
    named.into_iter().filter_map(FamilyCode::known).collect()
}
