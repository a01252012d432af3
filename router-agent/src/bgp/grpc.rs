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

use anyhow::Context as _;
use futures::stream::{self, StreamExt as _};
use router_bgp::message::capability::Capability as SessionCapability;
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
    fn capability(capability: &SessionCapability) -> Vec<u8>;
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

/// Opens the ports. An address that is not there yet, or taken, is an error that names it.
pub(crate) async fn listen(addresses: &[SocketAddr]) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for address in addresses {
        let listener = TcpListener::bind(address).await;
        listeners.push(listener.with_context(|| format!("listen on {address} for the BGP admin API"))?);
    }
    Ok(listeners)
}

/// Answers until dropped. `started` is the moment that the speaker's times count from.
pub(crate) async fn serve(
    listeners: Vec<TcpListener>,
    asks: mpsc::Sender<Ask>,
    started: Instant,
) -> anyhow::Result<()> {
    let speaker = answer::Speaker::new(asks, started);
    let incoming = stream::select_all(listeners.into_iter().map(|it| TcpIncoming::from(it).boxed()));
    Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
        .add_service(service::Api::<V3>::new(speaker.clone()))
        .add_service(service::Api::<V4>::new(speaker))
        .serve_with_incoming(incoming)
        .await
        .context("serve the BGP admin API")
}

#[cfg(test)]
mod tests;
