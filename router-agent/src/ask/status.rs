//! `status`: what works, what does not, and what to do.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::Answer;
use super::table::{Table, age};

/// The whole answer. Times are in seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// `OK`, `DEGRADED: …` or `FAILING: …`.
    pub(crate) verdict: String,
    pub(crate) node: String,
    pub(crate) version: String,
    pub(crate) uptime_seconds: f64,
    /// `None`: services are not balanced by this agent.
    pub(crate) dataplane: Option<Dataplane>,
    pub(crate) jobs: Vec<Job>,
    pub(crate) watches: Vec<Watch>,
    pub(crate) counts: Counts,
    /// `None`: no BGP by this agent.
    pub(crate) bgp: Option<Bgp>,
    pub(crate) routes: Option<Routes>,
    pub(crate) maps: Vec<Map>,
    pub(crate) drops: Vec<Drop>,
    pub(crate) problems: Vec<Problem>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Dataplane {
    pub(crate) name: String,
    /// How programs are attached: `tcx` or `clsact`.
    pub(crate) attach: String,
    pub(crate) fast_path: bool,
}

/// What the agent is there for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) state: JobState,
    /// What is wrong, or why it is off; empty if it is well.
    pub(crate) text: String,
    pub(crate) remedy: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum JobState {
    Ok,
    /// It waits for first lists, or writes what they say for the first time.
    Starting,
    Failing,
    Off,
}

/// A kind of object that is followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Watch {
    pub(crate) kind: String,
    pub(crate) listed: bool,
    /// Since something of it was last told; `None` before the first.
    pub(crate) last_event_seconds: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) services: usize,
    pub(crate) frontends: usize,
    pub(crate) vips: usize,
    pub(crate) backends: usize,
    /// Pods' addresses that are bound to their veths.
    pub(crate) pods: usize,
    /// Devices that carry a program.
    pub(crate) devices: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bgp {
    pub(crate) established: usize,
    pub(crate) peers: usize,
    pub(crate) down: Vec<DownPeer>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DownPeer {
    pub(crate) address: String,
    pub(crate) description: String,
    pub(crate) state: String,
    /// Since it went down; `None`: it has never been up.
    pub(crate) down_seconds: Option<f64>,
    /// Why it last went down; empty if it has never been up.
    pub(crate) last_error: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Routes {
    pub(crate) chosen: usize,
    pub(crate) in_kernel: usize,
    /// The first few that get no route, with the reason; `routes` has them all.
    pub(crate) refused: Vec<String>,
    pub(crate) refused_total: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Map {
    pub(crate) name: String,
    pub(crate) rows: usize,
    pub(crate) capacity: usize,
    /// How old the count is.
    pub(crate) age_seconds: f64,
}

/// Packets dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Drop {
    pub(crate) reason: String,
    pub(crate) last_minute: u64,
    pub(crate) since_start: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Problem {
    pub(crate) subject: String,
    pub(crate) reason: String,
    pub(crate) text: String,
    pub(crate) remedy: String,
}

impl Status {
    /// The first line, from all the others.
    pub(crate) fn judge(&mut self) {
        let failing: Vec<&str> = self
            .jobs
            .iter()
            .filter(|job| job.state == JobState::Failing)
            .map(|job| job.name.as_str())
            .collect();
        let starting = self.jobs.iter().any(|job| job.state == JobState::Starting);
        let down = self.bgp.as_ref().map_or(0, |bgp| bgp.down.len());
        let mut wrong = Vec::new();
        wrong.extend(count(self.problems.len(), "problem"));
        wrong.extend(count(down, "BGP peer").map(|peers| format!("{peers} down")));
        self.verdict = if !failing.is_empty() {
            format!("FAILING: {}", failing.join(", "))
        } else if !wrong.is_empty() {
            format!("DEGRADED: {}", wrong.join(", "))
        } else if starting {
            "STARTING".to_owned()
        } else {
            "OK".to_owned()
        };
    }
}

fn count(number: usize, what: &str) -> Option<String> {
    match number {
        0 => None,
        1 => Some(format!("1 {what}")),
        _ => Some(format!("{number} {what}s")),
    }
}

impl Answer for Status {
    fn text(&self, _wide: bool) -> String {
        let mut text = format!("{}\n\n", self.verdict);
        // A String takes whatever is written to it.
        let _ = writeln!(text, "{}", self.about());
        let _ = writeln!(text, "{}", self.jobs());
        for problem in &self.problems {
            let Problem { subject, reason, text: wrong, remedy } = problem;
            let _ = writeln!(text, "PROBLEM   {subject}: {reason}\n  {wrong}\n  to do: {remedy}\n");
        }
        let _ = writeln!(text, "{}", self.watches());
        let _ = writeln!(text, "{}", self.counts());
        for section in [self.bgp(), self.routes()].into_iter().flatten() {
            let _ = writeln!(text, "{section}");
        }
        for table in [self.maps(), self.drops()].into_iter().filter(|table| !table.is_empty()) {
            let _ = writeln!(text, "{table}");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    }
}

impl Status {
    fn about(&self) -> Table {
        let mut table = Table::new(&["NODE", "VERSION", "UPTIME", "DATAPLANE", "ATTACH", "FAST PATH"]);
        let plane = self.dataplane.as_ref();
        let fast = plane.map_or("", |plane| if plane.fast_path { "on" } else { "off" });
        let (name, attach) = plane.map_or(("", ""), |plane| (plane.name.as_str(), plane.attach.as_str()));
        table.row(&[&self.node, &self.version, &age(self.uptime_seconds), &name, &attach, &fast]);
        table
    }

    fn jobs(&self) -> Table {
        let mut table = Table::new(&["JOB", "STATE", "WHY", "TO DO"]);
        for job in &self.jobs {
            let state = match job.state {
                JobState::Ok => "OK",
                JobState::Starting => "STARTING",
                JobState::Failing => "FAILING",
                JobState::Off => "OFF",
            };
            table.row(&[&job.name, &state, &job.text, &job.remedy]);
        }
        table
    }

    fn watches(&self) -> Table {
        let mut table = Table::new(&["FOLLOWED", "LISTED", "LAST EVENT"]);
        for watch in &self.watches {
            let ago =
                watch.last_event_seconds.map(|seconds| format!("{} ago", age(seconds))).unwrap_or_default();
            table.row(&[&watch.kind, &if watch.listed { "yes" } else { "NO" }, &ago]);
        }
        table
    }

    fn counts(&self) -> Table {
        let Counts { services, frontends, vips, backends, pods, devices } = &self.counts;
        let mut table = Table::new(&["SERVICES", "FRONTENDS", "VIPS", "BACKENDS", "PODS", "DEVICES"]);
        table.row(&[services, frontends, vips, backends, pods, devices]);
        table
    }

    fn bgp(&self) -> Option<String> {
        let Bgp { established, peers, down } = self.bgp.as_ref()?;
        let mut text = format!("BGP: {established} of {peers} peers established\n");
        let mut table = Table::new(&["PEER DOWN", "WHO", "STATE", "SINCE", "LAST ERROR"]);
        for peer in down {
            let since = peer.down_seconds.map_or_else(|| "never up".to_owned(), age);
            table.row(&[&peer.address, &peer.description, &peer.state, &since, &peer.last_error]);
        }
        if !table.is_empty() {
            text.push_str(&table.to_string());
        }
        Some(text)
    }

    fn routes(&self) -> Option<String> {
        let Routes { chosen, in_kernel, refused, refused_total } = self.routes.as_ref()?;
        let mut text =
            format!("Learned routes: {in_kernel} of {chosen} in the kernel, {refused_total} refused\n");
        for line in refused {
            let _ = writeln!(text, "  {line}");
        }
        Some(text)
    }

    fn maps(&self) -> Table {
        let mut table = Table::new(&["MAP", "ROWS", "CAPACITY", "COUNTED"]);
        for Map { name, rows, capacity, age_seconds } in &self.maps {
            table.row(&[name, rows, capacity, &format!("{} ago", age(*age_seconds))]);
        }
        table
    }

    fn drops(&self) -> Table {
        let mut table = Table::new(&["DROPPED", "LAST MINUTE", "SINCE START"]);
        for Drop { reason, last_minute, since_start } in &self.drops {
            table.row(&[reason, last_minute, since_start]);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(state: JobState) -> Job {
        Job { name: "services".into(), state, text: String::new(), remedy: String::new() }
    }

    fn problem() -> Problem {
        let (subject, reason) = ("service default/web".into(), "Conflict".into());
        Problem { subject, reason, text: "it is taken".into(), remedy: "give it another".into() }
    }

    fn verdict(status: Status) -> String {
        let mut status = status;
        status.judge();
        status.verdict
    }

    #[test]
    fn the_verdict_is_that_of_the_worst() {
        let status = |state, problems: usize| Status {
            jobs: vec![job(state)],
            problems: vec![problem(); problems],
            ..Status::default()
        };
        assert_eq!(verdict(status(JobState::Ok, 0)), "OK");
        assert_eq!(verdict(status(JobState::Off, 0)), "OK");
        assert_eq!(verdict(status(JobState::Starting, 0)), "STARTING");
        assert_eq!(verdict(status(JobState::Ok, 1)), "DEGRADED: 1 problem");
        assert_eq!(verdict(status(JobState::Failing, 2)), "FAILING: services");
        let down = DownPeer {
            address: "192.0.2.1".into(),
            description: "tor".into(),
            state: "active".into(),
            down_seconds: None,
            last_error: String::new(),
        };
        let bgp = Some(Bgp { established: 0, peers: 1, down: vec![down] });
        assert_eq!(
            verdict(Status { bgp, ..status(JobState::Ok, 2) }),
            "DEGRADED: 2 problems, 1 BGP peer down"
        );
    }

    #[test]
    fn a_problem_is_told_with_what_to_do() {
        let mut status = Status { problems: vec![problem()], ..Status::default() };
        status.judge();
        let text = status.text(false);
        assert!(text.starts_with("DEGRADED: 1 problem\n\nNODE"), "{text}");
        let told = "PROBLEM   service default/web: Conflict\n  it is taken\n  to do: give it another\n";
        assert!(text.contains(told), "{text}");
    }
}
