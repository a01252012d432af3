//! What tells people and machines how the agent fares: health, metrics, and the socket of the sub-commands.
//!
//! Nothing is kept here that somebody owns: an answer is gathered when it is asked for, from those who own what it is
//! about, each by its own channel and between two of its steps, so that no loop ever waits for a reader. Who does not
//! answer is named, and the rest of the answer stands.

mod accounts;
mod answers;
mod exposition;
pub(crate) mod health;
mod metrics;
mod seen;
mod socket;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use router_core::cluster::{Event, HostView, Kind};
use router_core::plan::ebpf::EbpfPlane;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::bgp::view;
use crate::config::Metrics;
use crate::drops::Drops;
use crate::fib;
use crate::flows::{Reader, Swept};
use crate::parts::spawn;
use crate::reconcile::{self, Look, Progress};

use self::accounts::Accounts;
use self::health::Monitor;

/// The plane that the loop of services plans by.
type Plane = EbpfPlane<[u8; 4]>;

/// Whoever is asked answers in milliseconds, but between two steps, of which the longest take seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is known of the kernel side, where services are balanced.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// How programs are attached.
    pub(crate) attach: &'static str,
    pub(crate) fast_path: bool,
    pub(crate) swept: watch::Receiver<Arc<Swept>>,
    pub(crate) flows: Arc<Reader>,
    pub(crate) drops: Arc<Drops>,
}

/// Who is asked about routing.
#[derive(Clone, Debug)]
pub(crate) struct Routing {
    pub(crate) speaker: mpsc::Sender<view::Ask>,
    pub(crate) routes: mpsc::Sender<fib::Ask>,
}

/// Who is asked, and what never changes.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    pub(crate) node: String,
    pub(crate) started: Instant,
    pub(crate) followed: Vec<Kind>,
    pub(crate) monitor: Arc<Monitor>,
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) host: watch::Receiver<HostView>,
    pub(crate) services: mpsc::Sender<reconcile::Ask<Plane>>,
    /// `None`: services are not balanced.
    pub(crate) kernel: Option<Kernel>,
    /// `None`: no BGP.
    pub(crate) routing: Option<Routing>,
}

/// Starts all that answers by what `sources` know.
pub(crate) fn start(
    sources: Sources,
    socket: PathBuf,
    metrics: Option<(Metrics, TcpListener)>,
    events: mpsc::Sender<Event>,
    parts: &mut JoinSet<()>,
) {
    let (accounts, accounts_seen) = watch::channel(Arc::<Accounts>::default());
    if let Some(kernel) = &sources.kernel {
        parts.spawn(accounts::keep(sources.clone(), kernel.swept.clone(), accounts));
    }
    let asked = Asked { sources, accounts: accounts_seen };
    if let Some((Metrics { path, .. }, listener)) = metrics {
        spawn(parts, "serving metrics", metrics::serve(listener, path, asked.clone()));
    }
    spawn(parts, "serving the sub-commands", socket::run(socket, asked, events));
}

/// All that an answer is made from.
#[derive(Clone, Debug)]
struct Asked {
    sources: Sources,
    accounts: watch::Receiver<Arc<Accounts>>,
}

impl Sources {
    /// Has the loop of services look for us.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Look<'_, Plane>) -> T + Send + 'static,
    ) -> Result<T> {
        let (to, answer) = oneshot::channel();
        // Who asked may have lost patience.
        let look = Box::new(move |seen: &Look<'_, Plane>| drop(to.send(look(seen))));
        answered("the loop of services", self.services.send(reconcile::Ask::Look(look)), answer).await
    }
}

impl Routing {
    async fn ask_speaker<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> view::Ask) -> Result<T> {
        let (to, answer) = oneshot::channel();
        answered("the BGP speaker", self.speaker.send(ask(to)), answer).await
    }

    async fn ask_routes<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> fib::Ask) -> Result<T> {
        let (to, answer) = oneshot::channel();
        answered("the loop of learned routes", self.routes.send(ask(to)), answer).await
    }
}

async fn answered<T, E>(
    who: &str,
    asking: impl Future<Output = Result<(), E>>,
    answer: oneshot::Receiver<T>,
) -> Result<T> {
    let answered = timeout(PATIENCE, async {
        asking.await.ok()?;
        answer.await.ok()
    });
    answered.await.ok().flatten().with_context(|| format!("{who} does not answer"))
}

/// Seconds, to the millisecond.
#[expect(clippy::cast_precision_loss, reason = "an age is no large number")]
fn seconds(time: Duration) -> f64 {
    time.as_millis() as f64 / 1_000.0
}
