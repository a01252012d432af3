//! Debian's `gobgp` and the one that kube-router's image has, where `xtask setup` puts them.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Version, and place below the cache directory.
const CLIENTS: [(&str, &str); 2] = [("3.10", "gobgp-3.10/usr/bin/gobgp"), ("4.8", "gobgp-4.8/gobgp")];

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) struct Client {
    version: &'static str,
    program: PathBuf,
}

/// The clients that are here. Where `ROUTER_TEST_REQUIRE` names `gobgp`, none may be missing.
pub(super) fn clients() -> Vec<Client> {
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .expect("XDG_CACHE_HOME or HOME is set")
        .join("kube-router");
    let required = env::var("ROUTER_TEST_REQUIRE").unwrap_or_default();
    let mut found = Vec::new();
    for (version, place) in CLIENTS {
        let program = cache.join(place);
        if program.is_file() {
            found.push(Client { version, program });
            continue;
        }
        let why = format!("{} is missing: run `cargo xtask setup`", program.display());
        assert!(
            !required.split(',').any(|need| need == "gobgp"),
            "ROUTER_TEST_REQUIRE names gobgp, but {why}"
        );
        eprintln!("skipped: {why}");
    }
    found
}

impl Client {
    fn command(&self, port: u16, command: &str) -> Command {
        let mut program = Command::new(&self.program);
        program.env_clear().args(["-u", "127.0.0.1", "-p", &port.to_string()]).args(command.split(' '));
        program
    }

    pub(super) fn run(&self, port: u16, command: &str) -> (String, i32) {
        let Output { status, stdout, stderr } = self.command(port, command).output().expect("gobgp runs");
        let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        (text, status.code().unwrap_or(-1))
    }

    pub(super) fn monitor(&self, port: u16, command: &str) -> Monitor {
        let mut child = self
            .command(port, command)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("gobgp runs");
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Monitor { child, lines }
    }

    /// Compares with the file of this version; `UPDATE_EXPECT=1` writes it.
    pub(super) fn expect(&self, name: &str, transcript: &str) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/bgp/grpc/tests/expected")
            .join(format!("{name}-{}.txt", self.version));
        if env::var_os("UPDATE_EXPECT").is_some() {
            fs::create_dir_all(file.parent().expect("it has one")).expect("the folder can be made");
            fs::write(&file, transcript).expect("the file can be written");
            return;
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        for (number, (said, expected)) in transcript.lines().zip(expected.lines()).enumerate() {
            assert_eq!(said, expected, "line {} of {} (UPDATE_EXPECT=1 accepts)", number + 1, file.display());
        }
        assert_eq!(transcript.lines().count(), expected.lines().count(), "lines of {}", file.display());
    }
}

/// A command that goes on until dropped.
pub(super) struct Monitor {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Monitor {
    /// The next lines, masked.
    pub(super) fn lines(&mut self, count: usize) -> String {
        let mut text = String::new();
        for _ in 0..count {
            let line = self.lines.recv_timeout(PATIENCE).expect("another line comes");
            let _ = writeln!(text, "{}", mask(&line));
        }
        text
    }

    /// All that it still says before it ends by itself.
    pub(super) fn end(mut self) -> String {
        let mut text: String = self.lines.iter().collect();
        let mut stderr = self.child.stderr.take().expect("it is piped");
        stderr.read_to_string(&mut text).expect("stderr is text");
        let status = self.child.wait().expect("gobgp is a child");
        assert!(!status.success(), "{text}");
        text
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Times are not the same twice: times of day and ages, dates, and the numbers that stand for them in JSON.
pub(super) fn mask(text: &str) -> String {
    // Go's text of a message has one blank or two between fields, as its builds please.
    let mut masked = text.replace("AFI_IP  safi", "AFI_IP safi");
    for (shape, mask) in [("dddd-dd-ddTdd:dd:ddZ", "<time>"), ("dd:dd:dd", "hh:mm:ss")] {
        masked = replace(&masked, shape, mask);
    }
    for key in ["\"age\":", "\"seconds\":", "\"nanos\":"] {
        let mut parts = masked.split(key);
        let mut rest = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            rest += key;
            rest.push('#');
            rest += part.trim_start_matches(|c: char| c.is_ascii_digit());
        }
        masked = rest;
    }
    masked
}

/// Replaces what has the shape, in which `d` is any digit.
fn replace(text: &str, shape: &str, mask: &str) -> String {
    let fits = |text: &str| {
        text.len() >= shape.len()
            && shape.bytes().zip(text.bytes()).all(|(shape, byte)| match shape {
                b'd' => byte.is_ascii_digit(),
                shape => shape == byte,
            })
    };
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if fits(rest) {
            out += mask;
            rest = &rest[shape.len()..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

#[test]
fn times_are_masked() {
    assert_eq!(mask("a 2026-11-22T22:26:21Z b 00:01:02 c"), "a <time> b hh:mm:ss c");
    assert_eq!(mask("{\"age\":17,\"nanos\":5}"), "{\"age\":#,\"nanos\":#}");
}
