//! The load: a server that answers, and a client that counts what an exchange costs.
//!
//! One exchange is under way at a time, so that nothing waits and the guest's clock, which counts instructions, is
//! never warped. Both sides are the plainest loops there are; what they cost is in every arm alike.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// Where the server listens, TCP and UDP.
pub const SERVER_PORT: u16 = 8080;

/// Bytes each way.
const PAYLOAD: [u8; 64] = [7; 64];
/// What an exchange may take, in guest time: a lost packet is an error, never a slow exchange.
const PATIENCE: Duration = Duration::from_millis(900);
/// A UDP flow older than this counts as a lasting one, to our programs and to connection tracking.
const SETTLED: Duration = Duration::from_secs(3);

/// Exchanges in a round, and before the first round.
const CONNECTIONS: u32 = 200;
const DATAGRAMS: u32 = 1_000;
const WARM_UP: u32 = 100;

/// Answers until it is killed.
pub fn serve() -> Result<()> {
    let everywhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, SERVER_PORT);
    answer_all(&TcpListener::bind(everywhere)?, UdpSocket::bind(everywhere)?)
}

#[expect(clippy::unnecessary_wraps, reason = "what a thread ends with")]
fn answer_all(listener: &TcpListener, datagrams: UdpSocket) -> Result<()> {
    thread::spawn(move || {
        let mut buffer = [0; 256];
        while let Ok((length, from)) = datagrams.recv_from(&mut buffer) {
            // The client notices what is missing.
            let _ = datagrams.send_to(buffer.get(..length).unwrap_or_default(), from);
        }
    });
    for stream in listener.incoming() {
        // The same.
        let _ = stream.map_err(anyhow::Error::from).and_then(answer);
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> Result<()> {
    let mut buffer = [0; PAYLOAD.len()];
    stream.read_exact(&mut buffer)?;
    stream.write_all(&buffer)?;
    stream.read_exact(&mut [0]).ok();
    Ok(())
}

/// Instructions an exchange, by round.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Costs {
    /// A TCP connection: opened, one request and its answer, closed from both sides.
    pub connection: Vec<f64>,
    /// A datagram and its answer on a flow that lasts.
    pub exchange: Vec<f64>,
}

/// Measures that many rounds of both kinds.
pub fn measure(to: SocketAddr, rounds: u32) -> Result<Costs> {
    let mut costs = Costs::default();
    repeat(WARM_UP, || connect(to)).with_context(|| format!("TCP to {to}"))?;
    for _ in 0..rounds {
        costs.connection.push(repeat(CONNECTIONS, || connect(to))?);
    }
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let ask = || exchange(&socket);
    repeat(WARM_UP, ask).with_context(|| format!("UDP to {to}"))?;
    thread::sleep(SETTLED);
    repeat(WARM_UP, ask)?;
    for _ in 0..rounds {
        costs.exchange.push(repeat(DATAGRAMS, ask)?);
    }
    Ok(costs)
}

/// What one of these costs.
fn repeat(times: u32, mut what: impl FnMut() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..times {
        what()?;
    }
    let spent = start.elapsed();
    ensure!(spent < PATIENCE * times, "the clock was warped: {spent:?} for {times}");
    Ok(spent.as_secs_f64() * 1e9 / f64::from(times))
}

fn connect(to: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&PAYLOAD)?;
    stream.read_exact(&mut [0; PAYLOAD.len()])?;
    stream.shutdown(Shutdown::Write)?;
    // The other side closes before the count ends.
    ensure!(stream.read(&mut [0])? == 0, "more than was asked for");
    Ok(())
}

fn exchange(socket: &UdpSocket) -> Result<()> {
    let mut buffer = [0; PAYLOAD.len()];
    socket.send(&PAYLOAD)?;
    ensure!(socket.recv(&mut buffer)? == PAYLOAD.len() && buffer == PAYLOAD, "another answer than asked for");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_of_both_kinds_are_counted_against_a_server_that_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let datagrams = UdpSocket::bind(to).unwrap();
        thread::spawn(move || answer_all(&listener, datagrams));
        // Under another clock than a guest's the figures mean nothing; that there is one a round does.
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(to).unwrap();
        assert!(repeat(3, || connect(to)).unwrap() > 0.0);
        assert!(repeat(3, || exchange(&socket)).unwrap() > 0.0);
    }
}
