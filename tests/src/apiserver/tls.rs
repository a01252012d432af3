//! The certificate authority made at start, and the listeners whose connections it secures.
//!
//! HTTP/1.1 only: kube-rs speaks nothing else, and kubectl takes what is offered.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use anyhow::{Context as _, Result};
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The authority's certificate in PEM and a server configuration for the given names and addresses.
pub(super) fn make(names: Vec<String>) -> Result<(String, Arc<ServerConfig>)> {
    let key = KeyPair::generate().context("key of the authority")?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "router-tests authority");
    let authority = params.self_signed(&key).context("certificate of the authority")?;
    let issuer = Issuer::new(params, key);

    let key = KeyPair::generate().context("key of the server")?;
    let mut params = CertificateParams::new(names).context("names of the server")?;
    params.distinguished_name.push(DnType::CommonName, "router-tests API server");
    let certificate = params.signed_by(&key, &issuer).context("certificate of the server")?;

    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone(), authority.der().clone()], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((authority.pem(), Arc::new(config)))
}

/// Accepts on one socket and hands over connections whose handshake is done.
pub(super) async fn accept(listener: TcpListener, config: Arc<ServerConfig>, ready: mpsc::Sender<Accepted>) {
    let acceptor = TlsAcceptor::from(config);
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // Out of descriptors: the only error here that can pass.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        tokio::spawn(async move {
            // A client that gives up during the handshake is no matter of ours.
            stream.set_nodelay(true).ok();
            if let Ok(stream) = acceptor.accept(stream).await {
                ready.send((Stream { stream, hangup: Hangup::default() }, peer)).await.ok();
            }
        });
    }
}

pub(super) type Accepted = (Stream, SocketAddr);

/// All sockets of the server as one listener.
pub(super) struct Connections {
    pub ready: mpsc::Receiver<Accepted>,
    pub address: SocketAddr,
}

impl Listener for Connections {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Accepted {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// Lets a request end its connection without an answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Hangup(Arc<AtomicBool>);

impl Hangup {
    pub(super) fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Connected<IncomingStream<'_, Connections>> for Hangup {
    fn connect_info(stream: IncomingStream<'_, Connections>) -> Self {
        stream.io().hangup.clone()
    }
}

/// A connection that can be told to break.
pub(super) struct Stream {
    stream: TlsStream<TcpStream>,
    hangup: Hangup,
}

impl Stream {
    fn broken(&self) -> io::Result<()> {
        if self.hangup.0.load(Ordering::Relaxed) { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.broken()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.broken()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Addresses that a certificate for these sockets must name.
pub(super) fn names_of(addresses: &[SocketAddr]) -> Vec<String> {
    let named = |ip: &IpAddr| !ip.is_unspecified();
    addresses.iter().map(SocketAddr::ip).filter(named).map(|ip| ip.to_string()).collect()
}
