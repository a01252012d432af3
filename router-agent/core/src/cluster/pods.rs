//! Pods of this node: what the kernel reports of them, and the names that the API gives them.
//!
//! Which veth has an address is the kernel's word alone. Of two that report one address, the first keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::Veth;
use crate::model::Key;
use crate::model::pod::Pod;
use crate::plan::Owner;
use crate::problem::{Finder, Problem, Problems, Subject};

/// How long a veth may have an address before the API has told of its pod, or after it no longer does.
const STRANGE_AFTER: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pods {
    cidrs: Vec<IpNet>,
    veths: BTreeMap<u32, Veth>,
    /// By address, in the order in which they were seen to have it.
    claims: BTreeMap<IpAddr, Vec<u32>>,
    by_name: BTreeMap<Key, Pod>,
    /// Veths with an address that no pod of the API has, and since when.
    nameless: BTreeMap<u32, Duration>,
    /// Those for too long.
    strangers: BTreeSet<u32>,
}

impl Pods {
    /// Sets the ranges of which a pod's address must be.
    pub(super) fn set_cidrs(&mut self, cidrs: Vec<IpNet>, problems: &mut Problems) -> BTreeSet<Owner> {
        if self.cidrs == cidrs {
            return BTreeSet::new();
        }
        let mut touched = self.all_owners();
        self.cidrs = cidrs;
        for (ifindex, veth) in &self.veths {
            claim(&mut self.claims, &self.cidrs, *ifindex, Some(veth));
        }
        touched.extend(self.all_owners());
        self.judge(problems);
        touched
    }

    /// Sets or removes a pod of the API. It owns no row: it lends a name.
    pub(super) fn set_pod(&mut self, key: Key, pod: Option<Pod>, problems: &mut Problems) -> BTreeSet<Owner> {
        match pod {
            Some(pod) => self.by_name.insert(key, pod),
            None => self.by_name.remove(&key),
        };
        self.judge(problems);
        BTreeSet::new()
    }

    /// Sets or removes what the kernel reports of a veth.
    pub(super) fn set_veth(
        &mut self,
        ifindex: u32,
        veth: Option<Veth>,
        problems: &mut Problems,
    ) -> BTreeSet<Owner> {
        let mut touched = self.owners_of(ifindex);
        let old = self.veths.remove(&ifindex);
        claim(&mut self.claims, &self.cidrs, ifindex, veth.as_ref());
        if let Some(old) = old {
            problems.set(Finder::Cluster, &Subject::Link(old.name), Vec::new());
        }
        if let Some(veth) = veth {
            self.veths.insert(ifindex, veth);
        }
        touched.extend(self.owners_of(ifindex));
        touched.insert(Owner::Device(ifindex));
        self.judge(problems);
        touched
    }

    /// Finds the veths that nobody at the API knows. New ones are none as long as there are as many pods without an
    /// address: they may be theirs; nor while pods cannot be followed, when there may be some that we were not told
    /// of. Says when to look again, if nothing changes until then.
    pub(super) fn find_strangers(&mut self, now: Duration, problems: &mut Problems) -> Option<Duration> {
        let known = |address: &IpAddr| {
            let mut pods = self.by_name.values().filter(|pod| !pod.host_network);
            pods.any(|pod| pod.addresses.contains(address))
        };
        let nameless = self.veths.keys().copied().filter(|ifindex| {
            let mut own = self.claims.iter().filter(|(_, claimants)| claimants.first() == Some(ifindex));
            own.next().is_some_and(|(first, _)| !known(first)) && !own.any(|(address, _)| known(address))
        });
        self.nameless =
            nameless.map(|ifindex| (ifindex, self.nameless.get(&ifindex).copied().unwrap_or(now))).collect();
        let mut strangers = self.strangers.clone();
        strangers.retain(|ifindex| self.nameless.contains_key(ifindex));
        let new: BTreeMap<u32, Duration> = self
            .nameless
            .iter()
            .filter(|(ifindex, _)| !strangers.contains(*ifindex))
            .map(|(ifindex, since)| (*ifindex, *since + STRANGE_AFTER))
            .collect();
        let deaf = problems.iter().any(|problem| problem.subject == Subject::Watch("pods"));
        if !deaf && new.len() > self.live().filter(|pod| pod.addresses.is_empty()).count() {
            strangers.extend(new.iter().filter(|(_, at)| **at <= now).map(|(ifindex, _)| *ifindex));
        }
        if strangers != self.strangers {
            self.strangers = strangers;
            self.judge(problems);
        }
        let again = (deaf && !new.is_empty()).then(|| now + STRANGE_AFTER);
        new.into_values().filter(|at| *at > now).chain(again).min()
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.claims.keys().copied()
    }

    pub(super) fn claimants(&self, address: IpAddr) -> &[u32] {
        self.claims.get(&address).map_or(&[], Vec::as_slice)
    }

    pub(super) fn veth(&self, ifindex: u32) -> Option<&Veth> {
        self.veths.get(&ifindex)
    }

    pub(super) fn veths(&self) -> impl Iterator<Item = (u32, &Veth)> {
        self.veths.iter().map(|(ifindex, veth)| (*ifindex, veth))
    }

    /// The pod behind a veth: the one with an address that is the veth's first, or the only one here that has no
    /// address yet.
    pub(super) fn name(&self, ifindex: u32) -> Option<&Key> {
        let veth = self.veths.get(&ifindex)?;
        let mut own =
            veth.addresses.iter().filter(|address| self.claimants(**address).first() == Some(&ifindex));
        own.find_map(|address| self.named(*address)).or_else(|| {
            let mut unnumbered = self.live().filter(|pod| pod.addresses.is_empty());
            let only = unnumbered.next()?;
            unnumbered.next().is_none().then_some(&only.key)
        })
    }

    fn named(&self, address: IpAddr) -> Option<&Key> {
        self.live().find(|pod| pod.addresses.contains(&address)).map(|pod| &pod.key)
    }

    fn live(&self) -> impl Iterator<Item = &Pod> {
        self.by_name.values().filter(|pod| !pod.host_network && !pod.ended)
    }

    fn owners_of(&self, ifindex: u32) -> BTreeSet<Owner> {
        let mine = self.claims.iter().filter(|(_, claimants)| claimants.contains(&ifindex));
        mine.map(|(address, _)| Owner::Pod(*address)).collect()
    }

    fn all_owners(&self) -> BTreeSet<Owner> {
        let addresses = self.claims.keys().map(|address| Owner::Pod(*address));
        addresses.chain(self.veths.keys().map(|ifindex| Owner::Device(*ifindex))).collect()
    }

    /// Finds the veths that report an address which another had first, and tells of strangers.
    fn judge(&self, problems: &mut Problems) {
        for (ifindex, veth) in &self.veths {
            let lost = veth.addresses.iter().filter_map(|address| {
                let first = *self.claimants(*address).first()?;
                (first != *ifindex).then(|| self.taken(*ifindex, veth, *address, first))
            });
            let strange = self.strangers.contains(ifindex).then(|| self.strange(*ifindex, veth));
            problems.set(Finder::Cluster, &Subject::Link(veth.name.clone()), lost.chain(strange).collect());
        }
    }

    fn strange(&self, ifindex: u32, veth: &Veth) -> Problem {
        let own = self.claims.iter().filter(|(_, claimants)| claimants.first() == Some(&ifindex));
        let addresses: Vec<String> = own.map(|(address, _)| address.to_string()).collect();
        Problem {
            subject: Subject::Link(veth.name.clone()),
            reason: "UnknownPod",
            text: format!(
                "it has {}, and the API knows no pod of this node with that",
                addresses.join(" and ")
            ),
            remedy: "take down what made it, or let it be: it is served as a pod is".into(),
        }
    }

    fn taken(&self, ifindex: u32, veth: &Veth, address: IpAddr, first: u32) -> Problem {
        let pod = |ifindex| {
            self.name(ifindex).map_or("a pod the API does not know".to_owned(), |key| format!("pod {key}"))
        };
        let other = self.veths.get(&first).map_or("", |veth| veth.name.as_str());
        Problem {
            subject: Subject::Link(veth.name.clone()),
            reason: "AddressTaken",
            text: format!("{} has {address}, which {} ({other}) had first", pod(ifindex), pod(first)),
            remedy: "take the address off the pod, or delete the pod; until then it is not delivered there"
                .into(),
        }
    }
}

/// Makes `veth`'s addresses in `cidrs` the claims of `ifindex`; a claim that stands keeps its place.
fn claim(claims: &mut BTreeMap<IpAddr, Vec<u32>>, cidrs: &[IpNet], ifindex: u32, veth: Option<&Veth>) {
    let addresses = veth.map_or(&[][..], |veth| veth.addresses.as_slice());
    let pod = |address: &&IpAddr| cidrs.iter().any(|cidr| cidr.contains(*address));
    let wanted: BTreeSet<IpAddr> = addresses.iter().filter(pod).copied().collect();
    claims.retain(|address, claimants| {
        claimants.retain(|other| *other != ifindex || wanted.contains(address));
        !claimants.is_empty()
    });
    for address in wanted {
        let claimants = claims.entry(address).or_default();
        if !claimants.contains(&ifindex) {
            claimants.push(ifindex);
        }
    }
}
