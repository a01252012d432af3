//! The answer to `plan`: every loop reads what it owns afresh, and plans.

use anyhow::Result;
use tokio::sync::oneshot;

use super::super::{Sources, answered};
use crate::ask::plan::Plan;
use crate::{fib, reconcile};

pub(in crate::serve) async fn gather(sources: &Sources) -> Result<Plan> {
    let mut plan = Plan::default();
    let unlisted = sources.progress.borrow().unlisted.clone();
    if !unlisted.is_empty() {
        let kinds: Vec<String> = unlisted.iter().map(|kind| format!("{kind:?}")).collect();
        plan.notes.push(format!("nothing is planned before the first list of {}", kinds.join(", ")));
        return Ok(plan);
    }
    if sources.kernel.is_some() {
        let (to, answer) = oneshot::channel();
        let asking = sources.services.send(reconcile::Ask::Plan(to));
        plan.add(&answered("the loop of services", asking, answer).await??);
    }
    if let Some(routing) = &sources.routing {
        plan.add(&routing.ask_routes(fib::Ask::Plan).await??);
    }
    Ok(plan)
}
