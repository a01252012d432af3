//! What is compared: each arm is one way for a client to reach a server, on a node that knows so many Services.

use std::fmt;

use anyhow::{Context as _, Result, bail};

use crate::vm::Series;

/// Who maps the address that is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nobody: the server's own address is dialled and routed over `kube-bridge`. What all others are held against.
    Plain,
    /// The same, but the two pods share a subnet, so that the bridge forwards and nothing is routed.
    Bridged,
    /// Our programs, `--fast-path`.
    Fast,
    /// Our programs without it.
    Slow,
    /// Our programs stand there, and the server's own address is dialled.
    Direct,
    /// IPVS as upstream sets it up: VIPs on a dummy device, connection tracking on.
    Ipvs,
    /// The chains of kube-proxy's iptables mode, by legacy iptables.
    Iptables,
    /// A verdict map and a chain a Service, as in kube-proxy's nftables mode.
    Nft,
}

impl Kind {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Plain, "plain"),
        (Self::Bridged, "bridged"),
        (Self::Fast, "ours-fast"),
        (Self::Slow, "ours-slow"),
        (Self::Direct, "ours-direct"),
        (Self::Ipvs, "ipvs"),
        (Self::Iptables, "iptables"),
        (Self::Nft, "nft"),
    ];

    /// As on the command line and in the table.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    /// Whether the Services' own address is dialled.
    pub fn dials_vip(self) -> bool {
        !matches!(self, Self::Plain | Self::Bridged | Self::Direct)
    }

    /// Whether our programs stand there.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Fast | Self::Slow | Self::Direct)
    }

    /// Modules beside [`MODULES`]. A module that only another arm needs would put its hooks into every packet's way.
    fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Plain | Self::Bridged | Self::Nft => &[],
            Self::Fast | Self::Slow | Self::Direct => &["sch_ingress", "cls_bpf"],
            Self::Ipvs => &["ip_vs", "ip_vs_rr"],
            Self::Iptables => {
                &["iptable_nat", "xt_nat", "xt_tcpudp", "xt_comment", "xt_mark", "xt_MASQUERADE"]
            }
        }
    }
}

/// Modules of every arm.
const MODULES: &[&str] = &[
    "veth",
    "dummy",
    "bridge",
    "br_netfilter",
    "nf_conntrack",
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_nat",
    "nft_masq",
];

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arm {
    pub kind: Kind,
    /// How many Services the node knows; the one in their middle is dialled.
    pub services: u32,
}

impl Arm {
    /// From its two words.
    pub fn parse(name: &str, services: &str) -> Result<Self> {
        let Some((kind, _)) = Kind::ALL.iter().find(|(_, known)| *known == name) else {
            bail!("there is no arm {name:?}");
        };
        Ok(Self { kind: *kind, services: services.parse().context("how many Services?")? })
    }

    /// Modules that its guest loads.
    pub fn modules(self) -> Vec<&'static str> {
        [MODULES, self.kind.modules()].concat()
    }

    /// Why this kernel cannot run it.
    pub fn impossible(self, series: Series) -> Option<&'static str> {
        let is_endless = series == Series::V6_1 && self.kind == Kind::Ipvs && self.services > 5_000;
        is_endless.then_some(
            "IPVS of this kernel visits every service in one timer every two seconds, and a guest that counts \
             instructions has no time left (6.2 spread that over kernel threads)",
        )
    }

    /// The index of the Service that is dialled.
    pub fn dialled(self) -> u32 {
        self.services / 2
    }
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.services == 0 {
            return write!(f, "{}", self.kind.name());
        }
        write!(f, "{} {}", self.kind.name(), self.services)
    }
}

/// Every arm, the one that others are held against first; or the four that are quick to run.
pub fn matrix(quick: bool) -> Vec<Arm> {
    let arms: &[(Kind, &[u32])] = if quick {
        &[(Kind::Plain, &[0]), (Kind::Fast, &[1]), (Kind::Slow, &[1]), (Kind::Ipvs, &[1])]
    } else {
        &[
            (Kind::Plain, &[0]),
            (Kind::Bridged, &[0]),
            (Kind::Direct, &[1]),
            (Kind::Fast, &[1, 5_000, 30_000]),
            (Kind::Slow, &[1, 5_000, 30_000]),
            (Kind::Ipvs, &[1, 5_000, 30_000]),
            // A walk of 30,000 rules says nothing that one of 5,000 does not.
            (Kind::Iptables, &[1, 5_000]),
            (Kind::Nft, &[1, 5_000, 30_000]),
        ]
    };
    let rows = arms.iter().flat_map(|(kind, counts)| counts.iter().map(|count| (*kind, *count)));
    rows.map(|(kind, services)| Arm { kind, services }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arm_is_read_back_from_its_words() {
        for arm in matrix(false) {
            assert_eq!(Arm::parse(arm.kind.name(), &arm.services.to_string()).unwrap(), arm);
            assert!(arm.services == 0 || arm.dialled() < arm.services);
        }
        assert!(Arm::parse("cilium", "1").is_err());
    }

    #[test]
    fn what_others_are_held_against_comes_first() {
        assert_eq!((matrix(false)[0].kind, matrix(true)[0].kind), (Kind::Plain, Kind::Plain));
    }
}
