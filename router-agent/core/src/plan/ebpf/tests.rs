//! The laws of planning, on random clusters, for both families.

mod plans;
mod steps;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use proptest::prelude::*;

use self::steps::{Numbered, Step, cluster, event, is_node, steps};
use super::*;
use crate::plan::order;

const NOW: Duration = Duration::ZERO;

fn plan_all<A: Family>(want: &Cluster, have: &mut Tables<A>) -> Vec<Group<Op<A>>> {
    let owners = EbpfPlane::owners(want, have);
    EbpfPlane::plan_all(want, have, &owners, NOW)
}

/// What a driver is to do, in order: puts wave by wave, then deletes in reverse.
fn sequence<A: Family>(groups: Vec<Group<Op<A>>>) -> Vec<Op<A>> {
    let waves = order::waves(groups);
    let puts = waves.iter().flatten().flat_map(|group| group.puts.clone());
    let dels = waves.iter().rev().flatten().flat_map(|group| group.dels.clone());
    puts.chain(dels).collect()
}

/// Said without the planner: what a client should find.
fn oracle<A: Family>(want: &Cluster) -> Realized {
    let vips = want.vips().map(|vip| ((vip, 0, 0), BTreeSet::new()));
    let frontends = want.frontends().map(|frontend| {
        let key = (frontend.address, frontend.port, frontend.protocol.number());
        (key, want.endpoints(frontend).unwrap().chosen)
    });
    vips.chain(frontends).filter(|((address, _, _), _)| A::from_ip(*address).is_some()).collect()
}

/// Tables that an earlier cluster left, cut off after `cut` of the writes towards a second one.
fn leftover<A: Numbered>(first: &[Step], second: &[Step], cut: usize) -> Tables<A> {
    let mut have = Tables::default();
    plan_all(&cluster::<A>(first), &mut have);
    let want = cluster::<A>(second);
    let groups = plan_all(&want, &mut have.clone());
    for op in sequence(groups).iter().take(cut) {
        EbpfPlane::apply(&mut have, op);
    }
    have
}

/// The pods and devices, which have no ids to differ in.
fn rest<A: Family>(have: &Tables<A>) -> (BTreeMap<PodKey<A>, Pod>, BTreeMap<u32, Device>) {
    (have.pods.clone(), have.devices.clone())
}

fn shuffled(owners: BTreeSet<Owner>, seed: u64) -> Vec<Owner> {
    let mut owners: Vec<Owner> = owners.into_iter().collect();
    owners.sort_by_key(|owner| {
        let mut hasher = DefaultHasher::new();
        (seed, owner.to_string()).hash(&mut hasher);
        hasher.finish()
    });
    owners
}

fn any_order_ends_where_the_full_plan_ends<A: Numbered>(have: &Tables<A>, want: &Cluster, seed: u64) {
    let mut full = have.clone();
    plan_all(want, &mut full);
    let mut single = have.clone();
    for owner in shuffled(EbpfPlane::owners(want, have), seed) {
        let group = EbpfPlane::plan(want, &single, &owner, NOW);
        group.puts.iter().chain(&group.dels).for_each(|op| EbpfPlane::apply(&mut single, op));
    }
    assert_eq!(realized(&single), realized(&full));
    assert_eq!(realized(&full).unwrap(), oracle::<A>(want));
    assert_eq!(rest(&single), rest(&full));
    assert_eq!(strays(&single), BTreeSet::new());
}

fn every_prefix_works<A: Numbered>(have: &Tables<A>, want: &Cluster) {
    let before = realized(have).unwrap();
    let after = oracle::<A>(want);
    let mut tables = have.clone();
    for op in sequence(plan_all(want, &mut have.clone())) {
        EbpfPlane::apply(&mut tables, &op);
        let now = realized(&tables).unwrap_or_else(|broken| panic!("after {op}: {broken}"));
        // A node's own address, at which node ports are, is no VIP.
        let at_vips = now.keys().filter(|(address, ..)| !is_node::<A>(*address));
        for (address, port, protocol) in at_vips {
            assert!(
                now.contains_key(&(*address, 0, 0)),
                "after {op}: {address}:{port}/{protocol} has no VIP row"
            );
        }
        for (dialled, old) in &before {
            let Some(new) = after.get(dialled) else { continue };
            let backends = now.get(dialled).unwrap_or_else(|| panic!("after {op}: {dialled:?} is gone"));
            assert!(backends.is_superset(&(old & new)), "after {op}: {dialled:?} misses one that stays");
            assert!(backends.is_subset(&(old | new)), "after {op}: {dialled:?} has one that nobody wants");
        }
    }
    assert_eq!(realized(&tables).unwrap(), after);
}

fn planning_twice_is_empty<A: Numbered>(have: &mut Tables<A>, want: &Cluster) {
    plan_all(want, have);
    assert_eq!(plan_all(want, have), []);
}

/// The group of one owner fails after `done` of its ops; those that need it are not tried.
fn a_failing_owner_holds_back_only_those_that_need_it<A: Numbered>(
    have: &Tables<A>,
    want: &Cluster,
    seed: u64,
    done: usize,
) {
    let mut full = have.clone();
    let groups = plan_all(want, &mut full);
    let Some(failing) = shuffled(groups.iter().map(|group| group.owner.clone()).collect(), seed).pop() else {
        return;
    };
    let has_failed = |owner: &Owner| *owner == failing;
    let mut tables = have.clone();
    for group in groups.iter().filter(|group| !order::held_back(group, has_failed)) {
        let cut = if group.owner == failing { done } else { usize::MAX };
        for op in group.puts.iter().chain(&group.dels).take(cut) {
            EbpfPlane::apply(&mut tables, op);
        }
    }
    let now = realized(&tables).unwrap();
    let held = groups.iter().filter(|group| group.owner == failing || order::held_back(group, has_failed));
    let held: BTreeSet<&Owner> = held.map(|group| &group.owner).collect();
    for frontend in want.frontends().filter(|frontend| !held.contains(&Owner::Frontend(**frontend))) {
        let dialled = (frontend.address, frontend.port, frontend.protocol.number());
        assert_eq!(
            now.get(&dialled),
            want.endpoints(frontend).map(|all| all.chosen).as_ref(),
            "{frontend} with {failing} failing"
        );
    }
    plan_all(want, &mut tables);
    assert_eq!(realized(&tables).unwrap(), oracle::<A>(want), "once {failing} is tried again");
}

/// No event leaves a row wrong that its dirt does not name.
fn dirt_is_complete<A: Numbered>(steps: &[Step]) {
    let mut want = cluster::<A>(&[]);
    let mut have = Tables::<A>::default();
    for step in steps {
        let dirty = want.absorb(event::<A>(step.clone()));
        EbpfPlane::plan_all(&want, &mut have, &dirty, NOW);
        let missed = plan_all(&want, &mut have.clone());
        assert_eq!(missed, [], "after {step:?}, which dirtied {dirty:?}");
    }
}

/// Another agent that learns of the same cluster in another order finds nothing to do.
fn a_restart_changes_nothing<A: Numbered>(steps: &[Step], seed: u64) {
    let want = cluster::<A>(steps);
    let mut have = Tables::<A>::default();
    plan_all(&want, &mut have);
    have.resting.clear();
    let mut last: BTreeMap<String, (usize, &Step)> = BTreeMap::new();
    for (index, step) in steps.iter().enumerate() {
        let about = match step {
            Step::Service { name, .. } | Step::ServiceGone(name) => format!("service {name}"),
            Step::Slice { name, .. } | Step::SliceGone(name) => format!("slice {name}"),
            Step::Own(_) => "own".into(),
            Step::Veth { ifindex, .. } | Step::Unbound(ifindex) => format!("veth {ifindex}"),
            Step::Uplink(ifindex) | Step::UplinkGone(ifindex) => format!("uplink {ifindex}"),
            Step::Node(_) => "node".into(),
        };
        last.insert(about, (index, step));
    }
    let mut relearned: Vec<(usize, &Step)> = last.into_values().collect();
    relearned.sort_by_key(|(index, _)| {
        let mut hasher = DefaultHasher::new();
        (seed, index).hash(&mut hasher);
        hasher.finish()
    });
    let relearned: Vec<Step> = relearned.into_iter().map(|(_, step)| step.clone()).collect();
    assert_eq!(plan_all(&cluster::<A>(&relearned), &mut have), []);
}

fn resting_ids_are_not_given_again<A: Numbered>(first: &[Step], second: &[Step]) {
    let mut have = Tables::<A>::default();
    plan_all(&cluster::<A>(first), &mut have);
    plan_all(&cluster::<A>(&[]), &mut have);
    let used = have.resting.clone();
    plan_all(&cluster::<A>(second), &mut have);
    for (id, row) in &have.backends {
        assert!(
            !used.contains(id) && !used.contains(&row.service),
            "backend {id} of service {}",
            row.service
        );
    }
}

/// The lowest ids that are free.
fn ids_are_the_lowest_free<A: Numbered>(steps: &[Step]) {
    let mut have = Tables::<A>::default();
    plan_all(&cluster::<A>(steps), &mut have);
    let ids: Vec<u32> = have.backends.keys().copied().collect();
    assert_eq!(ids, (1..).take(ids.len()).collect::<Vec<_>>());
    let services: BTreeSet<u32> =
        have.frontends.values().map(|row| row.service).filter(|id| *id != 0).collect();
    assert_eq!(services, (1..).take(services.len()).collect::<BTreeSet<_>>());
}

macro_rules! laws {
    ($family:ident, $address:ty) => {
        mod $family {
            use super::*;

            proptest! {
                #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

                #[test]
                fn owners_in_any_order_end_where_the_full_plan_ends(
                    first in steps(), second in steps(), third in steps(), cut in 0usize..40, seed: u64,
                ) {
                    let have = leftover::<$address>(&first, &second, cut);
                    any_order_ends_where_the_full_plan_ends(&have, &cluster::<$address>(&third), seed);
                }

                #[test]
                fn every_prefix_of_a_plan_works(
                    first in steps(), second in steps(), third in steps(), cut in 0usize..40,
                ) {
                    let have = leftover::<$address>(&first, &second, cut);
                    super::every_prefix_works(&have, &cluster::<$address>(&third));
                }

                #[test]
                fn planning_twice_is_empty(
                    first in steps(), second in steps(), third in steps(), cut in 0usize..40,
                ) {
                    let mut have = leftover::<$address>(&first, &second, cut);
                    super::planning_twice_is_empty(&mut have, &cluster::<$address>(&third));
                }

                #[test]
                fn a_failing_owner_holds_back_only_those_that_need_it(
                    first in steps(), second in steps(), seed: u64, done in 0usize..6,
                ) {
                    let have = leftover::<$address>(&first, &first, 0);
                    let want = cluster::<$address>(&second);
                    super::a_failing_owner_holds_back_only_those_that_need_it(&have, &want, seed, done);
                }

                #[test]
                fn every_event_dirties_all_that_it_changes(steps in steps()) {
                    dirt_is_complete::<$address>(&steps);
                }

                #[test]
                fn a_restart_changes_no_row(steps in steps(), seed: u64) {
                    super::a_restart_changes_nothing::<$address>(&steps, seed);
                }

                #[test]
                fn resting_ids_are_not_given_again(first in steps(), second in steps()) {
                    super::resting_ids_are_not_given_again::<$address>(&first, &second);
                }

                #[test]
                fn ids_are_the_lowest_free(steps in steps()) {
                    super::ids_are_the_lowest_free::<$address>(&steps);
                }
            }
        }
    };
}

laws!(v4, [u8; 4]);
laws!(v6, [u8; 16]);
