//! The patch types: JSON patch (RFC 6902), merge patch (RFC 7396), strategic merge, and apply.
//!
//! Strategic merge knows the merge keys of the kinds served here, by field name. Apply merges the same way but
//! tells list entries apart by all their keys; it keeps no field owners, so a field that a manager stops
//! naming stays, and no conflict is ever reported.

use serde_json::{Map, Value};

use super::kinds::Kind;
use super::status::Status;

/// RFC 7396.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    let fields = as_fields(target);
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// RFC 6902.
pub(super) fn json(target: &mut Value, operations: &Value) -> Result<(), Status> {
    let operations =
        operations.as_array().ok_or_else(|| Status::bad_request("a JSON patch is a list of operations"))?;
    for operation in operations {
        let failed = |why: &str| {
            Status::new(422, "Invalid", format!("the server rejected our request: {operation}: {why}"))
        };
        step(target, operation).map_err(failed)?;
    }
    Ok(())
}

fn step(target: &mut Value, operation: &Value) -> Result<(), &'static str> {
    let path = operation["path"].as_str().ok_or("no path")?;
    let from = || operation["from"].as_str().ok_or("no from");
    let value = || operation.get("value").cloned().ok_or("no value");
    match operation["op"].as_str().unwrap_or_default() {
        "add" => add(target, path, value()?),
        "remove" => remove(target, path).map(drop),
        "replace" => {
            *target.pointer_mut(path).ok_or("no such path")? = value()?;
            Ok(())
        }
        "move" => {
            let value = remove(target, from()?)?;
            add(target, path, value)
        }
        "copy" => {
            let value = target.pointer(from()?).cloned().ok_or("no such path")?;
            add(target, path, value)
        }
        "test" if target.pointer(path) == Some(&value()?) => Ok(()),
        "test" => Err("the value differs"),
        _ => Err("unknown operation"),
    }
}

fn parent<'a>(target: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), &'static str> {
    let (above, last) = path.rsplit_once('/').ok_or("a path starts with /")?;
    let parent = target.pointer_mut(above).ok_or("no such path")?;
    Ok((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), &'static str> {
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    match parent(target, path)? {
        (Value::Object(fields), name) => {
            fields.insert(name, value);
        }
        (Value::Array(items), name) if name == "-" => items.push(value),
        (Value::Array(items), name) => {
            let at = name.parse().ok().filter(|at| *at <= items.len()).ok_or("no such index")?;
            items.insert(at, value);
        }
        _ => return Err("the parent holds no values"),
    }
    Ok(())
}

fn remove(target: &mut Value, path: &str) -> Result<Value, &'static str> {
    match parent(target, path)? {
        (Value::Object(fields), name) => fields.remove(&name).ok_or("no such field"),
        (Value::Array(items), name) => {
            let at = name.parse().ok().filter(|at| *at < items.len()).ok_or("no such index")?;
            Ok(items.remove(at))
        }
        _ => Err("the parent holds no values"),
    }
}

/// Kubernetes' own merge: lists of objects merge by key, directives start with `$`.
pub(super) fn strategic(kind: Kind, target: &mut Value, patch: &Value) {
    Strategy { kind, apply: false }.value(target, patch, "");
}

/// Server-side apply, without ownership.
pub(super) fn apply(kind: Kind, target: &mut Value, patch: &Value) {
    Strategy { kind, apply: true }.value(target, patch, "");
}

const DIRECTIVE: &str = "$patch";

#[derive(Clone, Copy)]
struct Strategy {
    kind: Kind,
    apply: bool,
}

impl Strategy {
    fn value(self, target: &mut Value, patch: &Value, field: &str) {
        match patch {
            Value::Object(fields) => self.fields(target, fields),
            Value::Array(items) => self.list(target, items, field),
            plain => *target = plain.clone(),
        }
    }

    fn fields(self, target: &mut Value, patch: &Map<String, Value>) {
        match patch.get(DIRECTIVE).and_then(Value::as_str) {
            Some("replace") => {
                *target =
                    Value::Object(patch.iter().filter(|(name, _)| !name.starts_with('$')).map(own).collect());
                return;
            }
            Some("delete") => {
                *target = Value::Object(Map::new());
                return;
            }
            _ => {}
        }
        let fields = as_fields(target);
        if let Some(retained) = patch.get("$retainKeys").and_then(Value::as_array) {
            fields.retain(|name, _| retained.iter().any(|kept| kept == name));
        }
        for (name, value) in patch {
            if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
                delete_plain(fields, list, value);
            } else if name.starts_with('$') {
                // Handled below or above; `$setElementOrder` must wait until its list is merged.
            } else if value.is_null() && !self.apply {
                fields.remove(name);
            } else {
                self.value(fields.entry(name.clone()).or_insert(Value::Null), value, name);
            }
        }
        for (name, order) in patch {
            if let Some(list) = name.strip_prefix("$setElementOrder/") {
                self.reorder(fields, list, order);
            }
        }
    }

    fn list(self, target: &mut Value, patch: &[Value], field: &str) {
        let keys = self.keys(field);
        if keys.is_empty() && !merges_plain(field) || patch.iter().any(|item| item[DIRECTIVE] == "replace") {
            *target = patch.iter().filter(|item| item.get(DIRECTIVE).is_none()).cloned().collect();
            return;
        }
        if !target.is_array() {
            *target = Value::Array(Vec::new());
        }
        let Value::Array(items) = target else { return };
        for change in patch {
            let found = items.iter().position(|item| same(item, change, keys));
            if change[DIRECTIVE] == "delete" {
                items.retain(|item| !same(item, change, keys));
            } else if let Some(item) = found.and_then(|at| items.get_mut(at)) {
                self.value(item, change, "");
            } else {
                let mut item = Value::Null;
                self.value(&mut item, change, "");
                items.push(item);
            }
        }
    }

    /// Entries in the order asked for; those not named keep their places after the named ones before them.
    fn reorder(self, fields: &mut Map<String, Value>, list: &str, order: &Value) {
        let (Some(Value::Array(items)), Some(order)) = (fields.get_mut(list), order.as_array()) else {
            return;
        };
        let keys = self.keys(list);
        let rank = |item: &Value| order.iter().position(|wanted| same(item, wanted, keys));
        let mut place = 0;
        let mut ranked: Vec<(usize, Value)> = Vec::with_capacity(items.len());
        for item in std::mem::take(items) {
            place = rank(&item).unwrap_or(place);
            ranked.push((place, item));
        }
        ranked.sort_by_key(|(rank, _)| *rank);
        items.extend(ranked.into_iter().map(|(_, item)| item));
    }

    /// What tells the entries of a list apart; none for a list that is replaced whole.
    fn keys(self, field: &str) -> &'static [&'static str] {
        match (field, self.kind) {
            ("ports", Kind::Service) if self.apply => &["port", "protocol"],
            ("ports", Kind::Service) => &["port"],
            ("ports", Kind::Pod | Kind::Deployment) if self.apply => &["containerPort", "protocol"],
            ("ports", Kind::Pod | Kind::Deployment) => &["containerPort"],
            (
                "containers"
                | "initContainers"
                | "ephemeralContainers"
                | "volumes"
                | "env"
                | "imagePullSecrets",
                Kind::Pod | Kind::Deployment,
            ) => &["name"],
            ("volumeMounts", _) => &["mountPath"],
            ("volumeDevices", _) => &["devicePath"],
            ("podIPs" | "hostIPs" | "hostAliases", _) => &["ip"],
            ("addresses", Kind::Node) | ("conditions", _) => &["type"],
            ("ownerReferences", _) => &["uid"],
            ("topologySpreadConstraints", _) => &["topologyKey"],
            _ => &[],
        }
    }
}

fn same(left: &Value, right: &Value, keys: &[&str]) -> bool {
    if keys.is_empty() {
        return left == right;
    }
    let part = |value: &Value, key: &str| match &value[key] {
        Value::Null if key == "protocol" => "TCP".into(),
        other => other.clone(),
    };
    keys.iter().all(|key| part(left, key) == part(right, key))
}

/// Lists of plain values that grow by a patch instead of being replaced.
fn merges_plain(field: &str) -> bool {
    field == "finalizers" || field == "podCIDRs"
}

fn delete_plain(fields: &mut Map<String, Value>, list: &str, gone: &Value) {
    if let (Some(Value::Array(items)), Some(gone)) = (fields.get_mut(list), gone.as_array()) {
        items.retain(|item| !gone.contains(item));
    }
}

fn own((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

fn as_fields(target: &mut Value) -> &mut Map<String, Value> {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    target.as_object_mut().expect("made an object above")
}

#[cfg(test)]
mod tests;
