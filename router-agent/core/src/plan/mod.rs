//! From what is wanted and what the kernel holds to the writes that lead from one to the other.
//!
//! Every kernel row has exactly one [`Owner`]; an owner's plan reads only what is wanted and the rows it owns.
//! So owners planned one by one, in any order, end where the full plan ends. Puts run in the order of `needs`,
//! then deletes in reverse; every prefix leaves a working data plane.

pub mod ebpf;
mod family;
pub mod fib;
pub mod order;
pub mod routes;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

pub use family::Family;

use crate::model::service::Frontend;
use crate::problem::Subject;

/// The unit of planning, of failure and of blame.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// An address that clients dial: its own row, which the frontends on it share.
    Vip(IpAddr),
    /// A frontend with its slots and backends.
    Frontend(Frontend),
    /// Slots, and the backends in them, of a service id that no frontend has: the rest of an interrupted delete.
    Leavings(u32),
    /// A backend that is in no slot: the rest of an interrupted write.
    Backend(u32),
    /// A pod of this node, by its address.
    Pod(IpAddr),
    /// A device that carries a program of ours, by its index.
    Device(u32),
    /// Our routes to a prefix.
    Route(IpNet),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vip(address) => write!(f, "VIP {address}"),
            Self::Frontend(frontend) => write!(f, "frontend {frontend}"),
            Self::Leavings(service) => write!(f, "leavings of service id {service}"),
            Self::Backend(id) => write!(f, "loose backend {id}"),
            Self::Pod(address) => write!(f, "pod address {address}"),
            Self::Device(ifindex) => write!(f, "device {ifindex}"),
            Self::Route(prefix) => write!(f, "route {prefix}"),
        }
    }
}

/// What one owner has to have done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group<Op> {
    pub owner: Owner,
    /// Owners whose puts must stand before ours, and whose deletes come after ours.
    pub needs: Vec<Owner>,
    /// Idempotent writes, in order.
    pub puts: Vec<Op>,
    /// Idempotent deletes, in order, after every put of every group.
    pub dels: Vec<Op>,
}

impl<Op> Group<Op> {
    /// Nothing to do for `owner`.
    pub fn empty(owner: Owner) -> Self {
        Self { owner, needs: Vec::new(), puts: Vec::new(), dels: Vec::new() }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.dels.is_empty()
    }
}

/// One dataplane's logic.
pub trait Plane {
    /// Everything wanted.
    type Want;
    /// Everything the plane holds.
    type Tables: Default;
    /// One idempotent write.
    type Op: fmt::Display;

    /// Every owner of something wanted or something held.
    fn owners(want: &Self::Want, have: &Self::Tables) -> BTreeSet<Owner>;

    /// The way from `have` to `want` for what `owner` owns. `now` is the time since the agent's start.
    fn plan(want: &Self::Want, have: &Self::Tables, owner: &Owner, now: Duration) -> Group<Self::Op>;

    /// `have` after `op`.
    fn apply(have: &mut Self::Tables, op: &Self::Op);

    /// The object to name when `owner` fails.
    fn subject(want: &Self::Want, owner: &Owner) -> Subject;

    /// Plans `owners` one after the other, each seeing what those before it will have done, and leaves `have` as
    /// it will be then. Groups with nothing to do are left out.
    fn plan_all(
        want: &Self::Want,
        have: &mut Self::Tables,
        owners: &BTreeSet<Owner>,
        now: Duration,
    ) -> Vec<Group<Self::Op>> {
        let mut groups = Vec::new();
        for owner in owners {
            let group = Self::plan(want, have, owner, now);
            group.puts.iter().chain(&group.dels).for_each(|op| Self::apply(have, op));
            if !group.is_empty() {
                groups.push(group);
            }
        }
        groups
    }
}
