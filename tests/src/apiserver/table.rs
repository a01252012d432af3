//! `Table` answers: what `kubectl get` prints.

use serde_json::{Value, json};

use super::columns;
use super::kinds::Resource;

/// One column. Priority above 0 is shown by `-o wide` only.
#[derive(Debug)]
pub(super) struct Column {
    pub name: &'static str,
    pub priority: u8,
}

/// How much of each object a row carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    pub(super) fn parse(text: Option<&str>) -> Self {
        match text {
            Some("None") => Self::None,
            Some("Object") => Self::Object,
            _ => Self::Metadata,
        }
    }
}

/// A table of objects. In a watch only the first event has column definitions.
pub(super) fn table<'a>(
    resource: &Resource,
    objects: impl IntoIterator<Item = &'a Value>,
    metadata: &Value,
    include: Include,
    headed: bool,
) -> Value {
    let columns = columns::of(resource.stored);
    let rows: Vec<Value> = objects.into_iter().map(|object| row(resource, object, include)).collect();
    let heads: Vec<Value> = columns.iter().map(definition).collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": if headed { Value::Array(heads) } else { Value::Null },
        "rows": rows,
    })
}

fn definition(column: &Column) -> Value {
    let format = if column.name == "Name" { "name" } else { "" };
    json!({
        "name": column.name, "type": "string", "format": format, "description": "", "priority": column.priority,
    })
}

fn row(resource: &Resource, object: &Value, include: Include) -> Value {
    let cells = columns::cells(resource.stored, object);
    match include {
        Include::None => json!({"cells": cells}),
        Include::Object => json!({"cells": cells, "object": object}),
        Include::Metadata => json!({"cells": cells, "object": {
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"],
        }}),
    }
}
