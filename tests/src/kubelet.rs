//! A kubelet without containers: it registers its node, gives each pod bound to it a sandbox with `lab serve` on the
//! declared ports, reports it as running, and takes it down when it is to go.
//!
//! The program of a pod is ours whatever its spec says, so there are no images, volumes, probes or restarts. There is
//! no heartbeat either: nothing in the lab declares a node dead.

mod status;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, pin_mut};
use k8s_openapi::{
    api::core::v1::{Node, Pod},
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use tokio::{
    sync::oneshot,
    task::{JoinHandle, JoinSet, spawn_blocking},
    time::sleep,
};

use crate::{
    enter::Place,
    sandbox::{Sandbox, Serving, Spec, has_range, read_file},
};

/// How often the conflist is looked at while it has no range.
const POLL: Duration = Duration::from_millis(100);

/// How long to wait after a failure of the API server or of a plugin.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub struct Options {
    pub node_name: String,
    /// The node's `InternalIP`, and the address of its host-network pods.
    pub node_ip: String,
    /// The conflist on the node, which the agent edits.
    pub conflist_path: String,
    /// Written into the Node; otherwise the API server's allocator does that.
    pub pod_cidr: Option<String>,
}

/// A running kubelet. When it is dropped, all its pods' networks go; their objects stay.
pub struct Kubelet {
    task: JoinHandle<()>,
    node: Arc<NodeState>,
}

/// What the kubelet and the tasks of its pods share.
struct NodeState {
    client: Client,
    place: Place,
    options: Options,
    pods: Mutex<Pods>,
}

#[derive(Default)]
struct Pods {
    /// Set once the kubelet is dropped: what is made after that goes at once.
    closed: bool,
    running: BTreeMap<Uid, Running>,
}

type Uid = String;

/// What a pod has on the node.
struct Running {
    namespace: String,
    name: String,
    /// None for a pod on the host's network.
    sandbox: Option<Sandbox>,
    /// The server of a pod on the host's network.
    _serving: Option<Serving>,
}

impl Kubelet {
    /// Starts in the current tokio runtime.
    pub fn start(client: Client, place: Place, options: Options) -> Self {
        let node = Arc::new(NodeState { client, place, options, pods: Mutex::default() });
        let task = tokio::spawn(run(node.clone()));
        Self { task, node }
    }

    /// The place of a pod that runs.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Place> {
        let pods = self.node.pods();
        let running = pods.running.values().find(|pod| pod.namespace == namespace && pod.name == name)?;
        Some(match &running.sandbox {
            Some(sandbox) => Arc::new(sandbox.place()),
            None => self.node.place.clone(),
        })
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
        let running = {
            let mut pods = self.node.pods();
            pods.closed = true;
            mem::take(&mut pods.running)
        };
        drop(running);
    }
}

/// A pod's task: it makes the pod, and takes it down once `stop` is sent or dropped. Sent means that the object is to
/// go as well; it is sent once, and the entry stays until the object has gone.
struct PodTask {
    stop: Option<oneshot::Sender<()>>,
}

/// The pods by what the API server says about them.
struct Worker {
    node: Arc<NodeState>,
    tasks: JoinSet<()>,
    known: BTreeMap<Uid, PodTask>,
    /// Those that a list that has begun has named so far.
    listed: BTreeSet<Uid>,
}

async fn run(node: Arc<NodeState>) {
    until_done("register the node", || node.register()).await;
    let config = watcher::Config::default().fields(&format!("spec.nodeName={}", node.options.node_name));
    let events = watcher(Api::<Pod>::all(node.client.clone()), config).default_backoff();
    pin_mut!(events);
    let mut worker = Worker { node, tasks: JoinSet::new(), known: BTreeMap::new(), listed: BTreeSet::new() };
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => worker.handle(event),
            Err(error) => eprintln!("kubelet: watch pods: {error}"),
        }
        // Those that have ended are of no more interest.
        while worker.tasks.try_join_next().is_some() {}
    }
}

impl Worker {
    fn handle(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(pod) => {
                self.listed.insert(pod.uid().unwrap_or_default());
                self.apply(pod);
            }
            Event::InitDone => {
                let listed = mem::take(&mut self.listed);
                self.known.retain(|uid, _| listed.contains(uid));
            }
            Event::Apply(pod) => self.apply(pod),
            Event::Delete(pod) => drop(self.known.remove(&pod.uid().unwrap_or_default())),
        }
    }

    fn apply(&mut self, pod: Pod) {
        let uid = pod.uid().unwrap_or_default();
        let known = self.known.get_mut(&uid);
        match (known, pod.metadata.deletion_timestamp.is_some()) {
            (Some(task), true) => {
                // The task may have ended by itself, and then nobody minds.
                let _ = task.stop.take().map(|stop| stop.send(()));
            }
            (None, true) => drop(self.tasks.spawn(finish(self.node.clone(), pod))),
            (None, false) if !has_ended(&pod) => {
                let (stop, stopped) = oneshot::channel();
                self.known.insert(uid, PodTask { stop: Some(stop) });
                self.tasks.spawn(live(self.node.clone(), pod, stopped));
            }
            (Some(_) | None, false) => {}
        }
    }
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// A pod's life. If its making is interrupted, what was made goes with the value that holds it.
async fn live(node: Arc<NodeState>, pod: Pod, mut stopped: oneshot::Receiver<()>) {
    let doing = format!("run pod {}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    let asked = tokio::select! {
        asked = &mut stopped => asked,
        () = until_done(&doing, || node.make(&pod)) => stopped.await,
    };
    let uid = pod.uid().unwrap_or_default();
    let running = node.pods().running.remove(&uid);
    // Plugins are run and waited for.
    let taken_down = spawn_blocking(move || drop(running)).await;
    if let Err(error) = taken_down {
        eprintln!("kubelet: {doing}: {error}");
    }
    if asked.is_ok() {
        finish(node, pod).await;
    }
}

/// Tells the API server that nothing of the pod is left.
async fn finish(node: Arc<NodeState>, pod: Pod) {
    let doing = format!("delete pod {}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    until_done(&doing, || node.delete(&pod)).await;
}

/// Tries until it works.
async fn until_done<F: Future<Output = Result<()>>>(doing: &str, mut attempt: impl FnMut() -> F) {
    while let Err(error) = attempt().await {
        eprintln!("kubelet: {doing}: {error:#}");
        sleep(RETRY).await;
    }
}

impl NodeState {
    fn pods(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn register(&self) -> Result<()> {
        let Options { node_name: name, node_ip, pod_cidr, conflist_path: _ } = &self.options;
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node =
            serde_json::from_value(status::node(name, pod_cidr.as_deref())).context("write the node")?;
        match nodes.create(&PostParams::default(), &node).await {
            Ok(_) => {}
            // It was here before us.
            Err(error) if code(&error) == Some(409) => {}
            Err(error) => return Err(error).context("create the node"),
        }
        let ready = status::node_ready(name, node_ip, Timestamp::now());
        let patched = nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(ready)).await;
        patched.map(drop).context("report that the node is ready")
    }

    /// Makes what is missing of the pod, then reports it.
    async fn make(self: &Arc<Self>, pod: &Pod) -> Result<()> {
        let uid = pod.uid().unwrap_or_default();
        let made = self.pods().running.contains_key(&uid);
        if !made {
            let running = self.clone().start(pod.clone()).await?;
            self.keep(uid.clone(), running);
        }
        let pod_ip = self.address(&uid).context("the kubelet is closed")?;
        let patch = status::running(pod, &pod_ip, &self.options.node_ip, Timestamp::now());
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        match pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            // It has gone meanwhile, and the watch says so.
            Err(error) if code(&error) == Some(404) => Ok(()),
            Err(error) => Err(error).context("report the pod's status"),
        }
    }

    fn keep(&self, uid: Uid, running: Running) {
        let mut pods = self.pods();
        if pods.closed {
            drop(pods);
            drop(running);
        } else {
            pods.running.insert(uid, running);
        }
    }

    fn address(&self, uid: &Uid) -> Option<String> {
        let pods = self.pods();
        let sandbox = &pods.running.get(uid)?.sandbox;
        Some(
            sandbox
                .as_ref()
                .map_or_else(|| self.options.node_ip.clone(), |sandbox| sandbox.address().to_string()),
        )
    }

    async fn start(self: Arc<Self>, pod: Pod) -> Result<Running> {
        if !status::host_network(&pod) {
            self.clone().wait_for_range().await?;
        }
        spawn_blocking(move || self.start_here(&pod)).await.context("the making of the pod was cut short")?
    }

    /// On this thread, which waits for programs.
    fn start_here(&self, pod: &Pod) -> Result<Running> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let listens = status::listens(pod);
        if status::host_network(pod) {
            let serving = Serving::start(&self.place, &name, &listens)?;
            return Ok(Running { namespace, name, sandbox: None, _serving: Some(serving) });
        }
        // A pod of the same name may still be on its way out.
        let unique: String = pod.uid().unwrap_or_default().chars().take(8).collect();
        let spec = Spec {
            pod: name.clone(),
            id: format!("{namespace}-{name}-{unique}"),
            port_mappings: status::port_mappings(pod),
        };
        let mut sandbox = Sandbox::create(&self.place, spec, &self.options.conflist_path)?;
        let ports: Vec<_> = listens.iter().map(|listen| (listen.port, listen.protocol)).collect();
        sandbox.serve(&ports)?;
        Ok(Running { namespace, name, sandbox: Some(sandbox), _serving: None })
    }

    async fn wait_for_range(self: Arc<Self>) -> Result<()> {
        loop {
            let node = self.clone();
            let conflist = spawn_blocking(move || read_file(&node.place, &node.options.conflist_path));
            if has_range(&conflist.await.context("the reading was cut short")??) {
                return Ok(());
            }
            sleep(POLL).await;
        }
    }

    async fn delete(&self, pod: &Pod) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        // Not another pod of that name.
        let same = Preconditions { uid: pod.uid(), resource_version: None };
        let now = DeleteParams::default().grace_period(0).preconditions(same);
        match pods.delete(&pod.name_any(), &now).await {
            Ok(_) => Ok(()),
            Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(()),
            Err(error) => Err(error).context("delete the pod"),
        }
    }
}

/// The HTTP status of the API server's refusal.
fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}
