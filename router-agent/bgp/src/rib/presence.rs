//! Sessions come up and end, and what becomes of the peer's routes.

use super::peers::Peer;
use super::{Direction, Families, Family, PeerFacts, PeerId, Prefix, Rib, Source};

/// What happens to the routes of a peer whose session ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retention {
    Drop,
    /// Those of these families are kept as stale (RFC 4724 §4.2), until the peer repeats them or they are swept. Those of the
    /// other families go.
    Stale(Families),
}

impl Rib {
    /// A session is established. It will be sent the table and, for each family, End-of-RIB. Stale routes stay, unless
    /// the peer is somebody else now.
    pub fn peer_up(&mut self, id: PeerId, facts: PeerFacts) {
        if !self.peers.get(id).is_some_and(|old| old.may_be_back_as(&facts)) {
            self.peer_down(id, Retention::Drop);
        }
        let import = self.policies.class(Direction::Import, facts.address);
        let own_addresses = std::iter::once(facts.local_address).chain(facts.other_address).collect();
        let external = facts.asn != self.config.asn;
        self.peers.insert(id, Peer { up: true, external, import, own_addresses, facts });
        self.adj_in.entry(Source::Peer(id)).or_default();
        self.join_groups(id);
    }

    pub fn peer_down(&mut self, id: PeerId, retention: Retention) {
        match retention {
            Retention::Drop => self.drop_peer(id),
            Retention::Stale(families) => {
                let Some(peer) = self.peers.get_mut(id) else { return };
                peer.up = false;
                if let Some(routes) = self.adj_in.get_mut(&Source::Peer(id)) {
                    routes.make_stale();
                }
                self.sweep(id, Families::from_iter(Family::ALL).without(families));
            }
        }
        self.leave_groups(id);
    }

    /// What is still stale in these families goes; returns how many routes did.
    pub fn sweep(&mut self, id: PeerId, families: Families) -> usize {
        let Some(routes) = self.adj_in.get(&Source::Peer(id)) else { return 0 };
        let stale = routes.iter().filter(|(_, route)| route.stale).map(|(prefix, _)| prefix);
        let stale: Vec<Prefix> = stale.filter(|prefix| families.contains(Family::of(prefix))).collect();
        for prefix in &stale {
            self.forget(*prefix, Source::Peer(id));
        }
        stale.len()
    }

    fn drop_peer(&mut self, id: PeerId) {
        if let Some(routes) = self.adj_in.remove(&Source::Peer(id)) {
            for (prefix, route) in routes.iter() {
                if route.standing.is_accepted() && self.loc.remove(&prefix, Source::Peer(id), &self.peers) {
                    self.best_changed(prefix);
                }
            }
        }
        self.peers.remove(id);
    }
}
