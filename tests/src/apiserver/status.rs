//! Refusals, in the form every Kubernetes client understands: `kind: Status`.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::kinds::Resource;

/// An answer that says why a request was not carried out.
#[derive(Clone, Debug)]
pub struct Status {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    details: Value,
}

impl Status {
    pub(super) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: json!({}) }
    }

    /// A `Status` for a bare HTTP code, as fault injection asks for it.
    pub(super) fn from_code(code: u16) -> Self {
        let reason = match code {
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            409 => "Conflict",
            410 => "Expired",
            422 => "Invalid",
            429 => "TooManyRequests",
            500 => "InternalError",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "",
        };
        Self::new(code, reason, format!("the test asked for an answer with code {code}"))
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(super) fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    pub(super) fn not_found(resource: &Resource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} \"{name}\" not found", resource.qualified()))
            .about(resource, name)
    }

    pub(super) fn exists(resource: &Resource, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} \"{name}\" already exists", resource.qualified()))
            .about(resource, name)
    }

    pub(super) fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.qualified());
        Self::new(409, "Conflict", message).about(resource, name)
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, "Forbidden", message)
    }

    pub(super) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// Field by field what is wrong with an object.
    pub(super) fn invalid(resource: &Resource, name: &str, causes: &[Cause]) -> Self {
        let texts: Vec<String> =
            causes.iter().map(|cause| format!("{}: {}", cause.field, cause.text)).collect();
        let texts =
            if let [only] = texts.as_slice() { only.clone() } else { format!("[{}]", texts.join(", ")) };
        let mut status =
            Self::new(422, "Invalid", format!("{} \"{name}\" is invalid: {texts}", resource.kind));
        status = status.about(resource, name);
        status.details["kind"] = resource.kind.into();
        status.details["causes"] = causes
            .iter()
            .map(|cause| json!({"reason": cause.reason, "message": cause.text, "field": cause.field}))
            .collect();
        status
    }

    fn about(mut self, resource: &Resource, name: &str) -> Self {
        self.details = json!({"name": name, "group": resource.group, "kind": resource.plural});
        self
    }

    pub(super) fn value(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "details": self.details, "code": self.code,
        })
    }
}

impl IntoResponse for Status {
    fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (code, axum::Json(self.value())).into_response()
    }
}

/// One wrong field.
#[derive(Debug)]
pub(super) struct Cause {
    pub field: String,
    pub reason: &'static str,
    pub text: String,
}

impl Cause {
    pub(super) fn required(field: impl Into<String>, text: &str) -> Self {
        let text = if text.is_empty() { "Required value".into() } else { format!("Required value: {text}") };
        Self { field: field.into(), reason: "FieldValueRequired", text }
    }

    pub(super) fn invalid(field: impl Into<String>, value: &Value, text: &str) -> Self {
        Self {
            field: field.into(),
            reason: "FieldValueInvalid",
            text: format!("Invalid value: {value}: {text}"),
        }
    }

    pub(super) fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self { field: field.into(), reason: "FieldValueDuplicate", text: format!("Duplicate value: {value}") }
    }

    pub(super) fn unsupported(field: impl Into<String>, value: &Value, known: &[&str]) -> Self {
        let known: Vec<String> = known.iter().map(|word| format!("\"{word}\"")).collect();
        let text = format!("Unsupported value: {value}: supported values: {}", known.join(", "));
        Self { field: field.into(), reason: "FieldValueNotSupported", text }
    }
}
