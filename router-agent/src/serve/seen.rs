//! What the loop of services knows, as numbers, and how full the maps are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use router_common::abi::maps;
use router_core::cluster::Kind;
use router_core::model::Key;
use router_core::problem::Problem;
use tokio::time::Instant;

use super::{Kernel, Plane};
use crate::reconcile::Look;

/// What it knows.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) unlisted: BTreeSet<Kind>,
    pub(super) heard: BTreeMap<Kind, Instant>,
    pub(super) services: usize,
    pub(super) frontends: usize,
    pub(super) vips: usize,
    pub(super) problems: Vec<Problem>,
    pub(super) rows: Rows,
}

/// Rows of the tables that are planned; none in doubt.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rows {
    pub(super) frontends: usize,
    pub(super) slots: usize,
    pub(super) backends: usize,
    pub(super) pods: usize,
    pub(super) devices: usize,
}

impl Seen {
    pub(super) fn of(look: &Look<'_, Plane>) -> Self {
        let cluster = look.cluster;
        let services: BTreeSet<&Key> = cluster.frontends().filter_map(|it| cluster.service_of(it)).collect();
        let rows = look.have.map(|have| Rows {
            frontends: have.frontends.len(),
            slots: have.slots.len(),
            backends: have.backends.len(),
            pods: have.pods.len(),
            devices: have.devices.len(),
        });
        Self {
            unlisted: cluster.unlisted().clone(),
            heard: look.heard.clone(),
            services: services.len(),
            frontends: cluster.frontends().count(),
            vips: cluster.vips().count(),
            problems: cluster.problems().iter().cloned().collect(),
            rows: rows.unwrap_or_default(),
        }
    }
}

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fill {
    pub(super) map: &'static str,
    pub(super) rows: usize,
    pub(super) capacity: usize,
    /// How old the count is.
    pub(super) age: Duration,
}

impl Kernel {
    /// Of every map that grows. Flows are counted by the sweep.
    pub(super) fn fill(&self, rows: &Rows) -> Vec<Fill> {
        let swept = self.swept.borrow();
        let swept_ago = swept.at.map_or(Duration::ZERO, |at| at.elapsed());
        let known = |map, rows, capacity| Fill { map, rows, capacity, age: Duration::ZERO };
        let counted = |map, rows, capacity| Fill { map, rows, capacity, age: swept_ago };
        vec![
            known("FRONTENDS4", rows.frontends, maps::FRONTENDS),
            known("SLOTS", rows.slots, maps::SLOTS),
            known("BACKENDS4", rows.backends, maps::BACKENDS),
            known("PODS4", rows.pods, maps::PODS),
            known("DEVICES", rows.devices, maps::DEVICES),
            counted("FLOWS4", swept.live - swept.fresh, maps::FLOWS),
            counted("FLOWS_NEW4", swept.fresh, maps::FLOWS_NEW),
        ]
    }
}
