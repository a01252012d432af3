//! Flows, for people: one line for what the kernel keeps as two halves.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use router_common::abi::{Flow, FlowKey, flow_flags, protocol, seen};

use super::{Rows, Usage, V4, find, twin_key};
use crate::sys::clock::monotonic;

/// Reads the flow maps, beside the sweep.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(super) confirmed: Rows,
    pub(super) fresh: Rows,
}

/// A flow, both halves of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) protocol: u8,
    pub(crate) client: SocketAddr,
    /// What the client dialled.
    pub(crate) frontend: SocketAddr,
    pub(crate) backend: SocketAddr,
    /// As whom the backend sees the client.
    pub(crate) source: SocketAddr,
    /// The service port's id; 0: nothing balanced it.
    pub(crate) service: u32,
    pub(crate) fast: bool,
    pub(crate) state: &'static str,
    pub(crate) age: Duration,
    pub(crate) idle: Duration,
    pub(crate) usage: Usage,
}

/// Some flows of all that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Those with the latest packets, the latest first.
    pub(crate) connections: Vec<Connection>,
    pub(crate) total: usize,
}

impl Reader {
    /// The `limit` flows with the latest packets, of all or of those with `address` in them. Takes as long as reading the
    /// maps does: to be called where one may wait.
    pub(crate) fn find(&self, limit: usize, address: Option<IpAddr>) -> Result<Found> {
        let now = monotonic()?;
        let mut latest: BTreeMap<(u64, FlowKey<V4>), Flow<V4>> = BTreeMap::new();
        let mut total = 0;
        for map in [&self.fresh, &self.confirmed] {
            for batch in map.scan() {
                let rows = batch?.into_iter().map(|(key, half)| (key.into_inner(), half.into_inner()));
                for (key, half) in rows.filter(|(_, half)| is_asked(half, address)) {
                    total += 1;
                    latest.insert((half.last_seen.max(half.created), key), half);
                    if latest.len() > limit {
                        latest.pop_first();
                    }
                }
            }
        }
        let mut connections = Vec::with_capacity(latest.len());
        for ((_, key), half) in latest.into_iter().rev() {
            let twin =
                twin_key(&key, &half).map(|key| find(&self.confirmed, &self.fresh, key)).transpose()?;
            connections.push(connection(key.protocol, &half, twin.flatten().as_ref(), now));
        }
        Ok(Found { connections, total })
    }
}

/// A client's half stands for the flow.
fn is_asked(half: &Flow<V4>, address: Option<IpAddr>) -> bool {
    let ends = [half.client, half.frontend, half.source, half.backend];
    half.flags & flow_flags::CLIENT != 0
        && address.is_none_or(|address| ends.iter().any(|end| IpAddr::from(*end) == address))
}

fn connection(protocol: u8, half: &Flow<V4>, twin: Option<&Flow<V4>>, now: Duration) -> Connection {
    let end = |address: V4, port| SocketAddr::new(address.into(), port);
    let last = half.last_seen.max(half.created).max(twin.map_or(0, |twin| twin.last_seen));
    let mut usage = Usage::of(half);
    usage.to_clients = twin.map(Usage::of).unwrap_or_default().to_clients;
    Connection {
        protocol,
        client: end(half.client, half.client_port),
        frontend: end(half.frontend, half.frontend_port),
        backend: end(half.backend, half.backend_port),
        source: end(half.source, half.source_port),
        service: half.service,
        fast: half.flags & flow_flags::FAST != 0,
        state: state(protocol, half.seen | twin.map_or(0, |twin| twin.seen)),
        age: now.saturating_sub(Duration::from_nanos(half.created)),
        idle: now.saturating_sub(Duration::from_nanos(last)),
        usage,
    }
}

/// In the words of conntrack, where it has some.
const fn state(protocol: u8, seen: u16) -> &'static str {
    let both = seen::FIN_REQUEST | seen::FIN_REPLY;
    match protocol {
        protocol::TCP if seen & seen::RESET != 0 => "RESET",
        protocol::TCP if seen & both == both => "CLOSED",
        protocol::TCP if seen & both != 0 => "CLOSING",
        protocol::TCP if seen & seen::CONFIRMED != 0 => "ESTABLISHED",
        protocol::TCP if seen & seen::REPLY != 0 => "SYN_RECV",
        protocol::TCP => "SYN_SENT",
        _ if seen & seen::REPLY != 0 => "REPLIED",
        _ => "UNREPLIED",
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromBytes as _;

    use super::*;

    fn half(flags: u16, seen: u16) -> Flow<V4> {
        let mut half = Flow::<V4>::read_from_bytes(&[0; size_of::<Flow<V4>>()]).unwrap();
        (half.client, half.frontend, half.source, half.backend) =
            ([10, 0, 0, 1], [10, 96, 0, 1], [10, 0, 0, 1], [10, 0, 0, 2]);
        (half.flags, half.seen, half.packets, half.bytes) = (flags, seen, 3, 300);
        (half.created, half.last_seen) = (1_000_000_000, 3_000_000_000);
        half
    }

    #[test]
    fn two_halves_are_one_connection() {
        let (client, server) =
            (half(flow_flags::CLIENT, seen::REQUEST), half(flow_flags::SERVER, seen::REPLY));
        let found = connection(protocol::TCP, &client, Some(&server), Duration::from_secs(5));
        assert_eq!((found.age, found.idle), (Duration::from_secs(4), Duration::from_secs(2)));
        assert_eq!((found.usage.from_clients.packets, found.usage.to_clients.bytes), (3, 300));
        assert_eq!((found.usage.connections, found.state), (1, "SYN_RECV"));
        assert!(is_asked(&client, Some(IpAddr::from([10, 0, 0, 2]))) && !is_asked(&server, None));
        assert!(!is_asked(&client, Some(IpAddr::from([10, 0, 0, 3]))));
    }

    #[test]
    fn a_state_is_what_was_seen_last() {
        let rows = [
            (protocol::TCP, 0, "SYN_SENT"),
            (protocol::TCP, seen::REPLY | seen::CONFIRMED, "ESTABLISHED"),
            (protocol::TCP, seen::CONFIRMED | seen::FIN_REPLY, "CLOSING"),
            (protocol::TCP, seen::CONFIRMED | seen::FIN_REPLY | seen::FIN_REQUEST, "CLOSED"),
            (protocol::TCP, seen::CONFIRMED | seen::RESET, "RESET"),
            (protocol::UDP, seen::REQUEST, "UNREPLIED"),
            (protocol::UDP, seen::REPLY, "REPLIED"),
        ];
        for (protocol, seen, expected) in rows {
            assert_eq!(state(protocol, seen), expected);
        }
    }
}
