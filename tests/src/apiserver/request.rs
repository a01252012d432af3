//! A request taken apart: which kind, which object, which verb, which options.

use std::collections::HashMap;

use axum::http::{HeaderMap, Method, Uri, header};

use super::kinds::{self, Resource};
use super::selector::{Fields, Labels};
use super::status::Status;
use super::store::Key;

/// What a path names. Empty strings where it names nothing.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub resource: &'static Resource,
    pub namespace: String,
    pub name: String,
    pub subresource: String,
}

impl Target {
    pub(super) fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            // `/namespaces/x/status` is about the namespace, all else below `/namespaces/x/` is inside it.
            ["namespaces", _, "status"] => ("", rest),
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            _ => ("", rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (*plural, "", ""),
            [plural, name] => (*plural, *name, ""),
            [plural, name, subresource] => (*plural, *name, *subresource),
            _ => return None,
        };
        let resource = kinds::find(group, version, plural)?;
        let known = match subresource {
            "" => true,
            "status" => resource.status,
            "scale" => resource.scale,
            _ => false,
        };
        let scoped = resource.namespaced || namespace.is_empty();
        (known && scoped).then(|| Self {
            resource,
            namespace: namespace.into(),
            name: name.into(),
            subresource: subresource.into(),
        })
    }

    pub(super) fn key(&self) -> Key {
        (self.namespace.clone(), self.name.clone())
    }

    /// `services/status`, as RBAC names it.
    pub(super) fn path_in_rbac(&self) -> String {
        let plural = self.resource.plural;
        if self.subresource.is_empty() { plural.into() } else { format!("{plural}/{}", self.subresource) }
    }
}

/// The query string and the headers that matter.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    query: HashMap<String, String>,
    /// The answer is to be a `Table`.
    pub table: bool,
    pub content_type: String,
}

impl Asked {
    pub(super) fn parse(uri: &Uri, headers: &HeaderMap) -> Self {
        let query = axum::extract::Query::try_from_uri(uri).map(|query| query.0).unwrap_or_default();
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let table = text(header::ACCEPT).split(',').next().is_some_and(|first| first.contains("as=Table"));
        let content_type = text(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_owned();
        Self { query, table, content_type }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|text| text == "true" || text == "1")
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Status> {
        let wrong = |_| Status::bad_request(format!("invalid value of {name}"));
        self.text(name).map(str::parse).transpose().map_err(wrong)
    }

    pub(super) fn dry_run(&self) -> bool {
        self.text("dryRun").is_some()
    }

    pub(super) fn filter(&self, target: &Target) -> Result<Filter, Status> {
        Ok(Filter {
            namespace: target.namespace.clone(),
            labels: Labels::parse(self.text("labelSelector").unwrap_or_default())?,
            fields: Fields::parse(target.resource.stored, self.text("fieldSelector").unwrap_or_default())?,
        })
    }
}

/// Which objects of a kind a list or watch is about.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    namespace: String,
    labels: Labels,
    fields: Fields,
}

impl Filter {
    /// Narrowed to one object, as a watch on a name is.
    pub(super) fn named(mut self, name: &str) -> Self {
        self.fields.require("metadata.name", name);
        self
    }

    pub(super) fn matches(&self, object: &serde_json::Value) -> bool {
        (self.namespace.is_empty() || object["metadata"]["namespace"] == self.namespace)
            && self.labels.matches(object)
            && self.fields.matches(object)
    }
}

/// The verb in RBAC's words.
pub(super) fn verb(method: &Method, target: &Target, asked: &Asked) -> Option<&'static str> {
    let named = !target.name.is_empty();
    match *method {
        Method::GET if asked.flag("watch") => Some("watch"),
        Method::GET if named => Some("get"),
        Method::GET => Some("list"),
        Method::POST if !named => Some("create"),
        Method::PUT if named => Some("update"),
        Method::PATCH if named => Some("patch"),
        Method::DELETE if named => Some("delete"),
        Method::DELETE => Some("deletecollection"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_what_they_should() {
        for (path, expected) in [
            ("/api/v1/nodes", "nodes///"),
            ("/api/v1/namespaces", "namespaces///"),
            ("/api/v1/namespaces/a", "namespaces//a/"),
            ("/api/v1/namespaces/a/status", "namespaces//a/status"),
            ("/api/v1/namespaces/a/pods", "pods/a//"),
            ("/api/v1/namespaces/a/pods/p/status", "pods/a/p/status"),
            ("/apis/apps/v1/namespaces/a/deployments/d/scale", "deployments/a/d/scale"),
            ("/apis/discovery.k8s.io/v1/endpointslices", "endpointslices///"),
        ] {
            let target = Target::parse(path).expect(path);
            let found =
                [target.resource.plural, &target.namespace, &target.name, &target.subresource].join("/");
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn unknown_paths_name_nothing() {
        for path in
            ["/", "/api/v1", "/api/v2/pods", "/apis/apps/v1/namespaces/a/pods", "/api/v1/pods/a/b/c", "/x"]
        {
            assert!(Target::parse(path).is_none(), "{path}");
        }
        assert!(Target::parse("/api/v1/namespaces/a/services/s/scale").is_none(), "no such subresource");
        assert!(Target::parse("/api/v1/namespaces/a/nodes/n").is_none(), "nodes are in no namespace");
    }
}
