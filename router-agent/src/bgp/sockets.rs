//! TCP under the sessions: dialling, listening, and one reader and one writer a connection. What arrives becomes an
//! [`Arrival`]; nothing is decided here.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use router_bgp::rib::PeerId;
use router_bgp::session::ConnectionId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// What is read, and written, at once.
const CHUNK: usize = 64 << 10;
/// For how long a connection that is done may take to send its last words.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;
/// The longest wait before a port that is taken is tried again.
const RELISTEN: Duration = Duration::from_secs(30);

/// Something from the network.
#[derive(Debug)]
pub(super) enum Arrival {
    /// Somebody dialled us.
    Accepted(TcpStream, SocketAddr),
    /// Our dial's outcome.
    Dialled(PeerId, io::Result<TcpStream>),
    Read(PeerId, ConnectionId, Vec<u8>),
    /// So many octets are in the kernel's hands.
    Wrote(PeerId, ConnectionId, usize),
    Closed(PeerId, ConnectionId),
    /// We listen, or why not.
    Listening(io::Result<()>),
}

/// Where arrivals go. Readers wait for room, so that nobody makes us hold more than the channel does.
pub(super) type Arrivals = mpsc::Sender<Arrival>;

/// How far our packets may go: to a neighbour outside the AS one hop (RFC 4271 §5.1.3 c, as everybody does).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reach {
    Any,
    OneHop,
}

/// Dials from `local`; the outcome is an arrival. Aborting the task gives it up.
pub(super) fn dial(
    id: PeerId,
    local: IpAddr,
    remote: SocketAddr,
    reach: Reach,
    arrivals: Arrivals,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let outcome = connect(local, remote, reach).await;
        // Nobody to tell: the speaker is gone.
        let _ = arrivals.send(Arrival::Dialled(id, outcome)).await;
    })
}

async fn connect(local: IpAddr, remote: SocketAddr, reach: Reach) -> io::Result<TcpStream> {
    let socket = socket_for(local)?;
    if reach == Reach::OneHop {
        set_one_hop(&socket, local.is_ipv4())?;
    }
    socket.bind(SocketAddr::new(local, 0))?;
    socket.connect(remote).await
}

fn socket_for(local: IpAddr) -> io::Result<TcpSocket> {
    if local.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}

fn set_one_hop<F: std::os::fd::AsFd>(socket: &F, v4: bool) -> io::Result<()> {
    if v4 {
        setsockopt(socket, sockopt::Ipv4Ttl, &1)?;
    } else {
        setsockopt(socket, sockopt::Ipv6Ttl, &1)?;
    }
    Ok(())
}

/// Listens, for as long as the task lives; a port that is taken is tried again, ever more rarely.
pub(super) fn listen(at: SocketAddr, arrivals: Arrivals) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut wait = Duration::from_secs(1);
        loop {
            match bind(at) {
                Ok(listener) => {
                    if arrivals.send(Arrival::Listening(Ok(()))).await.is_err() {
                        return;
                    }
                    wait = Duration::from_secs(1);
                    let error = accept(&listener, &arrivals).await;
                    let _ = arrivals.send(Arrival::Listening(Err(error))).await;
                }
                Err(error) => {
                    let _ = arrivals.send(Arrival::Listening(Err(error))).await;
                }
            }
            sleep(wait).await;
            wait = (wait * 2).min(RELISTEN);
        }
    })
}

fn bind(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket_for(at.ip())?;
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(BACKLOG)
}

/// Until accepting fails for good. What fails for one connection, or for want of descriptors, passes.
async fn accept(listener: &TcpListener, arrivals: &Arrivals) -> io::Error {
    const TRIES: u32 = 10;
    let mut failed = 0;
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                failed = 0;
                if arrivals.send(Arrival::Accepted(stream, from)).await.is_err() {
                    return io::ErrorKind::BrokenPipe.into();
                }
            }
            Err(error) if failed >= TRIES => return error,
            Err(_) => {
                failed += 1;
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One connection's tasks. Dropping it lets what is queued be written, and closes.
#[derive(Debug)]
pub(super) struct Link {
    outbox: mpsc::UnboundedSender<Arc<[u8]>>,
    /// Gone with the link, it tells the writer to come to an end.
    _over: oneshot::Sender<Infallible>,
    reader: JoinHandle<()>,
    /// Queued, and not yet in the kernel's hands.
    pub(super) pending: usize,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
}

impl Link {
    /// Starts reading and writing.
    pub(super) fn start(
        id: PeerId,
        connection: ConnectionId,
        stream: TcpStream,
        reach: Reach,
        arrivals: Arrivals,
    ) -> io::Result<Self> {
        let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
        stream.set_nodelay(true)?;
        if reach == Reach::OneHop {
            set_one_hop(&stream, local.is_ipv4())?;
        }
        let (read_half, write_half) = stream.into_split();
        // Its bound is the speaker's: it asks the tables for more only below a limit, and its own messages are few.
        let (outbox, queued) = mpsc::unbounded_channel();
        let (over, is_over) = oneshot::channel();
        tokio::spawn(write(id, connection, write_half, queued, is_over, arrivals.clone()));
        let reader = tokio::spawn(read(id, connection, read_half, arrivals));
        Ok(Self { outbox, _over: over, reader, pending: 0, local, remote })
    }

    pub(super) fn send(&mut self, bytes: Arc<[u8]>) {
        self.pending += bytes.len();
        // The writer is gone when the connection is; that arrives by itself.
        let _ = self.outbox.send(bytes);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(id: PeerId, connection: ConnectionId, mut from: OwnedReadHalf, arrivals: Arrivals) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let arrival = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => Arrival::Closed(id, connection),
            Ok(length) => Arrival::Read(id, connection, buffer.get(..length).unwrap_or(&[]).to_vec()),
        };
        let ended = matches!(arrival, Arrival::Closed(..));
        if arrivals.send(arrival).await.is_err() || ended {
            return;
        }
    }
}

async fn write(
    id: PeerId,
    connection: ConnectionId,
    mut to: OwnedWriteHalf,
    mut queued: mpsc::UnboundedReceiver<Arc<[u8]>>,
    over: oneshot::Receiver<Infallible>,
    arrivals: Arrivals,
) {
    // Also of a write that is under way: a peer that reads nothing would keep the connection, and what is queued on it.
    let too_late = async {
        let Err(_) = over.await;
        sleep(LAST_WORDS).await;
    };
    tokio::select! {
        () = write_all(id, connection, &mut to, &mut queued, &arrivals) => {}
        () = too_late => {}
    }
    // Both halves gone, the connection closes; an error means that it is closed already.
    let _ = to.shutdown().await;
}

/// Writes until it fails, or the link is gone and what was queued is written.
async fn write_all(
    id: PeerId,
    connection: ConnectionId,
    to: &mut OwnedWriteHalf,
    queued: &mut mpsc::UnboundedReceiver<Arc<[u8]>>,
    arrivals: &Arrivals,
) {
    let mut batch = Vec::with_capacity(CHUNK);
    while let Some(first) = queued.recv().await {
        batch.extend_from_slice(&first);
        while batch.len() < CHUNK
            && let Ok(next) = queued.try_recv()
        {
            batch.extend_from_slice(&next);
        }
        let failed = to.write_all(&batch).await.is_err();
        let arrival = if failed {
            Arrival::Closed(id, connection)
        } else {
            Arrival::Wrote(id, connection, batch.len())
        };
        batch.clear();
        // Of a connection that is done with, nobody wants to hear: waiting for room would keep it open.
        let heard = queued.is_closed() || arrivals.send(arrival).await.is_ok();
        if failed || !heard {
            return;
        }
    }
}
