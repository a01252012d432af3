//! Empties namespaces that are being deleted, then removes them.

use super::super::kinds::{Kind, RESOURCES};
use super::super::removal::{Removal, remove};
use super::super::store::{Store, key};

pub(super) fn empty_terminating(store: &Store) {
    for namespace in store.list(Kind::Namespace) {
        if !namespace["metadata"]["deletionTimestamp"].is_string() {
            continue;
        }
        let name = &namespace["metadata"]["name"];
        let mut left = 0;
        for kind in Kind::ALL
            .into_iter()
            .filter(|kind| RESOURCES.iter().any(|row| row.stored == *kind && row.namespaced))
        {
            for object in store.list(kind).iter().filter(|object| object["metadata"]["namespace"] == *name) {
                remove(store, kind, &key(kind, object), &Removal::default()).ok();
                left += usize::from(store.get(kind, &key(kind, object).0, &key(kind, object).1).is_some());
            }
        }
        if left == 0 {
            store.remove(Kind::Namespace, "", name.as_str().unwrap_or_default());
        }
    }
}
