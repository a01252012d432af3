//! The loop, with a driver whose kernel is a table in memory and fails on demand.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use anyhow::anyhow;
use router_core::model::Key;
use router_core::model::node::Node;
use router_core::model::service::{Endpoint, Protocol, Service, ServicePort, Slice, SlicePort};
use router_core::plan::ebpf::{EbpfPlane, Op, Tables, realized};
use router_core::problem::Change;

use super::*;

type Four = [u8; 4];

/// A kernel in memory, and what was asked of it.
#[derive(Debug, Default)]
struct Kernel {
    tables: Tables<Four>,
    reads: u32,
    applies: u32,
    ops: Vec<String>,
    /// Ops with this in their text fail.
    failing: Option<String>,
    unreadable: bool,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Kernel>>);

impl Fake {
    fn with<T>(&self, look: impl FnOnce(&mut Kernel) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    /// Waits for up to 5 s.
    async fn until(&self, what: &str, hope: impl Fn(&Kernel) -> bool) {
        for _ in 0..1_000 {
            if self.with(|kernel| hope(kernel)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("not within 5 s: {what}; {:?}", self.with(|kernel| kernel.ops.clone()));
    }
}

impl Driver<EbpfPlane<Four>> for Fake {
    async fn read(&mut self) -> Result<Tables<Four>, Error> {
        self.with(|kernel| {
            kernel.reads += 1;
            if kernel.unreadable { Err(anyhow!("no such map")) } else { Ok(kernel.tables.clone()) }
        })
    }

    async fn apply(&mut self, groups: &[Group<Op<Four>>]) -> Vec<(Owner, Error)> {
        self.with(|kernel| {
            kernel.applies += 1;
            groups.iter().filter_map(|group| Some((group.owner.clone(), kernel.carry_out(group)?))).collect()
        })
    }
}

impl Kernel {
    fn carry_out(&mut self, group: &Group<Op<Four>>) -> Option<Error> {
        for op in group.puts.iter().chain(&group.dels) {
            let text = op.to_string();
            if self.failing.as_ref().is_some_and(|failing| text.contains(failing)) {
                return Some(anyhow!("map is full"));
            }
            EbpfPlane::apply(&mut self.tables, op);
            realized(&self.tables).unwrap_or_else(|broken| panic!("after {text}: {broken}"));
            self.ops.push(text);
        }
        None
    }

    fn backends(&self, vip: u8) -> Option<usize> {
        let dialled = (IpAddr::from([10, 96, 0, vip]), 80, 6);
        realized(&self.tables).unwrap().get(&dialled).map(BTreeSet::len)
    }
}

/// A loop under test.
struct Bench {
    kernel: Fake,
    events: mpsc::Sender<Event>,
    progress: watch::Receiver<Progress>,
    host: watch::Receiver<HostView>,
    /// The speaker's part, played by the test.
    routing: watch::Receiver<Option<RoutingView>>,
    announced: watch::Sender<BTreeSet<IpAddr>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const KINDS: [Kind; 2] = [Kind::Services, Kind::EndpointSlices];

fn bench(kernel: Fake, sync_period: Duration) -> Bench {
    let (events, inbox) = mpsc::channel(64);
    let (progress, progress_seen) = watch::channel(Progress::default());
    let (host, host_seen) = watch::channel(HostView::default());
    let settings = Settings {
        sync_period,
        cluster_ip_ranges: vec!["10.96.0.0/12".parse().unwrap()],
        advertise_vips: true,
    };
    let (view, routing) = watch::channel(None);
    let (announced, announced_seen) = watch::channel(BTreeSet::new());
    let routing_outlet = Some(Routing { view, announced: announced_seen });
    let outlets = Outlets { progress, host, routing: routing_outlet };
    let cluster = Cluster::new("n", KINDS);
    let reconciler = Reconciler::<EbpfPlane<Four>, _>::new(cluster, Some(kernel.clone()), settings, outlets);
    let task = tokio::spawn(reconciler.run(inbox, mpsc::channel(1).1));
    Bench { kernel, events, progress: progress_seen, host: host_seen, routing, announced, task }
}

impl Bench {
    async fn tell(&self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.events.send(event).await.unwrap();
        }
    }

    async fn listed(&self) {
        self.tell(KINDS.map(Event::Listed)).await;
    }
}

fn service(vip: u8) -> Event {
    let ports = vec![ServicePort { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: None }];
    let cluster_ips = vec![[10, 96, 0, vip].into()];
    Event::Service(Service { key: Key::new("d", format!("s{vip}")), created: 0, cluster_ips, ports })
}

fn slice(vip: u8, hosts: std::ops::Range<u8>) -> Event {
    let endpoint = |host| Endpoint {
        address: [10, 1, vip, host].into(),
        ready: true,
        serving: true,
        terminating: false,
    };
    let name = format!("s{vip}");
    let ports = vec![SlicePort { name: String::new(), protocol: Protocol::Tcp, port: 8080 }];
    let endpoints = hosts.map(endpoint).collect();
    Event::Slice(Slice {
        key: Key::new("d", format!("{name}-x")),
        service: Key::new("d", name),
        ports,
        endpoints,
    })
}

const HOUR: Duration = Duration::from_hours(1);

#[tokio::test]
async fn nothing_is_read_or_planned_before_every_kind_has_listed() {
    let bench = bench(Fake::default(), HOUR);
    bench.tell([service(1), slice(1, 1..3), Event::Listed(Kind::Services)]).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(bench.kernel.with(|kernel| (kernel.reads, kernel.applies)), (0, 0));
    bench.tell([Event::Listed(Kind::EndpointSlices)]).await;
    bench.kernel.until("two backends", |kernel| kernel.backends(1) == Some(2)).await;
    bench.progress.clone().wait_for(|progress| progress.in_step).await.unwrap();
}

#[tokio::test]
async fn a_restart_writes_nothing() {
    let first = bench(Fake::default(), HOUR);
    first.tell([service(1), service(2), slice(1, 1..9)]).await;
    first.listed().await;
    first.kernel.until("eight backends", |kernel| kernel.backends(1) == Some(8)).await;
    let kernel = first.kernel.clone();
    drop(first);
    kernel.with(|kernel| kernel.ops.clear());
    let second = bench(kernel.clone(), HOUR);
    second.tell([slice(1, 1..9), service(2), service(1)]).await;
    second.listed().await;
    second.progress.clone().wait_for(|progress| progress.in_step).await.unwrap();
    assert_eq!(kernel.with(|kernel| kernel.ops.clone()), Vec::<String>::new());
}

#[tokio::test]
async fn a_change_costs_its_own_ops_and_no_read() {
    let bench = bench(Fake::default(), HOUR);
    bench.tell([service(1), slice(1, 1..5), service(2), slice(2, 1..5)]).await;
    bench.listed().await;
    bench.kernel.until("both", |kernel| kernel.backends(1) == Some(4) && kernel.backends(2) == Some(4)).await;
    bench.kernel.with(|kernel| kernel.ops.clear());
    bench.tell([slice(1, 1..6)]).await;
    bench.kernel.until("a fifth", |kernel| kernel.backends(1) == Some(5)).await;
    let (ops, reads) = bench.kernel.with(|kernel| (kernel.ops.clone(), kernel.reads));
    assert_eq!((ops.len(), reads), (3, 1), "{ops:?}");
}

#[tokio::test]
async fn a_storm_costs_few_passes() {
    let bench = bench(Fake::default(), HOUR);
    bench.tell([service(1)]).await;
    bench.listed().await;
    bench.kernel.until("the frontend", |kernel| kernel.backends(1) == Some(0)).await;
    for round in 0..300 {
        bench.tell([slice(1, 1..(2 + u8::try_from(round % 7).unwrap()))]).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    bench.tell([slice(1, 1..12)]).await;
    bench.kernel.until("the last state", |kernel| kernel.backends(1) == Some(11)).await;
    let applies = bench.kernel.with(|kernel| kernel.applies);
    assert!(applies < 60, "{applies} applies for 300 changes");
}

#[tokio::test]
async fn a_failing_service_is_named_and_held_while_others_go_on_and_comes_when_it_can() {
    let kernel = Fake::default();
    kernel.with(|kernel| kernel.failing = Some("10.1.1.".into()));
    let bench = bench(kernel, HOUR);
    bench.tell([service(1), slice(1, 1..3), service(2), slice(2, 1..3)]).await;
    bench.listed().await;
    bench.kernel.until("the other", |kernel| kernel.backends(2) == Some(2)).await;
    bench.tell([slice(2, 1..5)]).await;
    bench.kernel.until("the other's change", |kernel| kernel.backends(2) == Some(4)).await;
    assert_eq!(bench.kernel.with(|kernel| kernel.backends(1)), None);
    bench.kernel.with(|kernel| kernel.failing = None);
    bench.kernel.until("the one that failed", |kernel| kernel.backends(1) == Some(2)).await;
}

#[tokio::test]
async fn a_failing_vip_holds_back_its_frontend_alone() {
    let kernel = Fake::default();
    kernel.with(|kernel| kernel.failing = Some("10.96.0.1:0/0".into()));
    let bench = bench(kernel, HOUR);
    bench.tell([service(1), slice(1, 1..3), service(2), slice(2, 1..3)]).await;
    bench.listed().await;
    bench.kernel.until("the other", |kernel| kernel.backends(2) == Some(2)).await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(bench.kernel.with(|kernel| kernel.backends(1)), None);
    bench.kernel.with(|kernel| kernel.failing = None);
    bench.kernel.until("the held one", |kernel| kernel.backends(1) == Some(2)).await;
}

#[tokio::test]
async fn the_sync_timer_mends_what_someone_else_broke() {
    let bench = bench(Fake::default(), Duration::from_millis(100));
    bench.tell([service(1), slice(1, 1..3)]).await;
    bench.listed().await;
    bench.kernel.until("two backends", |kernel| kernel.backends(1) == Some(2)).await;
    bench.kernel.with(|kernel| kernel.tables.frontends.clear());
    bench.kernel.until("the frontend again", |kernel| kernel.backends(1) == Some(2)).await;
}

#[tokio::test]
async fn tables_that_cannot_be_read_are_asked_for_again() {
    let kernel = Fake::default();
    kernel.with(|kernel| kernel.unreadable = true);
    let bench = bench(kernel, HOUR);
    bench.tell([service(1), slice(1, 1..3)]).await;
    bench.listed().await;
    bench.kernel.until("two tries", |kernel| kernel.reads >= 2).await;
    assert!(!bench.progress.borrow().in_step);
    bench.kernel.with(|kernel| kernel.unreadable = false);
    bench.kernel.until("two backends", |kernel| kernel.backends(1) == Some(2)).await;
}

#[tokio::test]
async fn the_host_is_told_which_range_to_route() {
    let mut bench = bench(Fake::default(), HOUR);
    bench.tell([service(1)]).await;
    bench.listed().await;
    let view = bench.host.wait_for(|view| !view.vip_ranges.is_empty()).await.unwrap().clone();
    assert_eq!(view.vip_ranges, BTreeSet::from(["10.96.0.0/12".parse().unwrap()]));
}

fn node() -> Event {
    let cidr = "10.1.0.0/24".parse().unwrap();
    Event::Node("n".into(), Node { addresses: vec![[192, 0, 2, 1].into()], pod_cidrs: vec![cidr] })
}

#[tokio::test]
async fn a_vip_is_announced_once_it_is_programmed_and_goes_after_its_withdrawal() {
    let vip = IpAddr::from([10, 96, 0, 1]);
    let has_vip = |view: &Option<RoutingView>| view.as_ref().is_some_and(|view| view.vips.contains(&vip));
    let mut bench = bench(Fake::default(), HOUR);
    bench.kernel.with(|kernel| kernel.failing = Some("frontend".into()));
    bench.tell([node(), service(1), slice(1, 1..3)]).await;
    bench.listed().await;
    bench.kernel.until("two tries", |kernel| kernel.applies >= 4).await;
    assert!(!has_vip(&bench.routing.borrow()), "it cannot be dialled yet");
    bench.kernel.with(|kernel| kernel.failing = None);
    bench.routing.wait_for(has_vip).await.unwrap();
    assert_eq!(bench.kernel.with(|kernel| kernel.backends(1)), Some(2));
    bench.announced.send_replace(BTreeSet::from([vip]));
    // After a rest a change is planned at once.
    tokio::time::sleep(4 * SLOWEST).await;
    bench.tell([Event::ServiceGone(Key::new("d", "s1"))]).await;
    bench.routing.wait_for(|view| !has_vip(view)).await.unwrap();
    assert_eq!(bench.kernel.with(|kernel| kernel.backends(1)), Some(2), "its peers still send here");
    bench.announced.send_replace(BTreeSet::new());
    bench.kernel.until("the frontend to go", |kernel| kernel.backends(1).is_none()).await;
}

#[tokio::test]
async fn the_speaker_hears_when_the_vips_are_all_that_there_are() {
    let settled = |view: &Option<RoutingView>| view.as_ref().is_some_and(|view| view.settled);
    let mut bench = bench(Fake::default(), HOUR);
    bench.kernel.with(|kernel| kernel.unreadable = true);
    bench.tell([node(), service(1), slice(1, 1..3)]).await;
    bench.listed().await;
    bench.routing.wait_for(Option::is_some).await.unwrap();
    assert!(!settled(&bench.routing.borrow()), "nothing is programmed");
    bench.kernel.with(|kernel| kernel.unreadable = false);
    let view = bench.routing.wait_for(settled).await.unwrap().clone().unwrap();
    assert_eq!(view.vips, BTreeSet::from([[10, 96, 0, 1].into()]));
}

fn reconciler(kernel: &Fake) -> Reconciler<EbpfPlane<Four>, Fake> {
    let settings = Settings { sync_period: HOUR, cluster_ip_ranges: vec![], advertise_vips: false };
    let (progress, host) = (watch::channel(Progress::default()).0, watch::channel(HostView::default()).0);
    Reconciler::new(
        Cluster::new("n", []),
        Some(kernel.clone()),
        settings,
        Outlets { progress, host, routing: None },
    )
}

#[tokio::test]
async fn a_failure_is_raised_once_over_many_tries_and_cleared_once() {
    let kernel = Fake::default();
    kernel.with(|kernel| kernel.failing = Some("10.1.1.".into()));
    let mut reconciler = reconciler(&kernel);
    reconciler.absorb([service(1), slice(1, 1..3)].into_iter());
    let mut changes = Vec::new();
    for _ in 0..3 {
        reconciler.pass().await;
        reconciler.held.values_mut().for_each(|held| held.retry_at = Instant::now());
        changes.extend(reconciler.cluster.problems_mut().take_changes());
    }
    let [Change::Raised(problem)] = changes.as_slice() else { panic!("{changes:?}") };
    let text = problem.to_string();
    let expected = "service d/s1: NotProgrammed: frontend 10.96.0.1:80/TCP: map is full; \
                    it is tried again; everything else goes on";
    assert_eq!(text, expected);
    kernel.with(|kernel| kernel.failing = None);
    reconciler.pass().await;
    let cleared = reconciler.cluster.problems_mut().take_changes();
    assert_eq!(cleared, [Change::Cleared(problem.clone())]);
}

#[test]
fn retries_grow_apart_up_to_a_minute() {
    let waits = [1, 2, 3, 10, 11, 99].map(backoff).map(|wait| wait.as_millis());
    assert_eq!(waits, [100, 200, 400, 51_200, 60_000, 60_000]);
}

#[test]
fn passes_keep_a_growing_distance_until_they_rest() {
    let mut pace = Pace::default();
    let mut now = Instant::now();
    assert!(pace.next() <= Instant::now());
    let mut gaps = Vec::new();
    for _ in 0..8 {
        pace.passed(now);
        gaps.push((pace.next() - now).as_millis());
        now = pace.next();
    }
    assert_eq!(gaps, [2, 4, 8, 16, 32, 50, 50, 50]);
    pace.passed(now + HOUR);
    assert_eq!(pace.gap, Duration::from_millis(2));
}
