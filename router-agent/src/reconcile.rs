//! The loop.
use router_core::plan::{Group, Owner, Plane};
use std::collections::BTreeSet;

pub(crate) enum Scope {
    All,
    Owners(BTreeSet<Owner>),
}

pub(crate) trait Driver<P: Plane> {
    fn read(&mut self, scope: &Scope) -> impl Future<Output = anyhow::Result<P::Tables>> + Send;
    fn apply(&mut self, groups: &[Group<P::Op>]) -> impl Future<Output = Vec<(Owner, anyhow::Error)>> + Send;
}
