//! Runs in a guest of `router_tests::vm`: does what its words say, one after the other, and reports each result
//! on the second serial port. What it prints goes to the guest's console.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use router_tests::packets::cases;
use router_tests::packets::kernel::{self, Loaded, object_path};
use router_tests::vm::report::{PORT, Reporter};
use router_tests::{bench, verifier};

const TESTS: &str = "/usr/bin/tests";

struct Guest {
    host: Reporter<File>,
    /// The object, once `programs` has loaded it: the verifier takes its time here.
    loaded: Option<Loaded>,
    bench: bench::InGuest,
}

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1).peekable();
    match (words.next().as_deref(), words.peek()) {
        // In a pod of the bench.
        (Some("load-server"), _) => return bench::load::serve(),
        (Some("load-client"), Some(to)) => {
            return Ok(std::io::stdout().write_all(bench::client(to)?.as_bytes())?);
        }
        _ => {}
    }
    eprintln!("guest-init started at {} s", uptime()?);
    let port = OpenOptions::new().write(true).open(PORT).context(PORT)?;
    let mut guest = Guest { host: Reporter::start(port)?, loaded: None, bench: bench::InGuest::default() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "release" => guest.release()?,
            "programs" => guest.programs()?,
            "packets" => guest.packets()?,
            "tests" => guest.tests(&words.next().context("tests needs a filter")?)?,
            "command" => guest.command(&words.by_ref().collect::<Vec<_>>())?,
            "bench" => {
                let (arm, services) = (words.next().context("bench needs an arm")?, words.next());
                let services = services.context("bench needs a number of Services")?;
                let found = guest.bench.arm(&arm, &services);
                guest.found(&format!("bench {arm}"), found)?;
            }
            "bench-hooks" => {
                let found = guest.bench.hooks();
                guest.found("bench-hooks", found)?;
            }
            "hang" => hang(),
            _ => bail!("no such word: {word}"),
        }
        eprintln!("{word}: done at {} s", uptime()?);
    }
    guest.host.done()?;
    Ok(())
}

impl Guest {
    fn report(&mut self, name: &str, outcome: &Result<String, String>) -> Result<()> {
        self.host.report(name, outcome.as_ref().map(String::as_str).map_err(String::as_str))?;
        Ok(())
    }

    /// Several results, or why there are none.
    fn found(&mut self, name: &str, found: Result<Vec<bench::Found>>) -> Result<()> {
        match found {
            Ok(found) => found.into_iter().try_for_each(|(name, text)| self.report(&name, &Ok(text))),
            Err(error) => self.report(name, &Err(format!("{error:#}"))),
        }
    }

    /// Which kernel this is.
    fn release(&mut self) -> Result<()> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        self.report("release", &Ok(release.trim().to_owned()))
    }

    /// Each program's verified instructions.
    fn programs(&mut self) -> Result<()> {
        let mut loaded = Loaded::maps(&object_path()?)?;
        for (program, count) in verifier::load_all(loaded.ebpf()) {
            self.report(&format!("program {program}"), &count.map(|count| count.to_string()))?;
        }
        self.loaded = Some(loaded);
        Ok(())
    }

    /// Each packet case.
    fn packets(&mut self) -> Result<()> {
        let mut loaded = match self.loaded.take() {
            Some(loaded) => loaded,
            None => Loaded::new(&object_path()?)?,
        };
        for case in cases::all() {
            let outcome = kernel::run(&mut loaded, &case).map_err(|error| format!("{error:#}"));
            let outcome = outcome.and_then(|outcome| case.check(&outcome)).map(|()| String::new());
            self.report(&format!("packet {}", case.name), &outcome)?;
        }
        Ok(())
    }

    /// Each test of the test binary whose name contains the filter, in a process of its own.
    fn tests(&mut self, filter: &str) -> Result<()> {
        let list =
            Command::new(TESTS).args([filter, "--list", "--format", "terse"]).output().context(TESTS)?;
        let list = String::from_utf8(list.stdout)?;
        for name in list.lines().filter_map(|line| line.strip_suffix(": test")) {
            let mut test = Command::new(TESTS);
            test.args(["--exact", name, "--nocapture"]);
            // A guest has everything, so nothing may be skipped.
            test.env("ROUTER_TEST_REQUIRE", "root,netns");
            // Without hardware's help everything takes its time.
            test.env(router_tests::patience::VARIABLE, "10");
            self.output(&format!("test {name}"), &mut test)?;
        }
        Ok(())
    }

    /// One command, to its end.
    fn command(&mut self, words: &[String]) -> Result<()> {
        let (program, arguments) = words.split_first().context("command needs one")?;
        self.output(&format!("command {program}"), Command::new(program).args(arguments))
    }

    fn output(&mut self, name: &str, command: &mut Command) -> Result<()> {
        let out = command.stdin(Stdio::null()).output();
        let outcome = match out {
            Ok(out) => {
                let text = [out.stdout, out.stderr]
                    .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                    .concat();
                if out.status.success() { Ok(text) } else { Err(format!("{}: {text}", out.status)) }
            }
            Err(error) => Err(error.to_string()),
        };
        self.report(name, &outcome)
    }
}

/// Seconds since the guest's boot.
fn uptime() -> Result<String> {
    let text = fs::read_to_string("/proc/uptime")?;
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}

/// For the harness' own test.
fn hang() -> ! {
    eprintln!("guest-init hangs now");
    loop {
        thread::sleep(Duration::from_hours(1));
    }
}
