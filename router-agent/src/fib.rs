//! The loop of learned routes: what BGP chose goes into the kernel, and comes back when somebody takes it out.
//!
//! A change of BGP's is planned at once, against what we know of the kernel. Behind our back three things happen: a
//! link goes down, or loses its last address, and takes its routes with it, without an event for each; an address
//! comes or goes; somebody else writes routes. Each is noticed, and a moment later everything is read and planned
//! anew; of what we write ourselves the kernel does not tell us. A write that fails is tried again ever more rarely,
//! while others go on. Nothing is planned before it is known what is ours by other means.

mod answer;
mod problems;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Error, Result};
use ipnet::IpNet;
use router_core::cluster::Event;
use router_core::plan::fib::{self, FibPlane, Own, PROTOCOL, Tables, Want};
use router_core::plan::{Owner, Plane as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, trace};

use crate::measure::ROUTES;
use crate::planes::fib::FibDriver;
use crate::reconcile::{Driver as _, backoff};
use crate::serve::health;
use crate::sys::netlink::{Notice, RouteEvents};

pub(crate) use self::answer::{Ask, LearnedRoute, Standing};
use self::problems::Reporter;
pub(crate) use self::queue::FibQueue;
use self::queue::Pending;

/// From the first sign that something changed to looking: what belongs together has come by then.
const PAUSE: Duration = Duration::from_millis(100);
/// The same when the last repair is no older than [`FIGHT`]: somebody may keep on undoing what we do.
const LONG_PAUSE: Duration = Duration::from_millis(500);
const FIGHT: Duration = Duration::from_secs(2);
/// Prefixes planned and written at a time: the first of many routes need not wait for the last to be planned, nor
/// anybody else on this thread.
const BATCH: usize = 2_048;

/// Keeps the kernel's routes as `queue` says, and compares everything every `sync_period`. `own` is `None` until this
/// node is known. Ends when nobody hears of problems any more, or when the kernel can no longer be listened to.
///
/// It works in the network namespace of the thread that polls it first.
pub(crate) async fn run(
    queue: Arc<FibQueue>,
    own: watch::Receiver<Option<Own>>,
    sync_period: Duration,
    events: mpsc::Sender<Event>,
    asks: mpsc::Receiver<Ask>,
) -> Result<()> {
    Keeper::open(sync_period)?.run(queue, own, events, asks).await
}

/// It turns at least this often, so that one can see that it does.
const IDLE: Duration = Duration::from_secs(30);

/// What has to be read again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stale {
    subnets: bool,
    routes: bool,
}

/// A prefix whose last write failed.
#[derive(Debug)]
struct Held {
    attempts: u32,
    retry_at: Instant,
    error: Error,
}

/// What a pass has done.
#[derive(Debug, Default)]
struct Done {
    ops: usize,
    /// Groups that were neither BGP's change nor a retry.
    unasked: usize,
    failed: Vec<(Owner, Error)>,
}

#[derive(Debug)]
struct Keeper {
    driver: FibDriver,
    notices: RouteEvents,
    sync_period: Duration,
    want: Want,
    /// `want.own` has been told.
    placed: bool,
    /// What the kernel holds, as far as we know.
    have: Option<Tables>,
    dirty: BTreeSet<IpNet>,
    /// Everything is to be planned.
    replan: bool,
    held: BTreeMap<IpNet, Held>,
    stale: Stale,
    /// When what is stale is read.
    look_at: Option<Instant>,
    audit_at: Instant,
    repaired_at: Option<Instant>,
    unreadable: u32,
    reporter: Reporter,
    /// Reads of the whole table since the start.
    reads: u64,
}

impl Keeper {
    fn open(sync_period: Duration) -> Result<Self> {
        let driver = FibDriver::open()?;
        // Events first: what changes between the two is then reported, not lost.
        let notices = RouteEvents::open(driver.port()).context("cannot listen to netlink events")?;
        let now = Instant::now();
        Ok(Self {
            driver,
            notices,
            sync_period,
            want: Want::default(),
            placed: false,
            have: None,
            dirty: BTreeSet::new(),
            replan: false,
            held: BTreeMap::new(),
            stale: Stale { subnets: true, routes: true },
            look_at: Some(now),
            audit_at: later(now, sync_period),
            repaired_at: None,
            unreadable: 0,
            reporter: Reporter::default(),
            reads: 0,
        })
    }

    async fn run(
        mut self,
        queue: Arc<FibQueue>,
        mut own: watch::Receiver<Option<Own>>,
        events: mpsc::Sender<Event>,
        mut asks: mpsc::Receiver<Ask>,
    ) -> Result<()> {
        own.mark_changed();
        loop {
            health::ROUTES.beat();
            let due = self.due().min(Instant::now() + self.sync_period.min(IDLE));
            tokio::select! {
                pending = queue.changes() => self.take(pending),
                changed = own.changed() => {
                    changed.context("learn what is this node's own")?;
                    self.place(own.borrow_and_update().as_ref());
                }
                notices = self.notices.notices() => {
                    notices.context("listen to netlink events")?.iter().for_each(|notice| self.note(notice));
                }
                Some(ask) = asks.recv() => self.answer(ask).await,
                () = sleep_until(due) => {}
            }
            if self.placed {
                self.step().await;
            }
            for event in self.reporter.changes() {
                if events.send(event).await.is_err() {
                    return Ok(());
                }
            }
        }
    }

    /// When there is something to do unprompted.
    fn due(&self) -> Instant {
        if !self.placed {
            return later(Instant::now(), Duration::MAX);
        }
        let retry = self.held.values().map(|held| held.retry_at).min().filter(|_| self.unreadable == 0);
        retry.into_iter().chain(self.look_at).fold(self.audit_at, Instant::min)
    }

    /// What BGP chose.
    fn take(&mut self, pending: Pending) {
        let Pending { changes, swept } = pending;
        for (prefix, next_hop) in changes {
            self.want.chosen.insert(prefix, next_hop);
            self.dirty.insert(prefix);
        }
        self.replan |= swept && !self.want.swept;
        self.want.swept |= swept;
    }

    /// What is ours by other means.
    fn place(&mut self, own: Option<&Own>) {
        let Some(own) = own else { return };
        self.replan |= !self.placed || self.want.own != *own;
        self.placed = true;
        self.want.own.clone_from(own);
    }

    fn note(&mut self, notice: &Notice) {
        let on_subnet = |index: u32| self.want.subnets.iter().any(|subnet| subnet.link == index);
        let Stale { subnets, routes } = match notice {
            Notice::Overrun => Stale { subnets: true, routes: true },
            // With the last address of a link go its routes, also if there is another by the time we look.
            Notice::Address { link } => Stale { subnets: true, routes: on_subnet(*link) },
            Notice::Link { index, up } => {
                // A link that has been down has lost its routes, also if it is up again by the time we look.
                let mut subnets = self.want.subnets.iter();
                let changed = subnets.any(|subnet| subnet.link == *index && subnet.up != *up);
                Stale { subnets: changed, routes: changed }
            }
            Notice::LinkGone { index } => Stale { subnets: on_subnet(*index), routes: on_subnet(*index) },
            Notice::Route(entry) => {
                let route = &entry.route;
                let ours = route.protocol == PROTOCOL || self.want.chosen.contains_key(&route.destination);
                // A route to a subnet may be what a write that failed has waited for.
                let awaited = route.gateway.is_none() && !self.held.is_empty();
                Stale { subnets: false, routes: ours || awaited }
            }
        };
        if subnets || routes {
            trace!("{notice:?}");
            self.stale.subnets |= subnets;
            self.stale.routes |= routes;
            let now = Instant::now();
            let fight = self.repaired_at.is_some_and(|last| now - last < FIGHT);
            self.look_at.get_or_insert(now + if fight { LONG_PAUSE } else { PAUSE });
        }
    }

    async fn step(&mut self) {
        let now = Instant::now();
        let noticed = self.look_at.is_some_and(|at| at <= now);
        let audit = self.audit_at <= now;
        let retry = self.unreadable == 0 && self.held.values().any(|held| held.retry_at <= now);
        if noticed || audit || retry {
            // A retry reads too: a write that failed says that we do not know what is there.
            self.stale.routes |= audit || retry;
            self.stale.subnets |= audit || retry;
            if !self.look().await {
                return;
            }
        }
        let Some(have) = self.have.take() else { return };
        // The world has changed, or the first of those that failed is due: then all of them are tried again, so that
        // they share one reading.
        self.pass(have, now, noticed || audit || retry).await;
    }

    /// Reads what is stale. Whether we know now what the kernel holds.
    async fn look(&mut self) -> bool {
        let read = self.read().await;
        self.reporter.unreadable(read.as_ref().err());
        let now = Instant::now();
        self.audit_at = later(now, self.sync_period);
        if read.is_err() {
            self.have = None;
            self.stale = Stale { subnets: true, routes: true };
            self.unreadable += 1;
            self.look_at = Some(now + backoff(self.unreadable));
            return false;
        }
        self.unreadable = 0;
        self.look_at = None;
        true
    }

    async fn read(&mut self) -> Result<()> {
        let Stale { subnets, routes } = std::mem::take(&mut self.stale);
        let mut moved = false;
        if subnets {
            let found = self.driver.subnets().await?;
            moved = found != self.want.subnets;
            self.want.subnets = found;
        }
        if routes || moved {
            self.have = Some(self.driver.read().await?);
            self.reads += 1;
            self.replan = true;
        }
        Ok(())
    }

    /// Plans and writes what is to be done, given what the kernel holds.
    async fn pass(&mut self, mut have: Tables, now: Instant, afresh: bool) {
        let replan = std::mem::take(&mut self.replan);
        let dirty = std::mem::take(&mut self.dirty);
        let mut owners: BTreeSet<Owner> = dirty.iter().copied().map(Owner::Route).collect();
        if replan {
            owners.extend(FibPlane::owners(&self.want, &have));
        }
        for prefix in self.held.keys() {
            if afresh {
                owners.insert(Owner::Route(*prefix));
            } else if !dirty.contains(prefix) {
                owners.remove(&Owner::Route(*prefix));
            }
        }
        self.explain(&dirty, &have);
        let mut done = Done::default();
        let mut rest = owners.iter();
        loop {
            let batch: BTreeSet<Owner> = rest.by_ref().take(BATCH).cloned().collect();
            if batch.is_empty() {
                break;
            }
            self.write(&mut have, &batch, &dirty, &mut done).await;
        }
        ROUTES.synced.set(have.rows.len());
        self.have = Some(have);
        if owners.is_empty() {
            return;
        }
        let Done { ops, unasked, failed } = done;
        let took = now.elapsed();
        if ops > 0 {
            ROUTES.passes.took(took);
        }
        debug!("{} prefixes planned, {ops} ops, {} failed, in {took:?}", owners.len(), failed.len());
        if self.reads > 1 && afresh && unasked > 0 {
            info!("{unasked} learned routes were not as they should be and are written anew");
            self.repaired_at = Some(Instant::now());
        }
        self.settle(&owners, failed);
    }

    async fn write(
        &mut self,
        have: &mut Tables,
        owners: &BTreeSet<Owner>,
        dirty: &BTreeSet<IpNet>,
        done: &mut Done,
    ) {
        let groups = FibPlane::plan_all(&self.want, have, owners, Duration::ZERO);
        if groups.is_empty() {
            return;
        }
        for op in groups.iter().flat_map(|group| group.puts.iter().chain(&group.dels)) {
            trace!("{op}");
            done.ops += 1;
        }
        let asked = |of: IpNet| dirty.contains(&of) || self.held.contains_key(&of);
        let unasked = groups.iter().filter(|group| matches!(group.owner, Owner::Route(of) if !asked(of)));
        done.unasked += unasked.count();
        let failed = self.driver.apply(&groups).await;
        let stuck: BTreeSet<&Owner> = failed.iter().map(|(owner, _)| owner).collect();
        for group in groups.iter().filter(|group| !stuck.contains(&group.owner)) {
            ROUTES.added.add(group.puts.len());
            ROUTES.removed.add(group.dels.len());
        }
        done.failed.extend(failed);
    }

    /// Remembers who failed, and forgets who no longer does and what is no longer chosen.
    fn settle(&mut self, planned: &BTreeSet<Owner>, failed: Vec<(Owner, Error)>) {
        let mut failed: BTreeMap<Owner, Error> = failed.into_iter().collect();
        let now = Instant::now();
        for owner in planned {
            let Owner::Route(prefix) = *owner else { continue };
            let before = self.held.remove(&prefix);
            if let Some(error) = failed.remove(owner) {
                let attempts = before.map_or(1, |held| held.attempts + 1);
                self.held.insert(prefix, Held { attempts, retry_at: now + backoff(attempts), error });
            } else if self.want.chosen.get(&prefix) == Some(&None) {
                self.want.chosen.remove(&prefix);
            }
        }
        // A first failure is mostly a race with a change whose event is on its way.
        let lasting = self.held.iter().filter(|(_, held)| held.attempts > 1);
        self.reporter.failing(lasting.map(|(prefix, held)| (*prefix, &held.error)));
    }

    /// Says why prefixes that BGP chose get no route.
    fn explain(&self, prefixes: &BTreeSet<IpNet>, have: &Tables) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        for prefix in prefixes {
            let Some(Some(next_hop)) = self.want.chosen.get(prefix) else { continue };
            if let Err(reason) = fib::route(&self.want, have, *prefix, *next_hop) {
                debug!("no route to {prefix}: {reason}");
            }
        }
    }
}

/// `after` from `now`, or never.
fn later(now: Instant, after: Duration) -> Instant {
    now.checked_add(after).unwrap_or_else(|| now + Duration::from_hours(24 * 365))
}
