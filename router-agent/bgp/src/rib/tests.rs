//! The RIB against a model of it: what peers sent, kept as plain maps; and what peers heard, decoded from the messages.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use super::*;
use crate::bestpath::{self, Candidate};
use crate::message::attribute::AsPath;
use crate::message::header::{Frame, MAX_LEN};
use crate::message::update::{Announcement, decode};
use crate::policy::{Actions, Assignment, Policy, PrefixSet, Statement, Verdict};

mod behaviour;
mod model;
mod properties;
mod scale;

pub(super) const OWN: Asn = Asn(64512);
pub(super) const ROUTER_ID: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn config() -> RibConfig {
    RibConfig { asn: OWN, router_id: ROUTER_ID, limits: Limits::default() }
}

/// A session over IPv4 to `of`, from 10.0.0.1.
fn facts(of: &str, asn: Asn) -> PeerFacts {
    let IpAddr::V4(router_id) = address(of) else { panic!("{of} is no IPv4 address") };
    PeerFacts {
        address: address(of),
        asn,
        router_id,
        families: Families::NONE.with(Family::Ipv4Unicast),
        four_octet: true,
        extended_messages: false,
        local_address: address("10.0.0.1"),
        other_address: None,
        extended_next_hop: false,
        shared_subnet: None,
        prefix_limit: None,
    }
}

fn attributes(next_hop: &str, path: &[u32]) -> Attributes {
    let path: Vec<_> = path.iter().copied().map(Asn).collect();
    Attributes { as_path: AsPath::sequence(path), ..Attributes::originated(address(next_hop)) }
}

fn announce(attributes: Attributes, prefixes: &[&str]) -> Update {
    let prefixes: Vec<_> = prefixes.iter().map(|text| prefix(text)).collect();
    let family = Family::of(&prefixes[0]);
    Update { announced: vec![Announcement { family, attributes, prefixes }], ..Update::default() }
}

fn withdraw(prefixes: &[&str]) -> Update {
    Update { withdrawn: prefixes.iter().map(|text| prefix(text)).collect(), ..Update::default() }
}

/// All is taken, all is given.
fn open() -> Policies {
    let all = || Assignment { policies: Vec::new(), default: Verdict::Accept };
    Policies::new(BTreeMap::new(), BTreeMap::new(), all(), all()).unwrap()
}

/// What a peer has heard since its session began.
#[derive(Default)]
struct Heard {
    routes: BTreeMap<Prefix, Attributes>,
    ends_of_rib: Vec<Family>,
    /// Messages, and of them those that announced.
    messages: usize,
    /// Prefixes withdrawn that had not been announced.
    needless: usize,
}

impl Heard {
    fn listen(&mut self, messages: &[Arc<[u8]>], facts: &PeerFacts) {
        let context = crate::message::update::Context {
            four_octet: facts.four_octet,
            internal: facts.asn == OWN,
            families: facts.families,
            extended_next_hop: facts.extended_next_hop,
            max_len: MAX_LEN,
            local: None,
        };
        for message in messages {
            let frame = Frame::next(message, false).unwrap().unwrap();
            assert_eq!(frame.bytes.len(), message.len(), "one message at a time");
            let update = decode(frame.body(), &context).unwrap();
            assert_eq!(update.faults, [], "{update:?}");
            self.messages += 1;
            for prefix in update.withdrawn {
                self.needless += usize::from(self.routes.remove(&prefix).is_none());
            }
            for Announcement { attributes, prefixes, .. } in update.announced {
                self.routes.extend(prefixes.into_iter().map(|prefix| (prefix, attributes.clone())));
            }
            self.ends_of_rib.extend(update.end_of_rib);
        }
    }

    /// Hears all there is.
    fn drain(&mut self, rib: &mut Rib, id: PeerId, facts: &PeerFacts) {
        while rib.has_messages(id) {
            self.listen(&rib.next_messages(id, 4096), facts);
        }
    }
}

fn hear(rib: &mut Rib, id: PeerId, facts: &PeerFacts) -> Heard {
    let mut heard = Heard::default();
    heard.drain(rib, id, facts);
    heard
}

/// Applies the changes of the best paths to a table, as the kernel's routes do.
fn follow(rib: &mut Rib, fib: &mut BTreeMap<Prefix, (Source, Arc<Attributes>)>) {
    while let Some(BestChange { prefix, best }) = rib.poll_best() {
        match best {
            Some(best) => fib.insert(prefix, best),
            None => fib.remove(&prefix),
        };
    }
}

impl Rib {
    /// When everybody is up to date, neither messages nor withdrawn prefixes are kept, and few sets of attributes.
    fn check_that_nothing_is_kept(&self) {
        for group in &self.groups {
            assert!(!group.is_empty(), "a group without peers");
            assert_eq!(group.kept(), (0, 0), "records and graves of {:?}", group.key);
        }
        assert!(self.interner.len() <= 1024);
    }
}
