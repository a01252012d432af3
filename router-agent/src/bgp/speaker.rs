//! The speaker's task: it owns the neighbours and the tables, takes what the cluster wants, what the network brings
//! and what people ask, one after the other, and passes on what came of it: messages to peers, routes to the kernel,
//! lines to the log.
//!
//! Here is what the cluster wants of it; what the network brings is in `traffic`, how it begins and ends in `restart`.
//! Everything a neighbour does is that neighbour's alone: an error ends a session, never this task.

mod restart;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use router_bgp::asn::Asn;
use router_bgp::message::attribute::Attributes;
use router_bgp::restart::Restart;
use router_bgp::rib::{Limits, PeerId, Retention, Rib, RibConfig};
use router_bgp::session::Input;
use router_core::cluster::{Event, RoutingView};
use router_core::peering::{self, Terms, Wanted};
use router_core::problem::{Problem, Subject};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::config::GracefulRestart;
use crate::fib::FibQueue;
use crate::log::GOBGP;
use crate::measure::BGP;
use crate::serve::health;

use super::answer::Watchers;
use super::policies;
use super::session::{Neighbour, Ourselves};
use super::sockets::{Arrivals, listen};
use super::view::Ask;

/// Arrivals under way: readers wait for room beyond it, each with one chunk in hand. Few, since a peer's KEEPALIVE waits
/// behind all that another one floods us with.
const ARRIVALS: usize = 8;
/// Arrivals that are taken in before their consequences are passed on.
const BATCH: usize = 4;
/// Octets queued on one session, above which its peer waits its turn.
const QUEUED: usize = 256 << 10;

/// It turns at least this often, so that one can see that it does.
const IDLE: Duration = Duration::from_mins(1);

/// What the speaker is told once.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) terms: Terms,
    pub(crate) hold_time: u16,
    pub(crate) host_name: String,
    /// `None` is off.
    pub(crate) graceful_restart: Option<GracefulRestart>,
    /// Where it says which VIPs its peers have been told of.
    pub(crate) announced: watch::Sender<BTreeSet<IpAddr>>,
    /// The moment that its times count from.
    pub(crate) started: std::time::Instant,
}

/// Runs until nobody tells it of the cluster any more, or until `leave` changes, since the agent ends.
pub(crate) async fn run(
    settings: Settings,
    mut leave: watch::Receiver<()>,
    mut view: watch::Receiver<Option<RoutingView>>,
    events: mpsc::Sender<Event>,
    mut asks: mpsc::Receiver<Ask>,
    fib: Arc<FibQueue>,
) {
    let (arrivals, mut inbox) = mpsc::channel(ARRIVALS);
    let mut speaker = Speaker {
        start: Instant::from_std(settings.started),
        settings,
        running: None,
        events,
        arrivals,
        fib,
        next_id: 0,
        named: BTreeSet::new(),
        restart: None,
        settled: false,
        awaited: BTreeSet::new(),
        watchers: Watchers::default(),
    };
    let mut batch = Vec::with_capacity(BATCH);
    let mut asking = true;
    loop {
        health::ROUTING.beat();
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
            _ = leave.changed() => {
                speaker.leave(inbox).await;
                return;
            }
            () = sleep_until(deadline) => {}
        }
        speaker.tick().await;
        speaker.pass_on().await;
    }
}

pub(crate) use self::restart::LAST_WORDS;

pub(super) struct Speaker {
    pub(super) settings: Settings,
    pub(super) running: Option<Running>,
    events: mpsc::Sender<Event>,
    arrivals: Arrivals,
    fib: Arc<FibQueue>,
    start: Instant,
    /// Of the next neighbour; never used twice.
    next_id: u32,
    /// Subjects of the problems that the cluster and the flags gave rise to.
    named: BTreeSet<Subject>,
    /// From the first neighbours on.
    restart: Option<Restart>,
    /// The cluster has named all that we announce.
    settled: bool,
    /// Whose tables our restart waits for.
    awaited: BTreeSet<IpAddr>,
    pub(super) watchers: Watchers,
}

/// A speaker under one identity. Another identity is another speaker: all sessions begin anew.
pub(super) struct Running {
    pub(super) wanted: Wanted,
    pub(super) ourselves: Ourselves,
    pub(super) rib: Rib,
    pub(super) neighbours: BTreeMap<IpAddr, Neighbour>,
    /// How often the statements have changed: part of the policies' names, as upstream has it.
    serial: u32,
    listener: JoinHandle<()>,
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

impl Speaker {
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn next_deadline(&self) -> Instant {
        let neighbours = self.running.iter().flat_map(|running| running.neighbours.values());
        let now = self.now();
        let restart = self.restart.as_ref().and_then(|restart| restart.next_deadline(now));
        let next = neighbours.filter_map(|neighbour| neighbour.machine.next_deadline()).chain(restart).min();
        let turn = now + IDLE;
        self.start + next.map_or(turn, |next| next.min(turn))
    }

    /// The cluster has changed.
    async fn follow(&mut self, view: Option<&RoutingView>) {
        let Some(view) = view else { return };
        let begun = Instant::now();
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
        self.settled = view.settled;
        let planned = Instant::now();
        self.change(wanted).await;
        BGP.changes.took(planned.elapsed());
        BGP.nodes.took(begun.elapsed());
    }

    fn begin(&mut self, wanted: &Wanted) {
        let ourselves = Ourselves {
            asn: Asn(wanted.asn),
            router_id: wanted.router_id,
            address: wanted.address,
            hold_time: self.settings.hold_time,
            host_name: self.settings.host_name.clone(),
            graceful_restart: self.settings.graceful_restart,
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
        });
        self.start_restart();
    }

    /// Policies first, so that nothing is exported under old ones; then neighbours, then routes.
    async fn change(&mut self, wanted: Wanted) {
        let now = self.now();
        let Some(running) = self.running.as_mut() else { return };
        if running.wanted == wanted && running.serial > 0 {
            return;
        }
        if running.serial > 0 && policies::differ_in_vips_alone(&running.wanted, &wanted) {
            policies::change_vips(&mut running.rib, &running.wanted.vips, &wanted.vips);
        } else {
            match policies::of(&wanted, running.serial + 1) {
                Ok(policies) => {
                    running.serial += 1;
                    running.rib.set_policies(policies);
                }
                // Every set that a statement names is made beside it.
                Err(error) => warn!("policies stay as they are: {error}"),
            }
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
        BGP.pod_routes.add(wanted.pod_cidrs.difference(&running.wanted.pod_cidrs).count());
        BGP.vips_advertised.add(wanted.vips.difference(&running.wanted.vips).count());
        BGP.vips_withdrawn.add(running.wanted.vips.difference(&wanted.vips).count());
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
        let restarting = self.restart.as_ref().is_some_and(Restart::is_deferring);
        let arrivals = self.arrivals.clone();
        let neighbour = Neighbour::new(id, address, wanted, &running.ourselves, restarting, arrivals);
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
            running.rib.peer_down(id, Retention::Drop);
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
        self.pass_on_best(now);
        self.running = None;
    }

    /// Raises these problems, and clears those of before that are not among them.
    async fn name(&mut self, problems: Vec<Problem>) {
        let mut found: BTreeMap<Subject, Vec<Problem>> =
            std::mem::take(&mut self.named).into_iter().map(|subject| (subject, Vec::new())).collect();
        for problem in problems {
            self.named.insert(problem.subject.clone());
            found.entry(problem.subject.clone()).or_default().push(problem);
        }
        for (subject, problems) in found {
            self.tell(subject, problems).await;
        }
    }

    async fn tell(&self, subject: Subject, problems: Vec<Problem>) {
        // The loop is gone only if the agent is.
        let _ = self.events.send(Event::Problems(subject, problems)).await;
    }
}

/// Another address, identity or AS is another speaker.
fn is_same_speaker(one: &Wanted, other: &Wanted) -> bool {
    (one.asn, one.router_id, one.address, one.port) == (other.asn, other.router_id, other.address, other.port)
}
