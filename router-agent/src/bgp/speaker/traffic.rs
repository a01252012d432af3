//! What the network brings and time makes due, and what comes of it: for the tables, the peers, the kernel, the log and
//! those who watch.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use router_bgp::message::notification::error;
use router_bgp::rib::{PeerId, Retention, Source};
use router_bgp::session::{DownReason, Input};
use router_core::problem::{Problem, Subject};
use tokio::net::TcpStream;
use tracing::{debug, info};

use super::{QUEUED, Running, Speaker};
use crate::bgp::answer;
use crate::bgp::session::{Neighbour, Outcome};
use crate::bgp::sockets::Arrival;
use crate::bgp::view::WatchEvent;
use crate::log::GOBGP;
use crate::measure::BGP;

impl Speaker {
    pub(super) async fn arrived(&mut self, arrival: Arrival) {
        let now = self.now();
        match arrival {
            Arrival::Accepted(stream, from) => self.accepted(stream, from, now).await,
            Arrival::Dialled(id, Ok(stream)) => {
                self.feed(id, |neighbour| neighbour.connected(stream, true, now)).await;
            }
            Arrival::Dialled(id, Err(error)) => {
                self.feed(id, |neighbour| {
                    debug!("cannot connect to BGP peer {}: {error}", neighbour.address);
                    neighbour.dial_failed(now)
                })
                .await;
            }
            Arrival::Read(id, connection, bytes) => {
                self.feed(id, |neighbour| neighbour.handle(Input::Received(connection, &bytes), now)).await;
            }
            Arrival::Wrote(id, connection, length) => {
                self.feed(id, |neighbour| {
                    neighbour.wrote(connection, length, now);
                    Vec::new()
                })
                .await;
            }
            Arrival::Closed(id, connection) => {
                self.feed(id, |neighbour| neighbour.handle(Input::Closed(connection), now)).await;
            }
            Arrival::Listening(outcome) => self.listening(outcome).await,
        }
    }

    async fn accepted(&mut self, stream: TcpStream, from: SocketAddr, now: Duration) {
        let known = self.running.as_ref().and_then(|running| running.neighbours.get(&from.ip()));
        let enabled = known.filter(|neighbour| neighbour.machine.is_enabled()).map(|neighbour| neighbour.id);
        if let Some(id) = enabled {
            self.feed(id, |neighbour| neighbour.connected(stream, false, now)).await;
        } else {
            debug!("closed a BGP connection from {from}, which is no peer that is up");
        }
    }

    async fn listening(&mut self, outcome: io::Result<()>) {
        let Some(running) = self.running.as_ref() else { return };
        let at = SocketAddr::new(running.wanted.address, running.wanted.port);
        let found = outcome.err().map(|error| Problem {
            subject: Subject::Speaker,
            reason: "CannotListen",
            text: format!("cannot listen at {at}: {error}"),
            remedy: "end what has this port, or give another by --bgp-port; it is tried again".to_owned(),
        });
        self.tell(Subject::Speaker, found.into_iter().collect()).await;
    }

    pub(super) async fn tick(&mut self) {
        let now = self.now();
        let due = |neighbour: &&Neighbour| neighbour.machine.next_deadline().is_some_and(|at| at <= now);
        let neighbours = self.running.iter().flat_map(|running| running.neighbours.values());
        let ids: Vec<PeerId> = neighbours.filter(due).map(|neighbour| neighbour.id).collect();
        for id in ids {
            self.feed(id, |neighbour| neighbour.tick(now)).await;
        }
    }

    /// Has one neighbour take something in, and sees to what comes of it.
    pub(in crate::bgp) async fn feed(
        &mut self,
        id: PeerId,
        input: impl FnOnce(&mut Neighbour) -> Vec<Outcome>,
    ) {
        let now = self.now();
        let Some(running) = self.running.as_mut() else { return };
        let Some(neighbour) = running.of_id(id) else { return };
        let address = neighbour.address;
        let before = (neighbour.machine.state(), neighbour.machine.is_enabled());
        let mut outcomes = VecDeque::from(input(neighbour));
        let mut said: Option<Vec<Problem>> = None;
        while let Some(outcome) = outcomes.pop_front() {
            match outcome {
                Outcome::Up => {
                    let state = "BGP_FSM_OPENCONFIRM";
                    info!(target: GOBGP, Key = %address, State = state, Topic = "Peer", "Peer Up");
                    if let Some(facts) = running.of_id(id).and_then(|neighbour| neighbour.facts()) {
                        running.rib.peer_up(id, facts);
                    }
                    said = Some(Vec::new());
                }
                Outcome::Down(reason, kept) => {
                    let state = "BGP_FSM_ESTABLISHED";
                    info!(target: GOBGP, Key = %address, Reason = %reason, State = state, Topic = "Peer", "Peer Down");
                    if kept.is_empty() {
                        running.rib.peer_down(id, Retention::Drop);
                    } else {
                        info!(target: GOBGP, Key = %address, State = state, Topic = "Peer", "peer graceful restart");
                        running.rib.peer_down(id, Retention::Stale(kept));
                    }
                    if reason == DownReason::HoldTimerExpired {
                        said = Some(vec![ended(address, &reason.to_string())]);
                    }
                }
                Outcome::Sweep(families) => {
                    let swept = running.rib.sweep(id, families);
                    if swept > 0 {
                        info!("BGP peer {address}: {swept} routes that it did not announce again are gone");
                    }
                }
                Outcome::Update(update) => {
                    for fault in &update.faults {
                        debug!("BGP peer {address}: {fault:?}");
                    }
                    if let Some(fault) = update.faults.first() {
                        said = Some(vec![faulty(address, fault.text)]);
                    }
                    if self.watchers.want(|watch| watch.adj_in) {
                        let changes = answer::received(running, id, &update, now);
                        self.watchers.send(|watch| watch.adj_in, &WatchEvent::Paths(changes));
                    }
                    if let Err(exceeded) = running.rib.update(id, update, now) {
                        said = Some(vec![ended(address, &format!("it sent {exceeded}"))]);
                        if let Some(neighbour) = running.of_id(id) {
                            let communication = exceeded.to_string();
                            outcomes.extend(
                                neighbour.handle(Input::Reset { communication: &communication }, now),
                            );
                        }
                    }
                }
                Outcome::Refresh(family) => running.rib.refresh(id, family),
                Outcome::Said { received, notification } => {
                    let verb = if received { "received" } else { "sent" };
                    debug!("BGP peer {address}: {verb} {notification}");
                    // Of two connections at once one is closed, and be it after the other has come up: that is no error.
                    if notification.error() != error::COLLISION {
                        said = Some(vec![ended(address, &format!("{verb} {notification}"))]);
                    }
                }
            }
        }
        let after = running.neighbours.get(&address).map(|it| (it.machine.state(), it.machine.is_enabled()));
        if after != Some(before)
            && self.watchers.want(|watch| watch.peers)
            && let Some(neighbour) = running.neighbours.get(&address)
        {
            let view = answer::peer(running, neighbour);
            self.watchers.send(|watch| watch.peers, &WatchEvent::Peer(Box::new(view)));
        }
        if let Some(problems) = said {
            self.tell(Subject::Peer(address), problems).await;
        }
    }

    /// Best paths to the kernel.
    pub(super) fn pass_on_best(&mut self, now: Duration) {
        let Some(running) = self.running.as_mut() else { return };
        let is_followed = self.watchers.want(|watch| watch.best);
        let mut changes = Vec::new();
        while let Some(change) = running.rib.poll_best() {
            BGP.best_paths.add(1);
            if is_followed {
                changes.push(answer::change(running, &change, now));
            }
            let learned = change.best.filter(|(source, _)| *source != Source::Local);
            self.fib.push(change.prefix, learned.map(|(_, attributes)| attributes.next_hop));
        }
        if !changes.is_empty() {
            self.watchers.send(|watch| watch.best, &WatchEvent::Paths(changes));
        }
    }

    /// Best paths to the kernel, and messages to the peers that have room for them and may be told.
    pub(super) async fn pass_on(&mut self) {
        let now = self.now();
        self.pass_on_best(now);
        self.go_on_restarting();
        let deferring = self.is_deferring();
        let Some(running) = self.running.as_mut() else { return };
        let Running { rib, neighbours, .. } = running;
        let told = |it: &&mut Neighbour| it.is_established() && !(deferring && it.keeps_routes());
        for neighbour in neighbours.values_mut().filter(told) {
            let room = QUEUED.saturating_sub(neighbour.pending());
            if room > 0 && rib.has_messages(neighbour.id) {
                let messages = rib.next_messages(neighbour.id, room);
                neighbour.send_updates(messages, now);
            }
        }
        let cut_off: Vec<PeerId> = std::iter::from_fn(|| rib.poll_cut_off()).collect();
        for id in cut_off {
            let reset = Input::Reset { communication: "too far behind" };
            self.feed(id, |neighbour| neighbour.handle(reset, now)).await;
        }
        let none = BTreeSet::new();
        let told = self.running.as_ref().map_or(&none, |running| &running.wanted.vips);
        if *self.settings.announced.borrow() != *told {
            self.settings.announced.send_replace(told.clone());
        }
    }
}

fn ended(address: IpAddr, text: &str) -> Problem {
    Problem {
        subject: Subject::Peer(address),
        reason: "SessionEnded",
        text: text.to_owned(),
        remedy: "see the peer's log; it is tried again, and the other sessions go on".to_owned(),
    }
}

fn faulty(address: IpAddr, text: &str) -> Problem {
    Problem {
        subject: Subject::Peer(address),
        reason: "MalformedUpdate",
        text: text.to_owned(),
        remedy: "correct what the peer sends; its other routes stand".to_owned(),
    }
}
