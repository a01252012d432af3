//! Stock kubectl, old and new, with its default validation.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use router_tests::apiserver::{ApiServer, Identity, Kind};
use router_tests::tools::kubectls;
use serde_json::Value;
use tempfile::TempDir;

use super::{eventually, play_kubelet, ready_node, start};

/// One kubectl with a home of its own, so that it remembers nothing of another server.
struct Kubectl {
    program: PathBuf,
    home: TempDir,
}

impl Kubectl {
    fn new(program: PathBuf, server: &ApiServer) -> Self {
        let home = TempDir::new().unwrap();
        std::fs::write(home.path().join("config"), server.kubeconfig(Identity::Admin, &server.url()))
            .unwrap();
        Self { program, home }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.env("HOME", self.home.path()).env("KUBECONFIG", self.home.path().join("config"));
        command.arg("--cache-dir").arg(self.home.path().join("cache")).args(line.split(' '));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command line (words have no spaces in them) with a manifest on its standard input.
    fn try_with(&self, line: &str, input: &str) -> Result<String, String> {
        let mut child = self.command(line).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap())
        } else {
            Err(format!("{} {line}: {error}", self.program.display()))
        }
    }

    fn with(&self, line: &str, input: &str) -> String {
        self.try_with(line, input).unwrap_or_else(|error| panic!("{error}"))
    }

    fn run(&self, line: &str) -> String {
        self.with(line, "")
    }
}

/// Runs a test with every kubectl, each against a fresh server.
fn each(test: impl Fn(&Kubectl, &ApiServer)) {
    for program in kubectls().unwrap() {
        let server = start();
        test(&Kubectl::new(program, &server), &server);
    }
}

fn web_service(ports: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  labels: {{app: web}}\n\
         spec:\n  selector: {{app: web}}\n  ports:\n{ports}"
    )
}

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: c, image: example, ports: [{name: http, containerPort: 8080}]}
";

/// Words of the first line that starts with `name`.
fn row(table: &str, name: &str) -> Vec<String> {
    let found =
        table.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in:\n{table}"));
    found.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn apply_creates_then_changes_a_port_then_leaves_alone() {
    each(|kubectl, server| {
        let first = web_service("  - {name: a, port: 80}\n  - {name: b, port: 81}\n");
        assert_eq!(kubectl.with("apply -f -", &first), "service/web created\n");
        let second = web_service("  - {name: a, port: 80, targetPort: 8080}\n  - {name: c, port: 82}\n");
        assert_eq!(kubectl.with("apply -f -", &second), "service/web configured\n");
        assert_eq!(kubectl.with("apply -f -", &second), "service/web unchanged\n");
        let stored = server.store().get(Kind::Service, "default", "web").unwrap();
        let ports = stored["spec"]["ports"].as_array().unwrap();
        let ports: Vec<_> =
            ports.iter().map(|port| (port["port"].as_u64(), port["targetPort"].as_u64())).collect();
        assert_eq!(ports, [(Some(80), Some(8080)), (Some(82), Some(82))]);
    });
}

#[test]
fn a_misspelt_field_is_refused_where_the_server_is_asked_to_look() {
    // What newer clients ask of the server by themselves, said aloud, so that the oldest asks it too.
    const ASKED: &str = "create --raw /api/v1/namespaces/default/services?fieldValidation=Strict -f -";
    each(|kubectl, _| {
        let service = serde_json::json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {"ports": [{"port": 80, "taregtPort": 8080}]},
        });
        let error = kubectl.try_with(ASKED, &service.to_string()).unwrap_err();
        assert!(error.contains("unknown field \"spec.ports[0].taregtPort\""), "{error}");
    });
}

#[test]
fn get_prints_tables_wide_tables_and_yaml() {
    each(|kubectl, server| {
        kubectl.with("apply -f -", &web_service("  - {port: 80}\n"));
        server.store().put(Kind::Node, ready_node("n1")).unwrap();
        let table = kubectl.run("get svc");
        let head: Vec<_> = row(&table, "NAME");
        assert_eq!(head, ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]);
        let web = row(&table, "web");
        assert_eq!([&web[1], &web[3], &web[4]], ["ClusterIP", "<none>", "80/TCP"]);
        assert_eq!(row(&kubectl.run("get svc web -o wide"), "web").last().unwrap(), "app=web");
        assert_eq!(row(&kubectl.run("get nodes"), "n1")[1], "Ready");
        assert!(kubectl.run("get svc web -o yaml").contains("\nkind: Service\n"));
        assert!(kubectl.run("get svc -o yaml").contains("\nkind: List\n"));
        assert_eq!(row(&kubectl.run("get svc -A --show-labels"), "default")[1], "kubernetes");
        assert_eq!(kubectl.run("get svc -l app=web -o name"), "service/web\n");
        assert_eq!(kubectl.run("get svc -l app!=web -o name"), "service/kubernetes\n");
        for kinds in ["ns", "no", "po", "svc", "endpointslices", "netpol", "deploy", "ev", "leases", "all"] {
            kubectl.run(&format!("get {kinds} -A -o wide"));
        }
        let error = kubectl.try_with("get svc none", "").unwrap_err();
        assert!(error.contains("services \"none\" not found"), "{error}");
    });
}

#[test]
fn get_watches_and_prints_what_happens() {
    each(|kubectl, server| {
        kubectl.with("apply -f -", &web_service("  - {port: 80}\n"));
        let mut child = kubectl.command("get svc -w").spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.next().unwrap().starts_with("NAME"));
        assert!(lines.next().unwrap().starts_with("kubernetes"));
        assert!(lines.next().unwrap().contains("80/TCP"));
        let mut web = Value::clone(&server.store().get(Kind::Service, "default", "web").unwrap());
        web["spec"]["ports"][0]["port"] = 81.into();
        server.store().put(Kind::Service, web).unwrap();
        let line = lines.next().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(line.starts_with("web") && line.contains("81/TCP"), "no second header, the new port: {line}");
    });
}

#[test]
fn label_and_annotate_add_and_remove() {
    each(|kubectl, server| {
        kubectl.with("apply -f -", &web_service("  - {port: 80}\n"));
        let metadata = || server.store().get(Kind::Service, "default", "web").unwrap()["metadata"].clone();
        for (verb, field) in [("label", "labels"), ("annotate", "annotations")] {
            kubectl.run(&format!("{verb} svc web colour=red"));
            assert_eq!(metadata()[field]["colour"], "red");
            kubectl.run(&format!("{verb} svc web colour=blue --overwrite"));
            assert_eq!(metadata()[field]["colour"], "blue");
            kubectl.run(&format!("{verb} svc web colour-"));
            assert_eq!(metadata()[field].get("colour"), None);
        }
    });
}

/// Rollout, waiting, scaling, describing and deleting of one Deployment, with the test as kubelet.
#[test]
fn a_deployment_goes_through_its_life() {
    each(|kubectl, server| {
        server.store().put(Kind::Node, ready_node("n1")).unwrap();
        kubectl.with("apply -f -", DEPLOYMENT);
        kubectl.with("apply -f -", &web_service("  - {port: 80, targetPort: http}\n"));
        eventually("two pods", || (server.store().list(Kind::Pod).len() == 2).then_some(()));

        let waiting =
            kubectl.command("wait --for=condition=Ready pod -l app=web --timeout=20s").spawn().unwrap();
        let rollout = kubectl.command("rollout status deploy/web --timeout=20s").spawn().unwrap();
        eventually("both wait", || (watches(server) >= 2).then_some(()));
        eventually("ready", || {
            play_kubelet(server);
            let deployment = server.store().get(Kind::Deployment, "default", "web")?;
            (deployment["status"]["readyReplicas"] == 2).then_some(())
        });
        let waited = String::from_utf8(waiting.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(waited.matches("condition met").count(), 2, "{waited}");
        let rolled = String::from_utf8(rollout.wait_with_output().unwrap().stdout).unwrap();
        assert!(rolled.contains("successfully rolled out"), "{rolled}");

        kubectl.run("scale deploy web --replicas=3");
        eventually("three", || {
            play_kubelet(server);
            (server.store().list(Kind::Pod).len() == 3).then_some(())
        });
        kubectl.run("wait --for=condition=Available deploy/web --timeout=20s");
        let pods = kubectl.run("get pods -o wide");
        let pod = row(&pods, "web-");
        assert_eq!([&pod[1], &pod[2], &pod[6]], ["1/1", "Running", "n1"]);
        assert!(kubectl.run("describe deploy web").contains("3 desired"));
        assert!(kubectl.run("describe svc web").contains("TargetPort:"));
        assert!(kubectl.run("describe pods").contains("Node:"));
        assert!(kubectl.run("describe node n1").contains("PodCIDR:"));

        let deleting = kubectl.command(&format!("delete pod {}", pod[0])).spawn().unwrap();
        let gone = eventually("a pod that is to go", || {
            let pod = server.store().get(Kind::Pod, "default", &pod[0])?;
            pod["metadata"]["deletionTimestamp"].is_string().then_some(pod)
        });
        assert_eq!(gone["metadata"]["name"], pod[0].as_str());
        play_kubelet(server);
        assert!(deleting.wait_with_output().unwrap().status.success());

        kubectl.run("delete deploy,svc web");
        eventually("no pods", || {
            play_kubelet(server);
            server.store().list(Kind::Pod).is_empty().then_some(())
        });
    });
}

fn watches(server: &ApiServer) -> usize {
    server.requests().iter().filter(|line| line.contains("watch=true")).count()
}

#[test]
fn patch_cordon_replace_create_and_diff_work() {
    each(|kubectl, server| {
        server.store().put(Kind::Node, ready_node("n1")).unwrap();
        kubectl.run("cordon n1");
        assert_eq!(server.store().get(Kind::Node, "", "n1").unwrap()["spec"]["unschedulable"], true);
        kubectl.with("create -f -", "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n");
        kubectl.with("create -n other -f -", &web_service("  - {port: 80}\n"));
        let patches = [
            ("strategic", r#"{"spec":{"ports":[{"port":80,"targetPort":1}]}}"#, 1),
            ("merge", r#"{"spec":{"ports":[{"port":80,"targetPort":2}]}}"#, 2),
            ("json", r#"[{"op":"replace","path":"/spec/ports/0/targetPort","value":3}]"#, 3),
        ];
        for (kind, patch, expected) in patches {
            kubectl.run(&format!("patch svc web -n other --type {kind} -p {patch}"));
            let stored = server.store().get(Kind::Service, "other", "web").unwrap();
            assert_eq!(stored["spec"]["ports"][0]["targetPort"], expected, "{kind}");
        }
        kubectl.with("replace -n other -f -", &web_service("  - {port: 8000}\n"));
        let stored = server.store().get(Kind::Service, "other", "web").unwrap();
        assert_eq!(stored["spec"]["ports"][0]["port"], 8000);
        kubectl.with(
            "apply --server-side -n other -f -",
            "apiVersion: v1\nkind: Service\nmetadata: {name: web, labels: {a: b}}\n",
        );
        kubectl.run("delete ns other");
        assert!(
            server.store().get(Kind::Service, "other", "web").is_none(),
            "a namespace goes with what is in it"
        );
        let error = kubectl.try_with("apply -n other -f -", &web_service("  - {port: 80}\n")).unwrap_err();
        assert!(error.contains("namespaces \"other\" not found"), "{error}");
    });
}

#[test]
fn a_namespace_is_created_by_name_and_what_else_comes_in_protobuf_is_refused_with_a_way_out() {
    each(|kubectl, server| {
        kubectl.run("create namespace other");
        let found = server.store().get(Kind::Namespace, "", "other").unwrap();
        assert_eq!(found["status"]["phase"], "Active");
        let error = kubectl.try_with("create namespace other", "").unwrap_err();
        assert!(error.contains("AlreadyExists"), "{error}");
        match kubectl.try_with("create deployment web --image=example -n other", "") {
            Ok(_) => assert!(server.store().get(Kind::Deployment, "other", "web").is_some()),
            Err(error) => assert!(error.contains("manifests (-f)"), "{error}"),
        }
    });
}
