//! Planning.
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

pub mod ebpf;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    Service(String),
    Device(u32),
}

#[derive(Clone, Debug)]
pub struct Group<Op> {
    pub owner: Owner,
    pub needs: Vec<Owner>,
    pub puts: Vec<Op>,
    pub dels: Vec<Op>,
}

pub trait Plane {
    type Want;
    type Tables: Default;
    type Op: fmt::Display;
    fn owners(want: &Self::Want, have: &Self::Tables) -> BTreeSet<Owner>;
    fn plan(want: &Self::Want, have: &Self::Tables, owner: &Owner, now: Duration) -> Group<Self::Op>;
}
