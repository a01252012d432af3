//! The sub-commands: a question to the running agent, over its unix socket, and the answer as a table or as JSON.
//!
//! Each answer is one type in a file of its own, made by the agent (`serve/answers/`) and shown here. A word is a
//! sub-command only as the very first argument: behind a flag it is upstream's grammar that holds.

pub(crate) mod bgp;
pub(crate) mod flows;
mod http;
pub(crate) mod plan;
pub(crate) mod routes;
pub(crate) mod services;
pub(crate) mod status;
mod table;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::pflag::{self, Flag, Store};

/// Where an agent listens.
pub(crate) const SOCKET: &str = "/run/kube-router/agent.sock";

/// What is asked for, and how it is shown.
pub(crate) trait Answer: Serialize + DeserializeOwned {
    /// For people. `wide` shows all there is.
    fn text(&self, wide: bool) -> String;
}

/// A sub-command.
struct Command {
    name: &'static str,
    /// What may follow.
    operand: &'static str,
    /// A sentence in a line of its own, then the rest.
    help: &'static str,
    run: fn(&Options, &[String]) -> Result<()>,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "status",
        operand: "",
        help: "\
What works, what does not, and what to do about it.
The first line is the verdict: OK; STARTING: the first lists or the first writes are under way; DEGRADED: something
named below is wrong, everything else works; FAILING: a whole job is not done. Exit code 0 says that the agent
answered, whatever its verdict: scripts read \"verdict\" of -o json.",
        run: |options, operands| {
            none(operands)?;
            show::<status::Status>(options, "/v1/status")
        },
    },
    Command {
        name: "services",
        operand: "[NAMESPACE/NAME | ADDRESS]",
        help: "\
What can be dialled, the endpoints behind it, and its traffic.
Traffic is that since the agent's start, counted every ten seconds. -o wide names the endpoints.",
        run: |options, operands| {
            show::<services::Services>(options, &format!("/v1/services{}", only("of", one(operands)?)?))
        },
    },
    Command {
        name: "flows",
        operand: "[ADDRESS]",
        help: "\
Connections that this node's programs carry.
The one with the latest packet comes first; with ADDRESS those that have it at any end. IN is from the client, OUT to
it. -o wide shows as whom the backend sees the client, and the service.",
        run: |options, operands| {
            let only = only("of", one(operands)?)?;
            let limit = options.limit;
            let separator = if only.is_empty() { '?' } else { '&' };
            show::<flows::Flows>(options, &format!("/v1/flows{only}{separator}limit={limit}"))
        },
    },
    Command {
        name: "routes",
        operand: "",
        help: "\
Prefixes learned by BGP, and those of services.
Of each that was learned, whether the kernel has a route to it, or why not. Those of services lead to kube-svc.",
        run: |options, operands| {
            none(operands)?;
            show::<routes::Routes>(options, "/v1/routes")
        },
    },
    Command {
        name: "bgp",
        operand: "",
        help: "\
The BGP neighbors, and what this node originates.
Of each neighbor its state, since when, and how many routes it sent, had accepted and was told. gobgp shows more.",
        run: |options, operands| {
            none(operands)?;
            show::<bgp::Bgp>(options, "/v1/bgp")
        },
    },
    Command {
        name: "plan",
        operand: "[AGENT'S FLAGS]",
        help: "\
What the agent would change in the kernel now; nothing is written.
Without flags the running agent is asked: it reads its tables afresh, so something is shown only if somebody else has
changed them. With the flags of an agent no agent is needed: objects are listed once, and compared with the pinned
maps.",
        run: plan_command,
    },
];

/// Options of every sub-command.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Options {
    output: String,
    socket: String,
    limit: u32,
    help: bool,
}

impl Default for Options {
    fn default() -> Self {
        let socket = std::env::var("KUBE_ROUTER_SOCKET").ok().filter(|path| !path.is_empty());
        Self {
            output: "table".to_owned(),
            socket: socket.unwrap_or_else(|| SOCKET.to_owned()),
            limit: 100,
            help: false,
        }
    }
}

const FLAGS: &[Flag<Options>] = &[
    Flag {
        name: "output",
        short: Some('o'),
        default: "\"table\"",
        help: "table, wide or json.",
        store: Store::Text(|options, value| options.output = value),
    },
    Flag {
        name: "socket",
        short: None,
        default: "\"/run/kube-router/agent.sock\"",
        help: "The agent's socket; else KUBE_ROUTER_SOCKET names it.",
        store: Store::Text(|options, value| options.socket = value),
    },
    Flag {
        name: "limit",
        short: None,
        default: "100",
        help: "How many flows are shown. Only with flows.",
        store: Store::U32(|options, value| options.limit = value),
    },
    Flag {
        name: "help",
        short: Some('h'),
        default: "",
        help: "Print this and exit.",
        store: Store::Bool(|options, value| options.help = value),
    },
];

/// Runs the sub-command that the arguments begin with, if they do.
pub(crate) fn main(args: &[String]) -> Option<ExitCode> {
    let (name, rest) = args.split_first()?;
    let command = COMMANDS.iter().find(|command| command.name == name)?;
    Some(match run(command, rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kube-router {name}: {error:#}");
            ExitCode::from(1)
        }
    })
}

/// One line for each sub-command, for the agent's own usage.
pub(crate) fn usage() -> String {
    let mut text = "Sub-commands, as the first argument (--help tells more of each):\n".to_owned();
    for Command { name, operand, help, .. } in COMMANDS {
        let first = help.lines().next().unwrap_or_default();
        // A String takes whatever is written to it.
        let _ = writeln!(text, "  {:<38}{first}", format!("{name} {operand}"));
    }
    text
}

fn run(command: &Command, args: &[String]) -> Result<()> {
    let mut options = Options::default();
    let (ours, theirs) = if command.name == "plan" { apart(args) } else { (args.to_vec(), Vec::new()) };
    let mut operands = pflag::parse(FLAGS, &mut options, &ours).map_err(anyhow::Error::msg)?;
    if options.help {
        let Command { name, operand, help, .. } = command;
        let usage = pflag::usage(&format!("kube-router {name} {operand}"), FLAGS);
        return print(&format!("{help}\n\n{usage}"));
    }
    if !["table", "wide", "json"].contains(&options.output.as_str()) {
        anyhow::bail!("-o {}: accepted are table, wide and json", options.output);
    }
    operands.extend(theirs);
    (command.run)(&options, &operands)
}

/// Of the arguments of `plan`, those that are ours and those that are an agent's.
fn apart(args: &[String]) -> (Vec<String>, Vec<String>) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let takes_next = ["-o", "--output", "--socket"].contains(&arg.as_str());
        let is_ours = takes_next
            || ["-h", "--help"].contains(&arg.as_str())
            || ["-o", "--output=", "--socket="].iter().any(|name| arg.starts_with(name));
        if is_ours {
            ours.push(arg.clone());
            ours.extend(takes_next.then(|| args.next().cloned()).flatten());
        } else {
            theirs.push(arg.clone());
        }
    }
    (ours, theirs)
}

fn none(operands: &[String]) -> Result<()> {
    match operands.first() {
        None => Ok(()),
        Some(word) => anyhow::bail!("{word:?} is not understood; see --help"),
    }
}

fn one(operands: &[String]) -> Result<Option<&String>> {
    none(operands.get(1..).unwrap_or_default())?;
    Ok(operands.first())
}

/// An operand as a query. What cannot be part of a name or an address is refused here, so nothing needs escapes.
fn only(key: &str, operand: Option<&String>) -> Result<String> {
    let Some(word) = operand else { return Ok(String::new()) };
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-._:/".contains(letter);
    anyhow::ensure!(!word.is_empty() && word.chars().all(fits), "{word:?} is neither a name nor an address");
    Ok(format!("?{key}={word}"))
}

fn plan_command(options: &Options, flags: &[String]) -> Result<()> {
    if flags.is_empty() {
        return show::<plan::Plan>(options, "/v1/plan")
            .context("asking the running agent (with an agent's flags none is needed)");
    }
    print(&render(options, &crate::app::plan::without_agent(flags)?)?)
}

fn show<A: Answer>(options: &Options, target: &str) -> Result<()> {
    let body = http::get(&PathBuf::from(&options.socket), target)?;
    let answer: A = serde_json::from_slice(&body)
        .context("the agent's answer is not understood: is it of another version?")?;
    print(&render(options, &answer)?)
}

fn render<A: Answer>(options: &Options, answer: &A) -> Result<String> {
    Ok(match options.output.as_str() {
        "json" => serde_json::to_string_pretty(answer)? + "\n",
        output => answer.text(output == "wide"),
    })
}

/// Whoever stops reading wants no more.
fn print(text: &str) -> Result<()> {
    match std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("write the answer")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn fails(name: &str, args: &[&str]) -> String {
        let command = COMMANDS.iter().find(|command| command.name == name).unwrap();
        format!("{:#}", run(command, &words(args)).unwrap_err())
    }

    #[test]
    fn only_the_first_argument_is_a_sub_command() {
        assert!(main(&words(&["--v=1", "status"])).is_none());
        assert!(main(&words(&["stat"])).is_none());
        assert!(main(&[]).is_none());
    }

    #[test]
    fn what_is_not_understood_is_named() {
        assert_eq!(fails("status", &["now"]), "\"now\" is not understood; see --help");
        assert_eq!(fails("services", &["a/b", "c"]), "\"c\" is not understood; see --help");
        assert_eq!(fails("status", &["-o", "yaml"]), "-o yaml: accepted are table, wide and json");
        assert_eq!(fails("status", &["--wide"]), "unknown flag: --wide");
        assert_eq!(fails("flows", &["10.0.0.1 or"]), "\"10.0.0.1 or\" is neither a name nor an address");
    }

    #[test]
    fn without_an_agent_the_socket_and_the_remedy_are_named() {
        let text = fails("status", &["--socket=/nonexistent/agent.sock"]);
        let expected = "no agent listens at /nonexistent/agent.sock: ";
        assert!(text.starts_with(expected) && text.contains("start it"), "{text}");
    }

    #[test]
    fn a_plan_s_flags_are_ours_or_an_agent_s() {
        let (ours, theirs) =
            apart(&words(&["-o", "json", "--kubeconfig=k", "--socket=s", "-v", "2", "-ojson"]));
        assert_eq!(ours, ["-o", "json", "--socket=s", "-ojson"]);
        assert_eq!(theirs, ["--kubeconfig=k", "-v", "2"]);
    }

    #[test]
    fn usage_has_a_line_for_each() {
        let usage = usage();
        assert_eq!(usage.lines().count(), 1 + COMMANDS.len());
        assert!(usage.lines().skip(1).all(|line| line.ends_with('.')), "{usage}");
    }
}
