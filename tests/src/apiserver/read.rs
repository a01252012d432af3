//! GET of one object and of lists.

use std::sync::Arc;

use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::{Value, json};

use super::Inner;
use super::kinds::Resource;
use super::request::{Asked, Target};
use super::status::Status;
use super::store::Key;
use super::table::{self, Include};
use super::view::shown;

pub(super) fn get(server: &Inner, target: &Target, asked: &Asked) -> Result<Response, Status> {
    let resource = target.resource;
    let object = server
        .store
        .get(resource.stored, &target.namespace, &target.name)
        .ok_or_else(|| Status::not_found(resource, &target.name))?;
    if target.subresource == "scale" {
        return Ok(axum::Json(scale(&object)).into_response());
    }
    let value = if asked.table {
        let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
        let include = Include::parse(asked.text("includeObject"));
        table::table(resource, [object.as_ref()], &metadata, include, true)
    } else {
        shown(resource, &object).into_owned()
    };
    Ok(axum::Json(value).into_response())
}

/// The `Scale` of a Deployment.
pub(super) fn scale(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let selector = object["spec"]["selector"]["matchLabels"].as_object().into_iter().flatten();
    let selector: Vec<String> =
        selector.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default())).collect();
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {"replicas": object["spec"]["replicas"]},
        "status": {"replicas": object["status"]["replicas"].as_u64().unwrap_or(0), "selector": selector.join(",")},
    })
}

pub(super) fn list(server: &Inner, target: &Target, asked: &Asked) -> Result<Response, Status> {
    let resource = target.resource;
    let filter = asked.filter(target)?;
    let limit =
        asked.number("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let from = asked.text("continue").map(|token| Token::parse(server, resource, token)).transpose()?;
    check_version(server, resource, asked)?;
    let after = from.as_ref().map(|token| &token.after);
    let matches = |object: &Value| filter.matches(object);
    let (now, page, rest) = server.store.page(resource.stored, after, limit.unwrap_or(usize::MAX), matches);
    // Later pages belong to the list that the first one began: a watch from there repeats what they missed.
    let revision = from.map_or(now, |token| token.revision);
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    if rest > 0
        && let Some(last) = page.last()
    {
        metadata["continue"] =
            Token { revision, after: super::store::key(resource.stored, last) }.text().into();
        metadata["remainingItemCount"] = rest.into();
    }
    let body = if asked.table {
        let include = Include::parse(asked.text("includeObject"));
        serde_json::to_vec(&table::table(resource, page.iter().map(Arc::as_ref), &metadata, include, true))
    } else {
        serde_json::to_vec(&List { resource, metadata, items: &page })
    };
    let body = body.map_err(|error| Status::new(500, "InternalError", error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn check_version(server: &Inner, resource: &Resource, asked: &Asked) -> Result<(), Status> {
    let Some(version) = asked.number("resourceVersion")? else { return Ok(()) };
    if version > server.store.revision() {
        return Err(Status::new(504, "Timeout", format!("Too large resource version: {version}")));
    }
    // Only the newest state is kept, so an older one can be had exactly only while nothing changed since.
    let exact = asked.text("resourceVersionMatch") == Some("Exact");
    match server.store.since(resource.stored, version) {
        _ if !exact => Ok(()),
        Ok((_, changes)) if changes.is_empty() => Ok(()),
        _ => Err(Status::expired(format!("The resourceVersion for the provided list is too old: {version}"))),
    }
}

/// Where the next page starts, as the client hands it back.
struct Token {
    revision: u64,
    after: Key,
}

impl Token {
    fn text(&self) -> String {
        // Neither part of a key holds a slash.
        format!("{}/{}/{}", self.revision, self.after.0, self.after.1)
    }

    fn parse(server: &Inner, resource: &Resource, text: &str) -> Result<Self, Status> {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        let revision = parts.next().and_then(|part| part.parse().ok());
        let (Some(revision), Some(namespace), Some(name)) = (revision, parts.next(), parts.next()) else {
            return Err(Status::bad_request("continue key is not valid"));
        };
        if server.store.too_old(resource.stored, revision).is_some() {
            let text = "The provided continue parameter is too old to display a consistent list result. You can start \
                        a new list without the continue parameter.";
            return Err(Status::expired(text));
        }
        Ok(Self { revision, after: (namespace, name) })
    }
}

/// A list as the real server writes it: its items carry neither kind nor version.
struct List<'a> {
    resource: &'a Resource,
    metadata: Value,
    items: &'a [Arc<Value>],
}

impl Serialize for List<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let items: Vec<Item<'_>> = self.items.iter().map(|object| Item(self.resource, object)).collect();
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("kind", &format!("{}List", self.resource.kind))?;
        map.serialize_entry("apiVersion", &self.resource.api_version())?;
        map.serialize_entry("metadata", &self.metadata)?;
        map.serialize_entry("items", &items)?;
        map.end()
    }
}

struct Item<'a>(&'a Resource, &'a Value);

impl Serialize for Item<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let object = shown(self.0, self.1);
        let fields = object.as_object().into_iter().flatten();
        let typed = |(name, _): &(&String, &Value)| *name != "kind" && *name != "apiVersion";
        serializer.collect_map(fields.filter(typed))
    }
}
