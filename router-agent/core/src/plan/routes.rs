//! Which prefixes lead to `kube-svc`. As few as can be said safely: a range is only routed if nothing real lives
//! in it, since everything inside would be answered by us.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

/// The prefixes to route so that every one of `vips` is reached: each of `configured` that holds a VIP, the
/// common prefix of the rest if it is no shorter than /12 (/108), and where such a prefix would cover one of
/// `held` (addresses of nodes, pod ranges, connected prefixes) a route a VIP. A VIP that is held itself has none.
pub fn vip_ranges(vips: &BTreeSet<IpAddr>, configured: &[IpNet], held: &[IpNet]) -> BTreeSet<IpNet> {
    let mut ranges = BTreeSet::new();
    let mut rest: Vec<IpAddr> =
        vips.iter().copied().filter(|vip| !held.contains(&IpNet::from(*vip))).collect();
    for range in configured {
        let (inside, outside) = rest.into_iter().partition(|vip| range.contains(vip));
        rest = outside;
        add(&mut ranges, inside, Some(range.trunc()), held);
    }
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = rest.into_iter().partition(IpAddr::is_ipv4);
    for (family, shortest) in [(v4, 12), (v6, 108)] {
        let range = common_prefix(&family).filter(|range| range.prefix_len() >= shortest);
        add(&mut ranges, family, range, held);
    }
    ranges
}

/// Adds `range` for `vips`, or, if there is none or it covers something real, each VIP alone.
fn add(ranges: &mut BTreeSet<IpNet>, vips: Vec<IpAddr>, range: Option<IpNet>, held: &[IpNet]) {
    let free = |range: &IpNet| !held.iter().any(|other| range.contains(other) || other.contains(range));
    match range.filter(free) {
        Some(range) if !vips.is_empty() => {
            ranges.insert(range);
        }
        _ => ranges.extend(vips.into_iter().map(IpNet::from)),
    }
}

/// The longest prefix that holds every address, all of one family.
fn common_prefix(addresses: &[IpAddr]) -> Option<IpNet> {
    let first = *addresses.first()?;
    let mut range = IpNet::from(first);
    while !addresses.iter().all(|address| range.contains(address)) {
        range = range.supernet()?;
    }
    Some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(vips: &[&str], configured: &[&str], held: &[&str]) -> Vec<String> {
        let vips = vips.iter().map(|text| text.parse().unwrap()).collect();
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>();
        vip_ranges(&vips, &nets(configured), &nets(held)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_configured_range_is_one_route_once_it_holds_a_vip() {
        assert_eq!(ranges(&["10.96.0.1", "10.97.3.4"], &["10.96.0.0/12"], &[]), ["10.96.0.0/12"]);
        assert_eq!(ranges(&[], &["10.96.0.0/12"], &[]), Vec::<String>::new());
    }

    #[test]
    fn vips_outside_share_their_common_prefix() {
        assert_eq!(ranges(&["172.20.0.1", "172.20.9.9"], &["10.96.0.0/12"], &[]), ["172.20.0.0/20"]);
        assert_eq!(ranges(&["172.20.0.1"], &[], &[]), ["172.20.0.1/32"]);
    }

    #[test]
    fn a_common_prefix_too_short_becomes_a_route_a_vip() {
        assert_eq!(ranges(&["10.0.0.1", "172.20.0.1"], &[], &[]), ["10.0.0.1/32", "172.20.0.1/32"]);
    }

    #[test]
    fn a_range_with_something_real_in_it_becomes_a_route_a_vip() {
        let vips = ["10.96.0.1", "10.96.0.10"];
        assert_eq!(ranges(&vips, &["10.96.0.0/12"], &["10.100.0.7/32"]), ["10.96.0.1/32", "10.96.0.10/32"]);
        assert_eq!(ranges(&vips, &[], &["10.96.0.0/24"]), ["10.96.0.1/32", "10.96.0.10/32"]);
    }

    #[test]
    fn a_vip_that_is_a_node_address_is_not_routed() {
        assert_eq!(ranges(&["192.0.2.1"], &[], &["192.0.2.1/32"]), Vec::<String>::new());
    }

    #[test]
    fn families_do_not_mix() {
        assert_eq!(ranges(&["fd00::1", "fd00::2", "10.9.0.1"], &[], &[]), ["10.9.0.1/32", "fd00::/126"]);
    }
}
