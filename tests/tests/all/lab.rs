//! `cargo xtask lab` as people use it: started, asked, changed with a stock kubectl, and ended in every way.

#[path = "lab/changes.rs"]
mod changes;
#[path = "lab/traces.rs"]
mod traces;

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use router_tests::binaries::lab_binary;
use router_tests::lab::state::{self, LabState};
use router_tests::lab::up::Report;
use serde_json::Value;

use self::traces::Traces;

/// `lab up -o json` after its report. It is killed if a test fails before it has ended it.
struct Lab {
    child: Child,
    report: Report,
}

fn lab(words: &[&str]) -> Command {
    let mut command = Command::new(lab_binary().unwrap());
    // Its own group, as a shell gives to each command.
    command.args(words).process_group(0).stdin(Stdio::null());
    command
}

fn output(words: &[&str]) -> Output {
    lab(words).output().unwrap()
}

/// What a verb that succeeds says.
fn said(words: &[&str]) -> String {
    let output = output(words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

impl Lab {
    fn up() -> Self {
        let mut child =
            lab(&["up", "-o", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.as_mut().unwrap();
        let report = serde_json::Deserializer::from_reader(stdout).into_iter::<Report>().next();
        let Some(Ok(report)) = report else {
            let mut errors = String::new();
            child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
            panic!("lab up gave no report: {errors}");
        };
        // Owned first: what a failure unwinds is killed.
        let lab = Self { child, report };
        assert!(failures(&lab.report).is_empty(), "{:#?}", failures(&lab.report));
        lab
    }

    fn state(&self) -> LabState {
        state::find(Some(&self.report.id)).unwrap()
    }

    /// What a command on a host of it says.
    fn exec(&self, host: &str, words: &[&str]) -> String {
        said(&[&["exec", "--id", &self.report.id, host, "--"], words].concat())
    }

    /// The code it is to end with.
    fn verdict(&self) -> i32 {
        i32::from(self.report.failed > 0)
    }

    /// Sends what the terminal sends on Ctrl-C, or `kill`, and waits; the exit code.
    fn end(mut self, signal: Signal) -> Option<i32> {
        let group = Pid::from_raw(-i32::try_from(self.child.id()).unwrap());
        kill(group, signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Its hosts notice and go by themselves.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn failures(report: &Report) -> Vec<String> {
    let wrong = report.facts.iter().filter(|fact| !fact.ok);
    wrong.map(|fact| format!("{}: {}", fact.fact, fact.line)).collect()
}

#[test]
fn a_lab_of_once_finds_everything_right_and_leaves_nothing() {
    let traces = Traces::before();
    let mut child =
        lab(&["up", "--once", "-o", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let id = child.id();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    let ended = child.wait_with_output().unwrap();
    let steps = String::from_utf8_lossy(&ended.stderr);
    let report: Report =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text} {steps}"));
    assert!(failures(&report).is_empty(), "{:#?}\n{steps}", failures(&report));
    assert_eq!(ended.status.success(), report.failed == 0);
    assert_eq!(report.passed + report.failed, report.facts.len());
    assert!(report.impossible.iter().all(|one| !one.why.is_empty()));
    for service in ["api 443/tcp", "api 443/udp", "dns 53/udp", "self 80/tcp", "web 80/tcp"] {
        for client in ["pod", "node"] {
            let name = format!("{service} from {client}");
            let fact = report.facts.iter().find(|fact| fact.fact == name);
            let figures = &fact.unwrap_or_else(|| panic!("no fact {name}")).figures;
            assert!(figures["p99_micros"].as_u64() >= figures["p50_micros"].as_u64(), "{figures}");
            let backends = figures["backends"].as_object().unwrap();
            let expected = match service {
                "web 80/tcp" => 3,
                "dns 53/udp" => 2,
                _ => 1,
            };
            assert_eq!(backends.len(), expected, "{name}: {figures}");
        }
    }
    for fact in [
        "router peers",
        "node3 routes",
        "web NodePort 30080/tcp from outside",
        "empty has no backend 80/tcp from pod",
        "web unknown port 9/tcp from node",
        "node1 map FLOWS4",
        "pod of node1 dials ClusterIP: pod there, udp",
    ] {
        assert!(report.facts.iter().any(|known| known.fact == fact), "no fact {fact}");
    }
    for step in &report.steps {
        assert!(steps.contains(&step.step), "step {} is not among {steps}", step.step);
    }
    traces.none_of(id);
}

#[test]
fn what_is_wrong_is_counted_and_is_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    // The server of a pod listens where the pod says, and the Service leads elsewhere.
    let manifest = "
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec: {containers: [{name: c, image: example.test/c, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: astray}
spec: {selector: {app: client}, ports: [{port: 80, targetPort: 8081}]}
";
    std::fs::write(folder.path().join("astray.yaml"), manifest).unwrap();
    let traces = Traces::before();
    let mut child = lab(&["up", "--once", "-o", "json", "--manifests", folder.path().to_str().unwrap()]);
    let child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let id = child.id();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let report: Report = serde_json::from_slice(&ended.stdout).unwrap();
    let wrong: Vec<_> = report.facts.iter().filter(|fact| !fact.ok).map(|fact| fact.fact.as_str()).collect();
    assert!(wrong.contains(&"astray 80/tcp from pod"), "{wrong:?}");
    assert!(report.failed > 0 && report.passed > 0);
    traces.none_of(id);
}

#[test]
fn exec_and_env_let_others_in() {
    let traces = Traces::before();
    let (first, second) = (Lab::up(), Lab::up());
    for lab in [&first, &second] {
        assert_eq!(lab.exec("node1", &["hostname"]), "node1\n");
        assert_eq!(lab.exec("router", &["hostname"]), "router\n");
        let env = said(&["env", "--id", &lab.report.id]);
        assert_eq!(env, format!("export KUBECONFIG={}\n", lab.report.kubeconfig.display()));
        assert!(lab.report.kubeconfig.is_file());
        let programs = lab.exec("node1", &["sh", "-ec", "command -v kube-router; command -v bpftool"]);
        assert_eq!(programs.lines().count(), 2, "{programs}");
        assert!(lab.exec("router", &["birdc", "show", "route"]).contains("10.244.3.0/24"));
        assert!(lab.exec("node3", &["gobgp", "neighbor"]).contains("Establ"));
        assert!(
            said(&["logs", "--id", &lab.report.id, "node2"]).contains("msg=\"Peer Up\" Key=192.168.78.2")
        );
        let pods = changes::kubectl(lab, &["get", "pods", "-o", "json"]);
        let pods: Value = serde_json::from_str(&pods).unwrap();
        let pod =
            pods["items"].as_array().unwrap().iter().find(|pod| pod["metadata"]["labels"]["app"] == "client");
        let (name, ip) = (&pod.unwrap()["metadata"]["name"], &pod.unwrap()["status"]["podIP"]);
        let place = format!("pod/default/{}", name.as_str().unwrap());
        let addresses = lab.exec(&place, &["ip", "-br", "-4", "addr", "show", "eth0"]);
        assert!(addresses.contains(&format!(" {}/24", ip.as_str().unwrap())), "{addresses}, not {ip}");
    }
    let id = second.report.id.as_str();
    assert_eq!(output(&["exec", "--id", id, "node1", "--", "sh", "-c", "exit 7"]).status.code(), Some(7));
    let unknown = output(&["exec", "--id", id, "node9", "--", "true"]);
    let text = String::from_utf8_lossy(&unknown.stderr);
    assert!(
        text.contains("no host node9: it has node1, node2, node3, router, outside and pod/NAME"),
        "{text}"
    );

    // One is killed, and its folder stays until `down`; the other is ended by `down`.
    let (killed, ended) = (first.report.id.clone(), second.report.id.clone());
    let hosts = first.state().hosts;
    drop(first);
    said(&["down", "--id", &killed]);
    traces.none_of_hosts(killed.parse().unwrap(), &hosts);
    assert_eq!(second.exec("node1", &["hostname"]), "node1\n", "down took another lab");
    let hosts = second.state().hosts;
    let text = said(&["down", "--id", &ended]);
    assert!(text.contains(&format!("lab {ended} ended")), "{text}");
    traces.none_of_hosts(ended.parse().unwrap(), &hosts);
}

#[test]
fn down_clears_what_a_killed_lab_with_killed_holders_leaves() {
    let traces = Traces::before();
    let mut lab = Lab::up();
    let state = lab.state();
    for host in &state.hosts {
        kill(Pid::from_raw(i32::try_from(host.pid).unwrap()), Signal::SIGKILL).unwrap();
    }
    lab.child.kill().unwrap();
    lab.child.wait().unwrap();
    assert!(state.hosts.iter().all(|host| host.cgroup.exists()), "who has removed the control groups?");
    said(&["down", "--id", &state.id]);
    traces.none_of_hosts(state.pid, &state.hosts);
}

#[test]
fn ctrl_c_leaves_nothing() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let traces = Traces::before();
        let lab = Lab::up();
        let (pid, hosts, verdict) = (lab.child.id(), lab.state().hosts, lab.verdict());
        assert_eq!(lab.end(signal), Some(verdict), "{signal}");
        traces.none_of_hosts(pid, &hosts);
    }
}

#[test]
fn ctrl_c_in_the_middle_leaves_nothing_either() {
    for after in [50, 400, 1500] {
        let traces = Traces::before();
        let mut command = lab(&["up"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        std::thread::sleep(Duration::from_millis(after));
        kill(Pid::from_raw(-i32::try_from(pid).unwrap()), Signal::SIGINT).unwrap();
        let ended = child.wait_with_output().unwrap();
        // Before it has made itself deaf to the signal, there is nothing to clean up.
        let by_signal = std::os::unix::process::ExitStatusExt::signal(&ended.status);
        assert!(ended.status.code() == Some(130) || by_signal == Some(2), "after {after} ms: {ended:?}");
        traces.none_of(pid);
    }
}

#[test]
fn help_names_every_verb() {
    let text = said(&["--help"]);
    for word in ["up", "exec", "logs", "env", "down", "packets", "--once", "-o json", "--manifests"] {
        assert!(text.contains(word), "{word}");
    }
    assert!(!Path::new(state::FOLDER).join("help").exists());
}
