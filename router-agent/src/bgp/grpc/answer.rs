//! What is asked and said on behalf of each method.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt as _};
use router_bgp::family::{Family, FamilyCode, Prefix};
use router_bgp::rib::Lookup;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::convert::{self, Clock};
use super::{Generation, meant, messages as api, policy};
use crate::bgp::view::{Ask, DestinationView, PeerView, Refusal, Table, Verb};

pub(super) type Answers<T> = Result<BoxStream<'static, Result<T, Status>>, Status>;

/// Kinds of tables, as v3 counts.
const GLOBAL: i32 = 0;
const LOCAL: i32 = 1;
const ADJ_IN: i32 = 2;
const ADJ_OUT: i32 = 3;

/// Kinds of lookups.
const EXACT: i32 = 0;
const LONGER: i32 = 1;
const SHORTER: i32 = 2;

/// The way to the speaker's task.
#[derive(Clone, Debug)]
pub(super) struct Speaker {
    asks: mpsc::Sender<Ask>,
    pub(super) clock: Clock,
}

impl Speaker {
    pub(super) fn new(asks: mpsc::Sender<Ask>, started: Instant) -> Self {
        Self { asks, clock: Clock { started } }
    }

    pub(super) async fn send(&self, ask: Ask) -> Result<(), Status> {
        self.asks.send(ask).await.map_err(|_| gone())
    }

    pub(super) fn is_gone(&self) -> bool {
        self.asks.is_closed()
    }

    fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(oneshot::Sender<T>) -> Ask,
    ) -> BoxFuture<'static, Result<T, Status>> {
        let (reply, answer) = oneshot::channel();
        let (ask, asks) = (ask(reply), self.asks.clone());
        Box::pin(async move {
            asks.send(ask).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())
        })
    }

    pub(super) async fn get_bgp(self) -> Result<api::GetBgpResponse, Status> {
        let view = self.ask(Ask::Global).await?;
        Ok(api::GetBgpResponse { global: Some(convert::global(view)) })
    }

    pub(super) async fn peers(&self, address: Option<IpAddr>) -> Result<Vec<PeerView>, Status> {
        self.ask(|reply| Ask::Peers(address, reply)).await
    }

    pub(super) async fn list_peer<G: Generation>(
        self,
        request: api::ListPeerRequest,
    ) -> Answers<api::ListPeerResponse> {
        let peers = match request.address.parse() {
            Ok(address) => self.peers(Some(address)).await?,
            Err(_) if request.address.is_empty() => self.peers(None).await?,
            // No peer has such a name; the client says so itself.
            Err(_) => Vec::new(),
        };
        let clock = self.clock;
        Ok(each(peers, move |it| api::ListPeerResponse { peer: Some(convert::peer::<G>(&it, clock)) }))
    }

    pub(super) async fn get_table<G: Generation>(
        self,
        request: api::GetTableRequest,
    ) -> Result<api::GetTableResponse, Status> {
        let table = self.table::<G>(request.table_type, &request.name).await?;
        let family = family(request.family)?;
        let view = self.ask(|reply| Ask::Summary(table, family, reply)).await?.map_err(unknown)?;
        Ok(convert::summary(view))
    }

    pub(super) async fn list_path<G: Generation>(
        self,
        request: api::ListPathRequest,
    ) -> Answers<api::ListPathResponse> {
        let table = self.table::<G>(request.table_type, &request.name).await?;
        let family = family(request.family)?;
        let mut lookups = Vec::new();
        for it in &request.prefixes {
            lookups.extend(lookup::<G>(it, family)?);
        }
        if request.prefixes.is_empty() {
            lookups.push(Lookup::All(family));
        }
        let found = self.paths(table, lookups).await?;
        let clock = self.clock;
        Ok(each(found, move |it| api::ListPathResponse {
            destination: Some(convert::destination(&it, clock)),
        }))
    }

    /// What any of the lookups finds, in the order of the prefixes.
    pub(super) async fn paths(
        &self,
        table: Table,
        lookups: Vec<Lookup>,
    ) -> Result<Vec<DestinationView>, Status> {
        let mut found = BTreeMap::new();
        for lookup in lookups {
            let some = self.ask(|reply| Ask::Paths(table, lookup, reply)).await?.map_err(unknown)?;
            found.extend(some.into_iter().map(|it| (it.prefix, it)));
        }
        Ok(found.into_values().collect())
    }

    async fn table<G: Generation>(&self, kind: i32, name: &str) -> Result<Table, Status> {
        match meant::<G>(kind).unwrap_or(GLOBAL) {
            // GoBGP takes a name in both as the name of a neighbour with a table of its own, of which there is none.
            GLOBAL | LOCAL if name.is_empty() => Ok(Table::Global),
            GLOBAL | LOCAL => {
                let peer = known_address(name)?;
                match self.peers(Some(peer)).await?.first() {
                    None => Err(unknown(Refusal::UnknownPeer(peer))),
                    Some(_) => Err(Status::unknown(format!("neighbor {peer} doesn't have local rib"))),
                }
            }
            ADJ_IN => known_address(name).map(Table::AdjIn),
            ADJ_OUT => known_address(name).map(Table::AdjOut),
            _ => Err(Status::unimplemented("there are no VRFs here")),
        }
    }

    pub(super) async fn list_policy<G: Generation>(
        self,
        request: api::NameRequest,
    ) -> Answers<api::ListPolicyResponse> {
        let mut all = policy::policies::<G>(&*self.ask(Ask::Policies).await?);
        all.retain(|it| named(&request.name, &it.name));
        Ok(each(all, |it| api::ListPolicyResponse { policy: Some(it) }))
    }

    pub(super) async fn list_statement<G: Generation>(
        self,
        request: api::NameRequest,
    ) -> Answers<api::ListStatementResponse> {
        let policies = policy::policies::<G>(&*self.ask(Ask::Policies).await?);
        let mut all: Vec<_> = policies.into_iter().flat_map(|it| it.statements).collect();
        all.retain(|it| named(&request.name, &it.name));
        Ok(each(all, |it| api::ListStatementResponse { statement: Some(it) }))
    }

    pub(super) async fn list_defined_set<G: Generation>(
        self,
        request: api::ListDefinedSetRequest,
    ) -> Answers<api::ListDefinedSetResponse> {
        let policies = self.ask(Ask::Policies).await?;
        let mut all = policy::defined_sets::<G>(&policies, request.defined_type);
        all.retain(|it| named(&request.name, &it.name));
        if all.is_empty() && !request.name.is_empty() {
            return Err(Status::unknown("not found"));
        }
        Ok(each(all, |it| api::ListDefinedSetResponse { defined_set: Some(it) }))
    }

    pub(super) async fn list_policy_assignment<G: Generation>(
        self,
        request: api::ListPolicyAssignmentRequest,
    ) -> Answers<api::ListPolicyAssignmentResponse> {
        let name = request.name.as_str();
        if !matches!(name, "" | "global") {
            let peer = known_address(name)?;
            return match self.peers(Some(peer)).await?.first() {
                None => Err(unknown(Refusal::UnknownPeer(peer))),
                Some(_) => Err(Status::unknown(format!("Neighbor {peer} doesn't have local rib"))),
            };
        }
        let all = policy::assignments::<G>(&*self.ask(Ask::Policies).await?, request.direction);
        Ok(each(all, |it| api::ListPolicyAssignmentResponse { assignment: Some(it) }))
    }

    pub(super) async fn reset_peer<G: Generation>(
        self,
        request: api::ResetPeerRequest,
    ) -> Result<api::Empty, Status> {
        let verb = match (request.soft, meant::<G>(request.direction)) {
            (false, _) => Verb::Reset { communication: request.communication },
            (true, Some(0)) => Verb::SoftReset { inbound: true, outbound: false },
            (true, Some(1)) => Verb::SoftReset { inbound: false, outbound: true },
            (true, Some(2)) => Verb::SoftReset { inbound: true, outbound: true },
            (true, _) => return Err(Status::unknown("unknown direction")),
        };
        self.act(&request.address, verb).await
    }

    pub(super) async fn shutdown_peer(self, request: api::PeerVerbRequest) -> Result<api::Empty, Status> {
        self.act(&request.address, Verb::Shutdown { communication: request.communication }).await
    }

    pub(super) async fn enable_peer(self, request: api::PeerVerbRequest) -> Result<api::Empty, Status> {
        self.act(&request.address, Verb::Enable).await
    }

    pub(super) async fn disable_peer(self, request: api::PeerVerbRequest) -> Result<api::Empty, Status> {
        self.act(&request.address, Verb::Disable { communication: request.communication }).await
    }

    async fn act(&self, name: &str, verb: Verb) -> Result<api::Empty, Status> {
        let address = if matches!(name, "" | "all") { None } else { Some(known_address(name)?) };
        self.ask(|reply| Ask::Act(address, verb, reply)).await?.map_err(unknown)?;
        Ok(api::Empty {})
    }
}

/// A stream of what is there already. Each element becomes a message only when the client takes it.
fn each<A: Send + 'static, B: 'static>(
    all: Vec<A>,
    mut message: impl FnMut(A) -> B + Send + 'static,
) -> BoxStream<'static, Result<B, Status>> {
    stream::iter(all).map(move |it| Ok(message(it))).boxed()
}

fn named(wanted: &str, name: &str) -> bool {
    wanted.is_empty() || wanted == name
}

fn known_address(name: &str) -> Result<IpAddr, Status> {
    name.parse().map_err(|_| Status::unknown(format!("neighbor that has {name} doesn't exist")))
}

fn family(given: Option<api::Family>) -> Result<Family, Status> {
    let Some(api::Family { afi, safi }) = given else { return Ok(Family::Ipv4Unicast) };
    let code = u16::try_from(afi).ok().zip(u8::try_from(safi).ok());
    code.and_then(|(afi, safi)| FamilyCode { afi, safi }.known())
        .ok_or_else(|| Status::unknown(format!("address family: AFI {afi}, SAFI {safi} not supported")))
}

/// What to look up; nothing where the prefix is of the other family, which no table of this one has.
fn lookup<G: Generation>(given: &api::TableLookupPrefix, family: Family) -> Result<Option<Lookup>, Status> {
    let wrong = || Status::unknown(format!("invalid CIDR address: {}", given.prefix));
    let kind = meant::<G>(given.kind).unwrap_or(EXACT);
    let lookup = match (given.prefix.parse::<Prefix>(), given.prefix.parse::<IpAddr>()) {
        (Ok(prefix), _) if kind == EXACT => Lookup::Exact(prefix),
        (Ok(prefix), _) if kind == LONGER => Lookup::Longer(prefix),
        (Ok(prefix), _) if kind == SHORTER => Lookup::Shorter(prefix),
        // "The route to this host".
        (_, Ok(host)) if kind == EXACT => Lookup::LongestMatch(host.into()),
        _ => return Err(wrong()),
    };
    let (Lookup::Exact(prefix)
    | Lookup::Longer(prefix)
    | Lookup::Shorter(prefix)
    | Lookup::LongestMatch(prefix)) = lookup
    else {
        return Ok(Some(lookup));
    };
    Ok((Family::of(&prefix) == family).then_some(lookup))
}

/// GoBGP's own errors come without a code of gRPC's, and clients print it.
fn unknown(refusal: Refusal) -> Status {
    Status::unknown(refusal.to_string())
}

pub(super) fn gone() -> Status {
    Status::unavailable("the BGP speaker has stopped")
}
