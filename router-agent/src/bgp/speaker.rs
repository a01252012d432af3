//! The speaker's task: it owns the neighbours and the tables, takes what the cluster wants, what the network brings
//! and what people ask, one after the other, and passes on what came of it: messages to peers, routes to the kernel,
//! lines to the log.
//!
//! Everything a neighbour does is that neighbour's alone: an error ends a session, never this task.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use router_bgp::asn::Asn;
use router_bgp::message::attribute::Attributes;
use router_bgp::rib::{Limits, PeerId, Retention, Rib, RibConfig};
use router_bgp::session::{DownReason, Input};
use router_core::cluster::{Event, RoutingView};
use router_core::peering::{self, Terms, Wanted};
use router_core::problem::{Problem, Subject};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use crate::fib::FibQueue;
use crate::log::GOBGP;

use super::answer::{self, Watchers};
use super::policies;
use super::session::{Neighbour, Ourselves, Outcome};
use super::sockets::{Arrival, Arrivals, listen};
use super::view::{Ask, WatchEvent};

/// Arrivals under way: readers wait for room beyond it, each with one chunk in hand. Few, since a peer's KEEPALIVE waits
/// behind all that another one floods us with.
const ARRIVALS: usize = 8;
/// Arrivals that are taken in before their consequences are passed on.
const BATCH: usize = 4;
/// Octets queued on one session, above which its peer waits its turn.
const QUEUED: usize = 256 << 10;

/// What the speaker is told once.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) terms: Terms,
    pub(crate) hold_time: u16,
    pub(crate) host_name: String,
    /// Where it says which VIPs its peers have been told of.
    pub(crate) announced: watch::Sender<BTreeSet<IpAddr>>,
    /// The moment that its times count from.
    pub(crate) started: std::time::Instant,
}

/// Who learns of best paths.
pub(crate) trait Sink: Send + 'static {
    /// The prefix is reached by this next hop now, or by none.
    fn push(&self, prefix: ipnet::IpNet, next_hop: Option<IpAddr>);
    /// Every peer has said all it has to say at first: what nobody has named is stale.
    fn converged(&self);
}

impl Sink for Arc<FibQueue> {
    fn push(&self, prefix: ipnet::IpNet, next_hop: Option<IpAddr>) {
        FibQueue::push(self, prefix, next_hop);
    }

    fn converged(&self) {
        self.sweep();
    }
}

/// Runs until nobody tells it of the cluster any more.
pub(crate) async fn run(
    settings: Settings,
    mut view: watch::Receiver<Option<RoutingView>>,
    events: mpsc::Sender<Event>,
    mut asks: mpsc::Receiver<Ask>,
    sink: impl Sink,
) {
    let (arrivals, mut inbox) = mpsc::channel(ARRIVALS);
    let mut speaker = Speaker {
        start: Instant::from_std(settings.started),
        settings,
        running: None,
        events,
        arrivals,
        sink,
        next_id: 0,
        named: BTreeSet::new(),
        converged: false,
        watchers: Watchers::default(),
    };
    let mut batch = Vec::with_capacity(BATCH);
    let mut asking = true;
    loop {
        let deadline = speaker.next_deadline();
        tokio::select! {
            changed = view.changed() => {
                if changed.is_err() {
                    return;
                }
                let now_wanted = view.borrow_and_update().clone();
                speaker.follow(now_wanted.as_ref()).await;
            }
            count = inbox.recv_many(&mut batch, BATCH) => {
                if count == 0 {
                    return;
                }
                for arrival in batch.drain(..) {
                    speaker.arrived(arrival).await;
                    // One may be thousands of routes, and the others' KEEPALIVEs fall due meanwhile.
                    speaker.tick().await;
                }
            }
            ask = asks.recv(), if asking => match ask {
                Some(ask) => speaker.answer(ask).await,
                None => asking = false,
            },
            () = sleep_until(deadline) => {}
        }
        speaker.tick().await;
        speaker.pass_on().await;
    }
}

pub(super) struct Speaker<S> {
    pub(super) settings: Settings,
    pub(super) running: Option<Running>,
    events: mpsc::Sender<Event>,
    arrivals: Arrivals,
    sink: S,
    start: Instant,
    /// Of the next neighbour; never used twice.
    next_id: u32,
    /// Subjects of the problems that the cluster and the flags gave rise to.
    named: BTreeSet<Subject>,
    converged: bool,
    pub(super) watchers: Watchers,
}

/// A speaker under one identity. Another identity is another speaker: all sessions begin anew.
pub(super) struct Running {
    pub(super) wanted: Wanted,
    pub(super) ourselves: Ourselves,
    pub(super) rib: Rib,
    pub(super) neighbours: BTreeMap<IpAddr, Neighbour>,
    /// How often the policies have changed: part of their names, as upstream has it.
    serial: u32,
    listener: JoinHandle<()>,
    since: Duration,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Running {
    pub(super) fn of_id(&mut self, id: PeerId) -> Option<&mut Neighbour> {
        self.neighbours.values_mut().find(|neighbour| neighbour.id == id)
    }
}

impl<S: Sink> Speaker<S> {
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn next_deadline(&self) -> Instant {
        let neighbours = self.running.iter().flat_map(|running| running.neighbours.values());
        let next = neighbours.filter_map(|neighbour| neighbour.machine.next_deadline()).min();
        self.start
            + next.unwrap_or(Duration::from_hours(1)).max(self.now().saturating_sub(Duration::from_secs(1)))
    }

    /// The cluster has changed.
    async fn follow(&mut self, view: Option<&RoutingView>) {
        let Some(view) = view else { return };
        let (wanted, problems) = peering::wanted(&self.settings.terms, view);
        self.name(problems).await;
        let Some(wanted) = wanted else {
            self.stop().await;
            return;
        };
        let same = self.running.as_ref().is_some_and(|running| is_same_speaker(&running.wanted, &wanted));
        if !same {
            self.stop().await;
            self.begin(&wanted);
        }
        self.change(wanted).await;
    }

    fn begin(&mut self, wanted: &Wanted) {
        let ourselves = Ourselves {
            asn: Asn(wanted.asn),
            router_id: wanted.router_id,
            address: wanted.address,
            hold_time: self.settings.hold_time,
            host_name: self.settings.host_name.clone(),
        };
        let config =
            RibConfig { asn: ourselves.asn, router_id: ourselves.router_id, limits: Limits::default() };
        let empty = Wanted {
            neighbours: BTreeMap::new(),
            pod_cidrs: BTreeSet::new(),
            vips: BTreeSet::new(),
            ..wanted.clone()
        };
        let at = SocketAddr::new(wanted.address, wanted.port);
        info!("speaking BGP as AS {}, router id {}, at {at}", wanted.asn, wanted.router_id);
        self.running = Some(Running {
            wanted: empty,
            ourselves,
            rib: Rib::new(config),
            neighbours: BTreeMap::new(),
            serial: 0,
            listener: listen(at, self.arrivals.clone()),
            since: self.now(),
        });
    }

    /// Policies first, so that nothing is exported under old ones; then neighbours, then routes.
    async fn change(&mut self, wanted: Wanted) {
        let now = self.now();
        let Some(running) = self.running.as_mut() else { return };
        if running.wanted == wanted && running.serial > 0 {
            return;
        }
        match policies::of(&wanted, running.serial + 1) {
            Ok(policies) => {
                running.serial += 1;
                running.rib.set_policies(policies);
            }
            // Every set that a statement names is made beside it.
            Err(error) => warn!("policies stay as they are: {error}"),
        }
        let before = running.wanted.neighbours.clone();
        let gone = before.iter().filter(|(address, was)| wanted.neighbours.get(address) != Some(was));
        for (address, _) in gone {
            self.remove(*address, now).await;
        }
        let new = wanted.neighbours.iter().filter(|(address, is)| before.get(address) != Some(is));
        for (address, is) in new {
            self.add(*address, is.clone(), now).await;
        }
        let Some(running) = self.running.as_mut() else { return };
        let (old, new) = (running.wanted.originated(), wanted.originated());
        for prefix in old.difference(&new) {
            running.rib.withdraw(*prefix);
        }
        for prefix in new.difference(&old) {
            running.rib.originate(*prefix, Attributes::originated(wanted.address), now);
        }
        running.wanted = wanted;
    }

    async fn add(&mut self, address: IpAddr, wanted: peering::Neighbour, now: Duration) {
        let id = PeerId(self.next_id);
        self.next_id += 1;
        let Some(running) = self.running.as_mut() else { return };
        info!(target: GOBGP, Key = %address, Topic = "Peer", "Add a peer configuration");
        let neighbour = Neighbour::new(id, address, wanted, &running.ourselves, self.arrivals.clone());
        running.neighbours.insert(address, neighbour);
        self.feed(id, |neighbour| neighbour.handle(Input::Start, now)).await;
    }

    async fn remove(&mut self, address: IpAddr, now: Duration) {
        let Some(id) = self.running.as_ref().and_then(|running| Some(running.neighbours.get(&address)?.id))
        else {
            return;
        };
        info!(target: GOBGP, Key = %address, Topic = "Peer", "Delete a peer configuration");
        self.feed(id, |neighbour| neighbour.handle(Input::Remove, now)).await;
        if let Some(running) = self.running.as_mut() {
            running.neighbours.remove(&address);
        }
        self.tell(Subject::Peer(address), Vec::new()).await;
    }

    async fn stop(&mut self) {
        let now = self.now();
        let addresses: Vec<IpAddr> =
            self.running.iter().flat_map(|running| running.neighbours.keys().copied()).collect();
        for address in addresses {
            self.remove(address, now).await;
        }
        self.pass_on().await;
        self.running = None;
    }

    async fn arrived(&mut self, arrival: Arrival) {
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

    async fn tick(&mut self) {
        let now = self.now();
        let due = |neighbour: &&Neighbour| neighbour.machine.next_deadline().is_some_and(|at| at <= now);
        let neighbours = self.running.iter().flat_map(|running| running.neighbours.values());
        let ids: Vec<PeerId> = neighbours.filter(due).map(|neighbour| neighbour.id).collect();
        for id in ids {
            self.feed(id, |neighbour| neighbour.tick(now)).await;
        }
    }

    /// Has one neighbour take something in, and sees to what comes of it.
    pub(super) async fn feed(&mut self, id: PeerId, input: impl FnOnce(&mut Neighbour) -> Vec<Outcome>) {
        let now = self.now();
        let Some(running) = self.running.as_mut() else { return };
        let Some(neighbour) = running.of_id(id) else { return };
        let address = neighbour.address;
        let before = (neighbour.machine.state(), neighbour.machine.is_enabled());
        let mut outcomes = VecDeque::from(input(neighbour));
        let facts = neighbour.facts();
        let mut said: Option<Vec<Problem>> = None;
        while let Some(outcome) = outcomes.pop_front() {
            match outcome {
                Outcome::Up => {
                    let state = "BGP_FSM_OPENCONFIRM";
                    info!(target: GOBGP, Key = %address, State = state, Topic = "Peer", "Peer Up");
                    if let Some(facts) = facts.clone() {
                        running.rib.peer_up(id, facts);
                    }
                    said = Some(Vec::new());
                }
                Outcome::Down(reason) => {
                    let state = "BGP_FSM_ESTABLISHED";
                    info!(target: GOBGP, Key = %address, Reason = %reason, State = state, Topic = "Peer", "Peer Down");
                    running.rib.peer_down(id, Retention::Drop);
                    if reason == DownReason::HoldTimerExpired {
                        said = Some(vec![ended(address, &reason.to_string())]);
                    }
                }
                Outcome::Update(update) => {
                    for fault in &update.faults {
                        debug!("BGP peer {address}: {fault:?}");
                    }
                    if let Some(fault) = update.faults.first() {
                        said = Some(vec![faulty(address, fault.text)]);
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
                    said = Some(vec![ended(address, &format!("{verb} {notification}"))]);
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

    /// Messages to the peers that have room for them, and best paths to the kernel.
    async fn pass_on(&mut self) {
        let now = self.now();
        let Some(running) = self.running.as_mut() else { return };
        let is_followed = self.watchers.want(|watch| watch.best);
        let mut changes = Vec::new();
        while let Some(change) = running.rib.poll_best() {
            if is_followed {
                changes.push(answer::change(running, &change, now));
            }
            let learned = change.best.filter(|(source, _)| *source != router_bgp::rib::Source::Local);
            self.sink.push(change.prefix, learned.map(|(_, attributes)| attributes.next_hop));
        }
        if !changes.is_empty() {
            self.watchers.send(|watch| watch.best, &WatchEvent::Paths(changes));
        }
        let Running { rib, neighbours, .. } = running;
        for neighbour in neighbours.values_mut().filter(|neighbour| neighbour.is_established()) {
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
        self.conclude();
        let none = BTreeSet::new();
        let told = self.running.as_ref().map_or(&none, |running| &running.wanted.vips);
        self.settings.announced.send_if_modified(|before| {
            let is_new = before != told;
            if is_new {
                before.clone_from(told);
            }
            is_new
        });
    }

    /// At first, once every peer has sent its whole table, or those that do not answer have had twice their hold time,
    /// the kernel is told that what nobody named is stale.
    fn conclude(&mut self) {
        let now = self.now();
        let Some(running) = self.running.as_ref().filter(|_| !self.converged) else { return };
        let whole = |neighbour: &Neighbour| {
            let families = neighbour.machine.session().map(|session| session.context.families);
            families
                .is_some_and(|families| families.iter().all(|family| neighbour.end_of_rib.contains(family)))
        };
        let patience = Duration::from_secs(2 * u64::from(self.settings.hold_time));
        if running.neighbours.values().all(whole) || now.saturating_sub(running.since) > patience {
            self.converged = true;
            self.sink.converged();
        }
    }

    /// Raises these problems, and clears those of before that are not among them.
    async fn name(&mut self, problems: Vec<Problem>) {
        let mut by_subject: BTreeMap<Subject, Vec<Problem>> = BTreeMap::new();
        for problem in problems {
            by_subject.entry(problem.subject.clone()).or_default().push(problem);
        }
        let before = std::mem::replace(&mut self.named, by_subject.keys().cloned().collect());
        for subject in
            before.into_iter().filter(|subject| !by_subject.contains_key(subject)).collect::<Vec<_>>()
        {
            self.tell(subject, Vec::new()).await;
        }
        for (subject, problems) in by_subject {
            self.tell(subject, problems).await;
        }
    }

    async fn tell(&self, subject: Subject, problems: Vec<Problem>) {
        // The loop is gone only if the agent is.
        let _ = self.events.send(Event::Problems(subject, problems)).await;
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

/// Another address, identity or AS is another speaker.
fn is_same_speaker(one: &Wanted, other: &Wanted) -> bool {
    (one.asn, one.router_id, one.address, one.port) == (other.asn, other.router_id, other.address, other.port)
}
