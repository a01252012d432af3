//! A watch whose answer ends in the midst of a line fails, rather than be taken up again without a word.
//!
//! A server ends a watch between two lines. `kube` passes over a line that is not whole, whatever it ended by, and
//! no error is left for its watcher to return; so we look at the answer before `kube` does. Answers that are not a
//! watch's, and refusals, need not end with a line and are passed on as they are.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tower::{BoxError, Service};

/// The client's way to the server, with an eye on watches.
#[derive(Clone, Debug)]
pub(crate) struct WholeLines<S>(S);

impl<S> WholeLines<S> {
    pub(crate) const fn new(inner: S) -> Self {
        Self(inner)
    }
}

impl<S, Sent, Answer> Service<Request<Sent>> for WholeLines<S>
where
    S: Service<Request<Sent>, Response = Response<Answer>>,
    S::Future: Send + 'static,
{
    type Response = Response<Lines<Answer>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Sent>) -> Self::Future {
        let query = request.uri().query().unwrap_or_default();
        let asked = query.split('&').any(|part| matches!(part, "watch=true" | "watch=1"));
        let answer = self.0.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            let watched = asked && answer.status().is_success();
            Ok(answer.map(|body| Lines { body, watched, midst: false }))
        })
    }
}

/// The answer ended where a line had begun.
#[derive(Debug, thiserror::Error)]
#[error("the answer ended in the midst of a line")]
struct HalfLine;

/// An answer.
#[derive(Debug)]
pub(crate) struct Lines<B> {
    body: B,
    /// Consists of lines.
    watched: bool,
    /// A line has begun and not ended.
    midst: bool,
}

impl<B> Body for Lines<B>
where
    B: Body<Data: AsRef<[u8]>, Error: Into<BoxError>> + Unpin,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let next = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &next {
            let last = frame.data_ref().and_then(|data| data.as_ref().last());
            if let Some(last) = last {
                self.midst = self.watched && *last != b'\n';
            }
        } else if std::mem::take(&mut self.midst) {
            return Poll::Ready(Some(Err(HalfLine.into())));
        }
        Poll::Ready(next.map(|next| next.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        // While a line is open there is something left to say.
        !self.midst && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.watched { SizeHint::default() } else { self.body.size_hint() }
    }
}

#[cfg(test)]
mod tests;
