//! Streams of events. What stands at first is told from the tables, after the events have begun to be kept: so nothing
//! is missed between the two, though something may be told twice.

use std::sync::Arc;

use futures::stream::{self, StreamExt as _};
use router_bgp::family::Family;
use router_bgp::rib::Lookup;
use tokio::sync::mpsc;
use tonic::Status;

use super::answer::{Answers, Speaker, gone};
use super::convert::{self, Clock};
use super::{Generation, meant, messages as api};
use crate::bgp::view::{Ask, DestinationView, PathChange, PeerView, Table, Watch, WatchEvent};

/// Events that may wait for a slow reader: a burst of a peer's whole table in messages of a thousand prefixes.
const EVENTS: usize = 256;

/// Paths in one message: one of the largest attributes stays far below the 4 MiB that clients take.
const PATHS: usize = 512;

/// Kinds of filters, as v3 counts.
const BEST: i32 = 0;
const ADJ_IN: i32 = 1;

/// Kinds of events of peers.
const INIT: i32 = 1;
const END_OF_INIT: i32 = 2;
const STATE: i32 = 3;

/// What a request comes to.
#[derive(Default)]
struct Wanted {
    watch: Watch,
    best_at_first: bool,
    adj_in_at_first: bool,
}

impl Speaker {
    pub(super) async fn watch_event<G: Generation>(
        self,
        request: api::WatchEventRequest,
    ) -> Answers<api::WatchEventResponse> {
        let wanted = wanted::<G>(&request)?;
        let (events, inbox) = mpsc::channel(EVENTS);
        self.send(Ask::Watch(wanted.watch, events)).await?;
        let first = self.at_first(&wanted).await?;
        let clock = self.clock;
        let speaker = self.clone();
        let told = stream::iter(first).map(move |it| Ok(message::<G>(&it, clock)));
        let live = stream::unfold(Some(inbox), move |inbox| next::<G>(speaker.clone(), inbox));
        Ok(told.chain(live).boxed())
    }

    async fn at_first(&self, wanted: &Wanted) -> Result<Vec<Told>, Status> {
        let mut told = Vec::new();
        if wanted.watch.peers {
            let peers = self.peers(None).await?;
            told.extend(peers.into_iter().map(|peer| Told::Peer(INIT, Some(Box::new(peer)))));
            told.push(Told::Peer(END_OF_INIT, None));
        }
        let mut tables = Vec::new();
        if wanted.best_at_first {
            tables.push(Table::Global);
        }
        if wanted.adj_in_at_first {
            tables.extend(self.peers(None).await?.iter().map(|peer| Table::AdjIn(peer.address)));
        }
        for table in tables {
            for family in Family::ALL {
                let found = self.paths(table, vec![Lookup::All(family)]).await?;
                told.extend(as_changes(table, &found).chunks(PATHS).map(|some| Told::Paths(some.into())));
            }
        }
        Ok(told)
    }
}

fn wanted<G: Generation>(request: &api::WatchEventRequest) -> Result<Wanted, Status> {
    let mut wanted = Wanted::default();
    wanted.watch.peers = request.peer.is_some();
    for filter in request.table.iter().flat_map(|table| &table.filters) {
        match meant::<G>(filter.kind) {
            Some(BEST) => {
                wanted.watch.best = true;
                wanted.best_at_first |= filter.init;
            }
            Some(ADJ_IN) => {
                wanted.watch.adj_in = true;
                wanted.adj_in_at_first |= filter.init;
            }
            _ => return Err(Status::unimplemented("only best paths, Adj-RIB-In and peers can be watched")),
        }
    }
    if wanted.watch == Watch::default() {
        return Err(Status::unknown("no events to watch"));
    }
    Ok(wanted)
}

/// What stands, as if it had just come. Of the global table only the best paths are.
fn as_changes(table: Table, found: &[DestinationView]) -> Vec<PathChange> {
    let all = found.iter().flat_map(|it| it.paths.iter().map(|path| (it.prefix, path)));
    all.filter(|(_, path)| table != Table::Global || path.best)
        .map(|(prefix, path)| PathChange { prefix, path: path.clone(), withdrawn: false })
        .collect()
}

/// What is told in one message.
enum Told {
    /// The kind of event, and the peer, which the end of the first ones has not.
    Peer(i32, Option<Box<PeerView>>),
    Paths(Arc<[PathChange]>),
}

fn message<G: Generation>(told: &Told, clock: Clock) -> api::WatchEventResponse {
    match told {
        Told::Peer(kind, peer) => api::WatchEventResponse {
            peer: Some(api::PeerEvent {
                kind: *kind,
                peer: peer.as_ref().map(|peer| convert::peer::<G>(peer, clock)),
            }),
            table: None,
        },
        Told::Paths(changes) => api::WatchEventResponse {
            peer: None,
            table: Some(api::TableEvent {
                paths: changes.iter().map(|it| convert::change(it, clock)).collect(),
            }),
        },
    }
}

/// The next message, and an error as the last one: events end only when the speaker does, or will not wait.
async fn next<G: Generation>(
    speaker: Speaker,
    inbox: Option<mpsc::Receiver<WatchEvent>>,
) -> Option<(Result<api::WatchEventResponse, Status>, Option<mpsc::Receiver<WatchEvent>>)> {
    let mut inbox = inbox?;
    loop {
        let told = match inbox.recv().await {
            None => return Some((Err(speaker.why_ended()), None)),
            Some(WatchEvent::Peer(peer)) => Told::Peer(STATE, Some(peer)),
            // Clients print an empty line for an event of no path.
            Some(WatchEvent::Paths(changes)) if changes.is_empty() => continue,
            Some(WatchEvent::Paths(changes)) => Told::Paths(changes.into()),
        };
        return Some((Ok(message::<G>(&told, speaker.clock)), Some(inbox)));
    }
}

impl Speaker {
    fn why_ended(&self) -> Status {
        if self.is_gone() {
            return gone();
        }
        Status::resource_exhausted(format!("events were not read in time: more than {EVENTS} waited"))
    }
}
