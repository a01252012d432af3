//! The laws of planning learned routes, on random hosts, for both families; then each reason to have none.

use proptest::prelude::*;

use super::*;

/// A family in which a test can name things by numbers.
trait Numbered {
    /// `10.<net>.<host>` with this many bits after the net.
    fn prefix(net: u8, host: u8, length: u8) -> IpNet;
    fn address(net: u8, host: u8) -> IpAddr;
}

struct Four;
struct Six;

impl Numbered for Four {
    fn prefix(net: u8, host: u8, length: u8) -> IpNet {
        IpNet::new(Self::address(net, host), 16 + length).unwrap().trunc()
    }

    fn address(net: u8, host: u8) -> IpAddr {
        [10, net, 0, host].into()
    }
}

impl Numbered for Six {
    fn prefix(net: u8, host: u8, length: u8) -> IpNet {
        IpNet::new(Self::address(net, host), 112 + length).unwrap().trunc()
    }

    fn address(net: u8, host: u8) -> IpAddr {
        [0xfd00, 0, 0, 0, 0, 0, u16::from(net), u16::from(host)].into()
    }
}

/// The world before a plan: what is wanted, and what stands. Few numbers, so that things collide.
#[derive(Clone, Debug)]
struct World {
    want: Want,
    have: Tables,
}

fn prefix<F: Numbered>() -> impl Strategy<Value = IpNet> {
    (1u8..4, 0u8..4, prop::sample::select(vec![0u8, 8, 14, 16]))
        .prop_map(|(net, host, length)| F::prefix(net, host, length))
}

fn next_hop<F: Numbered>() -> impl Strategy<Value = IpAddr> {
    (1u8..4, 0u8..5).prop_map(|(net, host)| F::address(net, host))
}

fn row<F: Numbered>() -> impl Strategy<Value = Row> {
    let metric = prop::sample::select(vec![0u32, 0, 0, 50]);
    let next_hop = prop::option::weighted(0.9, next_hop::<F>());
    (metric, next_hop, 1u32..4, prop::bool::weighted(0.9)).prop_map(|(metric, next_hop, link, single)| Row {
        metric,
        next_hop,
        link,
        single,
    })
}

fn subnet<F: Numbered>() -> impl Strategy<Value = Subnet> {
    let flags = (prop::bool::weighted(0.8), prop::bool::weighted(0.8));
    (1u8..4, 1u8..3, 1u32..4, flags).prop_map(|(net, host, link, (global, up))| Subnet {
        network: F::prefix(net, 0, 8),
        address: F::address(net, host),
        link,
        global,
        up,
    })
}

fn world<F: Numbered + 'static>() -> impl Strategy<Value = World> {
    let chosen =
        prop::collection::btree_map(prefix::<F>(), prop::option::weighted(0.8, next_hop::<F>()), 0..12);
    let subnets = prop::collection::vec(subnet::<F>(), 0..4);
    let own = (
        prop::collection::btree_set(prefix::<F>(), 0..2),
        prop::collection::btree_set(next_hop::<F>(), 0..2),
    );
    let rows = prop::collection::vec((prefix::<F>(), row::<F>()), 0..12);
    let taken = prop::collection::btree_map(prefix::<F>(), 2u8..5, 0..3);
    (chosen, any::<bool>(), subnets, own, rows, taken).prop_map(
        |(chosen, swept, subnets, (ranges, addresses), rows, taken)| {
            let mut have = Tables { rows: BTreeMap::new(), taken };
            for (prefix, row) in rows {
                // The kernel has no route twice.
                if !have.rows_of(prefix).any(|found| *found == row) {
                    have.note(prefix, PROTOCOL, row);
                }
            }
            World { want: Want { chosen, swept, subnets, own: Own { ranges, addresses } }, have }
        },
    )
}

/// As the kernel carries an op out.
fn carry_out(have: &mut Tables, op: &Op) -> Result<(), String> {
    let with_metric = |prefix: IpNet| {
        have.rows_of(prefix).any(|row| row.metric == METRIC) || have.taken.contains_key(&prefix)
    };
    match *op {
        Op::Add(prefix, _) if with_metric(prefix) => return Err(format!("{op}: file exists")),
        Op::Replace(prefix, row) => {
            if have.taken.contains_key(&prefix) {
                return Err(format!("{op}: takes the place of somebody else's"));
            }
            if !with_metric(prefix) {
                return Err(format!("{op}: no such file"));
            }
            if have.rows_of(prefix).any(|found| *found == row) {
                return Err(format!("{op}: file exists"));
            }
        }
        _ => {}
    }
    FibPlane::apply(have, op);
    Ok(())
}

/// Ops in the order in which a driver carries them out.
fn ops(groups: &[Group<Op>]) -> Vec<Op> {
    let puts = groups.iter().flat_map(|group| group.puts.iter());
    puts.chain(groups.iter().rev().flat_map(|group| group.dels.iter())).copied().collect()
}

fn plan_all(want: &Want, have: &Tables) -> Vec<Group<Op>> {
    let owners = FibPlane::owners(want, have);
    FibPlane::plan_all(want, &mut have.clone(), &owners, Duration::ZERO)
}

/// What a prefix should have, all of it.
fn expected(world: &World, prefix: IpNet) -> Vec<Row> {
    match world.want.chosen.get(&prefix) {
        None if !world.want.swept => world.have.rows_of(prefix).copied().collect(),
        None | Some(None) => Vec::new(),
        Some(Some(next_hop)) => Vec::from_iter(route(&world.want, &world.have, prefix, *next_hop).ok()),
    }
}

fn rows(have: &Tables, prefix: IpNet) -> Vec<Row> {
    have.rows_of(prefix).copied().collect()
}

fn apply(have: &mut Tables, groups: &[Group<Op>]) {
    for op in ops(groups) {
        FibPlane::apply(have, &op);
    }
}

fn prefixes(world: &World) -> BTreeSet<IpNet> {
    let held = world.have.rows.keys().map(|(prefix, _)| *prefix);
    world.want.chosen.keys().copied().chain(held).collect()
}

macro_rules! laws {
    ($family:ident, $module:ident) => {
        mod $module {
            use super::*;

            proptest! {
                #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

                /// The plan leads to what is wanted, every op can be carried out, and then there is nothing to do.
                #[test]
                fn a_plan_leads_to_what_is_wanted_and_then_there_is_none(world in world::<$family>()) {
                    let mut have = world.have.clone();
                    for op in ops(&plan_all(&world.want, &world.have)) {
                        carry_out(&mut have, &op).unwrap();
                    }
                    for prefix in prefixes(&world) {
                        prop_assert_eq!(rows(&have, prefix), expected(&world, prefix));
                    }
                    prop_assert_eq!(plan_all(&world.want, &have), vec![]);
                    prop_assert_eq!(&have.taken, &world.have.taken);
                }

                /// A prefix that has a route and is to have one has one after every op.
                #[test]
                fn no_prefix_of_a_plan_leaves_a_gap(world in world::<$family>()) {
                    let mut have = world.have.clone();
                    let steady: Vec<IpNet> = prefixes(&world).into_iter().filter(|prefix| {
                        !expected(&world, *prefix).is_empty() && have.rows_of(*prefix).next().is_some()
                    }).collect();
                    for op in ops(&plan_all(&world.want, &world.have)) {
                        carry_out(&mut have, &op).unwrap();
                        for prefix in &steady {
                            prop_assert!(have.rows_of(*prefix).next().is_some(), "{} leaves {}", op, prefix);
                        }
                    }
                }

                /// Owners planned one by one, in any order, end where all of them at once do.
                #[test]
                fn any_order_ends_the_same(world in world::<$family>(), seed in any::<u64>()) {
                    let mut whole = world.have.clone();
                    apply(&mut whole, &plan_all(&world.want, &world.have));
                    let mut owners: Vec<Owner> =
                        FibPlane::owners(&world.want, &world.have).into_iter().collect();
                    let places = owners.len().max(1) as u64;
                    owners.rotate_left(usize::try_from(seed % places).unwrap());
                    if seed & (1 << 40) != 0 {
                        owners.reverse();
                    }
                    let mut single = world.have.clone();
                    for owner in owners {
                        let group = FibPlane::plan(&world.want, &single, &owner, Duration::ZERO);
                        apply(&mut single, &[group]);
                    }
                    prop_assert_eq!(single, whole);
                }

                /// An owner that cannot be written changes nothing for any other.
                #[test]
                fn a_failing_owner_holds_back_nobody_else(world in world::<$family>(), which in any::<prop::sample::Index>()) {
                    let groups = plan_all(&world.want, &world.have);
                    prop_assume!(!groups.is_empty());
                    prop_assert!(groups.iter().all(|group| group.needs.is_empty()));
                    let failing = groups[which.index(groups.len())].owner.clone();
                    let mut have = world.have.clone();
                    let others: Vec<_> =
                        groups.into_iter().filter(|group| group.owner != failing).collect();
                    for op in ops(&others) {
                        carry_out(&mut have, &op).unwrap();
                    }
                    let Owner::Route(failed) = failing else { panic!("{failing}") };
                    for prefix in prefixes(&world).into_iter().filter(|prefix| *prefix != failed) {
                        prop_assert_eq!(rows(&have, prefix), expected(&world, prefix));
                    }
                }

                /// What is installed is direct, and never takes anything that is ours by other means.
                #[test]
                fn whatever_is_installed_is_safe(world in world::<$family>()) {
                    for op in ops(&plan_all(&world.want, &world.have)) {
                        let (Op::Add(prefix, row) | Op::Replace(prefix, row)) = op else { continue };
                        let next_hop = row.next_hop.unwrap();
                        let want = &world.want;
                        prop_assert!(want.subnets.iter().any(|subnet| subnet.link == row.link && subnet.up
                            && subnet.global && subnet.network.contains(&next_hop)));
                        prop_assert!(!want.subnets.iter().any(|subnet| subnet.address == next_hop));
                        let ours = want.subnets.iter().map(|subnet| subnet.network).chain(want.own.ranges.clone());
                        prop_assert!(!ours.into_iter().any(|range| range.contains(&prefix)));
                        prop_assert!(!want.own.addresses.iter().any(|address| IpNet::from(*address) == prefix));
                        prop_assert!(!world.have.taken.contains_key(&prefix));
                    }
                }
            }
        }
    };
}

laws!(Four, four);
laws!(Six, six);

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn subnet_of(network: &str, address: &str, link: u32) -> Subnet {
    Subnet { network: net(network), address: ip(address), link, global: true, up: true }
}

/// A node with two subnets, of which the second is down, a loopback, and ranges of its own.
fn host() -> Want {
    let down = Subnet { up: false, ..subnet_of("198.51.100.0/24", "198.51.100.1", 3) };
    let loopback = Subnet { global: false, ..subnet_of("127.0.0.0/8", "127.0.0.1", 1) };
    Want {
        subnets: vec![
            subnet_of("192.0.2.0/24", "192.0.2.1", 2),
            down,
            loopback,
            subnet_of("fd00:2::/64", "fd00:2::1", 2),
        ],
        own: Own {
            ranges: BTreeSet::from([net("10.244.1.0/24"), net("10.96.0.0/12"), net("fd00:244::/64")]),
            addresses: BTreeSet::from([ip("192.0.2.1"), ip("203.0.113.9"), ip("fd00:9::9")]),
        },
        ..Want::default()
    }
}

/// What the host makes of `prefix` by `next_hop`: the link, or why none.
fn verdict(prefix: &str, next_hop: &str) -> Result<u32, Reason> {
    let have = Tables { taken: BTreeMap::from([(net("10.9.0.0/16"), 4)]), ..Tables::default() };
    route(&host(), &have, net(prefix), ip(next_hop)).map(|row| row.link)
}

#[test]
fn a_next_hop_in_a_connected_subnet_makes_a_direct_route() {
    for (prefix, next_hop) in [
        ("10.244.2.0/24", "192.0.2.2"),
        ("0.0.0.0/0", "192.0.2.254"),
        ("192.0.0.0/16", "192.0.2.2"),
        ("10.0.0.0/8", "192.0.2.2"),
        ("203.0.113.8/31", "192.0.2.2"),
        ("fd00:244:0:1::/64", "fd00:2::2"),
        ("::/0", "fd00:2::"),
    ] {
        assert_eq!(verdict(prefix, next_hop), Ok(2), "{prefix} by {next_hop}");
    }
}

#[test]
fn what_would_cut_the_node_off_is_refused_with_its_reason() {
    let cases = [
        ("192.0.2.0/24", "192.0.2.2", Reason::CoversNextHop(ip("192.0.2.2"))),
        ("192.0.2.2/32", "192.0.2.2", Reason::CoversNextHop(ip("192.0.2.2"))),
        ("192.0.2.128/25", "192.0.2.2", Reason::Connected(net("192.0.2.0/24"))),
        ("198.51.100.0/24", "192.0.2.2", Reason::Connected(net("198.51.100.0/24"))),
        ("10.244.1.0/24", "192.0.2.2", Reason::OwnRange(net("10.244.1.0/24"))),
        ("10.96.0.10/32", "192.0.2.2", Reason::OwnRange(net("10.96.0.0/12"))),
        ("203.0.113.9/32", "192.0.2.2", Reason::NodeAddress),
        ("10.244.2.0/24", "192.0.2.1", Reason::OwnNextHop(ip("192.0.2.1"))),
        ("10.244.2.0/24", "192.0.2.255", Reason::NotAHost(ip("192.0.2.255"))),
        ("10.244.2.0/24", "192.0.2.0", Reason::NotAHost(ip("192.0.2.0"))),
        ("10.244.2.0/24", "203.0.113.1", Reason::Unreachable(ip("203.0.113.1"))),
        ("10.244.2.0/24", "127.0.0.2", Reason::Unreachable(ip("127.0.0.2"))),
        ("10.244.2.0/24", "198.51.100.2", Reason::LinkDown(ip("198.51.100.2"))),
        ("10.244.2.0/24", "fd00:2::2", Reason::OtherFamily(ip("fd00:2::2"))),
        ("fd00:3::/64", "192.0.2.2", Reason::OtherFamily(ip("192.0.2.2"))),
        ("fd00:2::2/128", "fd00:2::3", Reason::Connected(net("fd00:2::/64"))),
        ("fd00:9::9/128", "fd00:2::3", Reason::NodeAddress),
        ("10.9.0.0/16", "192.0.2.2", Reason::Taken(4)),
        ("127.1.0.0/16", "192.0.2.2", Reason::NotADestination),
        ("224.0.0.0/4", "192.0.2.2", Reason::NotADestination),
        ("0.0.0.0/8", "192.0.2.2", Reason::NotADestination),
        ("fe80::/64", "fd00:2::2", Reason::NotADestination),
        ("ff00::/8", "fd00:2::2", Reason::NotADestination),
    ];
    for (prefix, next_hop, reason) in cases {
        assert_eq!(verdict(prefix, next_hop), Err(reason), "{prefix} by {next_hop}");
    }
}

#[test]
fn of_two_links_into_a_subnet_the_one_in_use_stays() {
    let mut want = host();
    want.subnets.push(subnet_of("192.0.2.0/24", "192.0.2.3", 7));
    let (prefix, next_hop) = (net("10.244.2.0/24"), ip("192.0.2.2"));
    assert_eq!(route(&want, &Tables::default(), prefix, next_hop).unwrap().link, 2);
    let mut have = Tables::default();
    have.note(prefix, PROTOCOL, Row { metric: 0, next_hop: Some(next_hop), link: 7, single: true });
    assert_eq!(route(&want, &have, prefix, next_hop).unwrap().link, 7);
}

#[test]
fn the_smallest_subnet_that_is_up_leads_to_a_next_hop() {
    let mut want = host();
    want.subnets.push(subnet_of("192.0.0.0/16", "192.0.9.1", 5));
    let link =
        |want: &Want| route(want, &Tables::default(), net("10.244.2.0/24"), ip("192.0.2.2")).unwrap().link;
    assert_eq!(link(&want), 2);
    want.subnets[0].up = false;
    assert_eq!(link(&want), 5);
}

#[test]
fn what_nobody_has_chosen_stays_until_the_sweep() {
    let mut have = Tables::default();
    let stale = Row { metric: 0, next_hop: Some(ip("192.0.2.9")), link: 2, single: true };
    have.note(net("10.7.0.0/16"), PROTOCOL, stale);
    let mut want = host();
    assert_eq!(plan_all(&want, &have), []);
    want.swept = true;
    let gone = ops(&plan_all(&want, &have));
    assert_eq!(gone, [Op::Delete(net("10.7.0.0/16"), stale)]);
    assert_eq!(gone[0].to_string(), "delete route 10.7.0.0/16 via 192.0.2.9 on link 2");
}

#[test]
fn refusals_are_listed_with_their_reasons() {
    let mut want = host();
    for prefix in ["192.0.2.0/24", "10.244.2.0/24", "10.97.0.1/32"] {
        want.chosen.insert(net(prefix), Some(ip("192.0.2.2")));
    }
    want.chosen.insert(net("10.244.1.0/24"), None);
    let said: Vec<String> =
        refused(&want, &Tables::default()).map(|(prefix, reason)| format!("{prefix}: {reason}")).collect();
    assert_eq!(
        said,
        [
            "10.97.0.1/32: it is in this node's own range 10.96.0.0/12",
            "192.0.2.0/24: it would lead to its own next hop 192.0.2.2"
        ]
    );
}
