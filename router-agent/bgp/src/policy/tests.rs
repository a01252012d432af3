use super::*;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn exact(text: &str) -> PrefixRange {
    PrefixRange::exact(prefix(text))
}

fn statement(prefixes: &str, neighbors: &str, actions: Actions) -> Statement {
    let set = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
    let name = format!("{prefixes}{neighbors}");
    Statement { name, prefixes: set(prefixes), neighbors: set(neighbors), actions }
}

fn assignment(name: &str, statements: Vec<Statement>, default: Verdict) -> Assignment {
    Assignment { policies: vec![Policy { name: name.to_owned(), statements }], default }
}

/// What spec/routing §10 installs on a node with one internal and one external peer.
fn of_a_node() -> Policies {
    let sets = [
        ("podcidrdefinedset", vec![exact("10.244.1.0/24")]),
        ("servicevipsdefinedset", vec![exact("10.96.0.1/32"), exact("10.96.0.10/32")]),
        ("defaultroutedefinedset", vec![exact("0.0.0.0/0")]),
        ("customimportrejectdefinedset", vec![PrefixRange::or_longer(prefix("192.168.0.0/16"))]),
        ("emptydefinedset", vec![]),
    ];
    let sets = sets.map(|(name, ranges)| (name.to_owned(), ranges.into_iter().collect()));
    let neighbors = [
        ("iBGPpeerset", vec![prefix("172.16.0.2/32"), prefix("172.16.0.3/32")]),
        ("externalpeerset", vec![prefix("172.16.9.1/32")]),
        ("allpeerset", vec![prefix("172.16.0.2/32"), prefix("172.16.0.3/32"), prefix("172.16.9.1/32")]),
        ("emptypeerset", vec![]),
    ];
    let neighbors = neighbors.map(|(name, members)| (name.to_owned(), members));
    let accept = Actions::only(Verdict::Accept);
    let reject = Actions::only(Verdict::Reject);
    let extras = Actions {
        next_hop_self: true,
        prepend: Some((Asn(64512), 2)),
        add_communities: vec![0x0001_0002],
        ..accept.clone()
    };
    Policies::new(
        sets.into(),
        neighbors.into(),
        assignment(
            "kube_router_import1",
            vec![
                statement("emptydefinedset", "", reject.clone()),
                statement("servicevipsdefinedset", "allpeerset", reject.clone()),
                statement("defaultroutedefinedset", "allpeerset", reject.clone()),
                statement("customimportrejectdefinedset", "allpeerset", reject),
            ],
            Verdict::Accept,
        ),
        assignment(
            "kube_router_export1",
            vec![
                statement("", "emptypeerset", accept.clone()),
                statement("podcidrdefinedset", "iBGPpeerset", accept),
                statement("servicevipsdefinedset", "externalpeerset", extras.clone()),
                statement("podcidrdefinedset", "externalpeerset", extras),
            ],
            Verdict::Reject,
        ),
    )
    .unwrap()
}

#[test]
fn the_first_statement_that_matches_decides() {
    use Direction::{Export, Import};
    use Verdict::{Accept, Reject};
    let internal = "172.16.0.2";
    let external = "172.16.9.1";
    let stranger = "172.16.7.7";
    let rows = [
        ("own pod CIDR to a node", Export, internal, "10.244.1.0/24", Accept, false),
        ("a part of it does not match", Export, internal, "10.244.1.0/25", Reject, false),
        ("a VIP to a node", Export, internal, "10.96.0.1/32", Reject, false),
        ("a VIP to the router", Export, external, "10.96.0.10/32", Accept, true),
        ("own pod CIDR to the router", Export, external, "10.244.1.0/24", Accept, true),
        ("another's VIP to the router", Export, external, "10.96.0.2/32", Reject, false),
        ("an empty neighbor set is nobody", Export, stranger, "10.244.1.0/24", Reject, false),
        ("pod CIDR of another node", Import, internal, "10.244.2.0/24", Accept, false),
        ("our VIP back from the router", Import, external, "10.96.0.1/32", Reject, false),
        ("a default route", Import, external, "0.0.0.0/0", Reject, false),
        ("all but the default route", Import, external, "0.0.0.0/1", Accept, false),
        ("a custom range itself", Import, external, "192.168.0.0/16", Reject, false),
        ("inside a custom range", Import, external, "192.168.77.0/24", Reject, false),
        ("around a custom range", Import, external, "192.0.0.0/8", Accept, false),
        ("whom no statement names", Import, stranger, "10.96.0.1/32", Accept, false),
        ("the other family", Import, external, "::/0", Accept, false),
    ];
    let policies = of_a_node();
    for (row, direction, peer, of, verdict, changed) in rows {
        let class = policies.class(direction, peer.parse().unwrap());
        let ruling = policies.evaluate(direction, &class, &prefix(of));
        assert_eq!(ruling.verdict, verdict, "{row}");
        assert_eq!(policies.changes(direction, ruling).is_some(), changed, "{row}: changes");
    }
}

#[test]
fn peers_that_the_same_statements_concern_share_a_class() {
    let policies = of_a_node();
    let class = |peer: &str| policies.class(Direction::Export, peer.parse().unwrap());
    assert_eq!(class("172.16.0.2"), class("172.16.0.3"));
    assert_ne!(class("172.16.0.2"), class("172.16.9.1"));
}

#[test]
fn a_statement_with_an_unknown_set_is_refused() {
    let of = |prefixes: &str, neighbors: &str| {
        let statement = statement(prefixes, neighbors, Actions::only(Verdict::Accept));
        let import = assignment("p", vec![statement], Verdict::Accept);
        let export = Assignment { policies: Vec::new(), default: Verdict::Reject };
        Policies::new(BTreeMap::new(), BTreeMap::new(), import, export).err()
    };
    let missing = PolicyError::NoPrefixSet { statement: "ab".to_owned(), set: "a".to_owned() };
    assert_eq!(of("a", "b"), Some(missing));
    let missing = PolicyError::NoNeighborSet { statement: "b".to_owned(), set: "b".to_owned() };
    assert_eq!(of("", "b"), Some(missing));
}

#[test]
fn without_policies_all_is_taken_and_nothing_given() {
    let policies = Policies::default();
    for (direction, verdict) in [(Direction::Import, Verdict::Accept), (Direction::Export, Verdict::Reject)] {
        let class = policies.class(direction, "192.0.2.1".parse().unwrap());
        assert_eq!(policies.evaluate(direction, &class, &prefix("10.0.0.0/8")).verdict, verdict);
    }
}

#[test]
fn a_range_is_inserted_and_removed_once() {
    let mut set = PrefixSet::default();
    assert!(set.insert(exact("10.0.0.0/8")) && !set.insert(exact("10.0.0.0/8")));
    assert!(set.insert(PrefixRange::or_longer(prefix("10.0.0.0/8"))));
    assert!(set.remove(&exact("10.0.0.0/8")) && !set.remove(&exact("10.0.0.0/8")));
    assert!(set.matches(&prefix("10.1.0.0/16")));
    assert!(set.remove(&PrefixRange::or_longer(prefix("10.0.0.0/8"))));
    assert!(set.is_empty() && !set.matches(&prefix("10.0.0.0/8")));
}

mod difference {
    use proptest::prelude::*;

    use super::*;

    const SETS: [&str; 3] = ["a", "b", "c"];

    fn universe() -> Vec<Prefix> {
        let mut all = vec![prefix("0.0.0.0/0")];
        for length in 1..=3 {
            for bits in 0..1u32 << length {
                all.push(
                    Prefix::new(std::net::Ipv4Addr::from(bits << (32 - length)).into(), length).unwrap(),
                );
            }
        }
        all
    }

    fn ranges() -> impl Strategy<Value = PrefixSet> {
        let range = (0..universe().len(), 0..4u8).prop_map(|(at, more)| {
            let prefix = universe()[at];
            PrefixRange { prefix, min: prefix.prefix_len(), max: prefix.prefix_len() + more }
        });
        proptest::collection::vec(range, 0..4).prop_map(|ranges| ranges.into_iter().collect())
    }

    fn policies() -> impl Strategy<Value = Policies> {
        let actions = (any::<bool>(), 0..2u8).prop_map(|(accept, prepend)| Actions {
            verdict: if accept { Verdict::Accept } else { Verdict::Reject },
            prepend: Some((Asn(1), prepend)),
            ..Actions::only(Verdict::Accept)
        });
        let statement = (0..4usize, actions)
            .prop_map(|(set, actions)| statement(SETS.get(set).copied().unwrap_or_default(), "", actions));
        let statements = proptest::collection::vec(statement, 0..4);
        (proptest::array::uniform3(ranges()), statements, any::<bool>()).prop_map(
            |(sets, statements, accept)| {
                let default = if accept { Verdict::Accept } else { Verdict::Reject };
                let sets = SETS.map(str::to_owned).into_iter().zip(sets).collect();
                let import = assignment("p", statements, default);
                Policies::new(sets, BTreeMap::new(), import.clone(), import).unwrap()
            },
        )
    }

    proptest! {
        /// Outside of what a change is said to affect, nothing changes.
        #[test]
        fn covers_every_prefix_that_is_ruled_differently(old in policies(), new in policies()) {
            let peer = "192.0.2.1".parse().unwrap();
            let direction = Direction::Import;
            let (class, new_class) = (old.class(direction, peer), new.class(direction, peer));
            let Affected::Within(ranges) = old.difference(&class, &new, &new_class, direction) else {
                return Ok(());
            };
            for prefix in universe() {
                let outcome = |policies: &Policies, class: &Class| {
                    let ruling = policies.evaluate(direction, class, &prefix);
                    (ruling.verdict, policies.changes(direction, ruling).cloned())
                };
                let is_affected = ranges.iter().any(|range| range.contains(&prefix));
                prop_assert!(is_affected || outcome(&old, &class) == outcome(&new, &new_class), "{prefix}");
            }
        }
    }

    #[test]
    fn of_equal_policies_is_nothing() {
        let policies = of_a_node();
        for direction in [Direction::Import, Direction::Export] {
            let class = policies.class(direction, "172.16.9.1".parse().unwrap());
            assert!(policies.difference(&class, &policies, &class, direction).is_empty());
        }
    }

    #[test]
    fn of_a_changed_set_is_what_changed() {
        let old = of_a_node();
        let mut new = of_a_node();
        let added = exact("10.96.0.99/32");
        assert_eq!(new.change_prefix_set("servicevipsdefinedset", &[added], &[added]), vec![added]);
        let external = old.class(Direction::Export, "172.16.9.1".parse().unwrap());
        let internal = old.class(Direction::Export, "172.16.0.2".parse().unwrap());
        let of = |class| old.difference(class, &new, class, Direction::Export);
        assert_eq!(of(&external), Affected::Within(vec![added]));
        assert!(of(&internal).is_empty());
        let within = old.affected_by_set(Direction::Export, &external, "servicevipsdefinedset", &[added]);
        assert_eq!(within, Affected::Within(vec![added]));
        assert!(
            old.affected_by_set(Direction::Export, &internal, "servicevipsdefinedset", &[added]).is_empty()
        );
    }
}
