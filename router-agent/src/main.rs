//! kube-router, one process a node: it follows the cluster, plans what the kernel should hold, and writes the
//! difference. Here is only the way from the command line to [`app`]; the files beside it are the parts.

mod app;
mod ask;
mod bgp;
mod cluster;
mod config;
mod drops;
mod fib;
mod flags;
mod flows;
mod log;
mod measure;
mod node;
mod parts;
mod pflag;
mod planes;
mod reconcile;
mod serve;
mod sys;

use std::process::ExitCode;

fn main() -> ExitCode {
    app::main(std::env::args(), app::kernel::Ebpf)
}
