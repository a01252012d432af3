//! What pods' networks are made from: the bridge, its MTU, and the CNI file, all in step with the Node.
//!
//! The MTU is that of the device that has the node's address, and follows it. Where the bridge does not take it, pods
//! get the bridge's, since a pod whose packets are larger than that loses them.

use std::time::Duration;

use anyhow::{Context as _, Error, Result, bail};
use router_core::cluster::{Event, HostView};
use router_core::cni::Wanted;
use router_core::problem::{Problem, Subject};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::info;

use super::forwarding::link_with;
use super::links::BRIDGE;
use super::{cni_file, prepare};
use crate::config::Cni;
use crate::sys::netlink::{Netlink, RouteEvents};

/// How often what could not be done is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// How often everything is looked at unprompted.
const AUDIT: Duration = Duration::from_mins(1);
/// From the first word of a changed link to looking: many change while a pod starts.
const PAUSE: Duration = Duration::from_millis(100);

/// Keeps them. A file that is missing at start ends the run; one that cannot be edited, and a bridge that cannot be
/// made, are Problems, and looked at again.
pub(crate) async fn keep(
    cni: &Cni,
    mut host: watch::Receiver<HostView>,
    events: mpsc::Sender<Event>,
) -> Result<()> {
    if !cni.path.exists() {
        bail!("the CNI file {} does not exist (KUBE_ROUTER_CNI_CONF_FILE names it)", cni.path.display());
    }
    let mut netlink = Netlink::open().context("cannot open a netlink socket")?;
    let own_port = netlink.port().context("cannot name a netlink socket")?;
    let links = RouteEvents::without_routes(own_port).context("cannot listen to netlink events")?;
    loop {
        let view = host.borrow_and_update().clone();
        let mut failed = false;
        for (subject, problem) in prepare_pods(cni, &view, &mut netlink) {
            failed |= problem.is_some();
            let told = Event::Problems(subject, problem.into_iter().collect());
            events.send(told).await.context("tell of pods' networks")?;
        }
        tokio::select! {
            changed = host.changed() => changed.context("learn of pod ranges")?,
            changed = links.notices() => {
                changed.context("listen to netlink events")?;
                sleep(PAUSE).await;
            }
            () = sleep(if failed { RETRY } else { AUDIT }) => {}
        }
    }
}

/// Bridge first: the file makes the node ready.
fn prepare_pods(cni: &Cni, view: &HostView, netlink: &mut Netlink) -> [(Subject, Option<Problem>); 2] {
    let address = view.node_addresses.first().copied().filter(|_| cni.auto_mtu);
    let mtu = address.and_then(|address| link_with(netlink, address)).map(|link| link.mtu);
    let made = prepare::bridge(netlink, mtu);
    let mtu = if made.is_ok() { mtu } else { mtu.and_then(|mtu| present_mtu(netlink).or(Some(mtu))) };
    let bridge = Subject::Link(BRIDGE.to_owned());
    let unmade = made.err().map(|error| Problem {
        subject: bridge.clone(),
        reason: "NotPrepared",
        text: format!("{error:#}"),
        remedy: "it is tried again; new pods get the MTU that it has".to_owned(),
    });
    let file = Subject::File(cni.path.display().to_string());
    let unedited = edit(cni, view, mtu, &file).err().map(|error| Problem {
        subject: file.clone(),
        reason: "NotEditable",
        text: format!("{error:#}"),
        remedy: "correct or replace the file; until then new pods get addresses as it stands".to_owned(),
    });
    [(bridge, unmade), (file, unedited)]
}

fn present_mtu(netlink: &mut Netlink) -> Option<u32> {
    netlink.link_named(BRIDGE).ok()?.map(|bridge| bridge.mtu)
}

fn edit(cni: &Cni, view: &HostView, mtu: Option<u32>, subject: &Subject) -> Result<()> {
    if view.pod_cidrs.is_empty() {
        return Ok(());
    }
    if cni_file::update(&cni.path, &Wanted { pod_cidrs: &view.pod_cidrs, mtu }).map_err(Error::new)? {
        info!("{subject}: pod ranges and MTU are the node's now");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::{in_namespace, run};

    const CONFLIST: &str = r#"{"plugins":[{"type":"bridge","ipam":{"type":"host-local"}}]}"#;

    fn cni(folder: &std::path::Path, auto_mtu: bool) -> Cni {
        let path = folder.join("10-kuberouter.conflist");
        std::fs::write(&path, CONFLIST).unwrap();
        Cni { path, auto_mtu }
    }

    fn view() -> HostView {
        HostView {
            node_addresses: vec!["192.0.2.1".parse().unwrap()],
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
            ..HostView::default()
        }
    }

    fn folder(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("kube-router-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn bridge_and_file_have_the_mtu_of_the_device_with_the_node_s_address() {
        let folder = folder("pods-mtu");
        in_namespace(|| {
            run("ip link add eth0 type bridge; ip addr add 192.0.2.1/24 dev eth0");
            let cni = cni(&folder, true);
            let mut netlink = Netlink::open().unwrap();
            for mtu in ["1450", "9000"] {
                run(&format!("ip link set eth0 mtu {mtu}"));
                let found = prepare_pods(&cni, &view(), &mut netlink);
                assert!(found.iter().all(|(_, problem)| problem.is_none()), "{found:?}");
                assert!(run("ip link show kube-bridge").contains(&format!("mtu {mtu} ")));
                let file = std::fs::read_to_string(&cni.path).unwrap();
                assert!(file.contains(&format!("\"mtu\":{mtu}")), "{file}");
            }
        });
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn an_mtu_that_the_bridge_does_not_take_leaves_pods_with_the_bridge_s() {
        let folder = folder("pods-refused");
        in_namespace(|| {
            // In the bridge's place a device that takes less than a bridge does.
            run("ip tuntap add name kube-bridge mode tap");
            run("ip link add eth0 mtu 65535 type bridge; ip addr add 192.0.2.1/24 dev eth0");
            let cni = cni(&folder, true);
            let [(_, unmade), (_, unedited)] = prepare_pods(&cni, &view(), &mut Netlink::open().unwrap());
            assert_eq!(unedited, None);
            assert!(unmade.unwrap().text.contains("cannot set its MTU to 65535"));
            let file = std::fs::read_to_string(&cni.path).unwrap();
            assert!(file.contains("\"mtu\":1500"), "{file}");
        });
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn without_auto_mtu_and_with_the_address_on_lo_no_mtu_is_set() {
        let folder = folder("pods-none");
        in_namespace(|| {
            run("ip addr add 192.0.2.1/32 dev lo");
            for auto_mtu in [false, true] {
                let cni = cni(&folder, auto_mtu);
                let found = prepare_pods(&cni, &view(), &mut Netlink::open().unwrap());
                assert!(found.iter().all(|(_, problem)| problem.is_none()), "{found:?}");
                assert!(run("ip link show kube-bridge").contains("mtu 1500 "));
                assert!(!std::fs::read_to_string(&cni.path).unwrap().contains("mtu"));
            }
        });
        std::fs::remove_dir_all(folder).unwrap();
    }
}
