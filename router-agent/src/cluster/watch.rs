//! Follows one kind of object at the API server: list, then watch, again and again, whatever happens.
//!
//! What goes wrong is a Problem of the watch, in one line with its remedy. After it we list anew, since a watch that is
//! taken up again says nothing until something changes, and nobody could tell whether it stands: once there is a list
//! and the watch after it has not failed for a moment, the Problem is gone. An
//! object that vanished while we could not watch is told as gone once the next list is complete.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt as _;
use kube::runtime::watcher::{self, DefaultBackoff, watcher};
use kube::{Api, Client, Resource};
use router_core::cluster::{Event, Kind};
use router_core::model::Key;
use router_core::problem::{Problem, Subject};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::{narrow, translate};

/// A watch that has not failed for so long stands.
const STANDS: Duration = Duration::from_secs(2);

/// A kind of object that can be followed.
pub(crate) trait Followed:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
    const KIND: Kind;
    /// The resource's name, as in a role's rules.
    const RESOURCE: &'static str;

    /// What the object comes to.
    fn told(&self) -> Vec<Event>;

    /// It is gone.
    fn gone(key: Key) -> Vec<Event>;
}

impl Followed for narrow::Service {
    const KIND: Kind = Kind::Services;
    const RESOURCE: &'static str = "services";

    fn told(&self) -> Vec<Event> {
        translate::service(self)
    }

    fn gone(key: Key) -> Vec<Event> {
        vec![Event::Problems(Subject::Service(key.clone()), Vec::new()), Event::ServiceGone(key)]
    }
}

impl Followed for narrow::EndpointSlice {
    const KIND: Kind = Kind::EndpointSlices;
    const RESOURCE: &'static str = "endpointslices";

    fn told(&self) -> Vec<Event> {
        translate::slice(self)
    }

    fn gone(key: Key) -> Vec<Event> {
        vec![Event::Problems(Subject::EndpointSlice(key.clone()), Vec::new()), Event::SliceGone(key)]
    }
}

impl Followed for narrow::Node {
    const KIND: Kind = Kind::Node;
    const RESOURCE: &'static str = "nodes";

    fn told(&self) -> Vec<Event> {
        translate::node(self)
    }

    fn gone(key: Key) -> Vec<Event> {
        vec![Event::Problems(Subject::Node(key.name.clone()), Vec::new()), Event::NodeGone(key.name)]
    }
}

impl Followed for narrow::Pod {
    const KIND: Kind = Kind::Pods;
    const RESOURCE: &'static str = "pods";

    fn told(&self) -> Vec<Event> {
        translate::pod(self)
    }

    fn gone(key: Key) -> Vec<Event> {
        vec![Event::Problems(Subject::Pod(key.clone()), Vec::new()), Event::PodGone(key)]
    }
}

/// Every Service.
pub(crate) async fn services(client: Client, events: mpsc::Sender<Event>) {
    follow::<narrow::Service>(Api::all(client), watcher::Config::default(), events).await;
}

/// Every EndpointSlice.
pub(crate) async fn endpoint_slices(client: Client, events: mpsc::Sender<Event>) {
    follow::<narrow::EndpointSlice>(Api::all(client), watcher::Config::default(), events).await;
}

/// The node `name`.
pub(crate) async fn node(client: Client, name: String, events: mpsc::Sender<Event>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    follow::<narrow::Node>(Api::all(client), config, events).await;
}

/// Every node.
pub(crate) async fn nodes(client: Client, events: mpsc::Sender<Event>) {
    follow::<narrow::Node>(Api::all(client), watcher::Config::default(), events).await;
}

/// The pods of the node `name`.
pub(crate) async fn pods(client: Client, name: String, events: mpsc::Sender<Event>) {
    let config = watcher::Config::default().fields(&format!("spec.nodeName={name}"));
    follow::<narrow::Pod>(Api::all(client), config, events).await;
}

/// Tells of every object, until nobody listens.
async fn follow<K: Followed>(api: Api<K>, config: watcher::Config, events: mpsc::Sender<Event>) {
    let mut known = Known::default();
    // It forgets by itself, after two minutes without a failure.
    let mut backoff = DefaultBackoff::default();
    loop {
        let mut stream = std::pin::pin!(watcher(api.clone(), config.clone()));
        let mut failed = false;
        while !failed {
            let limit = if known.may_stand() { STANDS } else { Duration::MAX };
            let told = match timeout(limit, stream.next()).await {
                Err(_) => known.stands::<K>(),
                Ok(Some(Ok(event))) => known.take(event),
                Ok(Some(Err(error))) => {
                    failed = true;
                    known.fail::<K>(&error)
                }
                Ok(None) => break,
            };
            for event in told {
                if events.send(event).await.is_err() {
                    return;
                }
            }
        }
        sleep(backoff.next().unwrap_or(STANDS)).await;
    }
}

/// Which objects there are, so that those which a list no longer has can be told as gone.
#[derive(Debug, Default)]
struct Known {
    keys: BTreeSet<Key>,
    /// Keys of a list that is not complete yet.
    listing: BTreeSet<Key>,
    /// It has failed, and nothing has shown since that it is well.
    failing: bool,
    /// A list is complete, since the last failure.
    listed: bool,
}

impl Known {
    fn take<K: Followed>(&mut self, event: watcher::Event<K>) -> Vec<Event> {
        let watched = matches!(event, watcher::Event::Apply(_) | watcher::Event::Delete(_));
        let mut told = match event {
            // It only says that a list is about to be asked for.
            watcher::Event::Init => {
                self.listing.clear();
                return Vec::new();
            }
            watcher::Event::InitApply(object) => {
                self.listing.insert(translate::key(object.meta()));
                object.told()
            }
            watcher::Event::InitDone => self.listed::<K>(),
            watcher::Event::Apply(object) => {
                self.keys.insert(translate::key(object.meta()));
                object.told()
            }
            watcher::Event::Delete(object) => {
                let key = translate::key(object.meta());
                self.keys.remove(&key);
                K::gone(key)
            }
        };
        if watched {
            told.extend(self.stands::<K>());
        }
        told
    }

    /// Whether the watch stands if it does not fail in the next moment.
    const fn may_stand(&self) -> bool {
        self.failing && self.listed
    }

    /// The watch stands.
    fn stands<K: Followed>(&mut self) -> Vec<Event> {
        let failing = std::mem::take(&mut self.failing);
        failing.then(|| Event::Problems(Subject::Watch(K::RESOURCE), Vec::new())).into_iter().collect()
    }

    fn listed<K: Followed>(&mut self) -> Vec<Event> {
        self.listed = true;
        let listing = std::mem::take(&mut self.listing);
        let before = std::mem::replace(&mut self.keys, listing);
        let vanished = before.into_iter().filter(|key| !self.keys.contains(key));
        let mut told: Vec<Event> = vanished.flat_map(K::gone).collect();
        told.push(Event::Listed(K::KIND));
        told
    }

    fn fail<K: Followed>(&mut self, error: &watcher::Error) -> Vec<Event> {
        self.failing = true;
        self.listed = false;
        let subject = Subject::Watch(K::RESOURCE);
        vec![Event::Problems(subject.clone(), vec![explain(subject, K::RESOURCE, error)])]
    }
}

/// A failure of the watcher in one line, with its remedy.
fn explain(subject: Subject, resource: &str, error: &watcher::Error) -> Problem {
    use watcher::Error as Watch;
    let (doing, status, cause) = match error {
        Watch::InitialListFailed(cause) => ("listing", status_of(cause), cause.to_string()),
        Watch::WatchStartFailed(cause) => ("starting to watch", status_of(cause), cause.to_string()),
        Watch::WatchFailed(cause) => ("watching", status_of(cause), cause.to_string()),
        Watch::WatchError(status) => ("watching", Some(status.as_ref()), status.message.clone()),
        Watch::NoResourceVersion => ("listing", None, error.to_string()),
    };
    let code = status.map_or(0, |status| status.code);
    let cause =
        status.map_or(cause, |status| format!("{} {}: {}", status.code, status.reason, status.message));
    let (reason, remedy) = match code {
        401 => ("Unauthorized", "check the token or certificate that the kubeconfig names".to_owned()),
        403 => ("Forbidden", format!("grant list and watch on {resource} to the agent's account")),
        410 => ("Expired", "nothing to do: it is listed anew".to_owned()),
        429 | 500..=599 => {
            ("ServerFailing", "see to the API server; what was known stays, it is tried again".to_owned())
        }
        _ => (
            "Interrupted",
            "what was known stays, it is tried again; if it persists see to the API server".to_owned(),
        ),
    };
    let cause = cause.split_whitespace().collect::<Vec<_>>().join(" ");
    Problem { subject, reason, text: format!("{doing}: {cause}"), remedy }
}

fn status_of(error: &kube::Error) -> Option<&kube::core::Status> {
    match error {
        kube::Error::Api(status) => Some(status),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
