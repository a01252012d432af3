use kube::core::Status;
use serde_json::json;

use super::*;

type Slice = narrow::EndpointSlice;

fn pod(name: &str) -> narrow::Pod {
    serde_json::from_value(json!({"metadata": {"namespace": "d", "name": name}})).unwrap()
}

/// What was told, in a word each; Problems only where there are some, or of the watch.
fn words(told: Vec<Event>) -> Vec<String> {
    let word = |event| match event {
        Event::Pod(pod) => Some(format!("pod {}", pod.key.name)),
        Event::PodGone(key) => Some(format!("gone {}", key.name)),
        Event::Listed(kind) => Some(format!("listed {kind:?}")),
        Event::Problems(Subject::Watch(_), found) => Some(format!("{} problems of the watch", found.len())),
        Event::Problems(_, found) if found.is_empty() => None,
        other => Some(format!("{other:?}")),
    };
    told.into_iter().filter_map(word).collect()
}

/// Feeds a list with these names.
fn list(known: &mut Known, names: &[&str]) -> Vec<String> {
    let mut told = known.take::<narrow::Pod>(watcher::Event::Init);
    for name in names {
        told.extend(known.take(watcher::Event::InitApply(pod(name))));
    }
    told.extend(known.take::<narrow::Pod>(watcher::Event::InitDone));
    words(told)
}

#[test]
fn objects_of_a_list_are_told_before_it_is_complete() {
    assert_eq!(list(&mut Known::default(), &["a", "b"]), ["pod a", "pod b", "listed Pods"]);
}

#[test]
fn what_a_later_list_no_longer_has_is_gone() {
    let mut known = Known::default();
    list(&mut known, &["a", "b"]);
    known.take(watcher::Event::Apply(pod("c")));
    assert_eq!(words(known.take(watcher::Event::Delete(pod("b")))), ["gone b"]);
    assert_eq!(list(&mut known, &["a"]), ["pod a", "gone c", "listed Pods"]);
}

#[test]
fn a_list_that_broke_off_takes_nothing_away() {
    let mut known = Known::default();
    list(&mut known, &["a", "b"]);
    known.take::<narrow::Pod>(watcher::Event::Init);
    known.take(watcher::Event::InitApply(pod("a")));
    assert_eq!(list(&mut known, &["a", "b"]), ["pod a", "pod b", "listed Pods"]);
}

#[test]
fn a_watch_that_failed_is_well_once_it_stands_after_a_list_and_not_before() {
    let mut known = Known::default();
    list(&mut known, &["a"]);
    assert_eq!(
        words(known.fail::<narrow::Pod>(&watcher::Error::NoResourceVersion)),
        ["1 problems of the watch"]
    );
    assert!(!known.may_stand());
    assert_eq!(list(&mut known, &["a"]), ["pod a", "listed Pods"]);
    assert!(known.may_stand());
    assert_eq!(words(known.stands::<narrow::Pod>()), ["0 problems of the watch"]);
    assert!(!known.may_stand());
    known.fail::<narrow::Pod>(&watcher::Error::NoResourceVersion);
    list(&mut known, &["a"]);
    let well = words(known.take(watcher::Event::Apply(pod("a"))));
    assert_eq!(well, ["pod a", "0 problems of the watch"], "an event of the watch itself shows it at once");
    assert_eq!(words(known.take(watcher::Event::Apply(pod("a")))), ["pod a"]);
}

fn status(code: u16, reason: &str) -> Box<Status> {
    Box::new(Status { code, reason: reason.into(), message: "no\nway".into(), ..Status::default() })
}

#[test]
fn every_failure_of_the_server_is_one_line_with_a_remedy() {
    let half = serde_json::from_str::<narrow::Pod>("{\"metadata\":{").unwrap_err();
    let broken = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "closed");
    let rows = [
        (
            watcher::Error::InitialListFailed(kube::Error::Api(status(403, "Forbidden"))),
            "watch of endpointslices: Forbidden: listing: 403 Forbidden: no way; \
             grant list and watch on endpointslices to the agent's account",
        ),
        (
            watcher::Error::WatchError(status(410, "Expired")),
            "watch of endpointslices: Expired: watching: 410 Expired: no way; nothing to do: it is listed anew",
        ),
        (
            watcher::Error::WatchStartFailed(kube::Error::Api(status(401, "Unauthorized"))),
            "watch of endpointslices: Unauthorized: starting to watch: 401 Unauthorized: no way; \
             check the token or certificate that the kubeconfig names",
        ),
        (
            watcher::Error::WatchFailed(kube::Error::Api(status(503, "ServiceUnavailable"))),
            "watch of endpointslices: ServerFailing: watching: 503 ServiceUnavailable: no way; \
             see to the API server; what was known stays, it is tried again",
        ),
        (
            watcher::Error::WatchFailed(kube::Error::SerdeError(half)),
            "watch of endpointslices: Interrupted: watching: Error deserializing response: EOF while parsing an \
             object at line 1 column 13; what was known stays, it is tried again; if it persists see to the API server",
        ),
        (
            watcher::Error::WatchFailed(kube::Error::ReadEvents(broken)),
            "watch of endpointslices: Interrupted: watching: Error reading events stream: closed; \
             what was known stays, it is tried again; if it persists see to the API server",
        ),
    ];
    for (error, expected) in rows {
        let subject = Subject::Watch(Slice::RESOURCE);
        assert_eq!(explain(subject, Slice::RESOURCE, &error).to_string(), expected);
    }
}
