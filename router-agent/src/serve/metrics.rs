//! `/metrics`: upstream's names, and ours beside them (docs/manual/metrics.md). A group is there while its part runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Result;
use axum::Router;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use router_bgp::session::State;
use router_core::model::service::Protocol;
use tokio::net::TcpListener;
use tokio::time::interval;

use super::accounts::Account;
use super::answers::bgp::state_name;
use super::exposition::{CONTENT_TYPE, Page};
use super::seen::Seen;
use super::{Asked, Kernel, health, seconds};
use crate::bgp::view::{Ask, PeerView};
use crate::flows::Usage;
use crate::measure;

/// How often it shows that it is alive.
const BEAT: Duration = Duration::from_secs(3);

/// Answers until the process ends. Compared as it is, the path needs no grammar.
pub(super) async fn serve(listener: TcpListener, path: String, asked: Asked) -> Result<()> {
    let scrapes = Arc::new(AtomicU64::new(0));
    let router = Router::new().fallback(async move |uri: Uri| {
        if uri.path() != path {
            return StatusCode::NOT_FOUND.into_response();
        }
        page_of(&asked, scrapes.fetch_add(1, Relaxed)).await
    });
    tokio::select! {
        served = axum::serve(listener, router) => Ok(served?),
        () = beat() => Ok(()),
    }
}

async fn beat() {
    let mut ticks = interval(BEAT);
    loop {
        ticks.tick().await;
        health::METRICS.beat();
    }
}

async fn page_of(asked: &Asked, scrapes: u64) -> Response {
    let begun = Instant::now();
    let mut page = Page::default();
    process(&mut page, scrapes);
    let seen = asked.sources.look(Seen::of).await.unwrap_or_default();
    cluster(&mut page, asked, &seen);
    if let Some(kernel) = &asked.sources.kernel {
        proxy(&mut page, &seen);
        traffic(&mut page, asked);
        dataplane(&mut page, kernel, &seen);
    }
    if let Some(routing) = &asked.sources.routing {
        let peers = routing.ask_speaker(|to| Ask::Peers(None, to)).await.unwrap_or_default();
        router(&mut page, &peers);
    }
    measure::EXPORTS.took(begun.elapsed());
    page.histogram(
        "controller_ipvs_metrics_export_time",
        "Seconds that it takes to make this page.",
        &measure::EXPORTS,
    );
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], page.into_text()).into_response()
}

fn process(page: &mut Page, scrapes: u64) {
    let labels = [("goversion", env!("KUBE_ROUTER_TOOLCHAIN")), ("version", env!("KUBE_ROUTER_VERSION"))];
    page.gauge("build_info", "1, labelled with the version and the compiler.").sample(&labels, 1);
    page.family("promhttp_metric_handler_requests_total", "counter", "Pages of metrics that were asked for.")
        .sample(&[("code", "200")], scrapes);
}

fn cluster(page: &mut Page, asked: &Asked, seen: &Seen) {
    let mut problems: BTreeMap<&str, u64> = BTreeMap::new();
    seen.problems.iter().for_each(|problem| *problems.entry(problem.reason).or_default() += 1);
    page.gauge("problems", "What is wrong now; status names each.").sample(&[], seen.problems.len());
    let mut family = page.gauge("problems_by_reason", "The same by reason, of reasons that there are.");
    for (reason, count) in &problems {
        family.sample(&[("reason", reason)], count);
    }
    let mut listed = page.gauge("watch_listed", "1 once everything of the kind has been listed.");
    for kind in &asked.sources.followed {
        listed.sample(&[("kind", &format!("{kind:?}"))], u8::from(!seen.unlisted.contains(kind)));
    }
    let mut ages = page.gauge("watch_last_event_age_seconds", "Since something of the kind was last told.");
    for (kind, at) in &seen.heard {
        ages.sample(&[("kind", &format!("{kind:?}"))], seconds(at.elapsed()));
    }
}

fn proxy(page: &mut Page, seen: &Seen) {
    let services = &measure::SERVICES;
    page.gauge("controller_ipvs_services", "Addresses, ports and protocols that can be dialled.")
        .sample(&[], seen.frontends);
    page.histogram(
        "controller_ipvs_services_sync_time",
        "Seconds that a pass over services takes.",
        &services.passes,
    );
    page.histogram(
        "services_visible_seconds",
        "From an event to the end of the pass that carried it out; of several, the first.",
        &services.visible,
    );
    page.histogram("services_writes", "Rows that a pass writes and deletes.", &services.writes);
    page.counter("services_events_total", "Events taken in, from the API server and the kernel.")
        .sample(&[], services.events.get());
    page.counter("services_failures_total", "Owners whose rows could not be written, each time.")
        .sample(&[], services.failures.get());
}

/// A number of a service's traffic.
type Number = fn(&Usage) -> u64;

const TOTALS: &[(&str, &str, Number)] = &[
    ("service_total_connections", "Connections.", |it| it.connections),
    ("service_packets_in", "Packets from clients.", |it| it.from_clients.packets),
    ("service_packets_out", "Packets to clients.", |it| it.to_clients.packets),
    ("service_bytes_in", "Bytes from clients.", |it| it.from_clients.bytes),
    ("service_bytes_out", "Bytes to clients.", |it| it.to_clients.bytes),
];

const RATES: &[(&str, &str, Number)] = &[
    ("service_cps", "Connections a second.", |it| it.connections),
    ("service_pps_in", "Packets from clients a second.", |it| it.from_clients.packets),
    ("service_pps_out", "Packets to clients a second.", |it| it.to_clients.packets),
    ("service_bps_in", "Bytes from clients a second.", |it| it.from_clients.bytes),
    ("service_bps_out", "Bytes to clients a second.", |it| it.to_clients.bytes),
];

fn traffic(page: &mut Page, asked: &Asked) {
    let accounts = asked.accounts.borrow().clone();
    let labelled: Vec<([String; 5], &Account)> = accounts
        .by_frontend
        .iter()
        .map(|(frontend, account)| {
            let protocol = match frontend.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            };
            let (namespace, name) = (account.service.namespace.clone(), account.service.name.clone());
            let (vip, port) = (frontend.address.to_string(), frontend.port.to_string());
            ([namespace, name, vip, protocol.to_owned(), port], account)
        })
        .collect();
    for (name, help, number) in TOTALS {
        let mut family = page.counter(name, help);
        for (labels, account) in &labelled {
            family.sample(&named(labels), number(&account.total));
        }
    }
    let period = accounts.period.as_secs_f64();
    for (name, help, number) in RATES {
        let mut family = page.gauge(name, help);
        for (labels, account) in labelled.iter().filter(|_| period > 0.0) {
            #[expect(clippy::cast_precision_loss, reason = "a rate is rounded anyway")]
            let rate = number(&account.latest) as f64 / period;
            family.sample(&named(labels), rate);
        }
    }
}

fn named([namespace, name, vip, protocol, port]: &[String; 5]) -> [(&str, &str); 5] {
    [
        ("svc_namespace", namespace),
        ("service_name", name),
        ("service_vip", vip),
        ("protocol", protocol),
        ("port", port),
    ]
}

fn dataplane(page: &mut Page, kernel: &Kernel, seen: &Seen) {
    let fill = kernel.fill(&seen.rows);
    let mut rows = page.gauge("map_rows", "Rows that a map holds.");
    for it in &fill {
        rows.sample(&[("map", it.map)], it.rows);
    }
    let mut capacities = page.gauge("map_capacity_rows", "Rows that a map can hold.");
    for it in &fill {
        capacities.sample(&[("map", it.map)], it.capacity);
    }
    let mut ages = page.gauge("map_rows_age_seconds", "Since the rows of a map were counted.");
    for it in &fill {
        ages.sample(&[("map", it.map)], seconds(it.age));
    }
    let mut drops =
        page.counter("drops_total", "Packets dropped, by reason; also by agents before this one.");
    for dropped in kernel.drops.look().unwrap_or_default() {
        drops.sample(&[("reason", dropped.reason.name())], dropped.total);
    }
}

fn router(page: &mut Page, peers: &[PeerView]) {
    let mut family = page.gauge("bgp_peer_info", "1 for each neighbor, labelled with its state.");
    for peer in peers {
        let session = peer.session.as_ref();
        let asn = session.map_or(peer.peer_asn, |session| session.peer_asn);
        let kind = if asn == peer.local_asn { "internal" } else { "external" };
        let (address, number) = (peer.address.to_string(), asn.0.to_string());
        let labels = [
            ("address", address.as_str()),
            ("type", kind),
            ("asn", &number),
            ("state", state_name(peer.state)),
        ];
        family.sample(&labels, 1);
    }
    let established = peers.iter().filter(|peer| peer.state == State::Established).count();
    page.gauge("controller_bgp_peers", "Neighbors whose session is established.").sample(&[], established);
    let bgp = &measure::BGP;
    page.counter("controller_bgp_advertisements_received", "Changes of best paths, own ones among them.")
        .sample(&[], bgp.best_paths.get());
    page.counter(
        "controller_bgp_advertisements_sent",
        "Prefixes that this node began or ceased to originate.",
    )
    .sample(&[("type", "pod-route")], bgp.pod_routes.get())
    .sample(&[("type", "advertise-vip")], bgp.vips_advertised.get())
    .sample(&[("type", "withdraw-vip")], bgp.vips_withdrawn.get());
    page.histogram(
        "controller_bgp_internal_peers_sync_time",
        "Seconds that bringing neighbors and routes in step with the cluster takes.",
        &bgp.changes,
    );
    page.histogram(
        "controller_routes_sync_time",
        "Seconds that taking in a change of the cluster takes, the former included.",
        &bgp.nodes,
    );
    let routes = &measure::ROUTES;
    page.gauge("host_routes_synced", "Learned routes that the kernel holds.")
        .sample(&[], routes.synced.get());
    page.counter("host_routes_added", "Learned routes written.").sample(&[], routes.added.get());
    page.counter("host_routes_removed", "Learned routes deleted.").sample(&[], routes.removed.get());
    page.histogram("host_routes_sync_time", "Seconds that a pass that writes routes takes.", &routes.passes);
}
