//! What the kernel writes itself: flows, swept of what has died and counted by service; and events, logged.
//!
//! The sweep decides with [`lifetime`] and [`expired`], which are pure. A translated flow is two rows, of which
//! traffic may touch only one, so it dies only when both have. The margin covers that a row's time is up to a
//! second old and that a packet may come between our look and our delete.
//! Nothing is deleted before services are known: the caller starts the sweep then.

mod reader;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use router_common::abi::{Event, Flow, FlowKey, flow_flags, protocol, seen};
use router_common::hook::flow::{client_key, server_key, untranslated};
use router_common::verdict::DropReason;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep, timeout_at};
use zerocopy::FromBytes as _;

use crate::planes::ebpf::Resting;
use crate::sys::bpf::{Row, Table, take};
use crate::sys::clock::monotonic;

pub(crate) use self::reader::{Connection, Reader};

type V4 = [u8; 4];
type Rows = Table<Row<FlowKey<V4>>, Row<Flow<V4>>>;

/// A sweep each time this has passed.
const PERIOD: Duration = Duration::from_secs(10);
/// Between two slices of a sweep, so that it never holds a core.
const PAUSE: Duration = Duration::from_millis(1);
/// Beyond a flow's lifetime.
const MARGIN: Duration = Duration::from_secs(5);

/// How long a flow lives without a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// Confirmed TCP.
    pub tcp: Duration,
    /// TCP that one side has closed.
    pub tcp_closing: Duration,
    /// TCP that both sides have closed, or one has reset.
    pub tcp_closed: Duration,
    /// TCP whose handshake is not done.
    pub tcp_new: Duration,
    /// Confirmed UDP.
    pub udp: Duration,
    /// Anything else: UDP without an answer, echo.
    pub other: Duration,
}

impl Default for Timeouts {
    /// Those of IPVS where it has them.
    fn default() -> Self {
        Self {
            tcp: Duration::from_mins(15),
            tcp_closing: Duration::from_mins(2),
            tcp_closed: Duration::from_secs(10),
            tcp_new: Duration::from_mins(1),
            udp: Duration::from_mins(5),
            other: Duration::from_secs(30),
        }
    }
}

/// How long a flow of this protocol lives of which `seen` is what both halves have seen.
pub(crate) fn lifetime(protocol: u8, seen: u16, timeouts: &Timeouts) -> Duration {
    let confirmed = seen & seen::CONFIRMED != 0;
    let finished = seen & seen::FIN_REQUEST != 0 && seen & seen::FIN_REPLY != 0;
    match protocol {
        protocol::TCP if finished || seen & seen::RESET != 0 => timeouts.tcp_closed,
        protocol::TCP if seen & seen::CLOSING != 0 => timeouts.tcp_closing,
        protocol::TCP if confirmed => timeouts.tcp,
        protocol::TCP => timeouts.tcp_new,
        protocol::UDP if confirmed => timeouts.udp,
        _ => timeouts.other,
    }
}

/// Whether a flow is dead at `now` (`CLOCK_MONOTONIC`), seen from one half. `twin` is the other, where there is one.
pub(crate) fn expired(
    protocol: u8,
    half: &Flow<V4>,
    twin: Option<&Flow<V4>>,
    now: Duration,
    timeouts: &Timeouts,
) -> bool {
    let seen = half.seen | twin.map_or(0, |twin| twin.seen);
    let last = half.last_seen.max(half.created).max(twin.map_or(0, |twin| twin.last_seen));
    now.saturating_sub(Duration::from_nanos(last)) > lifetime(protocol, seen, timeouts) + MARGIN
}

/// The key of the other half of a translated flow.
fn twin_key(key: &FlowKey<V4>, half: &Flow<V4>) -> Option<FlowKey<V4>> {
    if untranslated(half) {
        return None;
    }
    let client = half.flags & flow_flags::CLIENT != 0;
    Some(if client { server_key(half, key.protocol) } else { client_key(half, key.protocol) })
}

/// Traffic of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub packets: u64,
    pub bytes: u64,
}

impl Traffic {
    fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }

    fn max(self, other: Self) -> Self {
        Self { packets: self.packets.max(other.packets), bytes: self.bytes.max(other.bytes) }
    }
}

/// Traffic of a service, by direction, and the flows that it came by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub connections: u64,
    pub from_clients: Traffic,
    pub to_clients: Traffic,
}

impl Usage {
    /// What one half counted: the client's carries requests, the server's replies.
    fn of(half: &Flow<V4>) -> Self {
        let traffic = Traffic { packets: half.packets, bytes: half.bytes };
        if half.flags & flow_flags::CLIENT != 0 {
            Self { connections: 1, from_clients: traffic, ..Self::default() }
        } else {
            Self { to_clients: traffic, ..Self::default() }
        }
    }

    fn add(&mut self, other: Self) {
        self.connections += other.connections;
        self.from_clients.add(other.from_clients);
        self.to_clients.add(other.to_clients);
    }

    fn max(self, other: Self) -> Self {
        Self {
            connections: self.connections.max(other.connections),
            from_clients: self.from_clients.max(other.from_clients),
            to_clients: self.to_clients.max(other.to_clients),
        }
    }
}

/// What a sweep found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// Sweeps since the start; until the first, nothing is known.
    pub sweeps: u64,
    /// When it ended; `None` before the first.
    pub at: Option<Instant>,
    /// Rows that live, those of them that are not confirmed, and rows deleted by this sweep.
    pub live: usize,
    pub fresh: usize,
    pub deleted: usize,
    /// Ids of backends and of service ports that a live flow holds.
    pub backends: BTreeSet<u32>,
    pub services: BTreeSet<u32>,
    /// Since the start, by service port. Never falls while the agent runs.
    pub usage: BTreeMap<u32, Usage>,
}

/// Sweeps the two flow maps.
#[derive(Debug)]
pub(crate) struct Sweeper {
    confirmed: Rows,
    fresh: Rows,
    timeouts: Timeouts,
    resting: Resting,
    /// Of flows that have been deleted.
    retired: BTreeMap<u32, Usage>,
    last: Swept,
}

impl Sweeper {
    /// Takes the flow maps out of a loaded object. `resting` is told what flows hold.
    pub(crate) fn take(ebpf: &mut Ebpf, timeouts: Timeouts, resting: Resting) -> Result<Self> {
        Ok(Self {
            confirmed: Table::take(ebpf, "FLOWS4")?,
            fresh: Table::take(ebpf, "FLOWS_NEW4")?,
            timeouts,
            resting,
            retired: BTreeMap::new(),
            last: Swept::default(),
        })
    }

    /// A reader of the same maps.
    pub(crate) fn reader(&self) -> Result<Reader> {
        Ok(Reader { confirmed: self.confirmed.share()?, fresh: self.fresh.share()? })
    }

    /// Sweeps every ten seconds until the process ends, and tells what it found.
    pub(crate) async fn run(mut self, found: watch::Sender<Arc<Swept>>) -> Result<()> {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.sweep().await {
                Ok(swept) => drop(found.send_replace(Arc::new(swept.clone()))),
                Err(error) => tracing::warn!("cannot sweep flows: {error:#}"),
            }
        }
    }

    /// Looks at every flow and deletes none: which ids they hold has to be known before the first is given out.
    pub(crate) async fn survey(&mut self) -> Result<&Swept> {
        self.pass(false).await
    }

    /// One sweep.
    pub(crate) async fn sweep(&mut self) -> Result<&Swept> {
        self.pass(true).await
    }

    /// New flows are looked at first: one that is confirmed meanwhile is then seen twice, not missed.
    async fn pass(&mut self, delete: bool) -> Result<&Swept> {
        self.resting.sweep_begins();
        let now = monotonic()?;
        let mut swept = Swept { sweeps: self.last.sweeps + 1, ..Swept::default() };
        let mut live = BTreeMap::new();
        for confirmed in [false, true] {
            let mut suspects = Vec::new();
            let map = if confirmed { &self.confirmed } else { &self.fresh };
            let mut scan = map.scan();
            while let Some(batch) = scan.next().transpose()? {
                for (key, half) in batch {
                    let (key, half) = (key.into_inner(), half.into_inner());
                    if delete && expired(key.protocol, &half, None, now, &self.timeouts) {
                        suspects.push((key, half));
                    } else {
                        note(&mut swept, &mut live, &half);
                    }
                }
                sleep(PAUSE).await;
            }
            let dead = self.judge(suspects, now, &mut swept, &mut live)?;
            swept.deleted += self.bury(&dead, confirmed);
            if !confirmed {
                swept.fresh = swept.live;
            }
        }
        swept.at = Some(Instant::now());
        for (service, usage) in &self.retired {
            live.entry(*service).or_insert_with(Usage::default).add(*usage);
        }
        swept.usage = std::mem::take(&mut self.last.usage);
        for (service, usage) in live {
            let total = swept.usage.entry(service).or_default();
            *total = total.max(usage);
        }
        self.resting.sweep_ended(swept.backends.union(&swept.services).copied().collect());
        self.last = swept;
        Ok(&self.last)
    }

    /// Of halves that look dead by themselves, those whose other half is dead too.
    fn judge(
        &self,
        suspects: Vec<(FlowKey<V4>, Flow<V4>)>,
        now: Duration,
        swept: &mut Swept,
        live: &mut BTreeMap<u32, Usage>,
    ) -> Result<Vec<(FlowKey<V4>, Flow<V4>)>> {
        let mut dead = Vec::new();
        for (key, half) in suspects {
            let twin = match twin_key(&key, &half) {
                Some(key) => self.find(key)?,
                None => None,
            };
            if expired(key.protocol, &half, twin.as_ref(), now, &self.timeouts) {
                dead.push((key, half));
            } else {
                note(swept, live, &half);
            }
        }
        Ok(dead)
    }

    fn find(&self, key: FlowKey<V4>) -> Result<Option<Flow<V4>>> {
        find(&self.confirmed, &self.fresh, key)
    }

    /// Clients' halves first: they lead to the servers'.
    fn bury(&mut self, dead: &[(FlowKey<V4>, Flow<V4>)], confirmed: bool) -> usize {
        let mut dead: Vec<_> = dead.iter().collect();
        dead.sort_by_key(|(_, half)| half.flags & flow_flags::CLIENT == 0);
        let keys: Vec<_> = dead.iter().map(|(key, _)| Row::new(*key)).collect();
        let map = if confirmed { &mut self.confirmed } else { &mut self.fresh };
        let failures = map.delete(&keys);
        if let Some(failure) = failures.first() {
            tracing::warn!(rows = failures.len(), "cannot delete dead flows: {:#}", failure.error);
        }
        for (_, half) in dead.iter().filter(|(_, half)| half.service != 0) {
            self.retired.entry(half.service).or_default().add(Usage::of(half));
        }
        keys.len() - failures.len()
    }
}

fn find(confirmed: &Rows, fresh: &Rows, key: FlowKey<V4>) -> Result<Option<Flow<V4>>> {
    let found = match confirmed.get(&Row::new(key))? {
        Some(row) => Some(row),
        None => fresh.get(&Row::new(key))?,
    };
    Ok(found.map(Row::into_inner))
}

fn note(swept: &mut Swept, live: &mut BTreeMap<u32, Usage>, half: &Flow<V4>) {
    swept.live += 1;
    if half.backend_id != 0 {
        swept.backends.insert(half.backend_id);
    }
    if half.service != 0 {
        swept.services.insert(half.service);
        live.entry(half.service).or_default().add(Usage::of(half));
    }
}

/// Interface index to "namespace/name" of the pod behind it, kept by whoever binds pods.
pub(crate) type PodNames = Arc<RwLock<BTreeMap<u32, String>>>;

/// A line is due for the same device and reason only after this.
const LINE_PERIOD: Duration = Duration::from_secs(10);
/// Devices times reasons that are remembered; beyond it the oldest goes.
const REMEMBERED: usize = 4096;

/// Drops that wait to be told.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pending: BTreeMap<(u32, u32), Pending>,
}

#[derive(Debug)]
struct Pending {
    /// Since the last line.
    count: u64,
    latest: Event<V4>,
    /// When the next line may be written.
    free: Duration,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub event: Event<V4>,
    /// Sampled drops of this reason on this device that the line stands for.
    pub count: u64,
}

impl Tally {
    /// Counts an event.
    pub(crate) fn add(&mut self, event: Event<V4>, now: Duration) {
        let key = (event.ifindex, event.reason);
        if self.pending.len() >= REMEMBERED && !self.pending.contains_key(&key) {
            let oldest = self.pending.iter().min_by_key(|(_, pending)| pending.free).map(|(key, _)| *key);
            oldest.map(|key| self.pending.remove(&key));
        }
        let pending = self.pending.entry(key).or_insert(Pending { count: 0, latest: event, free: now });
        pending.count += 1;
        pending.latest = event;
    }

    /// The lines that are due. Pairs that have been silent since their last one are forgotten.
    pub(crate) fn due(&mut self, now: Duration) -> Vec<Line> {
        self.pending.retain(|_, pending| pending.count > 0 || pending.free > now);
        let mut lines = Vec::new();
        for pending in self.pending.values_mut().filter(|pending| pending.count > 0 && pending.free <= now) {
            lines.push(Line { event: pending.latest, count: pending.count });
            pending.count = 0;
            pending.free = now + LINE_PERIOD;
        }
        lines
    }

    /// When the next line is due.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.pending.values().filter(|pending| pending.count > 0).map(|pending| pending.free).min()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Event { reason, source, destination, source_port, destination_port, protocol, .. } = self.event;
        let name =
            DropReason::ALL.iter().find(|known| **known as u32 == reason).map_or("unknown", |it| it.name());
        let end = |address: V4, port: u16| match protocol {
            protocol::TCP | protocol::UDP => format!("{}:{port}", Ipv4Addr::from(address)),
            _ => Ipv4Addr::from(address).to_string(),
        };
        let kind = match protocol {
            protocol::ICMP => "icmp".to_owned(),
            protocol::TCP => "tcp".to_owned(),
            protocol::UDP => "udp".to_owned(),
            other => format!("protocol {other}"),
        };
        let (from, to) = (end(source, source_port), end(destination, destination_port));
        write!(formatter, "dropped {} ({name}), the latest {kind} {from} -> {to}", self.count)
    }
}

/// Reads the ring buffer and logs what is due.
pub(crate) struct EventReader {
    ring: AsyncFd<RingBuf<MapData>>,
    names: PodNames,
}

impl fmt::Debug for EventReader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EventReader").finish_non_exhaustive()
    }
}

impl EventReader {
    /// Takes the ring out of a loaded object. Must be called inside a tokio runtime.
    pub(crate) fn take(ebpf: &mut Ebpf, names: PodNames) -> Result<Self> {
        let ring = RingBuf::try_from(take(ebpf, "EVENTS")?).context("map EVENTS")?;
        Ok(Self { ring: crate::sys::bpf::watch_ring(ring)?, names })
    }

    /// Logs until the process ends.
    pub(crate) async fn run(mut self) -> Result<()> {
        let mut tally = Tally::default();
        loop {
            let now = monotonic()?;
            for line in tally.due(now) {
                self.log(&line);
            }
            // Without anything due we wait for the ring alone.
            let wait = tally.next().map_or(LINE_PERIOD, |due| due.saturating_sub(now));
            if let Ok(ready) = timeout_at(Instant::now() + wait, self.ring.readable_mut()).await {
                let mut ready = ready.context("cannot wait for events")?;
                let ring = ready.get_inner_mut();
                while let Some(bytes) = ring.next() {
                    if let Ok((event, _)) = Event::<V4>::read_from_prefix(&bytes) {
                        tally.add(event, now);
                    }
                }
                ready.clear_ready();
            }
        }
    }

    fn log(&self, line: &Line) {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let device = line.event.ifindex;
        let pod = names.get(&device).map_or("none of this node", String::as_str);
        tracing::warn!(pod, device, "{line}");
    }
}

#[cfg(test)]
mod tests;
