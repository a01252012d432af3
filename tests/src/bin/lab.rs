//! The lab's one executable: the verbs for people, and what runs in the lab's namespaces.

#![expect(clippy::print_stdout, reason = "a command-line tool speaks on standard output")]

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use router_tests::node::{enter, holder};
use router_tests::{bench, lab, probe, serve};

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("lab: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode> {
    let rest = env::args_os().skip(2);
    match env::args_os().nth(1).as_ref().and_then(|verb| verb.to_str()) {
        Some("holder") => holder::main(rest),
        Some("enter") => enter::main(rest),
        Some("serve") => serve::main(rest.map(text).collect()),
        Some("probe") => probe::main(rest.map(text).collect()),
        Some("bench") => {
            let words: Vec<String> = rest.map(text).collect();
            bench::main(&words).map(|report| print!("{report}"))
        }
        _ => return lab::main(env::args_os().skip(1).map(text).collect()),
    }
    .map(|()| ExitCode::SUCCESS)
}

fn text(word: OsString) -> String {
    word.into_string().unwrap_or_else(|word| word.to_string_lossy().into_owned())
}
