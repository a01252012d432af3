//! The part against a kernel, each test in a namespace of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use router_core::model::node::Node;
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::*;
use crate::sys::testing::{in_namespace, run as sh};

/// A running part, and what it is told and tells.
struct Running {
    view: watch::Sender<Option<RoutingView>>,
    told: mpsc::Receiver<Event>,
}

fn node(pod_cidr: &str, address: &str) -> Node {
    Node { addresses: vec![address.parse().unwrap()], pod_cidrs: vec![pod_cidr.parse().unwrap()] }
}

fn nodes(others: &[(&str, &str)]) -> RoutingView {
    let others = others.iter().map(|(range, address)| ((*range).to_owned(), node(range, address)));
    RoutingView {
        node: node("10.244.1.0/24", "192.0.2.1"),
        others: others.collect::<BTreeMap<_, _>>(),
        vips: BTreeSet::new(),
        settled: true,
    }
}

/// Runs the part in a namespace while `body` looks on.
fn with<Done: Future<Output = ()>>(enabled: bool, body: impl FnOnce(Running) -> Done + Send) {
    in_namespace(|| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (view, seen) = watch::channel(None);
            let (events, told) = mpsc::channel(1_024);
            tokio::select! {
                ended = run(enabled, seen, events) => panic!("it ended: {ended:?}"),
                () = body(Running { view, told }) => {}
            }
        });
    });
}

fn table() -> String {
    sh("nft list table ip kube-router 2>/dev/null || true")
}

/// With handles: what is written anew gets others.
fn handles() -> String {
    sh("nft -a list table ip kube-router")
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waited = timeout(Duration::from_secs(5), async {
        while !holds() {
            sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain for {what}: {}", table());
}

/// Long enough for an event, the pause after it, and a look.
async fn a_while() {
    sleep(3 * PAUSE).await;
}

#[test]
fn the_table_follows_the_nodes_and_is_not_rewritten_for_anything_else() {
    with(true, async |running| {
        a_while().await;
        assert_eq!(table(), "", "nothing is known yet");
        running.view.send_replace(Some(nodes(&[])));
        eventually("this node's range", || table().contains("{ 10.244.1.0/24 }")).await;
        running.view.send_replace(Some(nodes(&[("10.244.9.0/24", "192.0.2.9")])));
        eventually("the other node", || {
            table().contains("{ 10.244.1.0/24, 10.244.9.0/24 }")
                && table().contains("{ 192.0.2.1, 192.0.2.9 }")
        })
        .await;
        let before = handles();
        let mut view = nodes(&[("10.244.9.0/24", "192.0.2.9")]);
        view.vips.insert("10.96.0.1".parse().unwrap());
        running.view.send_replace(Some(view));
        sh(
            "nft add table ip other; nft add chain ip other c; nft flush table ip other; nft delete table ip other",
        );
        a_while().await;
        assert_eq!(handles(), before);
        running.view.send_replace(Some(nodes(&[])));
        eventually("the other node to go", || !table().contains("10.244.9.0/24")).await;
    });
}

#[test]
fn a_predecessor_s_table_that_is_right_is_not_touched() {
    with(true, async |running| {
        running
            .view
            .send_replace(Some(nodes(&[("10.244.9.0/24", "192.0.2.9"), ("fd00::/64", "2001:db8::1")])));
        eventually("the table", || table().contains("10.244.9.0/24")).await;
        let next = watch::channel(running.view.borrow().clone());
        let (events, _told) = mpsc::channel(1_024);
        let before = handles() + &sh("nft -a list table ip6 kube-router");
        let successor = run(true, next.1, events);
        assert!(timeout(4 * PAUSE, successor).await.is_err(), "it goes on");
        assert_eq!(handles() + &sh("nft -a list table ip6 kube-router"), before);
    });
}

#[test]
fn damage_is_repaired_within_a_second_whatever_it_is() {
    with(true, async |running| {
        running.view.send_replace(Some(nodes(&[("10.244.9.0/24", "192.0.2.9")])));
        eventually("the table", || table().contains("10.244.9.0/24")).await;
        let whole = table();
        for damage in [
            "nft flush ruleset",
            "nft delete table ip kube-router",
            "nft flush chain ip kube-router egress",
            "nft delete rule ip kube-router egress handle $(nft -a list table ip kube-router | sed -n 's/.*fully-random # handle //p')",
            "nft add rule ip kube-router egress accept",
            "nft delete element ip kube-router pod-cidrs { 10.244.9.0/24 }",
            "nft add element ip kube-router node-addresses { 203.0.113.9 }",
        ] {
            a_while().await;
            sh(damage);
            assert_ne!(table(), whole, "{damage}");
            let repaired = timeout(Duration::from_secs(1), eventually(damage, || table() == whole));
            assert!(repaired.await.is_ok(), "{damage}: {}", table());
        }
    });
}

#[test]
fn without_egress_a_predecessor_s_table_goes_and_others_stay() {
    with(false, async |running| {
        sh("nft add table ip kube-router; nft add table ip6 kube-router; nft add table inet kube-router");
        a_while().await;
        assert!(!table().is_empty(), "nothing is known yet");
        running.view.send_replace(Some(nodes(&[])));
        eventually("the tables to go", || sh("nft list tables") == "table inet kube-router\n").await;
    });
}

#[test]
fn a_host_without_nft_has_a_problem_with_its_remedy() {
    let missing = Error::new(std::io::Error::from(std::io::ErrorKind::NotFound)).context("cannot run nft");
    let said = problem(&Subject::Table("ip kube-router".to_owned()), &missing).to_string();
    assert!(said.starts_with("table ip kube-router: NotProgrammed: cannot run nft: "), "{said}");
    assert!(said.contains("; install the program nft (package nftables)"), "{said}");
}

#[test]
fn a_table_of_our_name_that_says_something_else_is_replaced() {
    with(true, async |mut running| {
        sh("nft add table ip kube-router '{ flags dormant; }'; nft add chain ip kube-router stranger");
        running.view.send_replace(Some(nodes(&[])));
        eventually("the table in place of it", || table().contains("masquerade")).await;
        assert!(!table().contains("dormant") && !table().contains("stranger"), "{}", table());
        let Some(Event::Problems(_, found)) = running.told.recv().await else { panic!("it tells nothing") };
        assert_eq!(found, []);
    });
}
