//! `cargo xtask lab`: a cluster of three nodes for people to look at, and the verbs that let other programs into it.
//!
//! [`up`] starts it, applies manifests with a stock kubectl, says what it found ([`facts`], [`matrix`]) and keeps it; [`state`]
//! is what a lab leaves on disk for [`exec`] and [`down`], which are other processes.

mod arguments;
pub mod down;
pub mod exec;
pub mod facts;
mod interrupt;
mod invitation;
pub mod matrix;
pub mod packets;
pub mod routing;
mod rows;
mod source;
pub mod state;
mod steps;
mod targets;
mod told;
pub mod up;

use std::process::ExitCode;

use anyhow::Result;

use self::arguments::Verb;

const HELP: &str = "\
A cluster of three nodes in two subnets on this machine: a real kernel, pods by the CNI plugins, the agent, a stock
kubectl, and BIRD as the nodes' router.

usage: cargo xtask lab [up] [--once] [-o json] [--manifests DIR]
       cargo xtask lab exec [--id ID] HOST -- COMMAND…
       cargo xtask lab logs [--id ID] NODE
       cargo xtask lab env [--id ID]
       cargo xtask lab down [--id ID]
       cargo xtask lab packets

up       starts it, applies the manifests of DIR (default: a small application, tests/fixtures/lab), and prints each
         step with its time, one line for each fact, the path matrix (who reaches what, as whom, and how), and
         `N passed, N failed`. It then stays until Ctrl-C, which takes everything away again. A second Ctrl-C does
         not wait for that.
           --once           end after the report; the exit code is 1 if a fact is not as it should be
           -o json          the report as one JSON document on standard output (the steps are on standard error)
           --manifests DIR  YAML or JSON. What a pod runs is a server on its declared ports that answers with the
                            pod's name and the client's address, whatever its image is
exec     runs a command in a lab, with its exit code. HOST is node1, node2 (of one subnet), node3 (of another), router,
         outside (a client), pod/NAME or pod/NAMESPACE/NAME. bpftool, birdc, gobgp and kube-router are on the PATH.
logs     prints what the agent of a node has said
env      prints `export KUBECONFIG=…`:  eval \"$(cargo xtask lab env)\"
down     ends every lab, or the one of --id, and clears what killed ones have left
packets  the packets of the data path's cases, through host code and through the kernel

Several labs may run beside each other: exec and env take the newest, or the one of --id (`up` says which it is).
It needs root. Nothing of the host is changed but /run/kube-router-lab and control groups named kr-lab-….
";

/// The verbs for people.
pub fn main(arguments: Vec<String>) -> Result<ExitCode> {
    match arguments::parse(arguments)? {
        Verb::Help => steps::say(HELP.trim_end()).map(|()| ExitCode::SUCCESS),
        Verb::Up(options) => up::run(&options),
        Verb::Exec { id, host, command } => exec::run(id.as_deref(), &host, &command),
        Verb::Logs { id, node } => exec::print_log(id.as_deref(), &node).map(|()| ExitCode::SUCCESS),
        Verb::Env { id } => exec::print_env(id.as_deref()).map(|()| ExitCode::SUCCESS),
        Verb::Down { id } => down::run(id.as_deref()).map(|()| ExitCode::SUCCESS),
        Verb::Packets => packets::run().map(|()| ExitCode::SUCCESS),
    }
}
