//! Wrong answers on demand, as kube-rs meets them.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use kube::Error;
use kube::api::{Api, ListParams};
use kube::runtime::watcher::{self, Event, watcher};
use router_tests::apiserver::{ApiServer, Fault, Identity, Kind, Options, Rule};

use super::{client, options, run, service, start};

/// What a watcher tells between its start and the first list that is complete after `fault` struck.
fn recovery(fault: Fault, verb: &str) -> Vec<String> {
    let server = start();
    server.store().put(Kind::Service, service("web")).unwrap();
    server
        .faults()
        .inject(Rule::new(fault).verb(verb).kind(Kind::Service).identity(Identity::Agent).times(1));
    run(async {
        let services: Api<Service> = Api::all(client(&server, Identity::Agent).await);
        let mut events = pin!(watcher(services, watcher::Config::default()));
        let mut told = Vec::new();
        let mut late = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::InitDone) if server.faults().hits() == 1 && !late => told.push("relisted".into()),
                Ok(Event::Apply(_)) => break,
                Ok(_) => {}
                Err(error) => told.push(format!("{error:?}")),
            }
            if server.faults().hits() == 1 || told.is_empty() {
                late = true;
                server
                    .store()
                    .put(Kind::Service, service(&format!("late{}", server.store().revision())))
                    .unwrap();
            }
        }
        assert_eq!(server.faults().hits(), 1);
        told
    })
}

#[test]
fn a_watcher_survives_every_fault() {
    for (fault, verb) in [
        (Fault::Code(403), "list"),
        (Fault::Code(500), "watch"),
        (Fault::ErrorEvent(410), "watch"),
        (Fault::ErrorEvent(500), "watch"),
        (Fault::HalfLine, "watch"),
        (Fault::HalfLine, "list"),
        (Fault::Close, "list"),
        (Fault::Close, "watch"),
    ] {
        recovery(fault, verb);
    }
}

#[test]
fn a_refused_list_is_a_status_with_the_code() {
    let server = start();
    server.faults().inject(Rule::new(Fault::Code(403)).verb("list").times(1));
    run(async {
        let services: Api<Service> = Api::all(client(&server, Identity::Agent).await);
        let Err(Error::Api(status)) = services.list(&ListParams::default()).await else {
            panic!("not refused")
        };
        assert_eq!((status.code, status.reason.as_str()), (403, "Forbidden"));
        services.list(&ListParams::default()).await.unwrap();
    });
}

#[test]
fn a_delayed_answer_is_right_and_late() {
    let server = start();
    server.faults().inject(Rule::new(Fault::Delay(Duration::from_millis(200))).times(1));
    run(async {
        let services: Api<Service> = Api::all(client(&server, Identity::Agent).await);
        let start = Instant::now();
        assert_eq!(services.list(&ListParams::default()).await.unwrap().items.len(), 1);
        assert!(start.elapsed() >= Duration::from_millis(200));
    });
}

#[test]
fn a_watch_from_before_the_history_is_told_410() {
    let server = ApiServer::start(Options { history: 2, controllers: false, ..options() }).unwrap();
    for at in 0..5 {
        server.store().put(Kind::Service, service(&format!("s{at}"))).unwrap();
    }
    run(async {
        let services: Api<Service> = Api::all(client(&server, Identity::Agent).await);
        let mut events = pin!(services.watch(&kube::api::WatchParams::default(), "2").await.unwrap());
        let event = events.next().await.unwrap().unwrap();
        let kube::api::WatchEvent::Error(status) = event else { panic!("{event:?}") };
        assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
        assert!(events.next().await.is_none(), "the watch ends");
    });
}

#[test]
fn hanging_up_breaks_open_watches() {
    let server = start();
    run(async {
        let services: Api<Service> = Api::all(client(&server, Identity::Agent).await);
        let mut events = pin!(services.watch(&kube::api::WatchParams::default(), "0").await.unwrap());
        events.next().await.unwrap().unwrap();
        let end = async {
            while let Some(Ok(kube::api::WatchEvent::Added(_) | kube::api::WatchEvent::Bookmark(_))) =
                events.next().await
            {}
        };
        server.faults().hang_up_watches();
        end.await;
    });
}
