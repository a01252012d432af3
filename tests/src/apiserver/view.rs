//! The two forms of an event: core `v1`, in which it is stored, and `events.k8s.io/v1`.

use std::borrow::Cow;

use serde_json::Value;

use super::kinds::Resource;

/// Names in core `v1` and in `events.k8s.io/v1`.
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// An object as one API shows it.
pub(super) fn shown<'a>(resource: &Resource, stored: &'a Value) -> Cow<'a, Value> {
    if !resource.renamed() {
        return Cow::Borrowed(stored);
    }
    let mut shown = stored.clone();
    rename(&mut shown, RENAMED);
    if let Some(fields) = shown.as_object_mut() {
        fields.insert("apiVersion".into(), resource.api_version().into());
    }
    Cow::Owned(shown)
}

/// An object as it is stored.
pub(super) fn stored(resource: &Resource, mut sent: Value) -> Value {
    if resource.renamed() {
        rename(&mut sent, RENAMED.map(|(core, events)| (events, core)));
    }
    sent
}

fn rename(object: &mut Value, names: [(&str, &str); 7]) {
    let Some(fields) = object.as_object_mut() else { return };
    for (from, to) in names {
        if let Some(value) = fields.remove(from) {
            fields.insert(to.into(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::apiserver::kinds;

    #[test]
    fn an_event_survives_the_way_there_and_back() {
        let resource = kinds::find("events.k8s.io", "v1", "events").unwrap();
        let sent = json!({"apiVersion": "events.k8s.io/v1", "note": "hello", "regarding": {"name": "web"}});
        let kept = stored(resource, sent.clone());
        assert_eq!(kept["involvedObject"]["name"], "web");
        assert_eq!(*shown(resource, &kept), sent);
    }
}
