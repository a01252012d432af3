//! `lab serve`: what runs in a pod. It answers each TCP line and each UDP datagram with one line that says who
//! answered and whom it saw: `web-0 10.244.1.5:41234`.
//!
//! UDP answers leave from the address that was asked (`IP_PKTINFO`): on a node with several addresses the route back
//! would choose another one. A line or datagram `silent` gets no answer, for flows that must be one-way.
//! A thread per connection: idle ones cost a small stack, and there is no event loop to get wrong.

use std::{
    io::{self, BufRead as _, BufReader, IoSlice, IoSliceMut, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, OwnedFd},
    str::FromStr,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    cmsg_space,
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        socket::{
            AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
            SockaddrIn, bind, recvmsg, sendmsg, setsockopt, socket, sockopt,
        },
    },
};

/// What asks for no answer.
pub const SILENT: &str = "silent";

/// What a line begins with that wants an answer of its own length, filled with dots.
pub const ECHO: &str = "echo";

/// What `lab serve` prints once it listens everywhere.
pub const READY: &str = "ready";

/// A thread reads lines and answers them: it needs little stack.
const STACK_BYTES: usize = 64 << 10;

/// A port to answer on, written `8080/tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listen {
    pub port: u16,
    pub protocol: Transport,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    Tcp,
    Udp,
}

/// `--name POD [--attached] PORT/tcp PORT/udp …`; with `--attached` it ends when its standard input does.
pub fn main(arguments: Vec<String>) -> Result<()> {
    let mut name = None;
    let mut attached = false;
    let mut listens = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--name" => name = Some(arguments.next().context("--name needs a value")?),
            "--attached" => attached = true,
            _ => listens.push(argument.parse()?),
        }
    }
    let name = name.context("--name is missing")?;
    raise_file_limit()?;
    for listen in listens {
        start(&name, listen).with_context(|| format!("listen on {listen}"))?;
    }
    announce()?;
    if attached {
        io::copy(&mut io::stdin(), &mut io::sink()).context("wait for the end of standard input")?;
        return Ok(());
    }
    loop {
        thread::park();
    }
}

/// As many open files as the hard limit allows.
pub(crate) fn raise_file_limit() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("read the limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raise the limit of open files")
}

fn announce() -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{READY}").and_then(|()| out.flush()).context("say that we are ready")
}

fn start(name: &str, listen: Listen) -> Result<()> {
    let name = name.to_owned();
    let kind = match listen.protocol {
        Transport::Tcp => SockType::Stream,
        Transport::Udp => SockType::Datagram,
    };
    let bound = bound(kind, listen.port)?;
    match listen.protocol {
        Transport::Tcp => {
            nix::sys::socket::listen(&bound, Backlog::MAXALLOWABLE)?;
            let listener = TcpListener::from(bound);
            thread::spawn(move || accept(&name, &listener));
        }
        Transport::Udp => {
            setsockopt(&bound, sockopt::Ipv4PacketInfo, &true)?;
            thread::spawn(move || answer_datagrams(&name, &bound));
        }
    }
    Ok(())
}

fn bound(kind: SockType, port: u16) -> Result<OwnedFd> {
    let socket = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)))?;
    Ok(socket)
}

fn accept(name: &str, listener: &TcpListener) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                let own = name.to_owned();
                let answering = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
                    // The client's end of the connection is what it sees: nobody here would read this error.
                    let _ = answer_lines(&own, &stream);
                });
                if let Err(error) = answering {
                    eprintln!("{name}: no thread for a connection: {error}");
                }
            }
            Err(error) => {
                eprintln!("{name}: accept: {error}");
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn answer_lines(name: &str, stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let peer = stream.peer_addr()?;
    let mut lines = BufReader::with_capacity(2048, stream);
    let mut line = String::new();
    while lines.read_line(&mut line)? != 0 {
        if line.trim_end() != SILENT {
            (&*stream).write_all(answer(name, &peer, line.as_bytes()).as_bytes())?;
        }
        line.clear();
    }
    Ok(())
}

/// One line: who answers, and whom it sees.
fn answer(name: &str, peer: &impl std::fmt::Display, line: &[u8]) -> String {
    let answer = format!("{name} {peer}");
    if line.starts_with(ECHO.as_bytes()) {
        let fill = ".".repeat(line.len().saturating_sub(answer.len() + 2));
        format!("{answer} {fill}\n")
    } else {
        answer + "\n"
    }
}

fn answer_datagrams(name: &str, socket: &OwnedFd) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        if let Err(error) = answer_datagram(name, socket, &mut buffer) {
            // An ICMP error about an earlier answer ends up here as well; the next datagram is another client's.
            eprintln!("{name}: udp: {error}");
        }
    }
}

fn answer_datagram(name: &str, socket: &OwnedFd, buffer: &mut [u8]) -> nix::Result<()> {
    let mut space = cmsg_space!(nix::libc::in_pktinfo);
    let mut slices = [IoSliceMut::new(buffer)];
    let received =
        recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::empty())?;
    let Some(peer) = received.address else { return Ok(()) };
    let asked = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(info),
        _ => None,
    });
    let line = received.iovs().next().unwrap_or_default();
    if line.trim_ascii_end() == SILENT.as_bytes() {
        return Ok(());
    }
    let answer = answer(name, &SocketAddrV4::from(peer), line);
    // The route decides the link; only the source address is ours to keep.
    let info = asked.map(|info| nix::libc::in_pktinfo { ipi_ifindex: 0, ..info });
    let control: Vec<_> = info.iter().map(ControlMessage::Ipv4PacketInfo).collect();
    sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(answer.as_bytes())],
        &control,
        MsgFlags::empty(),
        Some(&peer),
    )?;
    Ok(())
}

impl FromStr for Listen {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (port, protocol) =
            text.split_once('/').with_context(|| format!("{text} is not PORT/tcp or PORT/udp"))?;
        Ok(Self {
            port: port.parse().with_context(|| format!("{port} is no port"))?,
            protocol: protocol.parse()?,
        })
    }
}

impl FromStr for Transport {
    type Err = anyhow::Error;

    /// In lower case on a command line, in upper case in the API.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "tcp" | "TCP" => Ok(Self::Tcp),
            "udp" | "UDP" => Ok(Self::Udp),
            _ => bail!("{text} is neither tcp nor udp"),
        }
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}
