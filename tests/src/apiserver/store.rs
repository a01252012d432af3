//! Every object, and what happened to each kind lately.
//!
//! One lock around everything: a write is a few map operations, and the order of revisions is the order of
//! writes. Objects are shared and never changed in place, so a reader keeps what it saw.
//! Addresses are given out under the same lock, as the real server does before it stores.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, anyhow};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::addresses::Addresses;
use super::defaults;
use super::kinds::Kind;
use super::status::Status;

/// Namespace (empty for kinds without one) and name.
pub(super) type Key = (String, String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    Added,
    Modified,
    Deleted,
}

/// One write, as a watch will tell it. A deleted object carries the revision of its deletion.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub revision: u64,
    pub happened: Happened,
    pub object: Arc<Value>,
    pub before: Option<Arc<Value>>,
}

/// The history no longer reaches back to the asked revision.
#[derive(Debug)]
pub(super) struct TooOld {
    pub asked: u64,
    pub oldest: u64,
}

#[derive(Debug, Default)]
struct Drawer {
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Change>,
    /// Revision of the newest change that was dropped from the history.
    forgotten: u64,
}

#[derive(Debug)]
struct State {
    revision: u64,
    drawers: BTreeMap<Kind, Drawer>,
    addresses: Addresses,
}

/// The server's memory. Tests may write to it directly, past validation and access rules.
#[derive(Debug)]
pub struct Store {
    state: Mutex<State>,
    history: usize,
    changed: watch::Sender<u64>,
}

impl Store {
    pub(super) fn new(addresses: Addresses, history: usize) -> Self {
        let drawers = Kind::ALL.into_iter().map(|kind| (kind, Drawer::default())).collect();
        // Revision 0 and 1 mean "any" to clients, so the first write must not have them.
        let state = Mutex::new(State { revision: 1, drawers, addresses });
        Self { state, history, changed: watch::channel(1).0 }
    }

    /// Creates or replaces an object as it is given, status included. Missing metadata, defaults and addresses
    /// are filled in; nothing is validated.
    pub fn put(&self, kind: Kind, object: Value) -> Result<Arc<Value>> {
        let key = key(kind, &object);
        if key.1.is_empty() {
            return Err(anyhow!("a {kind} without metadata.name"));
        }
        let mut state = self.lock();
        let old = state.drawer(kind).objects.get(&key).cloned();
        let stored = self.write(&mut state, kind, key, old.as_ref(), object, false);
        stored.map_err(|status| anyhow!(status.message))
    }

    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.lock().drawer(kind).objects.get(&(namespace.into(), name.into())).cloned()
    }

    pub fn list(&self, kind: Kind) -> Vec<Arc<Value>> {
        self.lock().drawer(kind).objects.values().cloned().collect()
    }

    /// Removes an object at once, without waiting for anybody.
    pub fn remove(&self, kind: Kind, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let mut state = self.lock();
        self.erase(&mut state, kind, &(namespace.into(), name.into()))
    }

    /// The revision of the newest write.
    pub fn revision(&self) -> u64 {
        self.lock().revision
    }

    /// Forgets what happened before now, so that every older watch is told 410.
    pub fn compact(&self) {
        let mut state = self.lock();
        let now = state.revision;
        for drawer in state.drawers.values_mut() {
            drawer.history.clear();
            drawer.forgotten = now;
        }
    }

    pub(super) fn snapshot(&self, kind: Kind) -> (u64, Vec<Arc<Value>>) {
        let mut state = self.lock();
        let objects = state.drawer(kind).objects.values().cloned().collect();
        (state.revision, objects)
    }

    /// Objects of one namespace whose names start alike.
    pub(super) fn with_prefix(&self, kind: Kind, namespace: &str, prefix: &str) -> Vec<Arc<Value>> {
        let mut state = self.lock();
        let from: Key = (namespace.into(), prefix.into());
        let same = |(key, _): &(&Key, &Arc<Value>)| key.0 == namespace && key.1.starts_with(prefix);
        state
            .drawer(kind)
            .objects
            .range(from..)
            .take_while(same)
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    /// Up to `limit` matching objects after `after`, and whether more follow.
    pub(super) fn page(
        &self,
        kind: Kind,
        after: Option<&Key>,
        limit: usize,
        matches: impl Fn(&Value) -> bool,
    ) -> (u64, Vec<Arc<Value>>, usize) {
        use std::ops::Bound::{Excluded, Unbounded};
        let mut state = self.lock();
        let revision = state.revision;
        let from = after.map_or(Unbounded, Excluded);
        let mut found =
            state.drawer(kind).objects.range::<Key, _>((from, Unbounded)).map(|(_, object)| object);
        let mut page = Vec::new();
        while page.len() < limit {
            match found.next() {
                Some(object) if matches(object) => page.push(Arc::clone(object)),
                Some(_) => {}
                None => return (revision, page, 0),
            }
        }
        let rest = found.filter(|object| matches(object)).count();
        (revision, page, rest)
    }

    /// What happened to a kind after `revision`, and the revision this answer reaches to.
    pub(super) fn since(&self, kind: Kind, revision: u64) -> Result<(u64, Vec<Change>), TooOld> {
        let mut state = self.lock();
        let now = state.revision;
        let drawer = state.drawer(kind);
        if revision < drawer.forgotten {
            return Err(TooOld { asked: revision, oldest: drawer.forgotten });
        }
        let start = drawer.history.partition_point(|change| change.revision <= revision);
        Ok((now.max(revision), drawer.history.range(start..).cloned().collect()))
    }

    /// True when the history of a kind no longer reaches back to `revision`.
    pub(super) fn too_old(&self, kind: Kind, revision: u64) -> Option<TooOld> {
        let oldest = self.lock().drawer(kind).forgotten;
        (revision < oldest).then_some(TooOld { asked: revision, oldest })
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn create(&self, kind: Kind, object: Value, dry: bool) -> Result<Arc<Value>, Status> {
        let key = key(kind, &object);
        let mut state = self.lock();
        if state.drawer(kind).objects.contains_key(&key) {
            return Err(Status::exists(kind.resource(), &key.1));
        }
        self.write(&mut state, kind, key, None, object, dry)
    }

    /// Replaces an object by what `edit` makes of it; an edit without effect changes no revision.
    pub(super) fn edit(
        &self,
        kind: Kind,
        key: &Key,
        dry: bool,
        edit: impl FnOnce(&Value) -> Result<Value, Status>,
    ) -> Result<Arc<Value>, Status> {
        let mut state = self.lock();
        let Some(old) = state.drawer(kind).objects.get(key).cloned() else {
            return Err(Status::not_found(kind.resource(), &key.1));
        };
        let new = edit(&old)?;
        self.write(&mut state, kind, key.clone(), Some(&old), new, dry)
    }

    /// Removes an object if `check` agrees.
    pub(super) fn delete(
        &self,
        kind: Kind,
        key: &Key,
        dry: bool,
        check: impl FnOnce(&Value) -> Result<(), Status>,
    ) -> Result<Arc<Value>, Status> {
        let mut state = self.lock();
        let Some(old) = state.drawer(kind).objects.get(key).cloned() else {
            return Err(Status::not_found(kind.resource(), &key.1));
        };
        check(&old)?;
        if dry {
            return Ok(old);
        }
        Ok(self.erase(&mut state, kind, key).expect("it was there under the same lock"))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in a test's closure leaves whole objects behind, never half of one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(
        &self,
        state: &mut State,
        kind: Kind,
        key: Key,
        old: Option<&Arc<Value>>,
        mut object: Value,
        dry: bool,
    ) -> Result<Arc<Value>, Status> {
        let before = old.map(AsRef::as_ref);
        defaults::fill(kind, &mut object);
        stamp(kind, before, &mut object)?;
        if kind == Kind::Service {
            state.addresses.assign(before, &mut object, dry)?;
        }
        if let Some(old) = old
            && **old == object
        {
            return Ok(Arc::clone(old));
        }
        if dry {
            return Ok(Arc::new(object));
        }
        state.revision += 1;
        object["metadata"]["resourceVersion"] = state.revision.to_string().into();
        let object = Arc::new(object);
        let happened = if old.is_some() { Happened::Modified } else { Happened::Added };
        state.drawer(kind).objects.insert(key, Arc::clone(&object));
        self.remember(state, kind, happened, Arc::clone(&object), old.cloned());
        Ok(object)
    }

    fn erase(&self, state: &mut State, kind: Kind, key: &Key) -> Option<Arc<Value>> {
        let old = state.drawer(kind).objects.remove(key)?;
        if kind == Kind::Service {
            state.addresses.release(&old);
        }
        state.revision += 1;
        let mut last = Value::clone(&old);
        last["metadata"]["resourceVersion"] = state.revision.to_string().into();
        let last = Arc::new(last);
        self.remember(state, kind, Happened::Deleted, Arc::clone(&last), Some(old));
        Some(last)
    }

    fn remember(
        &self,
        state: &mut State,
        kind: Kind,
        happened: Happened,
        object: Arc<Value>,
        before: Option<Arc<Value>>,
    ) {
        let revision = state.revision;
        let drawer = state.drawer(kind);
        drawer.history.push_back(Change { revision, happened, object, before });
        while drawer.history.len() > self.history {
            if let Some(dropped) = drawer.history.pop_front() {
                drawer.forgotten = dropped.revision;
            }
        }
        self.changed.send_replace(revision);
    }
}

impl State {
    fn drawer(&mut self, kind: Kind) -> &mut Drawer {
        self.drawers.entry(kind).or_default()
    }
}

/// Where an object is kept.
pub(super) fn key(kind: Kind, object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    if kind.resource().namespaced { (text("namespace"), text("name")) } else { (String::new(), text("name")) }
}

/// Metadata that only the server decides.
fn stamp(kind: Kind, old: Option<&Value>, object: &mut Value) -> Result<(), Status> {
    let resource = kind.resource();
    let spec_changed = old.is_some_and(|old| old["spec"] != object["spec"]);
    let root = object.as_object_mut().ok_or_else(|| Status::bad_request("the object is no JSON object"))?;
    root.insert("apiVersion".into(), resource.api_version().into());
    root.insert("kind".into(), resource.kind.into());
    let metadata = root.entry("metadata").or_insert_with(|| json!({}));
    let metadata =
        metadata.as_object_mut().ok_or_else(|| Status::bad_request("metadata is no JSON object"))?;
    if let Some(old) = old {
        for field in ["uid", "creationTimestamp", "resourceVersion", "generation"] {
            keep(metadata, &old["metadata"], field);
        }
        if spec_changed && let Some(generation) = metadata.get("generation").and_then(Value::as_u64) {
            metadata.insert("generation".into(), (generation + 1).into());
        }
        return Ok(());
    }
    metadata.remove("resourceVersion");
    metadata.remove("deletionTimestamp");
    metadata.entry("uid").or_insert_with(|| uid().into());
    metadata.insert("creationTimestamp".into(), now().into());
    if matches!(kind, Kind::Deployment | Kind::NetworkPolicy | Kind::EndpointSlice | Kind::Pod) {
        metadata.insert("generation".into(), 1.into());
    }
    Ok(())
}

fn keep(metadata: &mut Map<String, Value>, old: &Value, field: &str) {
    match old.get(field) {
        Some(value) => metadata.insert(field.into(), value.clone()),
        None => metadata.remove(field),
    };
}

/// The current time as API objects spell it, in whole seconds.
pub(super) fn now() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// A random version 4 UUID.
fn uid() -> String {
    let bits = u128::from(random()) << 64 | u128::from(random());
    let bits = bits & !(0xf << 76) & !(0b11 << 62) | 4 << 76 | 0b10 << 62;
    let hex = format!("{bits:032x}");
    let mut text = String::with_capacity(36);
    for (at, digit) in hex.chars().enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

/// `count` letters and digits, as generated names end. Letters that spell words are left out, as upstream does.
pub(super) fn suffix(mut seed: u64, count: usize) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..count)
        .map(|_| {
            let at = usize::try_from(seed % 27).unwrap_or_default();
            seed /= 27;
            char::from(ALPHABET.get(at).copied().unwrap_or(b'x'))
        })
        .collect()
}

/// A number that differs from call to call and from process to process.
pub(super) fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests;
