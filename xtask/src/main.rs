//! The verbs of this workspace. Each does the set-up it needs, saying what it installs and why.
//!
//! It has no dependency: it is compiled before anything else can be.

#![expect(clippy::print_stdout, reason = "a command-line tool speaks on standard output")]

mod bench;
mod check;
mod lab;
mod run;
mod setup;
mod test;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask VERB [OPTIONS]

  setup [--no-install]   install what is missing (Debian 12 or later, as root); nothing missing: under 2 s
  lab [up|down|exec|env] a cluster on this machine: the agent, pods, a router; see `cargo xtask lab --help`
  test [FILTER]          every test: host, kernel, namespaces, virtual machines
  bench datapath         what Services cost, in instructions; see `cargo xtask bench --help`
  check                  formatting, lints, documentation

With --no-install, `setup`, `lab`, `bench` and `test` only list what is missing.";

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let no_install =
        arguments.iter().position(|argument| argument == "--no-install").map(|at| arguments.remove(at));
    let verb = if arguments.is_empty() { String::new() } else { arguments.remove(0) };
    let outcome = match verb.as_str() {
        "setup" => setup::run(no_install.is_none(), true),
        "lab" => lab::run(no_install.is_none(), &arguments),
        "test" => test::run(no_install.is_none(), &arguments),
        "bench" => bench::run(no_install.is_none(), &arguments),
        "check" => check::run(),
        "" | "help" | "--help" | "-h" => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        other => Err(format!("there is no verb {other:?}\n\n{USAGE}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("xtask: {text}");
            ExitCode::FAILURE
        }
    }
}
