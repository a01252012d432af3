//! A BGP peer that does what a test says, octet by octet. It lives in the test's own process; only its sockets are in a
//! host's network.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ipnet::IpNet;
use router_bgp::asn::Asn;
use router_bgp::family::{Families, Family};
use router_bgp::message::attribute::{AsPath, Attributes};
use router_bgp::message::capability::Capability;
use router_bgp::message::header::{Frame, Kind, MAX_LEN, keepalive};
use router_bgp::message::notification::Notification;
use router_bgp::message::open::Open;
use router_bgp::message::update::{self, Context};

use crate::node::Node;

/// For how long a step of a session may take.
const STEP: Duration = Duration::from_secs(10);

/// A peer that waits to be dialled.
#[derive(Debug)]
pub struct Scripted {
    pub address: Ipv4Addr,
    pub asn: u32,
    listener: TcpListener,
}

/// What came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    Message(Kind, Vec<u8>),
    Notification(u8, u8),
    /// The agent's end of the connection is closed.
    Closed,
    /// Nothing, for as long as was waited.
    Nothing,
}

impl Scripted {
    /// Listens at an address of the host.
    pub fn listen(host: &Node, address: Ipv4Addr, asn: u32) -> Result<Self> {
        let listener = host.listen(SocketAddr::new(address.into(), 179))?;
        listener.set_nonblocking(true).context("cannot wait for a dial with a limit")?;
        Ok(Self { address, asn, listener })
    }

    /// The next connection.
    pub fn accept(&self, limit: Duration) -> Result<Conversation> {
        let start = Instant::now();
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    stream.set_nodelay(true)?;
                    return Ok(Conversation {
                        stream,
                        buffer: Vec::new(),
                        address: self.address,
                        asn: self.asn,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("cannot accept"),
            }
            ensure!(start.elapsed() < limit, "nobody dialled {} within {limit:?}", self.address);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The OPEN that it sends unless told otherwise.
    pub fn open(&self, hold_time: u16) -> Open {
        let capabilities = vec![
            Capability::Multiprotocol(Family::Ipv4Unicast.code()),
            Capability::RouteRefresh,
            Capability::FourOctetAs(Asn(self.asn)),
        ];
        Open { asn: Asn(self.asn), hold_time, router_id: self.address, capabilities }
    }

    /// A session, as far as the agent's first KEEPALIVE.
    pub fn establish(&self, hold_time: u16, limit: Duration) -> Result<Conversation> {
        let mut conversation = self.accept(limit)?;
        conversation.establish(&self.open(hold_time).encode())?;
        Ok(conversation)
    }
}

/// One connection with the agent. Dropping it closes it.
#[derive(Debug)]
pub struct Conversation {
    stream: TcpStream,
    buffer: Vec<u8>,
    address: Ipv4Addr,
    asn: u32,
}

impl Conversation {
    pub fn establish(&mut self, open: &[u8]) -> Result<()> {
        self.send(open)?;
        self.send(&keepalive())?;
        for kind in [Kind::Open, Kind::KeepAlive] {
            match self.hear(STEP)? {
                Heard::Message(heard, _) if heard == kind => {}
                other => bail!("{}: not {kind:?} but {other:?}", self.address),
            }
        }
        Ok(())
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("the agent takes no more")
    }

    /// Announces a route whose next hop is the peer.
    pub fn announce(&mut self, prefixes: &[IpNet]) -> Result<()> {
        let mut attributes = Attributes::originated(IpAddr::V4(self.address));
        attributes.as_path = AsPath::sequence([Asn(self.asn)]);
        for message in update::announce(&attributes, Family::Ipv4Unicast, prefixes, &context())? {
            self.send(&message)?;
        }
        Ok(())
    }

    /// The next message.
    pub fn hear(&mut self, limit: Duration) -> Result<Heard> {
        let start = Instant::now();
        loop {
            let frame = Frame::next(&self.buffer, false);
            if let Some(frame) = frame.map_err(|error| anyhow::anyhow!("the agent sent nonsense: {error}"))? {
                let (kind, body, length) = (frame.kind, frame.body().to_vec(), frame.bytes.len());
                self.buffer.drain(..length);
                return Ok(match Notification::decode(&body).filter(|_| kind == Kind::Notification) {
                    Some(notification) => Heard::Notification(notification.code, notification.subcode),
                    None => Heard::Message(kind, body),
                });
            }
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(Heard::Nothing);
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(Heard::Closed),
                Ok(length) => self.buffer.extend_from_slice(chunk.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(Heard::Closed),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                }
                Err(error) => return Err(error).context("cannot read"),
            }
        }
    }

    /// What ends the connection; KEEPALIVEs and UPDATEs are passed over.
    pub fn end(&mut self, limit: Duration) -> Result<Heard> {
        let start = Instant::now();
        loop {
            match self.hear(limit.saturating_sub(start.elapsed()))? {
                Heard::Message(Kind::KeepAlive | Kind::Update | Kind::Open, _) => {}
                other => return Ok(other),
            }
        }
    }

    /// The agent's end.
    pub fn remote(&self) -> Result<SocketAddr> {
        self.stream.peer_addr().context("no longer connected")
    }

    /// From now on it is a good peer, until this is dropped.
    pub fn behave(self, hold_time: Duration) -> Result<Behaved> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (theirs, ends) = (Arc::clone(&seen), Arc::clone(&stop));
        let task = thread::Builder::new()
            .spawn(move || converse(self, hold_time / 3, &theirs, &ends))
            .context("no thread for a peer")?;
        Ok(Behaved { seen, stop, task: Some(task) })
    }
}

/// What a good peer has seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The longest time between two messages.
    pub longest_silence: Duration,
    pub keepalives: usize,
    /// What the agent announces to it now.
    pub routes: BTreeSet<IpNet>,
    /// How it ended, if it has.
    pub ended: Option<String>,
}

/// A peer that reads all and speaks in time.
#[derive(Debug)]
pub struct Behaved {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    task: Option<JoinHandle<()>>,
}

impl Behaved {
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Behaved {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(task) = self.task.take() {
            // A panic there has been printed, and is no reason for another one here.
            let _ = task.join();
        }
    }
}

fn converse(mut conversation: Conversation, interval: Duration, seen: &Mutex<Seen>, stop: &AtomicBool) {
    let (mut spoke, mut heard) = (Instant::now(), Instant::now());
    while !stop.load(Ordering::Relaxed) {
        let outcome = conversation.hear(Duration::from_millis(50));
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.longest_silence = seen.longest_silence.max(heard.elapsed());
        match outcome {
            Ok(Heard::Nothing) => {}
            Ok(Heard::Message(kind, body)) => {
                heard = Instant::now();
                seen.keepalives += usize::from(kind == Kind::KeepAlive);
                if let Some(update) = update::decode(&body, &context()).ok().filter(|_| kind == Kind::Update)
                {
                    seen.routes.retain(|prefix| !update.withdrawn.contains(prefix));
                    seen.routes.extend(update.announced.into_iter().flat_map(|it| it.prefixes));
                }
            }
            other => {
                seen.ended = Some(format!("{other:?}"));
                return;
            }
        }
        drop(seen);
        if spoke.elapsed() >= interval {
            spoke = Instant::now();
            // If it fails, that is heard, too.
            let _ = conversation.send(&keepalive());
        }
    }
}

/// What the OPENs come to.
const fn context() -> Context {
    Context {
        four_octet: true,
        internal: false,
        families: Families::NONE.with(Family::Ipv4Unicast),
        extended_next_hop: false,
        max_len: MAX_LEN,
        local: None,
    }
}
