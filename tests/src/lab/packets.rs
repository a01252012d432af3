//! `lab packets`: the packet cases of the data path, through host code and through the kernel.

use anyhow::{Result, ensure};

use super::steps::say;
use crate::packets::{Outcome, cases, kernel, model};

pub(super) fn run() -> Result<()> {
    let mut passed = 0;
    let mut failed = 0;
    let mut loaded = kernel::Loaded::new(&kernel::object_path()?)?;
    for case in cases::all() {
        say(case.name)?;
        say(&format!("  in      {}", hex(&case.packet)))?;
        for (place, outcome) in [("host", Ok(model::run(&case))), ("kernel", kernel::run(&mut loaded, &case))]
        {
            let Outcome { verdict, packet, .. } = outcome?;
            say(&format!("  {place:<7} {} {verdict:?}", hex(&packet)))?;
            if verdict == case.verdict && &packet == case.out.as_ref().unwrap_or(&case.packet) {
                passed += 1;
            } else {
                failed += 1;
            }
        }
    }
    say(&format!("{passed} passed, {failed} failed"))?;
    ensure!(failed == 0, "a packet went astray");
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
