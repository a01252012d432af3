//! Pods' way out of the cluster: a table of ours that gives their packets a node's address, kept as it should be.
//!
//! It follows the Nodes, and is replaced whole, in one transaction, where it is not what it should be: a connection
//! keeps the address and port that it got. It is read when nftables tell that somebody has changed it, and now and
//! then. Absent: what it says (`ruleset.rs`), and tables and chains of others, which are never looked at.

mod ruleset;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::{Context as _, Error, Result};
use router_core::cluster::{Event, RoutingView};
use router_core::problem::{Problem, Subject};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info};

use crate::reconcile::backoff;
use crate::sys::netlink::TableEvents;
use crate::sys::nft;

use self::ruleset::{Family, Nodes, TABLE};

/// From the first word of a change to looking: what belongs together has come by then.
const PAUSE: Duration = Duration::from_millis(100);
/// When the tables are read unprompted.
const AUDIT: Duration = Duration::from_secs(30);

/// Keeps the tables of both families, or keeps them away if egress is not `enabled`. Nothing is done before this node
/// is known: what stands may be right. Ends when nobody tells of the cluster, or hears of problems, any more.
///
/// It works in the network namespace of the thread that polls it.
pub(crate) async fn run(
    enabled: bool,
    view: watch::Receiver<Option<RoutingView>>,
    events: mpsc::Sender<Event>,
) -> Result<()> {
    let changes = TableEvents::open(TABLE).context("cannot listen to nftables")?;
    let tables = [Family::V4, Family::V6].map(|family| Table { family, right: None });
    let mut keeper = Keeper { enabled, view, changes, nodes: None, tables };
    keeper.learn();
    let mut attempts = 0;
    loop {
        let mut failed = false;
        for (subject, problem) in keeper.pass() {
            failed |= problem.is_some();
            let told = Event::Problems(subject, problem.into_iter().collect());
            events.send(told).await.context("tell of egress")?;
        }
        attempts = if failed { attempts + 1 } else { 0 };
        let pause = if failed { backoff(attempts) } else { AUDIT };
        keeper.wait(Instant::now() + pause).await?;
    }
}

struct Keeper {
    enabled: bool,
    view: watch::Receiver<Option<RoutingView>>,
    changes: TableEvents,
    nodes: Option<Nodes>,
    tables: [Table; 2],
}

impl Keeper {
    /// Takes in who the nodes are. Whether they are others than before.
    fn learn(&mut self) -> bool {
        let nodes = self.view.borrow_and_update().as_ref().map(Nodes::of);
        let changed = nodes != self.nodes;
        self.nodes = nodes;
        changed
    }

    /// Looks at each table, and says what is wrong with it.
    fn pass(&mut self) -> Vec<(Subject, Option<Problem>)> {
        let Self { enabled, nodes: Some(nodes), tables, .. } = self else { return Vec::new() };
        let looked_at = tables.iter_mut().map(|table| {
            let wanted = enabled.then(|| ruleset::table(table.family, nodes)).flatten();
            let subject = Subject::Table(format!("{} {TABLE}", table.family.name()));
            let problem = table.keep(wanted).err().map(|error| problem(&subject, &error));
            (subject, problem)
        });
        looked_at.collect()
    }

    /// Until there is reason to look.
    async fn wait(&mut self, due: Instant) -> Result<()> {
        loop {
            tokio::select! {
                changed = self.view.changed() => {
                    changed.context("learn of the cluster")?;
                    if self.learn() {
                        return Ok(());
                    }
                }
                changed = self.changes.changed() => {
                    changed.context("listen to nftables")?;
                    sleep(PAUSE).await;
                    return Ok(());
                }
                () = sleep_until(due) => return Ok(()),
            }
        }
    }
}

/// A table of ours.
struct Table {
    family: Family,
    /// What it was when it was right last, as we write it and as nft shows that.
    right: Option<(String, String)>,
}

impl Table {
    /// Makes it what is wanted, unless it is.
    fn keep(&mut self, wanted: Option<String>) -> Result<()> {
        let Some(wanted) = wanted else { return self.remove() };
        let name = self.family.name();
        let found = nft::list(name, TABLE)?;
        if let Some(found) = found.filter(|found| self.is_right(&wanted, found)) {
            self.right = Some((wanted, found));
            return Ok(());
        }
        nft::apply(&(ruleset::removal(self.family) + &wanted))?;
        let damaged = self.right.as_ref().is_some_and(|(before, _)| *before == wanted);
        let why = if damaged { "somebody had changed it" } else { "as the nodes are now" };
        info!("wrote the table {name} {TABLE}, by which pods leave the cluster: {why}");
        self.right = nft::list(name, TABLE)?.map(|shown| (wanted, shown));
        Ok(())
    }

    /// An nft that shows a table otherwise than we write it is believed, once we have written it.
    fn is_right(&self, wanted: &str, found: &str) -> bool {
        let shown = |(before, shown): &(String, String)| before == wanted && shown == found;
        wanted.split_whitespace().eq(found.split_whitespace()) || self.right.as_ref().is_some_and(shown)
    }

    /// A family that cannot be read has no table of ours.
    fn remove(&mut self) -> Result<()> {
        let name = self.family.name();
        match nft::list(name, TABLE) {
            Ok(None) => {}
            Ok(Some(_)) => {
                nft::apply(&ruleset::removal(self.family))?;
                info!("removed the table {name} {TABLE}");
            }
            Err(error) => debug!("no table {name} {TABLE}: {error:#}"),
        }
        self.right = None;
        Ok(())
    }
}

fn problem(subject: &Subject, error: &Error) -> Problem {
    let remedy = if nft::is_missing(error) {
        "install the program nft (package nftables) in the agent's image"
    } else {
        "it is tried again"
    };
    Problem {
        subject: subject.clone(),
        reason: "NotProgrammed",
        text: format!("{error:#}"),
        remedy: format!("{remedy}; until then hosts outside the cluster may not be able to answer pods"),
    }
}
