//! The node agent of kube-router.
#![allow(dead_code, reason = "wired by app.rs")]
mod flows;
mod reconcile;
mod node;
mod planes;
mod sys;

fn main() {}
