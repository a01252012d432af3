//! The loop in a namespace of its own, on a real kernel.

use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use router_core::plan::Group;
use router_core::plan::fib::{Op, Row};
use router_core::problem::{Finder, Problems};
use tokio::time::timeout;

use super::*;
use crate::sys::testing::{in_namespace, run as sh};

const HOST: &str = "ip link add eth0 type bridge; ip link set eth0 up; ip addr add 192.0.2.1/24 dev eth0";
const HOUR: Duration = Duration::from_hours(1);
const SECOND: Duration = Duration::from_secs(1);

fn prefix(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[expect(clippy::unnecessary_wraps, reason = "it is what the queue takes")]
fn hop(last: u8) -> Option<IpAddr> {
    Some([192, 0, 2, last].into())
}

/// A loop that runs, and what is around it.
struct Bench {
    queue: Arc<FibQueue>,
    own: watch::Sender<Option<Own>>,
    problems: Arc<Mutex<Problems>>,
}

impl Bench {
    fn problems(&self) -> Vec<String> {
        self.problems.lock().unwrap().iter().map(ToString::to_string).collect()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs a loop in a namespace with one subnet that `prepare` has seen to, and `act` beside it.
fn learning(prepare: &str, own: Option<Own>, sync_period: Duration, act: impl AsyncFnOnce(&Bench) + Send) {
    in_namespace(|| {
        sh(HOST);
        sh(prepare);
        runtime().block_on(async {
            let queue = Arc::new(FibQueue::default());
            let (own, own_seen) = watch::channel(own);
            let (events, mut inbox) = mpsc::channel(4);
            let problems = Arc::new(Mutex::new(Problems::default()));
            let keep = Arc::clone(&problems);
            let listen = async {
                while let Some(Event::Problems(subject, found)) = inbox.recv().await {
                    keep.lock().unwrap().set(Finder::Apply, &subject, found);
                }
            };
            let bench = Bench { queue: Arc::clone(&queue), own, problems };
            tokio::select! {
                ended = run(queue, own_seen, sync_period, events, mpsc::channel(1).1) => panic!("the loop ended: {ended:?}"),
                () = listen => panic!("an event that is no problem"),
                () = act(&bench) => {}
            }
        });
    });
}

#[expect(clippy::unnecessary_wraps, reason = "it is what the channel carries")]
fn known() -> Option<Own> {
    Some(Own::default())
}

fn lines(command: &str) -> Vec<String> {
    sh(command).lines().map(|line| line.trim().to_owned()).collect()
}

fn learned() -> Vec<String> {
    lines("ip route show proto 17")
}

/// Waits until the learned routes are these.
async fn until(within: Duration, wanted: &[&str]) {
    let end = Instant::now() + within;
    while learned() != wanted {
        assert!(Instant::now() < end, "not within {within:?}: {wanted:?} but {:?}", learned());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What `ip -4 monitor route` prints from its start on.
struct Monitor {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Monitor {
    async fn start() -> Self {
        let mut child =
            Command::new("ip").args(["-4", "monitor", "route"]).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let into = Arc::clone(&lines);
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).for_each(|line| into.lock().unwrap().push(line));
        });
        let monitor = Self { child, lines };
        while monitor.lines.lock().unwrap().is_empty() {
            sh("ip route add 203.0.113.99 dev lo proto 99; ip route del 203.0.113.99");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        monitor
    }

    /// What it has printed, but for what made sure that it listens.
    async fn heard(&self) -> Vec<String> {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let lines = self.lines.lock().unwrap();
        lines
            .iter()
            .map(|line| line.trim().to_owned())
            .filter(|line| !line.contains("203.0.113.99"))
            .collect()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_route_comes_moves_in_place_and_goes() {
    learning("true", known(), HOUR, async |bench| {
        let monitor = Monitor::start().await;
        bench.queue.push(prefix("10.244.2.0/24"), hop(2));
        until(SECOND, &["10.244.2.0/24 via 192.0.2.2 dev eth0"]).await;
        bench.queue.push(prefix("10.244.2.0/24"), hop(3));
        until(SECOND, &["10.244.2.0/24 via 192.0.2.3 dev eth0"]).await;
        bench.queue.push(prefix("10.244.2.0/24"), None);
        until(SECOND, &[]).await;
        assert_eq!(
            monitor.heard().await,
            [
                "10.244.2.0/24 via 192.0.2.2 dev eth0 proto 17",
                "10.244.2.0/24 via 192.0.2.3 dev eth0 proto 17",
                "Deleted 10.244.2.0/24 via 192.0.2.3 dev eth0 proto 17",
            ]
        );
        assert_eq!(bench.problems(), Vec::<String>::new());
    });
}

#[test]
fn routes_that_somebody_flushes_are_back_within_a_second() {
    learning("true", known(), HOUR, async |bench| {
        for net in 2..5 {
            bench.queue.push(prefix(&format!("10.244.{net}.0/24")), hop(net));
        }
        let all = ["2", "3", "4"].map(|net| format!("10.244.{net}.0/24 via 192.0.2.{net} dev eth0"));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        until(SECOND, &all).await;
        for _ in 0..3 {
            sh("ip route flush proto 17");
            assert_eq!(learned(), Vec::<String>::new());
            until(SECOND, &all).await;
        }
        sh("ip route replace 10.244.3.0/24 via 192.0.2.77 proto 17");
        until(SECOND, &all).await;
        let monitor = Monitor::start().await;
        sh("ip route add 10.244.3.0/24 via 192.0.2.77 proto 17 metric 50");
        until(SECOND, &all).await;
        assert_eq!(monitor.heard().await.len(), 2, "{:?}", monitor.heard().await);
    });
}

#[test]
fn a_link_that_bounces_has_its_routes_again_within_a_second() {
    learning("true", known(), HOUR, async |bench| {
        bench.queue.push(prefix("10.244.2.0/24"), hop(2));
        let route = ["10.244.2.0/24 via 192.0.2.2 dev eth0"];
        until(SECOND, &route).await;
        sh("ip link set eth0 down; ip link set eth0 up");
        assert_eq!(learned(), Vec::<String>::new(), "the kernel takes routes away with the link");
        until(SECOND, &route).await;
        sh("ip link set eth0 down");
        tokio::time::sleep(Duration::from_millis(400)).await;
        sh("ip link set eth0 up");
        until(SECOND, &route).await;
        assert_eq!(bench.problems(), Vec::<String>::new());
    });
}

#[test]
fn routes_follow_the_address_that_they_depend_on() {
    learning("true", known(), HOUR, async |bench| {
        bench.queue.push(prefix("10.244.2.0/24"), hop(2));
        bench.queue.push(prefix("10.244.3.0/24"), Some([198, 51, 100, 3].into()));
        until(SECOND, &["10.244.2.0/24 via 192.0.2.2 dev eth0"]).await;
        sh("ip addr add 198.51.100.1/24 dev eth0");
        let both = ["10.244.2.0/24 via 192.0.2.2 dev eth0", "10.244.3.0/24 via 198.51.100.3 dev eth0"];
        until(SECOND, &both).await;
        sh("ip addr del 192.0.2.1/24 dev eth0");
        until(SECOND, &["10.244.3.0/24 via 198.51.100.3 dev eth0"]).await;
        sh("ip addr flush dev eth0; ip addr add 198.51.100.1/24 dev eth0");
        assert_eq!(learned(), Vec::<String>::new(), "the kernel takes routes away with the last address");
        until(SECOND, &["10.244.3.0/24 via 198.51.100.3 dev eth0"]).await;
    });
}

#[test]
fn another_protocols_route_to_the_same_prefix_is_left_alone_and_ours_comes_when_it_goes() {
    let theirs = "10.244.2.0/24 via 192.0.2.9 dev eth0";
    let add =
        format!("ip route add {theirs} proto static; ip route add blackhole 10.244.3.0/24 proto static");
    learning(&add, known(), HOUR, async |bench| {
        let monitor = Monitor::start().await;
        bench.queue.push(prefix("10.244.2.0/24"), hop(2));
        bench.queue.push(prefix("10.244.3.0/24"), hop(2));
        assert_eq!(monitor.heard().await, Vec::<String>::new());
        assert_eq!(lines("ip route show proto static"), [theirs, "blackhole 10.244.3.0/24"]);
        sh("ip route del 10.244.2.0/24 proto static; ip route del blackhole 10.244.3.0/24");
        let ours = ["10.244.2.0/24 via 192.0.2.2 dev eth0", "10.244.3.0/24 via 192.0.2.2 dev eth0"];
        until(SECOND, &ours).await;
        sh(&format!("ip route replace {theirs} proto static"));
        tokio::time::sleep(Duration::from_millis(400)).await;
        bench.queue.push(prefix("10.244.2.0/24"), hop(3));
        bench.queue.push(prefix("10.244.2.0/24"), None);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(lines("ip route show proto static"), [theirs]);
        assert_eq!(bench.problems(), Vec::<String>::new());
    });
}

#[test]
fn what_stands_and_is_right_is_not_rewritten_and_what_is_unknown_stays_until_the_sweep() {
    let right = "10.244.2.0/24 via 192.0.2.2 dev eth0";
    let stale = "10.244.9.0/24 via 192.0.2.9 dev eth0";
    let prepare = format!("ip route add {right} proto 17; ip route add {stale} proto 17");
    learning(&prepare, known(), HOUR, async |bench| {
        let monitor = Monitor::start().await;
        for _ in 0..3 {
            bench.queue.push(prefix("10.244.2.0/24"), hop(2));
            assert_eq!(monitor.heard().await, Vec::<String>::new());
        }
        bench.queue.sweep();
        until(SECOND, &[right]).await;
        assert_eq!(monitor.heard().await, [format!("Deleted {stale} proto 17")]);
    });
}

#[test]
fn a_withdrawn_prefix_loses_a_route_of_an_earlier_life() {
    let stale = "10.244.9.0/24 via 192.0.2.9 dev eth0";
    learning(&format!("ip route add {stale} proto 17"), known(), HOUR, async |bench| {
        bench.queue.push(prefix("10.244.9.0/24"), None);
        until(SECOND, &[]).await;
    });
}

#[test]
fn nothing_is_written_before_it_is_known_what_is_ours_and_nothing_over_it() {
    learning("true", None, HOUR, async |bench| {
        bench.queue.push(prefix("10.244.1.0/24"), hop(2));
        bench.queue.push(prefix("10.244.2.0/24"), hop(2));
        bench.queue.push(prefix("192.0.2.0/25"), hop(2));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(learned(), Vec::<String>::new());
        let own = |range| Own { ranges: BTreeSet::from([prefix(range)]), addresses: BTreeSet::new() };
        bench.own.send(Some(own("10.244.1.0/24"))).unwrap();
        until(SECOND, &["10.244.2.0/24 via 192.0.2.2 dev eth0"]).await;
        bench.own.send(Some(own("10.244.2.0/24"))).unwrap();
        until(SECOND, &["10.244.1.0/24 via 192.0.2.2 dev eth0"]).await;
    });
}

#[test]
fn a_route_that_cannot_be_written_is_named_while_others_go_on_and_comes_when_it_can() {
    let prepare = "ip addr add 198.51.100.1/24 dev eth0 noprefixroute";
    learning(prepare, known(), HOUR, async |bench| {
        bench.queue.push(prefix("10.244.2.0/24"), Some([198, 51, 100, 2].into()));
        bench.queue.push(prefix("10.244.3.0/24"), hop(3));
        until(SECOND, &["10.244.3.0/24 via 192.0.2.3 dev eth0"]).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        let problems = bench.problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].starts_with("table route 10.244.2.0/24: NotProgrammed: cannot add route"),
            "{problems:?}"
        );
        bench.queue.push(prefix("10.244.4.0/24"), hop(4));
        let two = ["10.244.3.0/24 via 192.0.2.3 dev eth0", "10.244.4.0/24 via 192.0.2.4 dev eth0"];
        until(SECOND, &two).await;
        sh("ip route add 198.51.100.0/24 dev eth0");
        until(SECOND, &["10.244.2.0/24 via 198.51.100.2 dev eth0", two[0], two[1]]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(bench.problems(), Vec::<String>::new());
    });
}

#[test]
fn the_sync_timer_rewrites_nothing_that_is_right() {
    learning("true", known(), Duration::from_millis(100), async |bench| {
        bench.queue.push(prefix("10.244.2.0/24"), hop(2));
        until(SECOND, &["10.244.2.0/24 via 192.0.2.2 dev eth0"]).await;
        let monitor = Monitor::start().await;
        assert_eq!(monitor.heard().await, Vec::<String>::new(), "three audits have passed");
    });
}

#[test]
fn the_sync_timer_finds_what_no_event_told_of() {
    in_namespace(|| {
        sh(HOST);
        runtime().block_on(async {
            let mut keeper = Keeper::open(Duration::from_millis(50)).unwrap();
            keeper.place(known().as_ref());
            let to = prefix("10.244.2.0/24");
            keeper.take(Pending { changes: BTreeMap::from([(to, hop(2))]), swept: false });
            keeper.step().await;
            let link = keeper.want.subnets.iter().find(|subnet| subnet.global).unwrap().link;
            let row = Row { metric: 0, next_hop: hop(2), link, single: true };
            let mut gone = Group::empty(Owner::Route(to));
            gone.dels.push(Op::Delete(to, row));
            // By the very socket of which it hears nothing.
            assert!(keeper.driver.apply(&[gone]).await.is_empty());
            assert_eq!(learned(), Vec::<String>::new());
            sleep_until(keeper.due()).await;
            keeper.step().await;
            assert_eq!(learned().len(), 1);
        });
    });
}

#[test]
fn own_writes_are_not_heard_and_others_are() {
    in_namespace(|| {
        sh(HOST);
        runtime().block_on(async {
            let mut keeper = Keeper::open(HOUR).unwrap();
            keeper.place(known().as_ref());
            let changes = BTreeMap::from([(prefix("10.244.2.0/24"), hop(2))]);
            keeper.take(Pending { changes, swept: false });
            keeper.step().await;
            assert_eq!(learned().len(), 1);
            let heard = timeout(Duration::from_millis(200), keeper.notices.notices()).await;
            assert!(heard.is_err(), "{heard:?}");
            assert_eq!((keeper.reads, keeper.look_at), (1, None));
            sh("ip route del 10.244.2.0/24");
            for notice in timeout(SECOND, keeper.notices.notices()).await.unwrap().unwrap() {
                keeper.note(&notice);
            }
            assert!(keeper.look_at.is_some());
            // A route that has nothing to do with ours, and a link that no subnet is on.
            keeper.look_at = None;
            sh("ip route add 10.250.0.0/16 via 192.0.2.9; ip link add other type bridge; ip link set other up");
            for notice in timeout(SECOND, keeper.notices.notices()).await.unwrap().unwrap() {
                keeper.note(&notice);
            }
            assert_eq!(keeper.look_at, None);
        });
    });
}

#[test]
fn ten_thousand_routes_come_and_go_at_once() {
    learning("true", known(), HOUR, async |bench| {
        let count = std::env::var("ROUTES").map_or(10_000, |text| text.parse::<u32>().unwrap());
        let all = || {
            (0..count).map(|number| {
                let address = std::net::Ipv4Addr::from(0x0b00_0000 + (number << 4));
                IpNet::new(address.into(), 28).unwrap()
            })
        };
        let present = || sh("ip route show proto 17 | wc -l").trim().parse::<u32>().unwrap();
        for (wanted, last) in [(count, hop(2)), (count, hop(3)), (0, None)] {
            let start = Instant::now();
            all().for_each(|prefix| bench.queue.push(prefix, last));
            let pushed = start.elapsed();
            loop {
                let through = last.map_or_else(String::new, |last| format!("via {last} "));
                let routes = sh(&format!("ip route show proto 17 {through}| wc -l"));
                if routes.trim().parse::<u32>().unwrap() == wanted && present() == wanted {
                    break;
                }
                assert!(start.elapsed() < Duration::from_mins(1), "{} routes of {wanted}", present());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            println!("{wanted} routes by {last:?}: pushed in {pushed:?}, there in {:?}", start.elapsed());
        }
        assert_eq!(bench.problems(), Vec::<String>::new());
    });
}
