//! Deletion: what goes at once, and what waits for somebody to finish it.
//!
//! A pod that was given to a node waits for its kubelet, which deletes it again with a grace period of 0. A
//! namespace waits until the controllers have emptied it. There are no finalizers.

use std::sync::Arc;

use serde_json::Value;

use super::kinds::Kind;
use super::status::Status;
use super::store::{Key, Store, now};

/// What the client asked of the deletion.
#[derive(Clone, Debug, Default)]
pub(super) struct Removal {
    pub grace: Option<u64>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub dry: bool,
}

impl Removal {
    pub(super) fn parse(options: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let conditions = &options["preconditions"];
        Self {
            grace: options["gracePeriodSeconds"].as_u64(),
            uid: text(&conditions["uid"]),
            resource_version: text(&conditions["resourceVersion"]),
            dry: options["dryRun"].as_array().is_some_and(|list| !list.is_empty()),
        }
    }

    fn check(&self, kind: Kind, object: &Value) -> Result<(), Status> {
        let metadata = &object["metadata"];
        for (wanted, field) in [(&self.uid, "uid"), (&self.resource_version, "resourceVersion")] {
            if let Some(wanted) = wanted
                && metadata[field] != *wanted
            {
                let name = metadata["name"].as_str().unwrap_or_default();
                let why = format!(
                    "the {field} in the precondition ({wanted}) does not match the {field} in record ({}). The object \
                     might have been deleted and then recreated",
                    metadata[field].as_str().unwrap_or_default()
                );
                return Err(Status::conflict(kind.resource(), name, &why));
            }
        }
        Ok(())
    }
}

/// What became of the object.
#[derive(Debug)]
pub(super) enum Removed {
    Gone(Arc<Value>),
    Waits(Arc<Value>),
}

pub(super) fn remove(store: &Store, kind: Kind, key: &Key, removal: &Removal) -> Result<Removed, Status> {
    let old = store.get(kind, &key.0, &key.1).ok_or_else(|| Status::not_found(kind.resource(), &key.1))?;
    let grace = match kind {
        Kind::Pod => grace_of(&old, removal),
        Kind::Namespace => 1,
        _ => 0,
    };
    if grace == 0 {
        return store.delete(kind, key, removal.dry, |object| removal.check(kind, object)).map(Removed::Gone);
    }
    let marked = store.edit(kind, key, removal.dry, |object| {
        removal.check(kind, object)?;
        Ok(mark(kind, object, grace))
    })?;
    Ok(Removed::Waits(marked))
}

fn grace_of(pod: &Value, removal: &Removal) -> u64 {
    let placed = pod["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let finished = pod["status"]["phase"] == "Failed" || pod["status"]["phase"] == "Succeeded";
    if !placed || finished {
        return 0;
    }
    removal.grace.or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_u64()).unwrap_or(30)
}

fn mark(kind: Kind, object: &Value, grace: u64) -> Value {
    let mut object = object.clone();
    if object["metadata"]["deletionTimestamp"].is_string() {
        return object;
    }
    // The real server adds the grace period to the time; clients only look whether it is there.
    object["metadata"]["deletionTimestamp"] = now().into();
    if kind == Kind::Pod {
        object["metadata"]["deletionGracePeriodSeconds"] = grace.into();
    } else {
        object["status"]["phase"] = "Terminating".into();
    }
    object
}
