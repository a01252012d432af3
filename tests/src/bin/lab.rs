//! The lab's one executable: the verbs for people, and what runs in the lab's namespaces.
//!
//! `lab up`: for now, the packet cases of the data path, through host code and through the kernel.
//! `lab bench datapath`: what Services cost, in instructions.

#![expect(clippy::print_stdout, reason = "a command-line tool speaks on standard output")]

use router_tests::node::{enter, holder};
use router_tests::packets::{Outcome, cases, kernel, model};
use router_tests::{bench, probe, serve};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let verb = arguments.next();
    let words = |arguments: std::iter::Skip<std::env::ArgsOs>| -> Vec<String> {
        arguments.map(|word| word.to_string_lossy().into_owned()).collect()
    };
    match verb.as_ref().map(|verb| verb.to_string_lossy()).as_deref() {
        None | Some("up") => up(),
        Some("holder") => holder::main(arguments),
        Some("enter") => enter::main(arguments),
        Some("serve") => serve::main(words(arguments)),
        Some("probe") => probe::main(words(arguments)),
        Some("bench") => {
            print!("{}", bench::main(&words(arguments))?);
            Ok(())
        }
        Some(verb) => anyhow::bail!("lab knows no {verb}; it knows: up, bench"),
    }
}

fn up() -> anyhow::Result<()> {
    let mut passed = 0;
    let mut failed = 0;
    let mut loaded = kernel::Loaded::new(&kernel::object_path()?)?;
    for case in cases::all() {
        println!("{}", case.name);
        println!("  in      {}", hex(&case.packet));
        for (place, outcome) in [("host", Ok(model::run(&case))), ("kernel", kernel::run(&mut loaded, &case))]
        {
            let Outcome { verdict, packet, .. } = outcome?;
            println!("  {place:<7} {} {verdict:?}", hex(&packet));
            if verdict == case.verdict && &packet == case.out.as_ref().unwrap_or(&case.packet) {
                passed += 1;
            } else {
                failed += 1;
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    anyhow::ensure!(failed == 0, "a packet went astray");
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
