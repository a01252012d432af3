//! The answer to `status`. What nobody answers for is a job that fails: this answer always comes.

use router_bgp::session::State;
use router_core::cluster::Kind;
use router_core::problem::{Problem as Found, Subject};

use super::super::seen::{Fill, Seen};
use super::super::{Asked, Kernel, Routing, Sources, seconds};
use super::bgp::state_name;
use crate::ask::status::{
    Bgp, Counts, Dataplane, DownPeer, Drop, Job, JobState, Map, Problem, Routes, Status, Watch,
};
use crate::bgp::view::Ask;
use crate::fib::{self, Standing};

/// Refused routes that are named.
const NAMED: usize = 5;

/// For a part that is stuck.
const RESTART: &str = "restart the agent; if it happens again, report it with the log of -v=3";

pub(in crate::serve) async fn gather(asked: &Asked) -> Status {
    let sources = &asked.sources;
    let seen = sources.look(Seen::of).await;
    let (bgp, bgp_silent) = match &sources.routing {
        Some(routing) => split(bgp(routing, sources).await),
        None => (None, None),
    };
    let (routes, routes_silent) = match &sources.routing {
        Some(routing) => split(routes(routing).await),
        None => (None, None),
    };
    let (seen, silent) = split(seen);
    let seen = seen.unwrap_or_default();
    let jobs = vec![
        services_job(sources, &seen, silent),
        router_job(sources, &seen, bgp_silent.or(routes_silent)),
        absent_job(),
    ];
    let mut status = Status {
        verdict: String::new(),
        node: sources.node.clone(),
        version: env!("KUBE_ROUTER_VERSION").to_owned(),
        uptime_seconds: seconds(sources.started.elapsed()),
        dataplane: sources.kernel.as_ref().map(dataplane),
        jobs,
        watches: sources.followed.iter().map(|kind| watch(*kind, &seen)).collect(),
        bgp,
        routes,
        maps: sources.kernel.as_ref().map(|kernel| maps(kernel, &seen)).unwrap_or_default(),
        drops: sources.kernel.as_ref().map(drops).unwrap_or_default(),
        problems: seen.problems.iter().map(problem).collect(),
        counts: counts(&seen),
    };
    status.judge();
    status
}

fn split<T>(outcome: anyhow::Result<T>) -> (Option<T>, Option<String>) {
    match outcome {
        Ok(found) => (Some(found), None),
        Err(error) => (None, Some(format!("{error:#}"))),
    }
}

fn job(name: &str, state: JobState, text: impl Into<String>, remedy: &str) -> Job {
    Job { name: name.to_owned(), state, text: text.into(), remedy: remedy.to_owned() }
}

fn services_job(sources: &Sources, seen: &Seen, silent: Option<String>) -> Job {
    let job = |state, text: String, remedy| job("services", state, text, remedy);
    if sources.kernel.is_none() {
        return job(JobState::Off, "--run-service-proxy is off".to_owned(), "");
    }
    if let Some(text) = silent.or_else(|| stuck(sources, &["NetworkService"])) {
        return job(JobState::Failing, text, RESTART);
    }
    if let Some(first) = missing(seen) {
        return job(JobState::Starting, first, "see to the API server, and to the problems below");
    }
    if let Some(found) = seen.problems.iter().find(|found| found.reason == "NotReadable") {
        return job(JobState::Failing, found.text.clone(), &found.remedy);
    }
    if !sources.progress.borrow().in_step {
        return job(JobState::Starting, "the tables have not been right yet".to_owned(), "");
    }
    job(JobState::Ok, String::new(), "")
}

fn router_job(sources: &Sources, seen: &Seen, silent: Option<String>) -> Job {
    let job = |state, text: String, remedy| job("router", state, text, remedy);
    if sources.routing.is_none() {
        return job(JobState::Off, "--run-router is off".to_owned(), "");
    }
    if let Some(text) = silent.or_else(|| stuck(sources, &["Network Routing", "Routes Sync"])) {
        return job(JobState::Failing, text, RESTART);
    }
    if let Some(first) = missing(seen) {
        return job(JobState::Starting, first, "see to the API server, and to the problems below");
    }
    let of_speaker = |found: &&Found| found.subject == Subject::Speaker;
    if let Some(found) = seen.problems.iter().find(of_speaker) {
        return job(JobState::Failing, found.text.clone(), &found.remedy);
    }
    job(JobState::Ok, String::new(), "")
}

fn absent_job() -> Job {
    job("policy", JobState::Off, "NetworkPolicy is not there yet", "")
}

fn missing(seen: &Seen) -> Option<String> {
    let kinds: Vec<String> = seen.unlisted.iter().map(|kind| format!("{kind:?}")).collect();
    (!kinds.is_empty()).then(|| format!("no first list of {}", kinds.join(", ")))
}

fn stuck(sources: &Sources, names: &[&str]) -> Option<String> {
    let name = sources.monitor.stuck().into_iter().find(|name| names.contains(name))?;
    Some(format!("{name} is stuck: no heartbeat"))
}

fn dataplane(kernel: &Kernel) -> Dataplane {
    Dataplane { name: "ebpf".to_owned(), attach: kernel.attach.to_owned(), fast_path: kernel.fast_path }
}

fn watch(kind: Kind, seen: &Seen) -> Watch {
    Watch {
        kind: format!("{kind:?}"),
        listed: !seen.unlisted.contains(&kind),
        last_event_seconds: seen.heard.get(&kind).map(|at| seconds(at.elapsed())),
    }
}

fn problem(found: &Found) -> Problem {
    let Found { subject, reason, text, remedy } = found;
    Problem {
        subject: subject.to_string(),
        reason: (*reason).to_owned(),
        text: text.clone(),
        remedy: remedy.clone(),
    }
}

async fn bgp(routing: &Routing, sources: &Sources) -> anyhow::Result<Bgp> {
    let peers = routing.ask_speaker(|to| Ask::Peers(None, to)).await?;
    let is_up = |state| state == State::Established;
    let since_start = sources.started.elapsed();
    let down = peers.iter().filter(|peer| !is_up(peer.state)).map(|peer| DownPeer {
        address: peer.address.to_string(),
        description: peer.description.clone(),
        state: state_name(peer.state).to_owned(),
        down_seconds: peer.down_at.map(|at| seconds(since_start.saturating_sub(at))),
        last_error: peer.last_down.as_ref().map(ToString::to_string).unwrap_or_default(),
    });
    let down: Vec<DownPeer> = down.collect();
    Ok(Bgp { established: peers.len() - down.len(), peers: peers.len(), down })
}

async fn routes(routing: &Routing) -> anyhow::Result<Routes> {
    let learned = routing.ask_routes(fib::Ask::Routes).await?;
    let mut routes = Routes { chosen: learned.len(), ..Routes::default() };
    for route in &learned {
        match &route.standing {
            Standing::InKernel => routes.in_kernel += 1,
            Standing::Refused(reason) => {
                routes.refused_total += 1;
                if routes.refused.len() < NAMED {
                    routes.refused.push(format!("{}: {reason}", route.prefix));
                }
            }
            Standing::Pending | Standing::Failed(_) => {}
        }
    }
    Ok(routes)
}

fn counts(seen: &Seen) -> Counts {
    Counts {
        services: seen.services,
        frontends: seen.frontends,
        vips: seen.vips,
        backends: seen.rows.backends,
        pods: seen.rows.pods,
        devices: seen.rows.devices,
    }
}

fn maps(kernel: &Kernel, seen: &Seen) -> Vec<Map> {
    let fill = kernel.fill(&seen.rows).into_iter();
    fill.map(|Fill { map, rows, capacity, age }| Map {
        name: map.to_owned(),
        rows,
        capacity,
        age_seconds: seconds(age),
    })
    .collect()
}

fn drops(kernel: &Kernel) -> Vec<Drop> {
    let looked = kernel.drops.look().unwrap_or_default();
    let counted = looked.into_iter().filter(|dropped| dropped.since_start > 0);
    counted
        .map(|dropped| Drop {
            reason: dropped.reason.name().to_owned(),
            last_minute: dropped.last_minute,
            since_start: dropped.since_start,
        })
        .collect()
}
