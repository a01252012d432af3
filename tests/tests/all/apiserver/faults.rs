//! Wrong answers on demand, as kube-rs meets them.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, ListParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Error, ResourceExt as _};
use router_tests::apiserver::{ApiServer, Fault, Identity, Kind, Options, Rule};

use super::{client, options, run, service, start};

/// A watcher meets `fault` once, and then learns of a Service that came later.
fn survive(fault: Fault, verb: &str) {
    let server = start();
    server
        .faults()
        .inject(Rule::new(fault).verb(verb).kind(Kind::Service).identity(Identity::Agent).times(1));
    run(async {
        let services: Api<Service> = Api::all(client(&server, Identity::Agent).await);
        let mut events = pin!(watcher(services, watcher::Config::default()));
        let mut put = false;
        loop {
            match events.next().await.unwrap() {
                Ok(Event::Apply(service) | Event::InitApply(service)) if service.name_any() == "late" => {
                    break;
                }
                _ if !put && server.faults().hits() == 1 => {
                    server.store().put(Kind::Service, service("late")).unwrap();
                    put = true;
                }
                // The watch is asked for when the next event is: this one wakes it.
                Ok(Event::InitDone) if !put => {
                    drop(server.store().put(Kind::Service, service("early")).unwrap());
                }
                _ => {}
            }
        }
    });
    assert_eq!(server.faults().hits(), 1);
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
        survive(fault, verb);
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
