//! The node agent of kube-router.
#![allow(dead_code, reason = "wired by app.rs")]
mod flows;
mod node;
mod planes;
mod reconcile;
mod sys;

fn main() {}
