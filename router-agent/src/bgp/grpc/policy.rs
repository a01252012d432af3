//! Policies as messages. Their clients number directions and verdicts alike; kinds of sets and of matches are shifted.

use router_bgp::family::Prefix;
use router_bgp::policy::{self, Assignment, Direction, Policies, PrefixRange, Verdict};

use super::messages as api;
use super::{Generation, enumerated, meant};

/// What conditions mean by "any", and community actions by "add".
const ANY: i32 = 0;
const ADD: i32 = 0;
const PREFIXES: i32 = 0;
const NEIGHBORS: i32 = 1;

/// Policies, each once, though both directions may name it.
pub(super) fn policies<G: Generation>(all: &Policies) -> Vec<api::Policy> {
    let mut found: Vec<api::Policy> = Vec::new();
    for direction in [Direction::Import, Direction::Export] {
        for it in &all.assignment(direction).policies {
            if found.iter().all(|one| one.name != it.name) {
                found.push(policy::<G>(it));
            }
        }
    }
    found
}

fn policy<G: Generation>(policy: &policy::Policy) -> api::Policy {
    api::Policy {
        name: policy.name.clone(),
        statements: policy.statements.iter().map(statement::<G>).collect(),
    }
}

fn statement<G: Generation>(statement: &policy::Statement) -> api::Statement {
    let policy::Statement { name, prefixes, neighbors, actions } = statement;
    let any = |name: &String| api::MatchSet { kind: enumerated::<G>(ANY), name: name.clone() };
    api::Statement {
        name: name.clone(),
        conditions: Some(api::Conditions {
            prefix_set: prefixes.as_ref().map(any),
            neighbor_set: neighbors.as_ref().map(any),
            rpki_result: -1,
        }),
        actions: Some(api_actions::<G>(actions)),
    }
}

fn api_actions<G: Generation>(actions: &policy::Actions) -> api::Actions {
    let policy::Actions { verdict, next_hop_self, prepend, add_communities } = actions;
    api::Actions {
        route_action: route_action(*verdict),
        community: (!add_communities.is_empty()).then(|| api::CommunityAction {
            kind: enumerated::<G>(ADD),
            communities: add_communities.iter().map(|it| format!("{}:{}", it >> 16, it & 0xffff)).collect(),
        }),
        as_prepend: prepend.map(|(asn, times)| api::AsPrependAction { asn: asn.0, repeat: u32::from(times) }),
        nexthop: next_hop_self.then_some(api::NexthopAction { is_self: true }),
    }
}

fn route_action(verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Accept => 1,
        Verdict::Reject => 2,
    }
}

/// Sets of the kind that is asked for; there are none of other kinds than these two.
pub(super) fn defined_sets<G: Generation>(all: &Policies, kind: i32) -> Vec<api::DefinedSet> {
    match meant::<G>(kind) {
        Some(PREFIXES) => all.prefix_sets().map(|(name, set)| prefix_set(name, set.iter(), kind)).collect(),
        Some(NEIGHBORS) => all.neighbor_sets().map(|(name, set)| neighbor_set(name, set, kind)).collect(),
        _ => Vec::new(),
    }
}

fn prefix_set(name: &str, ranges: impl Iterator<Item = PrefixRange>, kind: i32) -> api::DefinedSet {
    let range = |PrefixRange { prefix, min, max }: PrefixRange| api::PrefixRange {
        ip_prefix: prefix.to_string(),
        mask_length_min: u32::from(min),
        mask_length_max: u32::from(max),
    };
    api::DefinedSet {
        defined_type: kind,
        name: name.to_owned(),
        list: Vec::new(),
        prefixes: ranges.map(range).collect(),
    }
}

fn neighbor_set(name: &str, neighbors: &[Prefix], kind: i32) -> api::DefinedSet {
    api::DefinedSet {
        defined_type: kind,
        name: name.to_owned(),
        list: neighbors.iter().map(ToString::to_string).collect(),
        prefixes: Vec::new(),
    }
}

/// The assignments of a direction, or of both.
pub(super) fn assignments<G: Generation>(all: &Policies, direction: i32) -> Vec<api::PolicyAssignment> {
    let assignment = |number, Assignment { policies, default }: &Assignment| api::PolicyAssignment {
        name: "global".to_owned(),
        direction: number,
        policies: policies.iter().map(policy::<G>).collect(),
        default_action: route_action(*default),
    };
    [(1, Direction::Import), (2, Direction::Export)]
        .into_iter()
        .filter(|(number, _)| direction == 0 || direction == *number)
        .map(|(number, direction)| assignment(number, all.assignment(direction)))
        .collect()
}
