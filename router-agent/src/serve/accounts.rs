//! Traffic by frontend: what each sweep found more than the last, put down to whoever had the id then.
//!
//! The programs count in flows, by the id of a service port, and ids are given out again after a rest. A frontend keeps
//! its account for as long as it is there, so what is told of it never falls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use router_core::model::Key;
use router_core::model::service::{Frontend, Protocol};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Plane, Sources};
use crate::flows::{Swept, Traffic, Usage};
use crate::reconcile::Look;

/// Who has an id.
pub(super) type Holders = BTreeMap<u32, (Frontend, Key)>;

/// All accounts.
#[derive(Clone, Debug, Default)]
pub(super) struct Accounts {
    pub(super) by_frontend: BTreeMap<Frontend, Account>,
    /// When they were last settled, and how long after the time before that.
    pub(super) at: Option<Instant>,
    pub(super) period: Duration,
    seen: BTreeMap<u32, Usage>,
}

/// One frontend's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) service: Key,
    pub(super) total: Usage,
    /// What came in the last period.
    pub(super) latest: Usage,
}

impl Accounts {
    fn settle(&mut self, swept: &Swept, holders: Holders) {
        let mut before = std::mem::take(&mut self.by_frontend);
        for (id, (frontend, service)) in holders {
            let now = swept.usage.get(&id).copied().unwrap_or_default();
            let latest = since(now, self.seen.get(&id).copied().unwrap_or_default());
            let total = before.remove(&frontend).map(|account| account.total).unwrap_or_default();
            let account = Account { service, total: sum(total, latest), latest };
            self.by_frontend.insert(frontend, account);
        }
        self.seen.clone_from(&swept.usage);
        self.period = self.at.zip(swept.at).map(|(before, now)| now - before).unwrap_or_default();
        self.at = swept.at;
    }
}

fn zip(one: Usage, other: Usage, with: impl Fn(u64, u64) -> u64) -> Usage {
    let traffic = |one: Traffic, other: Traffic| Traffic {
        packets: with(one.packets, other.packets),
        bytes: with(one.bytes, other.bytes),
    };
    Usage {
        connections: with(one.connections, other.connections),
        from_clients: traffic(one.from_clients, other.from_clients),
        to_clients: traffic(one.to_clients, other.to_clients),
    }
}

fn since(now: Usage, before: Usage) -> Usage {
    zip(now, before, u64::saturating_sub)
}

fn sum(one: Usage, other: Usage) -> Usage {
    zip(one, other, u64::saturating_add)
}

/// Who has which id now; `None` while the loop is in doubt.
pub(super) fn holders(look: &Look<'_, Plane>) -> Option<Holders> {
    let rows = &look.have?.frontends;
    let holder = |(key, row): (&router_common::abi::FrontendKey<[u8; 4]>, &router_common::abi::Frontend)| {
        let protocol = Protocol::from_number(key.protocol)?;
        let frontend = Frontend { address: key.address.into(), port: key.port, protocol };
        Some((row.service, (frontend, look.cluster.service_of(&frontend)?.clone())))
    };
    Some(rows.iter().filter_map(holder).collect())
}

/// Settles them after each sweep, until there are no more.
pub(super) async fn keep(
    sources: Sources,
    mut swept: watch::Receiver<Arc<Swept>>,
    told: watch::Sender<Arc<Accounts>>,
) {
    let mut accounts = Accounts::default();
    while swept.changed().await.is_ok() {
        let latest = Arc::clone(&swept.borrow_and_update());
        // In doubt, or without an answer, the next sweep brings the rest.
        if let Ok(Some(holders)) = sources.look(holders).await {
            accounts.settle(&latest, holders);
            told.send_replace(Arc::new(accounts.clone()));
        }
    }
    // The sweep ends with the agent.
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swept(connections: u64) -> Swept {
        let usage = Usage { connections, ..Usage::default() };
        Swept { usage: BTreeMap::from([(7, usage)]), at: Some(Instant::now()), ..Swept::default() }
    }

    fn frontend(last: u8) -> Frontend {
        Frontend { address: [10, 96, 0, last].into(), port: 80, protocol: Protocol::Tcp }
    }

    fn holder(last: u8) -> Holders {
        BTreeMap::from([(7, (frontend(last), Key::new("d", "s")))])
    }

    fn total(accounts: &Accounts, last: u8) -> Option<u64> {
        accounts.by_frontend.get(&frontend(last)).map(|account| account.total.connections)
    }

    #[tokio::test]
    async fn an_id_that_changes_hands_takes_no_traffic_along() {
        let mut accounts = Accounts::default();
        accounts.settle(&swept(3), holder(1));
        accounts.settle(&swept(5), holder(1));
        assert_eq!((total(&accounts, 1), total(&accounts, 2)), (Some(5), None));
        accounts.settle(&swept(6), holder(2));
        assert_eq!((total(&accounts, 1), total(&accounts, 2)), (None, Some(1)));
    }

    #[tokio::test]
    async fn a_frontend_whose_id_changes_keeps_its_account() {
        let mut accounts = Accounts::default();
        accounts.settle(&swept(3), holder(1));
        let usage = BTreeMap::from([(8, Usage { connections: 2, ..Usage::default() })]);
        let holders = BTreeMap::from([(8, (frontend(1), Key::new("d", "s")))]);
        accounts.settle(&Swept { usage, at: Some(Instant::now()), ..Swept::default() }, holders);
        assert_eq!(total(&accounts, 1), Some(5));
    }
}
