//! What the agent tells: sub-commands, health and metrics, of a node that carries real connections.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use router_tests::apiserver::Kind;
use router_tests::binaries::agent_binary;
use router_tests::cluster::{AgentOptions, ClusterOptions, NODE_NAME};
use router_tests::probe::Probe;
use router_tests::topology::NODE_POD_CIDR;
use serde_json::{Value, json};

use super::bgp::{EXTERNAL, router};
use super::world::{BOTH, World, hold, native};

/// Where metrics are asked.
const METRICS: u16 = 9_255;

fn with(flags: &[&str]) -> ClusterOptions {
    let more = flags.iter().map(|flag| (*flag).to_owned()).collect();
    ClusterOptions { agent: AgentOptions { more, ..AgentOptions::default() }, ..native() }
}

/// A sub-command on the node: its exit code, output and errors.
fn run(world: &World, words: &str) -> (Option<i32>, String, String) {
    let mut command = world.cluster.topology.node.command(agent_binary().unwrap());
    let output = command.args(words.split_whitespace()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn table(world: &World, words: &str) -> String {
    let (code, out, errors) = run(world, words);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{words}: {out}");
    out
}

fn json_of(world: &World, words: &str) -> Value {
    serde_json::from_str(&table(world, &format!("{words} -o json"))).unwrap()
}

fn wait_for(world: &World, what: &str, holds: impl Fn() -> bool) {
    world.cluster.wait(what, Duration::from_secs(30), |_| Ok(holds())).unwrap();
}

/// A page by HTTP from the node itself: the status code, and the body. A socket keeps the network namespace that it was
/// made in, so one thread goes there for it.
fn page(world: &World, port: u16, path: &str) -> (u16, String) {
    let namespace = File::open(world.cluster.topology.node.netns_path()).unwrap();
    let ask = format!("GET {path} HTTP/1.0\r\n\r\n");
    let asked = thread::spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(ask.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = asked.join().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn a_healthy_node_is_ok_and_a_bad_object_is_named_with_its_remedy() {
    let world = World::start("status", native());
    world.serve("web", &["web"]);
    let text = table(&world, "status");
    assert!(text.starts_with("OK\n\nNODE"), "{text}\n{}", world.cluster.agent_log());
    let status = json_of(&world, "status");
    assert_eq!(status["node"], NODE_NAME);
    assert_eq!(status["dataplane"]["name"], "ebpf");
    assert!(status["counts"]["services"].as_u64() >= Some(1), "{status}");
    assert_eq!(status["counts"]["pods"], 2, "{status}");
    assert!(status["watches"].as_array().unwrap().iter().all(|watch| watch["listed"] == true), "{status}");
    let jobs: BTreeMap<&str, &str> = status["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| (job["name"].as_str().unwrap(), job["state"].as_str().unwrap()))
        .collect();
    assert_eq!(jobs, BTreeMap::from([("services", "OK"), ("router", "OK"), ("policy", "OFF")]));
    let spec = json!({"clusterIP": "10.96.0.300", "clusterIPs": ["10.96.0.300"], "selector": {"app": "web"},
        "ports": [{"protocol": "TCP", "port": 80, "targetPort": 8080}]});
    let bad = json!({"metadata": {"name": "bad", "namespace": "default"}, "spec": spec});
    world.cluster.put(Kind::Service, bad).unwrap();
    wait_for(&world, "the verdict", || table(&world, "status").starts_with("DEGRADED: 1 problem\n"));
    let status = json_of(&world, "status");
    let problem = &status["problems"][0];
    assert_eq!(
        (&problem["subject"], &problem["reason"]),
        (&json!("service default/bad"), &json!("BadClusterIP"))
    );
    assert!(problem["remedy"].as_str().unwrap().starts_with("delete the Service and apply it"), "{status}");
    let text = table(&world, "status");
    assert!(text.contains("PROBLEM   service default/bad: BadClusterIP\n"), "{text}");
    assert!(text.contains("\n  to do: delete the Service and apply it"), "{text}");
    world.cluster.remove(Kind::Service, "bad");
    wait_for(&world, "the verdict to be good again", || table(&world, "status").starts_with("OK\n"));
}

#[test]
fn who_asks_no_agent_is_told_so_in_one_line() {
    let mut world = World::start("nobody", native());
    world.cluster.terminate_agent().unwrap();
    let (code, out, errors) = run(&world, "status");
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains("/run/kube-router/agent.sock") && errors.contains("start it"), "{errors}");
    // The socket of the agent before is replaced.
    world.cluster.start_agent().unwrap();
    wait_for(&world, "the next agent to answer", || run(&world, "status").0 == Some(0));
    let socket = world.cluster.topology.node.run(&["stat", "-c", "%a %U", "/run/kube-router/agent.sock"]);
    assert_eq!(socket.unwrap().trim(), "600 root");
}

#[test]
fn services_and_flows_show_what_a_connection_did() {
    let world = World::start("shown", with(&["--metrics-port=9255"]));
    world.serve("web", &["web"]);
    let client = world.pod("client");
    let to = world.dial("web");
    let mut held = BOTH.map(|transport| hold(&client, transport, &to, 41_000));
    for flow in &mut held {
        assert!(flow.ask("hello").unwrap().ok && flow.ask("again").unwrap().ok);
    }
    let address = world.cluster.pod_address("client").unwrap();
    let backend = format!("{}:8080", world.cluster.pod_address("web").unwrap());
    let flows = json_of(&world, &format!("flows {address}"));
    let mut states = BTreeSet::new();
    for flow in flows["flows"].as_array().unwrap() {
        assert_eq!(flow["client"], format!("{address}:41000"), "{flow}");
        assert_eq!(flow["frontend"], to.as_str(), "{flow}");
        assert_eq!(flow["backend"], backend.as_str(), "{flow}");
        assert_eq!(flow["service"], "default/web", "{flow}");
        assert_eq!(flow["path"], "fast", "{flow}");
        assert!(flow["packets_in"].as_u64() >= Some(2) && flow["packets_out"].as_u64() >= Some(2), "{flow}");
        states.insert((flow["protocol"].as_str().unwrap(), flow["state"].as_str().unwrap()));
    }
    assert_eq!(states, BTreeSet::from([("TCP", "ESTABLISHED"), ("UDP", "REPLIED")]), "{flows}");
    let limited = table(&world, "flows --limit 1");
    assert_eq!(limited.lines().filter(|line| line.contains(&to)).count(), 1, "{limited}");
    assert!(limited.contains(" more; see them by --limit"), "{limited}");
    // Traffic is counted by the sweep.
    let of_tcp = || {
        let services = json_of(&world, "services default/web");
        let services = services["services"].as_array().unwrap().clone();
        services.into_iter().find(|service| service["protocol"] == "TCP").unwrap()
    };
    let counted = || of_tcp()["traffic"]["connections"].as_f64().unwrap();
    wait_for(&world, "the sweep to count", || counted() > 0.0);
    let service = of_tcp();
    assert_eq!(service["ready"], json!([backend]), "{service}");
    assert_eq!(service["draining"], json!([]), "{service}");
    assert!(service["traffic"]["bytes_out"].as_u64() > Some(0), "{service}");
    let text = table(&world, "services -o wide");
    assert!(text.contains("default/web") && text.contains(&backend), "{text}");
    let (code, _, errors) = run(&world, "services default/nothing");
    assert!(code == Some(1) && errors.contains("default/nothing"), "{errors}");
    metrics_count(&world, counted());
}

/// The same numbers, in the format that promises no surprise.
fn metrics_count(world: &World, connections: f64) {
    let rows = "kube_router_map_rows{map=\"FLOWS4\"}";
    wait_for(world, "both flows, of two rows each, to be counted", || {
        parsed(&page(world, METRICS, "/metrics").1).get(rows).is_some_and(|rows| *rows >= 4.0)
    });
    let (code, text) = page(world, METRICS, "/metrics");
    assert_eq!(code, 200);
    let samples = parsed(&text);
    let vip = world.cluster.vip("web").unwrap();
    let labels = format!(
        "svc_namespace=\"default\",service_name=\"web\",service_vip=\"{vip}\",protocol=\"tcp\",port=\"80\""
    );
    let sample = |name: &str| samples.get(name).copied().unwrap_or_else(|| panic!("no {name} in {text}"));
    let of_service = |name: &str| sample(&format!("kube_router_{name}{{{labels}}}"));
    assert!(of_service("service_total_connections") >= connections, "{text}");
    for name in ["service_packets_in", "service_packets_out", "service_bytes_in", "service_bytes_out"] {
        assert!(of_service(name) > 0.0, "{name}: {text}");
    }
    assert!(sample("kube_router_controller_ipvs_services") >= 2.0);
    assert!(sample("kube_router_services_visible_seconds_count") >= 1.0);
    assert!(sample("kube_router_controller_ipvs_services_sync_time_count") >= 1.0);
    assert!(sample("kube_router_problems") < 1.0, "{text}");
    assert_eq!(page(world, METRICS, "/other").0, 404);
    let before = sample("kube_router_drops_total{reason=\"unknown-port\"}");
    let nobody = format!("{vip}:81");
    assert!(!Probe::new(&world.cluster.node()).tcp(&nobody).unwrap().ok);
    let (_, later) = page(world, METRICS, "/metrics");
    assert!(parsed(&later)["kube_router_drops_total{reason=\"unknown-port\"}"] > before, "{later}");
    assert!(table(world, "status").contains("unknown-port"), "{}", table(world, "status"));
}

/// Every sample, by name and labels; fails where the text is not what a scraper demands.
fn parsed(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with('\n'));
    let mut samples = BTreeMap::new();
    let (mut helped, mut current) = (BTreeSet::new(), String::new());
    let is_name = |name: &str| {
        name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':')
            && !name.starts_with(|first: char| first.is_ascii_digit())
    };
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(name) && !help.is_empty() && helped.insert(name.to_owned()), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(helped.contains(name) && ["gauge", "counter", "histogram"].contains(&kind), "{line}");
            name.clone_into(&mut current);
        } else {
            let (key, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            let name = key.split('{').next().unwrap();
            let stem = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            assert!(is_name(name) && (name == current || stem == Some(&current)), "{line} under {current}");
            assert!(samples.insert(key.to_owned(), value.parse().unwrap()).is_none(), "twice: {line}");
        }
    }
    samples
}

#[test]
fn health_and_readiness_answer_at_the_default_port() {
    let world = World::start("health", native());
    let at = |path: &str| page(&world, 20_244, path);
    assert_eq!(at("/healthz"), (200, "OK\n".to_owned()));
    wait_for(&world, "the node to be ready", || at("/readyz") == (200, "OK\n".to_owned()));
    assert_eq!(at("/other").0, 404);
    let (code, _, errors) = run(
        &world,
        "--kubeconfig=/run/kube-router/kubeconfig --hostname-override=node1 --run-service-proxy=false \
         --enable-cni=false",
    );
    assert_eq!(code, Some(1));
    assert!(errors.contains("--health-addr, --health-port"), "{errors}");
}

#[test]
fn routes_and_bgp_show_what_a_router_taught() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start("taught", with(&[&EXTERNAL[..], &["--metrics-port=9255"]].concat()));
    world.serve("web", &["web"]);
    wait_for(&world, "a peer that is down to be told", || {
        table(&world, "status").starts_with("DEGRADED: 1 BGP peer down\n")
    });
    assert!(table(&world, "status").contains("never up"), "{}", table(&world, "status"));
    let bird = router(&world.cluster.topology.router, folder.path());
    let learned = || {
        let routes = json_of(&world, "routes")["learned"].as_array().unwrap().clone();
        routes.into_iter().find(|route| route["prefix"] == "203.0.113.0/24")
    };
    wait_for(&world, "the route", || learned().is_some_and(|route| route["state"] == "in kernel"));
    let route = learned().unwrap();
    assert_eq!((&route["from"], &route["device"]), (&json!("192.168.77.1"), &json!("eth0")), "{route}");
    let routes = json_of(&world, "routes");
    assert!(
        routes["services"].as_array().unwrap().iter().all(|route| route["in_kernel"] == true),
        "{routes}"
    );
    let bgp = json_of(&world, "bgp");
    assert_eq!(bgp["peers"][0]["state"], "established", "{bgp}");
    assert!(bgp["peers"][0]["accepted"].as_u64() >= Some(1), "{bgp}");
    assert_eq!(bgp["originated"], json!([NODE_POD_CIDR]), "{bgp}");
    let text = table(&world, "bgp");
    assert!(text.contains("192.168.77.1") && text.contains("established"), "{text}");
    let samples = parsed(&page(&world, METRICS, "/metrics").1);
    let peer = "kube_router_bgp_peer_info{address=\"192.168.77.1\",type=\"external\",asn=\"65000\",state=\"established\"}";
    assert!(samples.contains_key(peer), "{samples:?}");
    assert!(samples["kube_router_host_routes_synced"] >= 1.0, "{samples:?}");
    assert!(samples["kube_router_controller_bgp_advertisements_received"] >= 1.0, "{samples:?}");
    drop(bird);
}

#[test]
fn a_plan_is_empty_beside_an_agent_and_shows_a_missing_row_without_one() {
    let mut world = World::start("plan", native());
    world.serve("web", &["web"]);
    assert_eq!(table(&world, "plan"), "nothing to change\n");
    world.cluster.terminate_agent().unwrap();
    let flags = "--kubeconfig=/run/kube-router/kubeconfig --hostname-override=node1";
    let without = |output: &str| {
        let text = table(&world, &format!("plan {flags} {output}"));
        text.replace("# learned routes are planned by a running agent only\n", "")
    };
    assert_eq!(without(""), "nothing to change\n");
    let pin = "/sys/fs/bpf/kube-router/v1/FRONTENDS4";
    let vip: std::net::Ipv4Addr = world.cluster.vip("web").unwrap().parse().unwrap();
    let octets: Vec<String> = vip.octets().iter().map(ToString::to_string).collect();
    // Port 80 in the order of this host's bytes, TCP.
    let key = [&octets[..], &["80".into(), "0".into(), "6".into(), "0".into()]].concat();
    let mut delete = vec!["bpftool", "map", "delete", "pinned", pin, "key"];
    delete.extend(key.iter().map(String::as_str));
    world.cluster.topology.node.run(&delete).unwrap();
    let plan: Value = serde_json::from_str(&without("-o json")).unwrap();
    let owners: Vec<&str> =
        plan["changes"].as_array().unwrap().iter().map(|change| change["owner"].as_str().unwrap()).collect();
    let frontend = format!("frontend {vip}:80/TCP");
    assert!(owners.contains(&frontend.as_str()), "{plan}");
    assert!(owners.iter().all(|owner| *owner == frontend || owner.starts_with("leavings")), "{plan}");
    assert!(without("").contains(&format!("put frontend {vip}:80")), "{plan}");
    // Nothing was written: it is the same again, until an agent runs.
    assert_eq!(serde_json::from_str::<Value>(&without("-o json")).unwrap(), plan);
    world.cluster.start_agent().unwrap();
    wait_for(&world, "the agent to mend it", || run(&world, "plan").1 == "nothing to change\n");
}
