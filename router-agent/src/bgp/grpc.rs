//! The admin API: what `gobgp` and exporters ask of GoBGP, answered by our speaker. Both generations of it are served on
//! one port under their own names; [`Generation`] is all in which they differ, the rest is written once. Messages are
//! written by hand, for a few of them do. It reads, and acts on sessions; it changes no configuration. There is no
//! authentication, which is why it listens on loopback unless told otherwise.

mod answer;
mod capability;
mod convert;
mod messages;
mod policy;
mod service;
mod watch;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use router_bgp::message::capability::Capability;
use router_core::cluster::Event;
use router_core::problem::{Problem, Subject};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

pub(crate) use capability::Typed;

use super::gobgp_v3::V3;
use super::gobgp_v4::V4;
use super::view::Ask;

/// In what the generations of the API differ.
pub(crate) trait Generation: Send + Sync + 'static {
    /// The full name of the service.
    const SERVICE: &'static str;
    /// What is added to the numbers of most enumerations.
    const SHIFT: i32;
    /// Whether a peer says why its last session ended.
    const TELLS_WHY_DOWN: bool;

    /// The bytes of a capability's message.
    fn capability(capability: &Capability) -> Vec<u8>;
}

/// A number of an enumeration, as v3 counts it, for `G`.
fn enumerated<G: Generation>(number: i32) -> i32 {
    number + G::SHIFT
}

/// What `G` means by a number, as v3 counts it; `None` is "unspecified".
fn meant<G: Generation>(number: i32) -> Option<i32> {
    number.checked_sub(G::SHIFT).filter(|number| *number >= 0)
}

/// Streams of one connection; a client uses one.
const STREAMS: u32 = 16;

/// A watcher that is gone without a word is noticed after these two.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);

/// Between two tries to listen.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_AT_MOST: Duration = Duration::from_secs(30);

/// Listens on one address and answers until dropped. An address that is taken, or not there yet, is a Problem, and
/// tried again. `started` is the moment that the speaker's times count from.
pub(crate) async fn run(
    address: SocketAddr,
    asks: mpsc::Sender<Ask>,
    started: Instant,
    events: mpsc::Sender<Event>,
) {
    let subject = Subject::AdminApi(address);
    let mut wait = RETRY;
    loop {
        let error = match TcpListener::bind(address).await {
            Ok(listener) => {
                wait = RETRY;
                let _ = events.send(Event::Problems(subject.clone(), Vec::new())).await;
                match serve(listener, asks.clone(), started).await {
                    Ok(()) => "the server has stopped".to_owned(),
                    Err(error) => format!("{:#}", anyhow::Error::new(error)),
                }
            }
            Err(error) => error.to_string(),
        };
        let problem = Problem {
            subject: subject.clone(),
            reason: "NotListening",
            text: error,
            remedy:
                "free the address, or choose another by --gobgp-admin-address and --gobgp-admin-port; it is \
                     tried again"
                    .to_owned(),
        };
        let _ = events.send(Event::Problems(subject.clone(), vec![problem])).await;
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_AT_MOST);
    }
}

async fn serve(
    listener: TcpListener,
    asks: mpsc::Sender<Ask>,
    started: Instant,
) -> Result<(), tonic::transport::Error> {
    let speaker = answer::Speaker::new(asks, started);
    Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
        .add_service(service::Api::<V3>::new(speaker.clone()))
        .add_service(service::Api::<V4>::new(speaker))
        .serve_with_incoming(TcpIncoming::from(listener))
        .await
}

#[cfg(test)]
mod tests;
