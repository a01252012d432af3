//! What the loop of learned routes answers, between two of its steps.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use ipnet::IpNet;
use router_core::plan::fib::{self, FibPlane, Op, Tables, Want};
use router_core::plan::{Group, Plane as _};
use tokio::sync::oneshot;

use super::Keeper;
use crate::reconcile::Driver as _;

/// A question to the loop. Who has gone away in the meantime is owed no answer.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Every prefix that BGP chose.
    Routes(oneshot::Sender<Vec<LearnedRoute>>),
    /// What a comparison of everything with the kernel, read for this, would do.
    Plan(oneshot::Sender<Result<Vec<Group<Op>>>>),
}

/// A prefix that BGP chose, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LearnedRoute {
    pub(crate) prefix: IpNet,
    pub(crate) next_hop: IpAddr,
    /// The link that it leads to, if there is a route to be.
    pub(crate) link: Option<u32>,
    pub(crate) standing: Standing,
}

/// What became of a prefix that BGP chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    InKernel,
    /// It is about to be written.
    Pending,
    /// It gets no route, and why.
    Refused(String),
    /// It could not be written, and why.
    Failed(String),
}

impl Keeper {
    pub(super) async fn answer(&self, ask: Ask) {
        match ask {
            Ask::Routes(to) => drop(to.send(self.routes())),
            Ask::Plan(to) => drop(to.send(self.plan().await)),
        }
    }

    fn routes(&self) -> Vec<LearnedRoute> {
        let nothing = Tables::default();
        let have = self.have.as_ref().unwrap_or(&nothing);
        let chosen = self.want.chosen.iter().filter_map(|(prefix, next_hop)| Some((*prefix, (*next_hop)?)));
        let standing = |(prefix, next_hop)| {
            let route = fib::route(&self.want, have, prefix, next_hop);
            let standing = match (&route, self.held.get(&prefix)) {
                (Err(reason), _) => Standing::Refused(reason.to_string()),
                (Ok(row), _) if have.rows_of(prefix).any(|found| found == row) => Standing::InKernel,
                (Ok(_), Some(held)) => Standing::Failed(format!("{:#}", held.error)),
                (Ok(_), None) => Standing::Pending,
            };
            LearnedRoute { prefix, next_hop, link: route.ok().map(|row| row.link), standing }
        };
        chosen.map(standing).collect()
    }

    async fn plan(&self) -> Result<Vec<Group<Op>>> {
        if !self.placed {
            return Ok(Vec::new());
        }
        let mut driver = self.driver.clone();
        let want = Want { subnets: driver.subnets().await?, ..self.want.clone() };
        let mut have = driver.read().await?;
        let owners = FibPlane::owners(&want, &have);
        Ok(FibPlane::plan_all(&want, &mut have, &owners, Duration::ZERO))
    }
}
