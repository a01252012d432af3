//! The answer to `bgp`.

use std::time::Duration;

use anyhow::Result;
use router_bgp::family::Family;
use router_bgp::rib::Lookup;
use router_bgp::session::State;

use super::super::{Routing, Sources, seconds};
use crate::ask::bgp::{Bgp, Peer, Speaker};
use crate::bgp::view::{Ask, PeerView, Table};

pub(in crate::serve) async fn gather(sources: &Sources) -> Result<Bgp> {
    let Some(routing) = &sources.routing else { return Ok(Bgp::default()) };
    let global = routing.ask_speaker(Ask::Global).await?;
    if global.listen_port == 0 {
        return Ok(Bgp::default());
    }
    let speaker =
        Speaker { asn: global.asn.0, router_id: global.router_id.to_string(), port: global.listen_port };
    let since_start = sources.started.elapsed();
    let peers = routing.ask_speaker(|to| Ask::Peers(None, to)).await?;
    Ok(Bgp {
        speaker: Some(speaker),
        peers: peers.iter().map(|view| peer(view, since_start)).collect(),
        originated: originated(routing).await?,
    })
}

/// Paths without a source are ours.
async fn originated(routing: &Routing) -> Result<Vec<String>> {
    let mut originated = Vec::new();
    for family in Family::ALL {
        let asked = routing.ask_speaker(|to| Ask::Paths(Table::Global, Lookup::All(family), to)).await?;
        let ours = asked
            .unwrap_or_default()
            .into_iter()
            .filter(|it| it.paths.iter().any(|path| path.source.is_none()));
        originated.extend(ours.map(|destination| destination.prefix.to_string()));
    }
    Ok(originated)
}

fn peer(view: &PeerView, since_start: Duration) -> Peer {
    let up = view.state == State::Established;
    let since = if up { view.up_at } else { view.down_at };
    let counts = view.families.iter().map(|family| family.counts);
    let (mut received, mut accepted, mut advertised) = (0, 0, 0);
    for counts in counts {
        received += counts.received;
        accepted += counts.accepted;
        advertised += counts.advertised;
    }
    Peer {
        address: view.address.to_string(),
        description: view.description.clone(),
        asn: view.session.as_ref().map_or(view.peer_asn, |session| session.peer_asn).0,
        state: state_name(view.state).to_owned(),
        since_seconds: since.map(|at| seconds(since_start.saturating_sub(at))),
        received,
        accepted,
        advertised,
        last_error: view.last_down.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// As in upstream's metrics.
pub(in crate::serve) const fn state_name(state: State) -> &'static str {
    match state {
        State::Idle => "idle",
        State::Connect => "connect",
        State::Active => "active",
        State::OpenSent => "opensent",
        State::OpenConfirm => "openconfirm",
        State::Established => "established",
    }
}
