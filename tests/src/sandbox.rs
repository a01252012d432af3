//! A pod's network by the real CNI chain: its namespace, the plugins of the node's conflist in order (CNI
//! specification 1.0, which 0.3 and 0.4 share so far), and `lab serve` in it.
//!
//! Everything happens inside the node's namespaces: the plugins are started there, and `ip netns add` leaves its file
//! in the node's `/run/netns`. The agent edits the conflist, so it is read anew for each pod.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::Ipv4Addr,
    process::{Child, Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    binaries::lab_binary,
    enter::{Enter, Place, within},
    serve::{Listen, READY, Transport},
};

/// The conflist before the agent has edited it: no range, no MTU. It does what upstream's does.
pub const CONFLIST: &str = r#"{
  "cniVersion": "0.3.0",
  "name": "mynet",
  "plugins": [
    {
      "name": "kubernetes",
      "type": "bridge",
      "bridge": "kube-bridge",
      "isDefaultGateway": true,
      "hairpinMode": true,
      "ipam": { "type": "host-local" }
    },
    {
      "type": "portmap",
      "capabilities": { "snat": true, "portMappings": true }
    }
  ]
}
"#;

/// Where Debian has the plugins.
pub const PLUGINS: &str = "/usr/lib/cni";

/// The link that a pod gets.
pub const DEVICE: &str = "eth0";

/// What a sandbox is made from.
#[derive(Debug, Clone, Default)]
pub struct Spec {
    /// What its server answers with.
    pub pod: String,
    /// Unique on the node.
    pub id: String,
    pub port_mappings: Vec<PortMapping>,
}

/// A host port, in the words of the `portMappings` capability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: String,
    #[serde(rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<String>,
}

/// One pod's network. It is taken down when dropped.
pub struct Sandbox {
    node: Place,
    spec: Spec,
    conflist: Value,
    /// What the plugins that have run came to.
    result: Option<Value>,
    address: Ipv4Addr,
    servers: Vec<Serving>,
    removed: bool,
}

/// A running `lab serve`. It ends when dropped, and also when this process ends in any way.
pub struct Serving {
    child: Child,
}

impl Sandbox {
    /// A pod's network from the conflist at this path on the node.
    pub fn add(node: &Place, pod: &str, conflist_path: &str) -> Result<Self> {
        let spec = Spec { pod: pod.into(), id: format!("{}-{pod}", node.name()), ..Spec::default() };
        Self::create(node, spec, conflist_path)
    }

    /// The same with all that can be said.
    pub fn create(node: &Place, spec: Spec, conflist_path: &str) -> Result<Self> {
        let conflist = read_conflist(node, conflist_path)?;
        let context = format!("make the network of pod {}", spec.pod);
        let mut sandbox = Self {
            node: node.clone(),
            spec,
            conflist,
            result: None,
            address: Ipv4Addr::UNSPECIFIED,
            servers: Vec::new(),
            removed: false,
        };
        // What half an attempt has made goes when `sandbox` is dropped.
        sandbox.build().context(context)?;
        Ok(sandbox)
    }

    /// The pod's first IPv4 address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    pub fn pod(&self) -> &str {
        &self.spec.pod
    }

    /// The CNI result of the whole chain.
    pub fn result(&self) -> Option<&Value> {
        self.result.as_ref()
    }

    /// A command in the pod's network namespace.
    pub fn command(&self, program: &str) -> Command {
        within(&self.node, &self.spec.id, program)
    }

    /// Starts `lab serve` on these ports; it answers once this returns.
    pub fn serve(&mut self, ports: &[(u16, Transport)]) -> Result<()> {
        let listens: Vec<_> = ports.iter().map(|&(port, protocol)| Listen { port, protocol }).collect();
        let serving = Serving::start(self, &self.spec.pod, &listens)?;
        self.servers.push(serving);
        Ok(())
    }

    /// Ends the servers, so that the ports refuse while the network stays.
    pub fn stop_serving(&mut self) {
        self.servers.clear();
    }

    /// Takes the network down in the reverse order of its making.
    pub fn remove(mut self) -> Result<()> {
        self.take_down()
    }

    fn build(&mut self) -> Result<()> {
        run(self.node.command("ip").args(["netns", "add", &self.spec.id]))?;
        run(self.node.command("ip").args(["-n", &self.spec.id, "link", "set", "lo", "up"]))?;
        for plugin in self.plugins()? {
            let answer = self.run_plugin("ADD", &plugin)?;
            // A plugin that has nothing to add may say nothing.
            self.result = answer.or_else(|| self.result.take());
        }
        self.address = first_address(self.result.as_ref().context("no plugin gave a result")?)?;
        Ok(())
    }

    fn take_down(&mut self) -> Result<()> {
        self.removed = true;
        self.servers.clear();
        let mut outcome = Ok(());
        for plugin in self.plugins()?.iter().rev() {
            // A DEL that fails must not keep the others from theirs.
            outcome = outcome.and(self.run_plugin("DEL", plugin).map(drop));
        }
        outcome.and(run(self.node.command("ip").args(["netns", "del", &self.spec.id])).map(drop))
    }

    fn plugins(&self) -> Result<Vec<Map<String, Value>>> {
        let plugins = self.conflist.get("plugins").and_then(Value::as_array);
        let plugins = plugins.context("the conflist has no plugins")?;
        plugins
            .iter()
            .map(|plugin| plugin.as_object().cloned().with_context(|| format!("{plugin} is no plugin")))
            .collect()
    }

    fn run_plugin(&self, verb: &str, plugin: &Map<String, Value>) -> Result<Option<Value>> {
        let kind = plugin.get("type").and_then(Value::as_str).context("a plugin has no type")?;
        let config = plugin_config(&self.conflist, plugin, self.result.as_ref(), &self.spec.port_mappings);
        let mut command = self.node.command(&format!("{PLUGINS}/{kind}"));
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &self.spec.id)
            .env("CNI_NETNS", format!("/run/netns/{}", self.spec.id))
            .env("CNI_IFNAME", DEVICE)
            .env("CNI_PATH", PLUGINS);
        let output = feed(&mut command, &config.to_string())?;
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("CNI {verb} by {kind}: {}: {} {}", output.status, answer.trim(), stderr.trim());
        }
        if answer.trim().is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&answer)
            .map(Some)
            .with_context(|| format!("CNI {verb} by {kind}: {answer} is no result"))
    }
}

impl Enter for Sandbox {
    fn command(&self, program: &str) -> Command {
        Self::command(self, program)
    }

    fn name(&self) -> &str {
        &self.spec.id
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.removed {
            return;
        }
        if let Err(error) = self.take_down() {
            eprintln!("take down the network of pod {}: {error:#}", self.spec.pod);
        }
    }
}

impl Serving {
    /// Starts `lab serve` in a place and waits until it listens.
    pub fn start(place: &dyn Enter, name: &str, listens: &[Listen]) -> Result<Self> {
        let lab = lab_binary()?;
        let mut command = place.command(lab.to_str().context("the path of lab is not UTF-8")?);
        command.args(["serve", "--attached", "--name", name]).args(listens.iter().map(ToString::to_string));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().with_context(|| format!("start {command:?}"))?;
        let mut serving = Self { child };
        let mut line = String::new();
        let out = serving.child.stdout.take().context("standard output is a pipe")?;
        BufReader::new(out).read_line(&mut line).context("wait for lab serve")?;
        ensure!(line.trim() == READY, "lab serve for {name} did not get ready");
        Ok(serving)
    }

    /// The process, for limits and signals.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the agent has put a range into the conflist, without which no pod can get an address.
pub fn has_range(conflist: &str) -> bool {
    let Ok(conflist) = serde_json::from_str::<Value>(conflist) else { return false };
    let plugins = conflist.get("plugins").and_then(Value::as_array);
    plugins.into_iter().flatten().filter_map(|plugin| plugin.get("ipam")).any(|ipam| {
        let ranges = ipam.get("ranges").and_then(Value::as_array).is_some_and(|ranges| !ranges.is_empty());
        // The older way to write a single range.
        ranges || ipam.get("subnet").is_some()
    })
}

/// The text of a file on the node.
pub fn read_file(node: &dyn Enter, path: &str) -> Result<String> {
    let output = run(node.command("cat").arg(path))?;
    String::from_utf8(output.stdout).with_context(|| format!("{path} is not UTF-8"))
}

fn read_conflist(node: &dyn Enter, path: &str) -> Result<Value> {
    serde_json::from_str(&read_file(node, path)?).with_context(|| format!("{path} is no JSON"))
}

/// What a plugin reads: its own object, with what the runtime adds.
fn plugin_config(
    conflist: &Value,
    plugin: &Map<String, Value>,
    previous: Option<&Value>,
    mappings: &[PortMapping],
) -> Value {
    let mut config = plugin.clone();
    for key in ["name", "cniVersion"] {
        config.insert(key.into(), conflist.get(key).cloned().unwrap_or(Value::Null));
    }
    if let Some(previous) = previous {
        config.insert("prevResult".into(), previous.clone());
    }
    let able = plugin.get("capabilities").and_then(|capabilities| capabilities.get("portMappings"));
    if able == Some(&Value::Bool(true)) && !mappings.is_empty() {
        config.insert("runtimeConfig".into(), json!({ "portMappings": mappings }));
    }
    config.remove("capabilities");
    Value::Object(config)
}

fn first_address(result: &Value) -> Result<Ipv4Addr> {
    let ips = result.get("ips").and_then(Value::as_array);
    let addresses = ips.into_iter().flatten().filter_map(|ip| ip.get("address")?.as_str()?.split('/').next());
    addresses
        .filter_map(|address| address.parse().ok())
        .next()
        .with_context(|| format!("no IPv4 address in the CNI result {result}"))
}

fn feed(command: &mut Command, input: &str) -> Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
    let mut stdin = child.stdin.take().context("standard input is a pipe")?;
    // A plugin that ends before it has read all says why on its standard output.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().with_context(|| format!("wait for {command:?}"))
}

/// Runs a command to its end, which must be a good one.
pub(crate) fn run(command: &mut Command) -> Result<Output> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugins() -> Value {
        serde_json::from_str(CONFLIST).unwrap()
    }

    #[test]
    fn the_initial_conflist_has_no_range_until_one_is_written() {
        assert!(!has_range(CONFLIST));
        assert!(!has_range("{ half a fi"));
        let mut conflist = plugins();
        conflist["plugins"][0]["ipam"]["ranges"] = json!([]);
        assert!(!has_range(&conflist.to_string()));
        conflist["plugins"][0]["ipam"]["ranges"] = json!([[{ "subnet": "10.244.1.0/24" }]]);
        assert!(has_range(&conflist.to_string()));
    }

    #[test]
    fn a_plugin_reads_the_networks_name_the_previous_result_and_only_the_capabilities_it_has() {
        let conflist = plugins();
        let mappings =
            [PortMapping { host_port: 80, container_port: 8080, protocol: "tcp".into(), host_ip: None }];
        let bridge = conflist["plugins"][0].as_object().unwrap();
        let config = plugin_config(&conflist, bridge, None, &mappings);
        assert_eq!((&config["name"], &config["cniVersion"]), (&json!("mynet"), &json!("0.3.0")));
        assert_eq!((config.get("runtimeConfig"), config.get("prevResult")), (None, None));
        let portmap = conflist["plugins"][1].as_object().unwrap();
        let config = plugin_config(&conflist, portmap, Some(&json!({ "ips": [] })), &mappings);
        let expected = json!([{ "hostPort": 80, "containerPort": 8080, "protocol": "tcp" }]);
        assert_eq!(config["runtimeConfig"]["portMappings"], expected);
        assert_eq!(config["prevResult"], json!({ "ips": [] }));
    }

    #[test]
    fn the_address_is_the_first_ipv4_one_of_the_result() {
        let result = json!({ "ips": [{ "address": "fd00::2/64" }, { "address": "10.244.1.2/24" }] });
        assert_eq!(first_address(&result).unwrap(), Ipv4Addr::new(10, 244, 1, 2));
        assert!(first_address(&json!({ "ips": [] })).is_err());
    }
}
