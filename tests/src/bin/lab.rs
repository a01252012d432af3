//! `lab up`: for now, the one packet that the data path balances, through host code and through the kernel.

#![expect(clippy::print_stdout, reason = "a command-line tool speaks on standard output")]

use router_tests::packets::{Outcome, cases, kernel, model};

fn main() -> anyhow::Result<()> {
    let mut passed = 0;
    let mut failed = 0;
    for case in cases::all() {
        println!("{}", case.name);
        println!("  in      {}", hex(&case.packet));
        for (place, outcome) in [("host", Ok(model::run(&case))), ("kernel", kernel::run(&case))] {
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
