//! One loop from events to the kernel: absorb, plan what is dirty, apply, and read again whenever in doubt.
//!
//! A first change is planned at once; under a storm passes keep a growing distance, up to 50 ms, so that many
//! events cost one pass. Nothing is planned before every kind that is followed has listed once. A group that
//! fails holds back the groups that need it and is tried again, ever more rarely; everything is compared with
//! the kernel at start, after a failure and on the sync timer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Error;
use ipnet::IpNet;
use router_core::cluster::{Cluster, Event, HostView, Kind, RoutingView};
use router_core::plan::order::{held_back, waves};
use router_core::plan::{Group, Owner, Plane};
use router_core::problem::{Finder, Problem, Subject};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, trace, warn};

use crate::cluster::report;
use crate::measure::SERVICES;
use crate::parts::publish;
use crate::serve::health;
use crate::sys::bpf::Full;

/// The IO half of a plane.
pub(crate) trait Driver<P: Plane> {
    /// What the kernel holds, all of it: what the loop wrote it knows, and in doubt it reads everything.
    fn read(&mut self) -> impl Future<Output = Result<P::Tables, Error>> + Send;

    /// Carries groups out: the puts of all in order, then the deletes of all in order. Whoever fails is returned
    /// with the reason, and had nothing more done after the op that failed.
    fn apply(&mut self, groups: &[Group<P::Op>]) -> impl Future<Output = Vec<(Owner, Error)>> + Send;
}

/// How far we are: what `app` waits for at start.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    /// Kinds that have not listed yet.
    pub(crate) unlisted: BTreeSet<Kind>,
    /// The API knows our Node.
    pub(crate) has_node: bool,
    /// A comparison with the kernel has been carried out in full.
    pub(crate) in_step: bool,
}

/// What the loop tells others: of each, only the latest counts.
#[derive(Debug)]
pub(crate) struct Outlets {
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) host: watch::Sender<HostView>,
    /// To the BGP speaker, if there is to be one; `None` until this node is known.
    pub(crate) routing: Option<Routing>,
}

/// To and from the BGP speaker.
#[derive(Debug)]
pub(crate) struct Routing {
    pub(crate) view: watch::Sender<Option<RoutingView>>,
    /// The VIPs that its peers have been told of, and not yet told to forget.
    pub(crate) announced: watch::Receiver<BTreeSet<IpAddr>>,
}

/// A question to the loop, answered between two passes. Who has gone away in the meantime is owed no answer.
pub(crate) enum Ask<P: Plane> {
    /// A look at what it knows; a short one, since the loop stands still.
    Look(Looker<P>),
    /// What a comparison of everything with the kernel, read for this, would do.
    Plan(oneshot::Sender<Result<Vec<Group<P::Op>>, Error>>),
}

/// Whoever looks; it takes the answer with it.
pub(crate) type Looker<P> = Box<dyn FnOnce(&Look<'_, P>) + Send>;

/// What the loop knows.
#[derive(Debug)]
pub(crate) struct Look<'a, P: Plane> {
    pub(crate) cluster: &'a Cluster,
    /// What the kernel holds; `None` in doubt.
    pub(crate) have: Option<&'a P::Tables>,
    /// When something of a kind was last told.
    pub(crate) heard: &'a BTreeMap<Kind, Instant>,
}

/// What the loop is told once.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) sync_period: Duration,
    pub(crate) cluster_ip_ranges: Vec<IpNet>,
    /// The speaker is to hear of VIPs.
    pub(crate) advertise_vips: bool,
}

/// Events that are absorbed before a pass is looked at.
const BATCH: usize = 1_024;

/// How long rows of a VIP wait for its withdrawal.
const WITHDRAWAL: Duration = Duration::from_millis(500);

/// Longest distance between passes under a storm.
const SLOWEST: Duration = Duration::from_millis(50);

/// It turns at least this often, so that one can see that it does.
const IDLE: Duration = Duration::from_mins(1);

/// The loop's state. The cluster is its alone.
pub(crate) struct Reconciler<P: Plane, D> {
    cluster: Cluster,
    /// `None`: nothing is programmed, and what is known is passed on all the same.
    driver: Option<D>,
    settings: Settings,
    outlets: Outlets,
    /// What the kernel holds, as far as we know; `None` in doubt.
    have: Option<P::Tables>,
    heard: BTreeMap<Kind, Instant>,
    /// When the first event came that no pass has taken in.
    waiting_since: Option<Instant>,
    dirty: BTreeSet<Owner>,
    held: BTreeMap<Owner, Held>,
    unreadable: u32,
    /// Something came that the host's view may depend on; endpoints do not.
    view_stale: bool,
    /// Something came that the speaker's view may depend on.
    routing_stale: bool,
    /// VIPs that can be dialled; kept only if somebody is told of them.
    programmed: BTreeSet<IpAddr>,
    /// Everything has been planned and applied once, whoever failed.
    settled: bool,
    /// When a veth may have become one that nobody knows.
    strange_at: Option<Instant>,
    pace: Pace,
    started: Instant,
    audit_at: Instant,
}

/// An owner that failed.
struct Held {
    attempts: u32,
    retry_at: Instant,
    subject: Subject,
    text: String,
    remedy: &'static str,
    /// It only waits for another that failed.
    waits: bool,
}

impl<P, D> Reconciler<P, D>
where
    P: Plane<Want = Cluster>,
    D: Driver<P>,
{
    pub(crate) fn new(cluster: Cluster, driver: Option<D>, settings: Settings, outlets: Outlets) -> Self {
        let now = Instant::now();
        Self {
            cluster,
            driver,
            settings,
            outlets,
            have: None,
            heard: BTreeMap::new(),
            waiting_since: None,
            dirty: BTreeSet::new(),
            held: BTreeMap::new(),
            unreadable: 0,
            view_stale: true,
            routing_stale: true,
            programmed: BTreeSet::new(),
            settled: false,
            strange_at: None,
            pace: Pace::default(),
            started: now,
            audit_at: now,
        }
    }

    /// Runs until every sender of events is gone. May be dropped at any await: every prefix of what it does
    /// leaves a working data plane.
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<Event>, mut asks: mpsc::Receiver<Ask<P>>) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            health::SERVICES.beat();
            let turn = Instant::now() + self.settings.sync_period.min(IDLE);
            let due = [self.due(), self.strange_at].into_iter().flatten().fold(turn, Instant::min);
            tokio::select! {
                count = events.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    self.absorb(batch.drain(..));
                }
                Some(ask) = asks.recv() => self.answer(ask).await,
                () = sleep_until(due) => {}
            }
            if self.due().is_some_and(|due| due <= Instant::now()) {
                self.pass().await;
            }
            self.find_strangers();
            report::log(&self.cluster.problems_mut().take_changes());
            self.tell();
        }
    }

    async fn answer(&mut self, ask: Ask<P>) {
        match ask {
            Ask::Look(look) => {
                look(&Look { cluster: &self.cluster, have: self.have.as_ref(), heard: &self.heard });
            }
            Ask::Plan(to) => drop(to.send(self.plan().await)),
        }
    }

    async fn plan(&mut self) -> Result<Vec<Group<P::Op>>, Error> {
        let Some(driver) = self.driver.as_mut() else { return Ok(Vec::new()) };
        let mut have = driver.read().await?;
        let owners = P::owners(&self.cluster, &have);
        Ok(P::plan_all(&self.cluster, &mut have, &owners, self.started.elapsed()))
    }

    fn absorb(&mut self, events: impl ExactSizeIterator<Item = Event>) {
        let now = Instant::now();
        SERVICES.events.add(events.len());
        for event in events {
            trace!("{event:?}");
            self.heard.extend(event.kind().map(|kind| (kind, now)));
            let aside = matches!(event, Event::Slice(_) | Event::SliceGone(_) | Event::Problems(..));
            self.view_stale |= !aside;
            self.routing_stale |= matches!(event, Event::Node(..) | Event::NodeGone(_) | Event::Listed(_))
                || (self.settings.advertise_vips
                    && matches!(event, Event::Service(_) | Event::ServiceGone(_)));
            self.dirty.extend(self.cluster.absorb(event));
        }
        if !self.dirty.is_empty() {
            self.waiting_since.get_or_insert(now);
        }
    }

    /// When the next pass is due, if there is anything to do.
    fn due(&self) -> Option<Instant> {
        self.driver.as_ref().filter(|_| self.cluster.unlisted().is_empty())?;
        let retry = self.held.values().map(|held| held.retry_at).min();
        let timers = retry.into_iter().chain([self.audit_at]).min();
        let work = !self.dirty.is_empty() || (self.have.is_none() && self.unreadable == 0);
        if work && self.unreadable == 0 { Some(self.pace.next()) } else { timers }
    }

    async fn pass(&mut self) {
        let now = Instant::now();
        if self.audit_at <= now {
            self.have = None;
        }
        let all = self.have.is_none();
        // Before the rows of a VIP go, its peers are to hear of it.
        self.tell_speaker();
        let Some(mut have) = self.take_tables().await else { return };
        let mut owners = std::mem::take(&mut self.dirty);
        let (ready, waiting): (Vec<_>, Vec<_>) = self.held.iter().partition(|(_, held)| held.retry_at <= now);
        owners.extend(ready.into_iter().map(|(owner, _)| owner.clone()));
        let waiting: BTreeSet<Owner> = waiting.into_iter().map(|(owner, _)| owner.clone()).collect();
        // After that, what differs though nobody asked for it has been changed by somebody else.
        let asked = (all && self.outlets.progress.borrow().in_step).then(|| owners.clone());
        if all {
            owners.extend(P::owners(&self.cluster, &have));
            self.audit_at = now + self.settings.sync_period;
        }
        owners.retain(|owner| !waiting.contains(owner));
        let groups = P::plan_all(&self.cluster, &mut have, &owners, now - self.started);
        if let Some(asked) = asked {
            tell_of_damage(&groups, &asked);
        }
        let ops: usize = groups.iter().map(|group| group.puts.len() + group.dels.len()).sum();
        let failed = self.apply(groups, &waiting).await;
        let outcome = (failed.len(), Instant::now() - now);
        debug!("{} owners planned, {ops} ops, {} failed, in {:?}", owners.len(), outcome.0, outcome.1);
        SERVICES.passes.took(outcome.1);
        SERVICES.writes.observe(ops as u64);
        SERVICES.failures.add(outcome.0);
        if let Some(since) = self.waiting_since.take() {
            SERVICES.visible.took(since.elapsed());
        }
        if failed.is_empty() {
            self.have = Some(have);
        }
        let advertised = Some(&owners).filter(|_| self.settings.advertise_vips);
        let addresses: BTreeSet<IpAddr> = advertised.into_iter().flatten().filter_map(vip_of).collect();
        self.settle(owners, failed);
        self.note_programmed(addresses);
        self.routing_stale |= !std::mem::replace(&mut self.settled, true);
        self.pace.passed(Instant::now());
        self.outlets.progress.send_if_modified(|progress| {
            all && self.have.is_some() && !std::mem::replace(&mut progress.in_step, true)
        });
    }

    /// What the kernel holds: what we know, or what we read.
    async fn take_tables(&mut self) -> Option<P::Tables> {
        if let Some(have) = self.have.take() {
            return Some(have);
        }
        let read = self.driver.as_mut()?.read().await;
        let subject = Subject::Table("of every kind".to_owned());
        let found = match &read {
            Ok(_) => Vec::new(),
            Err(error) => vec![Problem {
                subject: subject.clone(),
                reason: "NotReadable",
                text: format!("{error:#}"),
                remedy: "nothing is changed until they can be read; it is tried again".to_owned(),
            }],
        };
        self.cluster.problems_mut().set(Finder::Apply, &subject, found);
        self.unreadable = if read.is_ok() { 0 } else { self.unreadable + 1 };
        if read.is_err() {
            self.audit_at = Instant::now() + backoff(self.unreadable);
        }
        read.ok()
    }

    /// Puts in the order of `needs`, then deletes in reverse. Who needs one of `waiting` waits too.
    async fn apply(
        &mut self,
        groups: Vec<Group<P::Op>>,
        waiting: &BTreeSet<Owner>,
    ) -> BTreeMap<Owner, Error> {
        let mut failed: BTreeMap<Owner, Error> = BTreeMap::new();
        let Some(driver) = self.driver.as_mut() else { return failed };
        let mut later = Vec::new();
        for wave in waves(groups) {
            let (mut puts, mut dels) = (Vec::new(), Vec::new());
            for group in wave {
                let Group { owner, needs, .. } = &group;
                if held_back(&group, |need| failed.contains_key(need) || waiting.contains(need)) {
                    let needs: Vec<String> = needs.iter().map(ToString::to_string).collect();
                    failed.insert(owner.clone(), Error::new(Waits(needs.join(" or "))));
                    continue;
                }
                let (owner, needs) = (owner.clone(), needs.clone());
                for op in group.puts.iter().chain(&group.dels) {
                    trace!("{op}");
                }
                puts.push(Group {
                    owner: owner.clone(),
                    needs: needs.clone(),
                    puts: group.puts,
                    dels: Vec::new(),
                });
                dels.push(Group { owner, needs, puts: Vec::new(), dels: group.dels });
            }
            failed.extend(carry_out(driver, puts).await);
            later.push(dels);
        }
        if self.settings.advertise_vips {
            let going = later.iter().flatten().filter(|group| !group.is_empty());
            self.await_withdrawal(going.filter_map(|group| vip_of(&group.owner)).collect()).await;
        }
        let Some(driver) = self.driver.as_mut() else { return failed };
        for mut dels in later.into_iter().rev() {
            dels.retain(|group| !failed.contains_key(&group.owner));
            failed.extend(carry_out(driver, dels).await);
        }
        failed
    }

    /// Waits until the speaker has told its peers to forget the VIPs that go, so that no packet is drawn here for nothing;
    /// not for long, since the peers may be what is wrong.
    async fn await_withdrawal(&mut self, mut going: BTreeSet<IpAddr>) {
        let Some(routing) = self.outlets.routing.as_mut() else { return };
        going.retain(|address| self.cluster.services_on(*address).next().is_none());
        if !going.is_empty() {
            let withdrawn = routing.announced.wait_for(|announced| announced.is_disjoint(&going));
            // Late, or the speaker has ended: the tables have waited long enough either way.
            let _ = timeout(WITHDRAWAL, withdrawn).await;
        }
    }

    /// Remembers who failed, forgets who no longer does, and says so.
    fn settle(&mut self, planned: BTreeSet<Owner>, mut failed: BTreeMap<Owner, Error>) {
        let mut subjects = BTreeSet::new();
        for owner in planned {
            let before = self.held.remove(&owner);
            subjects.extend(before.iter().map(|held| held.subject.clone()));
            let Some(error) = failed.remove(&owner) else { continue };
            let subject = P::subject(&self.cluster, &owner);
            let attempts = before.map_or(1, |held| held.attempts + 1);
            subjects.insert(subject.clone());
            let held = Held {
                attempts,
                retry_at: Instant::now() + backoff(attempts),
                subject,
                text: format!("{owner}: {error:#}"),
                remedy: remedy(&error),
                waits: error.is::<Waits>(),
            };
            self.held.insert(owner, held);
        }
        for subject in subjects {
            let found = self.not_programmed(&subject);
            self.cluster.problems_mut().set(Finder::Apply, &subject, found.into_iter().collect());
        }
    }

    /// Notes which of these VIPs, of which something was planned, can be dialled now. One that could keeps on.
    fn note_programmed(&mut self, addresses: BTreeSet<IpAddr>) {
        if addresses.is_empty() {
            return;
        }
        let held: BTreeSet<IpAddr> = self.held.keys().filter_map(vip_of).collect();
        for address in addresses {
            if self.cluster.services_on(address).next().is_none() {
                self.programmed.remove(&address);
            } else if !held.contains(&address) {
                self.routing_stale |= self.programmed.insert(address);
            }
        }
    }

    /// What is wrong with an object that may have failed, in one line whatever the number of its owners that have.
    fn not_programmed(&self, subject: &Subject) -> Option<Problem> {
        let held = || self.held.values().filter(|held| held.subject == *subject);
        let first = held().find(|held| !held.waits).or_else(|| held().next())?;
        let more = if held().nth(1).is_some() { ", and more of it" } else { "" };
        Some(Problem {
            subject: subject.clone(),
            reason: "NotProgrammed",
            text: format!("{}{more}", first.text),
            remedy: format!("{}; everything else goes on", first.remedy),
        })
    }

    /// Where something came that it may depend on, or time did it.
    fn find_strangers(&mut self) {
        let now = Instant::now();
        let due = self.view_stale || self.strange_at.is_some_and(|at| at <= now);
        if due && self.cluster.unlisted().is_empty() {
            let next = self.cluster.find_strangers(now - self.started);
            self.strange_at = next.map(|next| self.started + next);
        }
    }

    /// Passes on what others wait for, where it changed.
    fn tell(&mut self) {
        self.tell_speaker();
        let unlisted = self.cluster.unlisted();
        let has_node = self.cluster.node().is_some();
        self.outlets.progress.send_if_modified(|progress| {
            let changed = progress.unlisted != *unlisted || progress.has_node != has_node;
            if changed {
                progress.unlisted.clone_from(unlisted);
                progress.has_node = has_node;
            }
            if changed && unlisted.is_empty() {
                info!("everything that is followed has listed");
            }
            changed
        });
        if unlisted.is_empty() && std::mem::take(&mut self.view_stale) {
            publish(&self.outlets.host, self.cluster.host_view(&self.settings.cluster_ip_ranges));
        }
    }

    /// VIPs are told once they are programmed, and are no more as soon as they are about to change: the pass that takes one
    /// away comes after this.
    fn tell_speaker(&mut self) {
        let Some(routing) = self.outlets.routing.as_ref().filter(|_| self.cluster.unlisted().is_empty())
        else {
            return;
        };
        if !std::mem::take(&mut self.routing_stale) {
            return;
        }
        let advertise = self.settings.advertise_vips;
        let ungated = self.driver.is_none();
        let can_dial = |vip: &IpAddr| advertise && (ungated || self.programmed.contains(vip));
        let settled = !advertise || ungated || self.settled;
        publish(&routing.view, self.cluster.routing_view(can_dial, settled));
    }
}

/// Names the rows that are not as they should be and that are none of those `asked` for.
fn tell_of_damage<O: fmt::Display>(groups: &[Group<O>], asked: &BTreeSet<Owner>) {
    let damaged = groups.iter().filter(|group| !asked.contains(&group.owner));
    let ops: Vec<&O> = damaged.flat_map(|group| group.puts.iter().chain(&group.dels)).collect();
    if let Some(first) = ops.first() {
        warn!("{} rows were not as they should be and are written anew, such as: {first}", ops.len());
    }
}

/// The VIP of which an owner is a part.
const fn vip_of(owner: &Owner) -> Option<IpAddr> {
    match owner {
        Owner::Vip(address) => Some(*address),
        Owner::Frontend(frontend) => Some(frontend.address),
        _ => None,
    }
}

async fn carry_out<P: Plane, D: Driver<P>>(
    driver: &mut D,
    mut groups: Vec<Group<P::Op>>,
) -> Vec<(Owner, Error)> {
    groups.retain(|group| !group.is_empty());
    health::SERVICES.beat();
    if groups.is_empty() { Vec::new() } else { driver.apply(&groups).await }
}

/// Held back by another.
#[derive(Debug, thiserror::Error)]
#[error("waits for {0}, which failed")]
struct Waits(String);

/// What a person can do.
fn remedy(error: &Error) -> &'static str {
    if error.is::<Full>() {
        "delete what is not needed, and it comes in within a minute"
    } else {
        "it is tried again"
    }
}

/// 100 ms after the first failure, then twice as long each time, a minute at most.
pub(crate) fn backoff(attempts: u32) -> Duration {
    Duration::from_millis(100 << attempts.saturating_sub(1).min(10)).min(Duration::from_mins(1))
}

/// The distance between passes: none after a rest, growing while they follow one another.
#[derive(Debug, Default)]
struct Pace {
    last: Option<Instant>,
    gap: Duration,
}

impl Pace {
    /// When the next pass may start.
    fn next(&self) -> Instant {
        self.last.map_or_else(Instant::now, |last| last + self.gap)
    }

    /// A pass has ended.
    fn passed(&mut self, now: Instant) {
        let rested = self.last.is_none_or(|last| now.saturating_duration_since(last) > 2 * SLOWEST);
        self.gap = if rested { Duration::from_millis(2) } else { (self.gap * 2).min(SLOWEST) };
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests;
