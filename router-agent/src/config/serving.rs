//! The flags of what is served by HTTP.

use std::io;
use std::net::Ipv6Addr;

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;

use crate::flags::Flags;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    /// An address or a name; empty for every address of the host.
    host: String,
    port: u16,
    /// The flags that say so.
    flags: &'static str,
}

/// The metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Metrics {
    pub(crate) listen: Listen,
    pub(crate) path: String,
}

impl Listen {
    fn new(address: &str, port: u16, flags: &'static str) -> Option<Self> {
        let bare = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
        let bare = bare.filter(|inner| inner.parse::<Ipv6Addr>().is_ok());
        (port != 0).then(|| Self { host: bare.unwrap_or(address).to_owned(), port, flags })
    }

    /// Every address is both families' where the host has both.
    pub(crate) async fn bind(&self) -> Result<TcpListener> {
        let Self { host, port, flags } = self;
        let bound = if host.is_empty() {
            everywhere(*port).await
        } else {
            TcpListener::bind((host.as_str(), *port)).await
        };
        bound.with_context(|| format!("cannot listen at {host:?} port {port} ({flags})"))
    }
}

async fn everywhere(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {
            TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, port)).await
        }
        bound => bound,
    }
}

/// Health and metrics, where they are on.
pub(super) fn resolve(flags: &Flags, wrong: &mut Vec<String>) -> (Option<Listen>, Option<Metrics>) {
    let path = &flags.metrics_path;
    if !path.starts_with('/') {
        wrong.push(format!("--metrics-path: {path:?} does not begin with /"));
    }
    let health = Listen::new(&flags.health_addr, flags.health_port, "--health-addr, --health-port");
    let listen = Listen::new(&flags.metrics_addr, flags.metrics_port, "--metrics-addr, --metrics-port");
    (health, listen.map(|listen| Metrics { listen, path: path.clone() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(args: &[&str]) -> (Option<Listen>, Option<Metrics>, Vec<String>) {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut wrong = Vec::new();
        let (health, metrics) = resolve(&Flags::parse(&args).unwrap().0, &mut wrong);
        (health, metrics, wrong)
    }

    #[test]
    fn health_is_on_and_metrics_are_off_without_flags() {
        let (health, metrics, wrong) = resolved(&[]);
        let health = health.unwrap();
        assert_eq!((health.host.as_str(), health.port, metrics, wrong), ("", 20_244, None, vec![]));
        assert_eq!(resolved(&["--health-port=0"]).0, None);
    }

    #[test]
    fn every_port_works_and_an_address_may_have_brackets() {
        for (given, host) in [("::1", "::1"), ("[::1]", "::1"), ("127.0.0.1", "127.0.0.1"), ("[x]", "[x]")] {
            let args = ["--metrics-port=65535", &format!("--metrics-addr={given}")];
            let listen = resolved(&args).1.unwrap().listen;
            assert_eq!((listen.host.as_str(), listen.port), (host, 65_535));
        }
    }

    #[test]
    fn a_path_begins_with_a_slash() {
        let wrong = resolved(&["--metrics-path=metrics"]).2;
        assert_eq!(wrong, ["--metrics-path: \"metrics\" does not begin with /"]);
    }

    #[tokio::test]
    async fn what_cannot_be_bound_is_named_with_its_flags() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let listen = Listen::new("127.0.0.1", port, "--health-addr, --health-port").unwrap();
        let text = format!("{:#}", listen.bind().await.unwrap_err());
        let expected = format!("cannot listen at \"127.0.0.1\" port {port} (--health-addr, --health-port): ");
        assert!(text.starts_with(&expected), "{text}");
    }
}
