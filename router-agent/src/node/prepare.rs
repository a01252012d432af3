//! The node made ready: kernel settings that forwarding needs, and the bridge.
//!
//! What is missing in this kernel is logged and left; `bridge-nf-call-iptables` stays as found, since the data path
//! works with both, and so does `rp_filter`. Absent: loading modules.

use std::ops::RangeInclusive;

use anyhow::{Context as _, Result};

use crate::sys::netlink::Netlink;
use crate::sys::sysctl;

use super::links::BRIDGE;

/// Source ports that are ours alone, by default.
pub(crate) const RESERVED_PORTS: RangeInclusive<u16> = 49_152..=65_535;

const RESERVED: &str = "net/ipv4/ip_local_reserved_ports";

/// Sets what forwarding and our programs need. Called at start and at each audit; what is right is not written.
pub(crate) fn settings(ports: &RangeInclusive<u16>) {
    forwarding();
    let reserved = sysctl::read(RESERVED).unwrap_or_default();
    let merged = merge(&reserved, ports);
    report(RESERVED, &merged, sysctl::set(RESERVED, &merged));
}

/// Sets what forwarding alone needs.
pub(crate) fn forwarding() {
    for (name, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/default/send_redirects", "0"),
        ("net/ipv4/conf/kube-bridge/send_redirects", "0"),
    ] {
        // The bridge has its settings only once it stands.
        if name.contains(BRIDGE) && !sysctl::exists(name) {
            continue;
        }
        report(name, value, sysctl::set(name, value));
    }
}

fn report(name: &str, value: &str, outcome: std::io::Result<Option<String>>) {
    match outcome {
        Ok(None) => {}
        Ok(Some(found)) => tracing::info!(setting = name, found, now = value, "changed a kernel setting"),
        Err(error) => tracing::warn!(setting = name, value, %error, "cannot change a kernel setting"),
    }
}

/// Creates `kube-bridge` if it is missing, sets it up, and gives it an MTU in bytes, if one is named. Its address is
/// the CNI plugin's to give.
pub(crate) fn bridge(netlink: &mut Netlink, mtu: Option<u32>) -> Result<()> {
    if netlink.link_named(BRIDGE)?.is_none() {
        netlink.add_bridge(BRIDGE).context("cannot create kube-bridge")?;
    }
    let bridge = netlink.link_named(BRIDGE)?.context("kube-bridge went away while it was set up")?;
    if !bridge.up {
        netlink.set_up(bridge.index).context("cannot set kube-bridge up")?;
    }
    if let Some(mtu) = mtu.filter(|mtu| *mtu != bridge.mtu) {
        netlink.set_mtu(bridge.index, mtu).with_context(|| format!("cannot set its MTU to {mtu}"))?;
        tracing::info!(found = bridge.mtu, now = mtu, "changed the MTU of {BRIDGE}");
    }
    Ok(())
}

/// The kernel's list of reserved ports with a range added: sorted, and no two that touch.
fn merge(reserved: &str, added: &RangeInclusive<u16>) -> String {
    let mut ranges: Vec<(u16, u16)> = reserved
        .split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
        })
        .chain([(*added.start(), *added.end())])
        .collect();
    ranges.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    let text: Vec<String> = merged
        .into_iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    text.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::{in_namespace, run};

    #[test]
    fn a_reserved_range_is_merged_into_what_others_reserved() {
        for (found, merged) in [
            ("", "49152-65535"),
            ("8080", "8080,49152-65535"),
            ("30000-32767,50000", "30000-32767,49152-65535"),
            ("49000-49151,7", "7,49000-65535"),
            ("49152-65535", "49152-65535"),
        ] {
            assert_eq!(merge(found, &RESERVED_PORTS), merged, "{found:?}");
        }
    }

    #[test]
    fn a_fresh_namespace_forwards_sends_no_redirects_and_reserves_our_ports() {
        in_namespace(|| {
            run("echo 8080,30000-32767 > /proc/sys/net/ipv4/ip_local_reserved_ports");
            bridge(&mut Netlink::open().unwrap(), Some(1400)).unwrap();
            settings(&RESERVED_PORTS);
            settings(&RESERVED_PORTS);
            assert_eq!(sysctl::read("net/ipv4/ip_forward").unwrap(), "1");
            for device in ["all", "default", BRIDGE] {
                assert_eq!(sysctl::read(&format!("net/ipv4/conf/{device}/send_redirects")).unwrap(), "0");
            }
            assert_eq!(sysctl::read(RESERVED).unwrap(), "8080,30000-32767,49152-65535");
            let shown = run("ip link show kube-bridge");
            assert!(shown.contains("UP") && shown.contains("mtu 1400 "), "{shown}");
        });
    }
}
