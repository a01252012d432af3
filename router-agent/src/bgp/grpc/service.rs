//! From the path of a request to the function that answers it.

use std::convert::Infallible;
use std::future::Future;
use std::marker::PhantomData;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use prost::Message;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::Generation;
use super::answer::{Answers, Speaker};

/// The longest request that is read: the longest that is meant is a communication of 255 octets.
const LONGEST_REQUEST: usize = 64 * 1024;

/// One generation of the service.
pub(super) struct Api<G> {
    speaker: Speaker,
    generation: PhantomData<fn() -> G>,
}

impl<G> Api<G> {
    pub(super) fn new(speaker: Speaker) -> Self {
        Self { speaker, generation: PhantomData }
    }
}

impl<G> Clone for Api<G> {
    fn clone(&self) -> Self {
        Self::new(self.speaker.clone())
    }
}

impl<G: Generation> NamedService for Api<G> {
    const NAME: &'static str = G::SERVICE;
}

impl<G: Generation> Service<http::Request<Body>> for Api<G> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let speaker = self.speaker.clone();
        Box::pin(async move { Ok(dispatch::<G>(speaker, request).await) })
    }
}

async fn dispatch<G: Generation>(speaker: Speaker, request: http::Request<Body>) -> http::Response<Body> {
    let s = speaker;
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    match method.as_str() {
        "GetBgp" => unary(request, |()| s.get_bgp()).await,
        "ListPeer" => streaming(request, |it| s.list_peer::<G>(it)).await,
        "GetTable" => unary(request, |it| s.get_table::<G>(it)).await,
        "ListPath" => streaming(request, |it| s.list_path::<G>(it)).await,
        "ListPolicy" => streaming(request, |it| s.list_policy::<G>(it)).await,
        "ListStatement" => streaming(request, |it| s.list_statement::<G>(it)).await,
        "ListDefinedSet" => streaming(request, |it| s.list_defined_set::<G>(it)).await,
        "ListPolicyAssignment" => streaming(request, |it| s.list_policy_assignment::<G>(it)).await,
        "WatchEvent" => streaming(request, |it| s.watch_event::<G>(it)).await,
        "ResetPeer" => unary(request, |it| s.reset_peer::<G>(it)).await,
        "ShutdownPeer" => unary(request, |it| s.shutdown_peer(it)).await,
        "EnablePeer" => unary(request, |it| s.enable_peer(it)).await,
        "DisablePeer" => unary(request, |it| s.disable_peer(it)).await,
        method => refused(method).into_http(),
    }
}

/// What is not answered: changes, which have another source here, and everything that this speaker has not.
fn refused(method: &str) -> Status {
    match method {
        "SetLogLevel" => Status::failed_precondition("how much is logged is set by the agent's flag --v"),
        "StartBgp"
        | "StopBgp"
        | "AddPath"
        | "AddPathStream"
        | "DeletePath"
        | "AddPeer"
        | "DeletePeer"
        | "UpdatePeer"
        | "AddPeerGroup"
        | "DeletePeerGroup"
        | "UpdatePeerGroup"
        | "AddDynamicNeighbor"
        | "DeleteDynamicNeighbor"
        | "AddVrf"
        | "DeleteVrf"
        | "AddPolicy"
        | "DeletePolicy"
        | "SetPolicies"
        | "AddDefinedSet"
        | "DeleteDefinedSet"
        | "AddStatement"
        | "DeleteStatement"
        | "AddPolicyAssignment"
        | "DeletePolicyAssignment"
        | "SetPolicyAssignment" => Status::failed_precondition(format!(
            "{method}: this agent's routes, peers and policies come from Kubernetes and its flags; they cannot \
                 be changed here"
        )),
        method => Status::unimplemented(format!("{method} is not implemented by kube-router")),
    }
}

async fn unary<Q, R, F>(
    request: http::Request<Body>,
    answer: impl FnOnce(Q) -> F + Send,
) -> http::Response<Body>
where
    Q: Message + Default + 'static,
    R: Message + Default + 'static,
    F: Future<Output = Result<R, Status>> + Send + 'static,
{
    grpc::<R, Q>().unary(Once(Some(answer)), request).await
}

async fn streaming<Q, R, F>(
    request: http::Request<Body>,
    answer: impl FnOnce(Q) -> F + Send,
) -> http::Response<Body>
where
    Q: Message + Default + 'static,
    R: Message + Default + 'static,
    F: Future<Output = Answers<R>> + Send + 'static,
{
    grpc::<R, Q>().server_streaming(Once(Some(answer)), request).await
}

fn grpc<R, Q>() -> Grpc<ProstCodec<R, Q>>
where
    Q: Message + Default + 'static,
    R: Message + Default + 'static,
{
    Grpc::new(ProstCodec::default()).max_decoding_message_size(LONGEST_REQUEST)
}

/// A service of one call.
struct Once<A>(Option<A>);

impl<Q, R, F, A> Service<Request<Q>> for Once<A>
where
    A: FnOnce(Q) -> F,
    F: Future<Output = Result<R, Status>> + Send + 'static,
    R: 'static,
{
    type Response = Response<R>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<R>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let answer = self.0.take().expect("it is called once");
        let answered = answer(request.into_inner());
        Box::pin(async move { answered.await.map(Response::new) })
    }
}
