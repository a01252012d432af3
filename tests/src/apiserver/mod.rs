//! A Kubernetes API server in the test's process, for stock clients: kubectl 1.20 and later, kube-rs, the agent.
//!
//! It keeps everything in memory, speaks HTTPS with a certificate of its own authority, knows the kinds in
//! `kinds`, and runs the few controllers that make Services work (`controllers`). The server has its own
//! runtime: it lives until it is dropped, whatever runtime the test has or has not.
//!
//! Absent: `OpenAPI` schemas (`kubectl explain`), aggregated discovery, HTTP/2, protobuf but for Namespaces (newer kubectls
//! send it for `create deployment` and the like, and for `auth can-i`; manifests always work), field ownership
//! (`managedFields`), finalizers, `ReplicaSets` and Endpoints, logs and exec, IPv6. A list that is continued shows
//! the present state from where it stopped, not the state its first page saw.

#![expect(
    clippy::indexing_slicing,
    reason = "JSON: a field that is missing reads as null; roots are objects"
)]

mod addresses;
mod columns;
mod controllers;
mod defaults;
mod discovery;
mod faults;
mod http;
mod kinds;
mod patch;
mod protobuf;
mod rbac;
mod read;
mod removal;
mod request;
mod selector;
mod status;
mod store;
mod table;
mod tls;
mod validate;
mod view;
mod watch;
mod write;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::http::{Method, Uri};
use ipnet::Ipv4Net;
use rustls::ServerConfig;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

pub use self::faults::{Fault, Faults, Rule};
pub use self::kinds::Kind;
pub use self::rbac::Identity;
pub use self::status::Status;
pub use self::store::Store;

use self::addresses::Addresses;
use self::rbac::Role;

/// Requests remembered for [`ApiServer::requests`].
const REMEMBERED: usize = 10_000;

/// How a server is to behave.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes a free one. The first address is the one told to the cluster.
    pub addresses: Vec<SocketAddr>,
    /// Names and addresses for the certificate, besides those listened on, `localhost`, 127.0.0.1 and the
    /// address of the `kubernetes` Service.
    pub names: Vec<String>,
    pub service_range: Ipv4Net,
    /// Cut into one /24 a node.
    pub pod_range: Ipv4Net,
    /// YAML whose `ClusterRoles` say what the agent's token may do. Without it the agent may do nothing.
    pub role: Option<String>,
    /// Refuse objects that a real server refuses. Off lets malformed objects through to the agent.
    pub validate: bool,
    /// Answer streaming lists; otherwise refuse them with 422, as older servers do.
    pub streaming_lists: bool,
    /// Give out pod CIDRs, make pods of Deployments and `EndpointSlices` of pods.
    pub controllers: bool,
    /// Changes remembered per kind. A watch from before them is told 410.
    pub history: usize,
    pub bookmark_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            addresses: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
            names: Vec::new(),
            service_range: Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 12),
            pod_range: Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16),
            role: None,
            validate: true,
            streaming_lists: true,
            controllers: true,
            history: 50_000,
            bookmark_interval: Duration::from_secs(5),
        }
    }
}

/// What request handlers share.
#[derive(Debug)]
struct Inner {
    store: Arc<Store>,
    faults: Faults,
    role: Role,
    admin_token: String,
    agent_token: RwLock<String>,
    validate: bool,
    streaming_lists: bool,
    bookmark_interval: Duration,
    refusals: Mutex<Vec<String>>,
    requests: Mutex<VecDeque<String>>,
}

impl Inner {
    fn refuse(&self, message: String) {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).push(message);
    }

    fn note(&self, identity: Identity, method: &Method, uri: &Uri) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if requests.len() == REMEMBERED {
            requests.pop_front();
        }
        requests.push_back(format!("{} {method} {uri}", identity.user()));
    }
}

/// A running server. Dropping it closes every connection.
#[derive(Debug)]
pub struct ApiServer {
    inner: Arc<Inner>,
    addresses: Vec<SocketAddr>,
    authority: String,
    service_address: Ipv4Addr,
    config: Arc<ServerConfig>,
    ready: mpsc::Sender<tls::Accepted>,
    /// Taken when dropped.
    runtime: Option<Runtime>,
}

impl ApiServer {
    pub fn start(options: Options) -> Result<Self> {
        let Options {
            addresses,
            mut names,
            service_range,
            pod_range,
            role,
            validate,
            streaming_lists,
            controllers,
            history,
            bookmark_interval,
        } = options;
        let listeners = addresses
            .iter()
            .map(|address| TcpListener::bind(address).with_context(|| format!("listening on {address}")));
        let listeners = listeners.collect::<Result<Vec<_>>>()?;
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;

        let service_address = Ipv4Addr::from(u32::from(service_range.network()) + 1);
        names.extend(tls::names_of(&addresses));
        names.extend(["localhost", "127.0.0.1", "kubernetes.default.svc"].map(str::to_owned));
        names.push(service_address.to_string());
        let (authority, config) = tls::make(names)?;

        let store = Arc::new(Store::new(Addresses::new(service_range, validate), history));
        let inner = Arc::new(Inner {
            store: Arc::clone(&store),
            faults: Faults::default(),
            role: role.as_deref().map(Role::parse).transpose()?.unwrap_or_default(),
            admin_token: format!("admin-{:016x}", store::random()),
            agent_token: RwLock::new(agent_token()),
            validate,
            streaming_lists,
            bookmark_interval,
            refusals: Mutex::default(),
            requests: Mutex::default(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("apiserver")
            .enable_all()
            .build()
            .context("the API server's runtime")?;
        let (ready, accepted) = mpsc::channel(16);
        let first = addresses.first().copied().unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let connections = tls::Connections { ready: accepted, address: first };
        let router = Router::new().fallback(http::handle).with_state(Arc::clone(&inner));
        let service = router.into_make_service_with_connect_info::<tls::Hangup>();
        runtime.spawn(async move { axum::serve(connections, service).await });

        let server =
            Self { inner, addresses, authority, service_address, config, ready, runtime: Some(runtime) };
        for namespace in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            server.store().put(Kind::Namespace, json!({"metadata": {"name": namespace}}))?;
        }
        server.advertise(first)?;
        if controllers {
            server.runtime()?.spawn(controllers::run(store, pod_range));
        }
        for listener in listeners {
            server.listen_in(listener)?;
        }
        Ok(server)
    }

    /// Also serves a listener that somebody else made, perhaps inside a network namespace.
    pub fn listen_in(&self, listener: TcpListener) -> Result<()> {
        listener.set_nonblocking(true).context("a listener for the API server")?;
        let runtime = self.runtime()?;
        let _entered = runtime.enter();
        let listener =
            tokio::net::TcpListener::from_std(listener).context("a listener for the API server")?;
        runtime.spawn(tls::accept(listener, Arc::clone(&self.config), self.ready.clone()));
        Ok(())
    }

    /// Points the `kubernetes` Service at an address of this server.
    pub fn advertise(&self, address: SocketAddr) -> Result<()> {
        let metadata = json!({"name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"}});
        let port = json!({"name": "https", "protocol": "TCP", "port": 443, "targetPort": address.port()});
        let service = json!({"metadata": metadata,
            "spec": {"type": "ClusterIP", "clusterIP": self.service_address.to_string(), "ports": [port]}});
        self.store().put(Kind::Service, service)?;
        let slice = json!({
            "metadata": {"name": "kubernetes", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": "IPv4",
            "ports": [{"name": "https", "protocol": "TCP", "port": address.port()}],
            "endpoints": [{"addresses": [address.ip().to_string()], "conditions": {"ready": true}}],
        });
        self.store().put(Kind::EndpointSlice, slice)?;
        Ok(())
    }

    /// The addresses listened on since the start, with their real ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// `https://` and the first address.
    pub fn url(&self) -> String {
        self.addresses.first().map(|address| format!("https://{address}")).unwrap_or_default()
    }

    /// The certificate of the server's authority, in PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    pub fn token(&self, identity: Identity) -> String {
        match identity {
            Identity::Admin => self.inner.admin_token.clone(),
            Identity::Agent => self.inner.agent_token.read().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// A new token for the agent; the old one is no longer taken.
    pub fn renew_agent_token(&self) -> String {
        let token = agent_token();
        self.inner.agent_token.write().unwrap_or_else(PoisonError::into_inner).clone_from(&token);
        token
    }

    /// A kubeconfig with everything in it.
    pub fn kubeconfig(&self, identity: Identity, url: &str) -> String {
        self.render(url, &format!("token: {}", self.token(identity)))
    }

    /// A kubeconfig that names a file for the token, as the agent's has in a cluster. The caller writes
    /// [`Self::token`] there.
    pub fn kubeconfig_with_token_file(&self, token_file: &Path, url: &str) -> String {
        self.render(url, &format!("tokenFile: {}", token_file.display()))
    }

    fn render(&self, url: &str, credential: &str) -> String {
        let mut text =
            String::from("apiVersion: v1\nkind: Config\ncurrent-context: lab\nclusters:\n- name: lab\n");
        let authority = base64(self.authority.as_bytes());
        // Writing to a String cannot fail.
        write!(
            text,
            "  cluster:\n    server: {url}\n    certificate-authority-data: {authority}\n\
             users:\n- name: lab\n  user:\n    {credential}\n\
             contexts:\n- name: lab\n  context:\n    cluster: lab\n    user: lab\n"
        )
        .ok();
        text
    }

    /// The objects, for tests that need many at once or malformed ones.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    pub fn faults(&self) -> &Faults {
        &self.inner.faults
    }

    /// Every request that the `ClusterRole` did not allow, as the sentence it was refused with.
    pub fn refusals(&self) -> Vec<String> {
        self.inner.refusals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The latest requests: user, method, path and query.
    pub fn requests(&self) -> Vec<String> {
        self.inner.requests.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn runtime(&self) -> Result<&Runtime> {
        self.runtime.as_ref().context("the API server has stopped")
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Not a plain drop: that would panic inside another runtime.
            runtime.shutdown_background();
        }
    }
}

fn agent_token() -> String {
    format!("agent-{:016x}", store::random())
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let index = usize::try_from(bits >> (18 - 6 * at) & 63).unwrap_or_default();
            let letter = ALPHABET.get(index).copied().map_or('=', char::from);
            text.push(if at <= chunk.len() { letter } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_follows_the_rfc() {
        for (plain, expected) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), expected);
        }
    }
}
