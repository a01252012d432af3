//! POST, PUT, PATCH and DELETE.

use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::kinds::{Kind, Resource};
use super::removal::{self, Removal, Removed};
use super::request::{Asked, Target};
use super::status::{Cause, Status};
use super::store;
use super::view::{shown, stored};
use super::{Inner, defaults, patch, read, validate};

/// What a write was answered with: the object, and whether it is new.
struct Written {
    object: Arc<Value>,
    created: bool,
    warnings: Vec<String>,
}

impl Written {
    fn respond(self, target: &Target) -> Response {
        let code = if self.created { StatusCode::CREATED } else { StatusCode::OK };
        let mut response = (code, axum::Json(seen_at(target, &self.object))).into_response();
        for warning in self.warnings {
            if let Ok(value) = HeaderValue::from_str(&format!("299 - {}", Value::from(warning))) {
                response.headers_mut().append(HeaderName::from_static("warning"), value);
            }
        }
        response
    }
}

pub(super) fn create(
    server: &Inner,
    target: &Target,
    asked: &Asked,
    body: &[u8],
) -> Result<Response, Status> {
    Ok(create_object(server, target, asked, decode(body)?)?.respond(target))
}

fn create_object(server: &Inner, target: &Target, asked: &Asked, mut sent: Value) -> Result<Written, Status> {
    let resource = target.resource;
    check_type(resource, &sent)?;
    place(server, target, &mut sent)?;
    let warnings = server.shape(resource, &sent, asked)?;
    let mut object = stored(resource, sent);
    if matches!(resource.stored, Kind::Pod | Kind::Service | Kind::Deployment | Kind::Namespace) {
        remove_field(&mut object, "status");
    }
    defaults::fill(resource.stored, &mut object);
    server.content(resource, &object)?;
    let object = server.store.create(resource.stored, object, asked.dry_run())?;
    Ok(Written { object, created: true, warnings })
}

/// An object as it is seen at this path.
fn seen_at(target: &Target, object: &Value) -> Value {
    if target.subresource == "scale" {
        read::scale(object)
    } else {
        shown(target.resource, object).into_owned()
    }
}

/// Name and namespace of a new object, from its path, its body, and `generateName`.
fn place(server: &Inner, target: &Target, object: &mut Value) -> Result<(), Status> {
    let resource = target.resource;
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    let metadata = &mut object["metadata"];
    if resource.namespaced {
        if target.namespace.is_empty() {
            return Err(Status::bad_request("an object of this kind is created in a namespace"));
        }
        if let Some(named) = metadata["namespace"].as_str()
            && !named.is_empty()
            && named != target.namespace
        {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        metadata["namespace"] = target.namespace.clone().into();
        if server.store.get(Kind::Namespace, "", &target.namespace).is_none() {
            return Err(Status::not_found(Kind::Namespace.resource(), &target.namespace));
        }
    }
    let given = |field: &str| metadata[field].as_str().filter(|text| !text.is_empty());
    if given("name").is_none() {
        if let Some(prefix) = given("generateName") {
            metadata["name"] = format!("{prefix}{}", store::suffix(store::random(), 5)).into();
            return Ok(());
        }
        let cause = Cause::required("metadata.name", "name or generateName is required");
        return Err(Status::invalid(resource, "", &[cause]));
    }
    Ok(())
}

pub(super) fn update(
    server: &Inner,
    target: &Target,
    asked: &Asked,
    body: &[u8],
) -> Result<Response, Status> {
    let sent = decode(body)?;
    if sent["metadata"]["name"] != target.name {
        return Err(Status::bad_request("the name of the object does not match the name on the URL"));
    }
    let scaled = target.subresource == "scale";
    let mut warnings = Vec::new();
    if !scaled {
        check_type(target.resource, &sent)?;
        warnings = server.shape(target.resource, &sent, asked)?;
    }
    let object = server.store.edit(target.resource.stored, &target.key(), asked.dry_run(), |old| {
        let new = if scaled { sent } else { stored(target.resource, sent) };
        accept(server, target, old, new)
    })?;
    Ok(Written { object, created: false, warnings }.respond(target))
}

pub(super) fn patch(server: &Inner, target: &Target, asked: &Asked, body: &[u8]) -> Result<Response, Status> {
    let resource = target.resource;
    let applied = asked.content_type == "application/apply-patch+yaml";
    let change = if applied { decode_yaml(body)? } else { decode(body)? };
    if applied {
        if asked.text("fieldManager").is_none() {
            return Err(Status::bad_request(
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value",
            ));
        }
        if server.store.get(resource.stored, &target.namespace, &target.name).is_none()
            && target.subresource.is_empty()
        {
            let mut sent = change;
            patch::merge(&mut sent, &json!({"metadata": {"name": target.name}}));
            return Ok(create_object(server, target, asked, sent)?.respond(target));
        }
    }
    let mut warnings = Vec::new();
    let object = server.store.edit(resource.stored, &target.key(), asked.dry_run(), |old| {
        let mut new = seen_at(target, old);
        match asked.content_type.as_str() {
            "application/json-patch+json" => patch::json(&mut new, &change)?,
            "application/merge-patch+json" => patch::merge(&mut new, &change),
            "application/strategic-merge-patch+json" => patch::strategic(resource.stored, &mut new, &change),
            "application/apply-patch+yaml" => patch::apply(resource.stored, &mut new, &change),
            other => {
                return Err(Status::new(415, "UnsupportedMediaType", format!("no patch of type {other:?}")));
            }
        }
        if target.subresource != "scale" {
            warnings = server.shape(resource, &new, asked)?;
        }
        accept(server, target, old, stored(resource, new))
    })?;
    Ok(Written { object, created: false, warnings }.respond(target))
}

/// What of `new` counts: the status only through its subresource, and everything else only beside it.
fn accept(server: &Inner, target: &Target, old: &Value, mut new: Value) -> Result<Value, Status> {
    let resource = target.resource;
    if !new.is_object() || !new["metadata"].is_object() {
        return Err(Status::bad_request("what comes out is no object with metadata"));
    }
    for field in ["resourceVersion", "uid"] {
        let (wanted, found) = (&new["metadata"][field], &old["metadata"][field]);
        if wanted.as_str().is_some_and(|text| !text.is_empty()) && wanted != found {
            let why =
                "the object has been modified; please apply your changes to the latest version and try again";
            return Err(Status::conflict(resource, &target.name, why));
        }
    }
    if target.subresource == "scale" {
        let mut object = old.clone();
        object["spec"]["replicas"] = new["spec"]["replicas"].clone();
        return Ok(object);
    }
    new["metadata"]["name"] = target.name.clone().into();
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "namespace"] {
        copy_field(&mut new["metadata"], &old["metadata"], field);
    }
    if target.subresource == "status" {
        copy_field(&mut new, old, "spec");
        return Ok(new);
    }
    if resource.status {
        copy_field(&mut new, old, "status");
    }
    defaults::fill(resource.stored, &mut new);
    server.content(resource, &new)?;
    if server.validate {
        unchanged_address(resource, old, &new)?;
    }
    Ok(new)
}

fn unchanged_address(resource: &Resource, old: &Value, new: &Value) -> Result<(), Status> {
    let address = |service: &Value| service["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
    let (was, is) = (address(old), address(new));
    if resource.stored != Kind::Service || was.is_empty() || is.is_empty() || was == is {
        return Ok(());
    }
    let cause = Cause::invalid("spec.clusterIPs[0]", &json!([is]), "may not change once set");
    Err(Status::invalid(resource, new["metadata"]["name"].as_str().unwrap_or_default(), &[cause]))
}

pub(super) fn delete(
    server: &Inner,
    target: &Target,
    asked: &Asked,
    body: &[u8],
) -> Result<Response, Status> {
    let removal = removal_of(asked, body)?;
    let kind = target.resource.stored;
    let value = match removal::remove(&server.store, kind, &target.key(), &removal)? {
        Removed::Waits(object) => seen_at(target, &object),
        Removed::Gone(object) if kind == Kind::Pod => Value::clone(&object),
        Removed::Gone(object) => json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {
                "name": target.name, "group": target.resource.group, "kind": target.resource.plural,
                "uid": object["metadata"]["uid"],
            },
        }),
    };
    Ok(axum::Json(value).into_response())
}

pub(super) fn delete_collection(
    server: &Inner,
    target: &Target,
    asked: &Asked,
    body: &[u8],
) -> Result<Response, Status> {
    let removal = removal_of(asked, body)?;
    let filter = asked.filter(target)?;
    let kind = target.resource.stored;
    let mut items = Vec::new();
    for object in server.store.list(kind).into_iter().filter(|object| filter.matches(object)) {
        match removal::remove(&server.store, kind, &store::key(kind, &object), &removal) {
            Ok(_) => items.push(seen_at(target, &object)),
            // Somebody else was faster.
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
    }
    let value = json!({
        "kind": format!("{}List", target.resource.kind), "apiVersion": target.resource.api_version(),
        "metadata": {"resourceVersion": server.store.revision().to_string()}, "items": items,
    });
    Ok(axum::Json(value).into_response())
}

fn removal_of(asked: &Asked, body: &[u8]) -> Result<Removal, Status> {
    let options = if body.is_empty() { json!({}) } else { decode(body)? };
    let mut removal = Removal::parse(&options);
    removal.grace = removal.grace.or(asked.number("gracePeriodSeconds")?);
    removal.dry |= asked.dry_run();
    Ok(removal)
}

fn check_type(resource: &Resource, sent: &Value) -> Result<(), Status> {
    if !sent.is_object() {
        return Err(Status::bad_request("the body is no object"));
    }
    let wrong = |field: &str, expected: &str| {
        sent[field].as_str().is_some_and(|text| !text.is_empty() && text != expected)
    };
    if wrong("kind", resource.kind) || wrong("apiVersion", &resource.api_version()) {
        return Err(Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): {} {}",
            resource.kind, sent["apiVersion"], sent["kind"]
        )));
    }
    Ok(())
}

pub(super) fn decode(body: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(body).map_err(|error| Status::bad_request(format!("the body is no JSON: {error}")))
}

fn decode_yaml(body: &[u8]) -> Result<Value, Status> {
    let text = String::from_utf8_lossy(body);
    serde_saphyr::from_str(&text)
        .map_err(|error| Status::bad_request(format!("the body is no YAML: {error}")))
}

fn remove_field(object: &mut Value, field: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(field);
    }
}

fn copy_field(to: &mut Value, from: &Value, field: &str) {
    let Some(fields) = to.as_object_mut() else { return };
    match from.get(field) {
        Some(value) => fields.insert(field.into(), value.clone()),
        None => fields.remove(field),
    };
}

impl Inner {
    fn shape(&self, resource: &Resource, sent: &Value, asked: &Asked) -> Result<Vec<String>, Status> {
        let fields = validate::Fields::parse(asked.text("fieldValidation"));
        if self.validate { validate::shape(resource, sent, fields) } else { Ok(Vec::new()) }
    }

    fn content(&self, resource: &Resource, object: &Value) -> Result<(), Status> {
        if self.validate { validate::content(resource, object) } else { Ok(()) }
    }
}
