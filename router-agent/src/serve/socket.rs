//! The socket of the sub-commands: HTTP on a unix socket that root alone may open, an address for each question, JSON
//! for an answer.
//!
//! A socket that nobody listens at is replaced; one at which another agent does is left to it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use router_core::cluster::Event;
use router_core::problem::{Problem, Subject};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::{Asked, answers};

/// How often a socket that cannot be had is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Answers until the process ends.
pub(super) async fn run(path: PathBuf, asked: Asked, events: mpsc::Sender<Event>) -> Result<()> {
    let router = router(asked);
    loop {
        let bound = bind(&path);
        let subject = Subject::File(path.display().to_string());
        let found = bound.as_ref().err().map(|error| Problem {
            subject: subject.clone(),
            reason: "NotListening",
            text: format!("sub-commands cannot ask this agent: {error:#}"),
            remedy: "see to what is there; it is tried again, and everything else goes on".to_owned(),
        });
        events
            .send(Event::Problems(subject, found.into_iter().collect()))
            .await
            .context("tell of the socket")?;
        match bound {
            Ok(listener) => axum::serve(listener, router.clone()).await?,
            Err(_) => sleep(RETRY).await,
        }
    }
}

/// It gets its name when nobody but root can open it any more.
fn bind(path: &Path) -> Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        bail!("another agent listens there");
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).context("cannot make room");
        }
        _ => {}
    }
    let listener = UnixListener::bind(&new).context("cannot listen")?;
    fs::set_permissions(&new, Permissions::from_mode(0o600)).context("cannot close it to others")?;
    fs::rename(&new, path).context("cannot give it its name")?;
    Ok(listener)
}

/// What may be asked for.
#[derive(Debug, Default, Deserialize)]
struct Terms {
    of: Option<String>,
    limit: Option<usize>,
}

fn router(asked: Asked) -> Router {
    let status = async |State(asked): State<Arc<Asked>>| Json(answers::status::gather(&asked).await);
    let services = async |State(asked): State<Arc<Asked>>, Query(terms): Query<Terms>| {
        answer(answers::services::gather(&asked, terms.of).await)
    };
    let flows = async |State(asked): State<Arc<Asked>>, Query(terms): Query<Terms>| {
        answer(answers::flows::gather(&asked, terms.of, terms.limit.unwrap_or(100)).await)
    };
    let routes = async |State(asked): State<Arc<Asked>>| answer(answers::routes::gather(&asked).await);
    let bgp = async |State(asked): State<Arc<Asked>>| answer(answers::bgp::gather(&asked.sources).await);
    let plan = async |State(asked): State<Arc<Asked>>| answer(answers::plan::gather(&asked.sources).await);
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/services", get(services))
        .route("/v1/flows", get(flows))
        .route("/v1/routes", get(routes))
        .route("/v1/bgp", get(bgp))
        .route("/v1/plan", get(plan))
        .with_state(Arc::new(asked))
}

fn answer<T: Serialize>(gathered: Result<T>) -> Response {
    match gathered {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_private_and_only_a_dead_one_is_replaced() {
        let folder = std::env::temp_dir().join(format!("kube-router-socket-{}", std::process::id()));
        let path = folder.join("agent.sock");
        let first = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bind(&path).unwrap_err().to_string(), "another agent listens there");
        drop(first);
        bind(&path).unwrap();
        UnixStream::connect(&path).unwrap_err();
        fs::remove_dir_all(folder).unwrap();
    }
}
