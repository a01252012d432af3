//! One question by HTTP over a unix socket: as little of the protocol as an agent of ours answers to.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

/// An agent answers within a fraction of it, or is stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// The body of the answer. With HTTP/1.0 the connection ends where the answer does.
pub(super) fn get(socket: &Path, target: &str) -> Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).map_err(|error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::PermissionDenied => "ask as root",
            _ => "start it on this node, run this in its pod, or name its socket by --socket",
        };
        anyhow::anyhow!("no agent listens at {}: {error}; {remedy}", socket.display())
    })?;
    stream.set_read_timeout(Some(PATIENCE)).context("limit the wait for the answer")?;
    let doing = || format!("the agent at {} gave no whole answer", socket.display());
    write!(stream, "GET {target} HTTP/1.0\r\nHost: agent\r\n\r\n").with_context(doing)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(doing)?;
    body(answer).with_context(doing)
}

fn body(mut answer: Vec<u8>) -> Result<Vec<u8>> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").context("its head does not end")?;
    let body = answer.split_off(end + 4);
    let head = String::from_utf8_lossy(&answer);
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    if status != "200" {
        bail!("{status}: {}", String::from_utf8_lossy(&body).trim());
    }
    let length =
        lines.find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    ensure!(length.is_none_or(|length: usize| length == body.len()), "it was cut off");
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(answer: &str) -> Result<Vec<u8>, String> {
        body(answer.as_bytes().to_vec()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_body_is_whole_or_refused() {
        assert_eq!(said("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}"), Ok(b"{}".to_vec()));
        assert_eq!(said("HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\n{}"), Err("it was cut off".into()));
        assert_eq!(said("HTTP/1.0 503 No\r\n\r\nthe loop is stuck\n"), Err("503: the loop is stuck".into()));
        assert_eq!(said("HTTP/1.0 200 OK"), Err("its head does not end".into()));
    }
}
