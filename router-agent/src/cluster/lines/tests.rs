use std::convert::Infallible;
use std::future::poll_fn;
use std::io;

use futures::FutureExt as _;

use super::*;

/// An answer in pieces; an error ends it where it has one.
struct Pieces(Vec<Result<&'static [u8], io::Error>>);

impl Body for Pieces {
    type Data = &'static [u8];
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<&'static [u8]>, io::Error>>> {
        Poll::Ready(self.0.pop().map(|piece| piece.map(Frame::data)))
    }
}

/// What arrives of an answer to `uri`, with this status and these pieces, and what it ends by.
fn arrives(uri: &str, status: u16, mut pieces: Vec<Result<&'static [u8], io::Error>>) -> (Vec<u8>, String) {
    pieces.reverse();
    let mut pieces = Some(pieces);
    let server = tower::service_fn(move |_: Request<()>| {
        let answer = Response::builder().status(status).body(Pieces(pieces.take().unwrap())).unwrap();
        async move { Ok::<_, Infallible>(answer) }
    });
    let request = Request::builder().uri(uri).body(()).unwrap();
    let answer = async {
        let mut body = WholeLines::new(server).call(request).await.unwrap().into_body();
        let mut arrived = Vec::new();
        loop {
            match poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
                Some(Ok(frame)) => arrived.extend_from_slice(frame.data_ref().unwrap()),
                Some(Err(error)) => return (arrived, error.to_string()),
                None => return (arrived, String::new()),
            }
        }
    };
    answer.now_or_never().expect("nothing is waited for")
}

const WATCH: &str = "/api/v1/services?allowWatchBookmarks=true&watch=true";
const LIST: &str = "/api/v1/services?limit=500";
const HALF: &str = "the answer ended in the midst of a line";

#[test]
fn only_a_watch_that_ends_in_the_midst_of_a_line_fails_for_that() {
    let reset = || io::Error::new(io::ErrorKind::UnexpectedEof, "reset");
    for (what, uri, status, pieces, ends_by) in [
        ("ends after a line", WATCH, 200, vec![Ok(&b"{}\n"[..])], ""),
        ("ends without a word", WATCH, 200, vec![], ""),
        ("a line in two pieces", WATCH, 200, vec![Ok(&b"{\"a\""[..]), Ok(b":1}\n")], ""),
        ("an empty piece after half a line", WATCH, 200, vec![Ok(&b"{"[..]), Ok(b"")], HALF),
        ("half a line", WATCH, 200, vec![Ok(&b"{}\n{\"ty"[..])], HALF),
        ("half a line and a reset", WATCH, 200, vec![Ok(&b"{}\n{\"ty"[..]), Err(reset())], HALF),
        ("a reset between lines", WATCH, 200, vec![Ok(&b"{}\n"[..]), Err(reset())], "reset"),
        ("a refusal", WATCH, 403, vec![Ok(&b"{}"[..])], ""),
        ("a list", LIST, 200, vec![Ok(&b"{}"[..])], ""),
    ] {
        let expected: Vec<u8> =
            pieces.iter().flat_map(|piece| piece.as_ref().copied().unwrap_or_default().to_vec()).collect();
        assert_eq!(arrives(uri, status, pieces), (expected, ends_by.to_owned()), "{what}");
    }
}
