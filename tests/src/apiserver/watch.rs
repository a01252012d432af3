//! Watches: one JSON object a line, each sent when it happens.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep_until};

use super::Inner;
use super::kinds::Resource;
use super::request::{Asked, Filter, Target};
use super::status::Status;
use super::store::{Change, Happened};
use super::table::{self, Include};
use super::view::shown;

/// How long a watch lasts when the client does not say.
const DEFAULT_TIMEOUT: u64 = 1800;

const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

pub(super) fn watch(server: &Arc<Inner>, target: &Target, asked: &Asked) -> Result<Response, Status> {
    let mut filter = asked.filter(target)?;
    if !target.name.is_empty() {
        filter = filter.named(&target.name);
    }
    let version = asked.number("resourceVersion")?.unwrap_or(0);
    let bookmarks = asked.flag("allowWatchBookmarks");
    let streaming = match asked.text("sendInitialEvents") {
        None => None,
        Some(text) => Some(streaming_list(server, asked, text)?),
    };
    let now = Instant::now();
    let timeout = asked.number("timeoutSeconds")?.unwrap_or(DEFAULT_TIMEOUT);
    let mut watch = Watch {
        resource: target.resource,
        filter,
        form: if asked.table { Form::Table } else { Form::Plain },
        include: Include::parse(asked.text("includeObject")),
        bookmarks: bookmarks.then_some(server.bookmark_interval),
        marked: version,
        cursor: version,
        next_bookmark: now + server.bookmark_interval,
        deadline: now + Duration::from_secs(timeout),
        lines: VecDeque::new(),
        ended: false,
        changed: server.store.subscribe(),
        hangups: server.faults.hangups(),
        server: Arc::clone(server),
    };
    watch.hangups.mark_unchanged();
    match streaming {
        Some(false) if version == 0 => watch.cursor = server.store.revision(),
        Some(true) => watch.initial(true),
        None if version == 0 => watch.initial(bookmarks && server.streaming_lists),
        Some(false) | None => {}
    }
    Ok(lines(futures::stream::unfold(watch, Watch::next)))
}

fn streaming_list(server: &Inner, asked: &Asked, text: &str) -> Result<bool, Status> {
    let forbidden = |why: &str| {
        let message = format!("ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: {why}");
        Err(Status::new(422, "Invalid", message))
    };
    if !server.streaming_lists {
        return forbidden(
            "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
        );
    }
    if asked.text("resourceVersionMatch") != Some("NotOlderThan") {
        return forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    }
    Ok(text == "true")
}

/// A response that sends lines as they come.
pub(super) fn lines(stream: impl futures::Stream<Item = io::Result<Bytes>> + Send + 'static) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(stream)).into_response()
}

/// The only event of a watch that failed.
pub(super) fn error_line(status: &Status) -> Bytes {
    line("ERROR", &status.value())
}

fn line(kind: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n"))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    /// The next event is the first, which carries the column definitions.
    Table,
    TableGoesOn,
}

struct Watch {
    server: Arc<Inner>,
    resource: &'static Resource,
    filter: Filter,
    form: Form,
    include: Include,
    /// How often to send bookmarks, if the client wants them.
    bookmarks: Option<Duration>,
    /// The revision the client knows it has reached.
    marked: u64,
    cursor: u64,
    next_bookmark: Instant,
    deadline: Instant,
    lines: VecDeque<Bytes>,
    ended: bool,
    changed: Receiver<u64>,
    hangups: Receiver<u64>,
}

impl Watch {
    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some((Ok(line), self));
            }
            if self.ended {
                return None;
            }
            self.changed.mark_unchanged();
            self.follow();
            if !self.lines.is_empty() || self.ended {
                continue;
            }
            let bookmark = if self.bookmarks.is_some() { self.next_bookmark } else { self.deadline };
            tokio::select! {
                changed = self.changed.changed() => self.ended = changed.is_err(),
                _ = self.hangups.changed() => {
                    self.ended = true;
                    return Some((Err(io::ErrorKind::ConnectionReset.into()), self));
                }
                () = sleep_until(self.deadline) => {
                    self.bookmark();
                    self.ended = true;
                }
                () = sleep_until(bookmark) => self.bookmark(),
            }
        }
    }

    /// Everything that exists, as if it had just been added.
    fn initial(&mut self, mark_end: bool) {
        let (revision, objects) = self.server.store.snapshot(self.resource.stored);
        for object in objects {
            if self.filter.matches(&object) {
                self.event("ADDED", &object);
            }
        }
        (self.cursor, self.marked) = (revision, revision);
        if mark_end {
            let annotations = json!({INITIAL_EVENTS_END: "true"});
            let metadata = json!({"resourceVersion": revision.to_string(), "annotations": annotations});
            self.mark(metadata);
        }
    }

    fn follow(&mut self) {
        match self.server.store.since(self.resource.stored, self.cursor) {
            Ok((revision, changes)) => {
                for change in changes {
                    self.tell(&change);
                }
                self.cursor = revision;
            }
            Err(old) => {
                let text = format!("too old resource version: {} ({})", old.asked, old.oldest);
                self.lines.push_back(error_line(&Status::expired(text)));
                self.ended = true;
            }
        }
    }

    /// A change as this watch sees it: an object may come into its view or leave it without being created or
    /// deleted.
    fn tell(&mut self, change: &Change) {
        let before = change.before.as_ref().is_some_and(|object| self.filter.matches(object));
        let after = change.happened != Happened::Deleted && self.filter.matches(&change.object);
        let kind = match (before, after) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return,
        };
        if kind == "DELETED"
            && change.happened == Happened::Modified
            && let Some(before) = &change.before
        {
            let mut last = Value::clone(before);
            last["metadata"]["resourceVersion"] = change.revision.to_string().into();
            self.event(kind, &last);
        } else {
            self.event(kind, &change.object);
        }
        self.marked = change.revision;
    }

    fn event(&mut self, kind: &str, object: &Value) {
        let line = match self.form {
            Form::Plain => line(kind, &shown(self.resource, object)),
            Form::Table | Form::TableGoesOn => {
                let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                let headed = self.form == Form::Table;
                self.form = Form::TableGoesOn;
                line(kind, &table::table(self.resource, [object], &metadata, self.include, headed))
            }
        };
        self.lines.push_back(line);
    }

    fn bookmark(&mut self) {
        let Some(interval) = self.bookmarks else { return };
        self.next_bookmark = Instant::now() + interval;
        if self.cursor > self.marked {
            self.marked = self.cursor;
            self.mark(json!({"resourceVersion": self.cursor.to_string()}));
        }
    }

    /// A bookmark is an object with nothing in it but its revision; the real one has its type's zero values.
    fn mark(&mut self, mut metadata: Value) {
        metadata["creationTimestamp"] = Value::Null;
        let mut object = json!({"metadata": metadata});
        if self.resource.status {
            object["spec"] =
                if self.resource.plural == "pods" { json!({"containers": null}) } else { json!({}) };
            object["status"] = json!({});
        }
        object["kind"] = self.resource.kind.into();
        object["apiVersion"] = self.resource.api_version().into();
        if self.form == Form::Plain {
            self.lines.push_back(line("BOOKMARK", &object));
        } else {
            self.event("BOOKMARK", &object);
        }
    }
}
