//! From a request to its answer: who asks, whether something is to go wrong, whether it is allowed, what to do.

use std::io;
use std::sync::{Arc, PoisonError};

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Inner;
use super::faults::Fault;
use super::rbac::{self, Ask, Identity};
use super::request::{self, Asked, Target};
use super::status::Status;
use super::tls::Hangup;
use super::{discovery, protobuf, read, watch, write};

const LARGEST_BODY: usize = 8 << 20;
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const HALF_A_LINE: &str = "{\"type\":\"ADDED\",\"object\":{\"kind\":\"";

pub(super) async fn handle(
    State(server): State<Arc<Inner>>,
    ConnectInfo(hangup): ConnectInfo<Hangup>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let Some(identity) = server.identify(&parts.headers) else {
        return Status::new(401, "Unauthorized", "Unauthorized").into_response();
    };
    let asked = Asked::parse(&parts.uri, &parts.headers);
    let target = Target::parse(parts.uri.path());
    let verb = target.as_ref().and_then(|target| request::verb(&parts.method, target, &asked));
    server.note(identity, &parts.method, &parts.uri);
    let kind = target.as_ref().map(|target| target.resource.stored);
    if let Some(fault) = server.faults.meet(verb.unwrap_or_default(), kind, identity) {
        match fault {
            Fault::Delay(time) => tokio::time::sleep(time).await,
            fault => return broken(fault, verb == Some("watch"), &hangup),
        }
    }
    let Ok(mut body) = axum::body::to_bytes(body, LARGEST_BODY).await else {
        return Status::bad_request("the body cannot be read").into_response();
    };
    if asked.content_type == PROTOBUF {
        let Some(namespace) = protobuf::namespace(&body) else {
            let text = "the body of the request was in an unknown format - accepted media types include: \
                        application/json; kubectl sends that for manifests (-f)";
            return Status::new(415, "UnsupportedMediaType", text).into_response();
        };
        body = Bytes::from(namespace.to_string());
    }
    let (Some(target), Some(verb)) = (target, verb) else {
        return elsewhere(&server, identity, &parts.method, parts.uri.path(), &body);
    };
    let answer = server
        .authorise(identity, &target, verb)
        .and_then(|()| dispatch(&server, verb, &target, &asked, &body));
    answer.unwrap_or_else(IntoResponse::into_response)
}

fn dispatch(
    server: &Arc<Inner>,
    verb: &str,
    target: &Target,
    asked: &Asked,
    body: &[u8],
) -> Result<Response, Status> {
    match verb {
        "get" => read::get(server, target, asked),
        "list" => read::list(server, target, asked),
        "watch" => watch::watch(server, target, asked),
        "create" => write::create(server, target, asked, body),
        "update" => write::update(server, target, asked, body),
        "patch" => write::patch(server, target, asked, body),
        "delete" => write::delete(server, target, asked, body),
        _ => write::delete_collection(server, target, asked, body),
    }
}

/// Paths that name no object.
fn elsewhere(server: &Inner, identity: Identity, method: &Method, path: &str, body: &[u8]) -> Response {
    if *method == Method::POST && path == REVIEWS {
        return review(server, identity, body).unwrap_or_else(IntoResponse::into_response);
    }
    let found = if *method == Method::GET { discovery::answer(path) } else { None };
    found.unwrap_or_else(|| Status::no_such_path().into_response())
}

/// `kubectl auth can-i`, from clients that ask in JSON.
fn review(server: &Inner, identity: Identity, body: &[u8]) -> Result<Response, Status> {
    let mut review = write::decode(body)?;
    let attributes = &review["spec"]["resourceAttributes"];
    let text = |field: &str| attributes[field].as_str().unwrap_or_default();
    let resource = match text("subresource") {
        "" => text("resource").to_owned(),
        subresource => format!("{}/{subresource}", text("resource")),
    };
    let ask = Ask { verb: text("verb"), group: text("group"), resource: &resource, name: text("name") };
    let allowed = server.allows(identity, &ask);
    if !review.is_object() {
        return Err(Status::bad_request("the body is no review"));
    }
    review["status"] = json!({"allowed": allowed});
    Ok((axum::http::StatusCode::CREATED, axum::Json::<Value>(review)).into_response())
}

fn broken(fault: Fault, watching: bool, hangup: &Hangup) -> Response {
    let once = |bytes: Bytes| watch::lines(futures::stream::iter([io::Result::Ok(bytes)]));
    match fault {
        Fault::ErrorEvent(code) if watching => once(watch::error_line(&Status::from_code(code))),
        Fault::Code(code) | Fault::ErrorEvent(code) => Status::from_code(code).into_response(),
        Fault::HalfLine => once(Bytes::from_static(HALF_A_LINE.as_bytes())),
        Fault::Close | Fault::Delay(_) => {
            hangup.now();
            Body::empty().into_response()
        }
    }
}

impl Inner {
    fn identify(&self, headers: &HeaderMap) -> Option<Identity> {
        let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?.trim();
        match token {
            token if token == self.admin_token => Some(Identity::Admin),
            token if token == *self.agent_token.read().unwrap_or_else(PoisonError::into_inner) => {
                Some(Identity::Agent)
            }
            _ => None,
        }
    }

    fn allows(&self, identity: Identity, ask: &Ask<'_>) -> bool {
        identity == Identity::Admin || self.role.allows(ask)
    }

    fn authorise(&self, identity: Identity, target: &Target, verb: &str) -> Result<(), Status> {
        let resource = target.path_in_rbac();
        let ask = Ask { verb, group: target.resource.group, resource: &resource, name: &target.name };
        if self.allows(identity, &ask) {
            return Ok(());
        }
        let status = rbac::refusal(identity, &ask, target.resource, &target.namespace);
        self.refuse(status.message.clone());
        Err(status)
    }
}
