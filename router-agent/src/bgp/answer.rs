//! What the speaker answers: views of its neighbours and tables, and the verbs of an operator.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use router_bgp::family::Family;
use router_bgp::message::attribute::Attributes;
use router_bgp::message::update::Update;
use router_bgp::rib::{Lookup, PeerId, Source};
use router_bgp::session::Input;
use tokio::sync::mpsc;

use super::session::Neighbour;
use super::speaker::{Running, Speaker};
use super::view::{
    Ask, DestinationView, GlobalView, GracefulRestartView, PathChange, PathView, PeerFamilyView, PeerView,
    Refusal, SourceView, SummaryView, Table, Verb, Watch, WatchEvent,
};

/// Those who watch.
#[derive(Debug, Default)]
pub(super) struct Watchers(Vec<(Watch, mpsc::Sender<WatchEvent>)>);

impl Watchers {
    pub(super) fn want(&self, which: impl Fn(&Watch) -> bool) -> bool {
        self.0.iter().any(|(watch, _)| which(watch))
    }

    /// Whoever cannot keep up is let go.
    pub(super) fn send(&mut self, which: impl Fn(&Watch) -> bool, event: &WatchEvent) {
        self.0.retain(|(watch, to)| !which(watch) || to.try_send(event.clone()).is_ok());
    }
}

impl Speaker {
    pub(super) async fn answer(&mut self, ask: Ask) {
        // Whoever asked may have gone; that is its own affair.
        match ask {
            Ask::Global(to) => drop(to.send(self.global())),
            Ask::Peers(address, to) => drop(to.send(self.peers(address))),
            Ask::Paths(table, lookup, to) => drop(to.send(self.paths(table, lookup))),
            Ask::Summary(table, family, to) => drop(to.send(self.summary(table, family))),
            Ask::Policies(to) => {
                let policies = self.running.as_ref().map(|running| running.rib.policies().clone());
                drop(to.send(Arc::new(policies.unwrap_or_default())));
            }
            Ask::Act(address, verb, to) => {
                let outcome = self.act(address, &verb).await;
                let _ = to.send(outcome);
            }
            Ask::Watch(watch, to) => self.watchers.0.push((watch, to)),
        }
    }

    fn global(&self) -> GlobalView {
        match &self.running {
            Some(running) => GlobalView {
                asn: running.ourselves.asn,
                router_id: running.ourselves.router_id,
                listen_port: running.wanted.port,
                listen_addresses: vec![running.wanted.address],
            },
            // Not yet, or not any more, a speaker.
            None => GlobalView {
                asn: router_bgp::asn::Asn(0),
                router_id: std::net::Ipv4Addr::UNSPECIFIED,
                listen_port: 0,
                listen_addresses: Vec::new(),
            },
        }
    }

    fn peers(&self, address: Option<IpAddr>) -> Vec<PeerView> {
        let Some(running) = &self.running else { return Vec::new() };
        let asked =
            running.neighbours.values().filter(|it| address.is_none_or(|address| it.address == address));
        asked.map(|neighbour| peer(running, neighbour)).collect()
    }

    fn paths(&self, table: Table, lookup: Lookup) -> Result<Vec<DestinationView>, Refusal> {
        let Some(running) = &self.running else { return Ok(Vec::new()) };
        match table {
            Table::Global => Ok(running
                .rib
                .loc_rib(lookup)
                .map(|(prefix, paths)| {
                    let view = |it: router_bgp::rib::PathView| PathView {
                        best: it.best.is_some(),
                        stale: it.stale,
                        ..path(Some(it.attributes), source_of(running, it.source), it.learned_at)
                    };
                    DestinationView { prefix, paths: paths.into_iter().map(view).collect() }
                })
                .collect()),
            Table::AdjIn(address) => {
                let neighbour = named(running, address)?;
                let routes = running.rib.adj_in(neighbour.id, family_of(&lookup));
                let routes = routes.filter(|route| is_asked(&lookup, &route.prefix));
                let source = source_of(running, Source::Peer(neighbour.id));
                let view = |route: router_bgp::rib::ReceivedView| {
                    let (filtered, stale) = (route.is_filtered(), route.stale);
                    let received = path(Some(route.attributes), source, route.learned_at);
                    let received = PathView { stale, filtered, ..received };
                    DestinationView { prefix: route.prefix, paths: vec![received] }
                };
                Ok(answered(&lookup, routes.map(view)))
            }
            Table::AdjOut(address) => {
                let neighbour = named(running, address)?;
                let routes = running.rib.adj_out(neighbour.id, family_of(&lookup));
                let routes = routes.filter(|(prefix, _)| is_asked(&lookup, prefix));
                let view = |(prefix, attributes): (_, &Arc<Attributes>)| {
                    let sent = path(Some(Arc::clone(attributes)), None, Duration::ZERO);
                    DestinationView { prefix, paths: vec![sent] }
                };
                Ok(answered(&lookup, routes.map(view)))
            }
        }
    }

    fn summary(&self, table: Table, family: Family) -> Result<SummaryView, Refusal> {
        let Some(running) = &self.running else { return Ok(SummaryView::default()) };
        let (destinations, paths, accepted) = match table {
            Table::Global => {
                let (destinations, paths) = running.rib.size(family);
                (destinations, paths, 0)
            }
            Table::AdjIn(address) => {
                let counts = running.rib.counts(named(running, address)?.id, family);
                (counts.received, counts.received, counts.accepted)
            }
            Table::AdjOut(address) => {
                let counts = running.rib.counts(named(running, address)?.id, family);
                (counts.advertised, counts.advertised, 0)
            }
        };
        Ok(SummaryView { destinations: destinations as u64, paths: paths as u64, accepted: accepted as u64 })
    }

    async fn act(&mut self, address: Option<IpAddr>, verb: &Verb) -> Result<(), Refusal> {
        let ids: Vec<PeerId> = match (&self.running, address) {
            (Some(running), Some(address)) => vec![named(running, address)?.id],
            (Some(running), None) => running.neighbours.values().map(|neighbour| neighbour.id).collect(),
            (None, Some(address)) => return Err(Refusal::UnknownPeer(address)),
            (None, None) => Vec::new(),
        };
        for id in ids {
            self.act_on(id, verb).await;
        }
        Ok(())
    }

    async fn act_on(&mut self, id: PeerId, verb: &Verb) {
        let now = self.now();
        match verb {
            Verb::Reset { communication } => {
                self.feed(id, |it| it.handle(Input::Reset { communication }, now)).await;
            }
            Verb::Shutdown { communication } => {
                self.feed(id, |it| it.handle(Input::Stop { communication }, now)).await;
                self.feed(id, |it| it.handle(Input::Start, now)).await;
            }
            Verb::Disable { communication } => {
                self.feed(id, |it| it.handle(Input::Stop { communication }, now)).await;
            }
            Verb::Enable => self.feed(id, |it| it.handle(Input::Start, now)).await,
            Verb::SoftReset { inbound, outbound } => {
                if *inbound {
                    if let Some(running) = self.running.as_mut() {
                        running.rib.soft_reset_in(id);
                    }
                    for family in Family::ALL {
                        self.feed(id, |it| it.handle(Input::RequestRefresh(family), now)).await;
                    }
                }
                if let Some(running) = self.running.as_mut().filter(|_| *outbound) {
                    for family in Family::ALL {
                        running.rib.refresh(id, family);
                    }
                }
            }
        }
    }
}

fn named(running: &Running, address: IpAddr) -> Result<&Neighbour, Refusal> {
    running.neighbours.get(&address).ok_or(Refusal::UnknownPeer(address))
}

pub(super) fn peer(running: &Running, neighbour: &Neighbour) -> PeerView {
    let config = neighbour.machine.config();
    let session = neighbour.machine.session().cloned();
    let link = neighbour.link();
    let mut statistics = *neighbour.machine.statistics();
    statistics.sent.update = neighbour.updates_sent;
    let family = |family: Family| PeerFamilyView {
        family,
        counts: running.rib.counts(neighbour.id, family),
        end_of_rib_received: neighbour.end_of_rib.contains(family),
        end_of_rib_sent: running.rib.has_told_all(neighbour.id, family),
    };
    let families = config.families.iter().map(family).collect();
    PeerView {
        address: neighbour.address,
        description: neighbour.wanted.node.clone().unwrap_or_else(|| "--peer-router-ips".to_owned()),
        local_asn: config.local_asn,
        peer_asn: config.peer_asn,
        hold_time: config.hold_time,
        connect_retry: config.connect_retry,
        enabled: neighbour.machine.is_enabled(),
        state: neighbour.machine.state(),
        session,
        local_address: Some(link.map_or(running.wanted.address, |link| link.local.ip())),
        local_port: link.map(|link| link.local.port()),
        peer_port: Some(link.map_or(neighbour.wanted.port, |link| link.remote.port())),
        up_at: neighbour.up_at,
        down_at: neighbour.down_at,
        last_down: neighbour.last_down.clone(),
        statistics,
        // Octets, as messages of the least size would fill them: what waits is what matters.
        queued: u32::try_from(neighbour.pending().div_ceil(router_bgp::message::header::MAX_LEN))
            .unwrap_or(u32::MAX),
        families,
        graceful_restart: running.ourselves.graceful_restart.map(|terms| GracefulRestartView {
            restart_time: Duration::from_secs(terms.restart_time.into()),
            deferral_time: terms.deferral_time,
            peer_restarting: neighbour.machine.is_restarting(),
            local_restarting: config.graceful_restart.is_some_and(|terms| terms.restarting),
        }),
    }
}

/// A path, with nothing to be said of it but where it is from.
const fn path(
    attributes: Option<Arc<Attributes>>,
    source: Option<SourceView>,
    learned_at: Duration,
) -> PathView {
    PathView { attributes, source, learned_at, best: false, stale: false, filtered: false }
}

fn source_of(running: &Running, source: Source) -> Option<SourceView> {
    let Source::Peer(id) = source else { return None };
    let facts = running.rib.facts(id)?;
    Some(SourceView {
        address: facts.address,
        asn: facts.asn,
        router_id: facts.router_id,
        external: facts.asn != running.ourselves.asn,
    })
}

/// The change of a best path, for those who watch.
pub(super) fn change(running: &Running, change: &router_bgp::rib::BestChange, now: Duration) -> PathChange {
    let path = match &change.best {
        Some((source, attributes)) => {
            PathView { best: true, ..path(Some(Arc::clone(attributes)), source_of(running, *source), now) }
        }
        None => path(None, None, now),
    };
    PathChange { prefix: change.prefix, withdrawn: change.best.is_none(), path }
}

/// What a peer sent, for those who watch.
pub(super) fn received(running: &Running, id: PeerId, update: &Update, now: Duration) -> Vec<PathChange> {
    let source = source_of(running, Source::Peer(id));
    let gone = update.withdrawn.iter().map(|prefix| (*prefix, None));
    let come = update.announced.iter().flat_map(|it| {
        let attributes = Arc::new(it.attributes.clone());
        it.prefixes.iter().map(move |prefix| (*prefix, Some(Arc::clone(&attributes))))
    });
    let change = |(prefix, attributes): (_, Option<_>)| PathChange {
        prefix,
        withdrawn: attributes.is_none(),
        path: path(attributes, source, now),
    };
    gone.chain(come).map(change).collect()
}

/// What was found, in the order of the prefixes; of those around an address the longest, which is the last.
fn answered(lookup: &Lookup, found: impl Iterator<Item = DestinationView>) -> Vec<DestinationView> {
    match lookup {
        Lookup::LongestMatch(_) => found.last().into_iter().collect(),
        _ => found.collect(),
    }
}

const fn family_of(lookup: &Lookup) -> Family {
    match lookup {
        Lookup::All(family) => *family,
        Lookup::Exact(prefix)
        | Lookup::LongestMatch(prefix)
        | Lookup::Longer(prefix)
        | Lookup::Shorter(prefix) => Family::of(prefix),
    }
}

fn is_asked(lookup: &Lookup, prefix: &router_bgp::family::Prefix) -> bool {
    match lookup {
        Lookup::All(_) => true,
        Lookup::Exact(asked) => asked == prefix,
        Lookup::LongestMatch(asked) | Lookup::Shorter(asked) => prefix.contains(asked),
        Lookup::Longer(asked) => asked.contains(prefix),
    }
}
