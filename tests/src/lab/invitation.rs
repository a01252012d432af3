//! What to try while a lab is up, with names and addresses that exist.

use anyhow::Result;

use super::{rows, targets};
use crate::apiserver::{Kind, Store};
use crate::cluster::Cluster;

pub(super) fn text(id: &str, cluster: &Cluster) -> Result<String> {
    let kubeconfig = cluster.kubeconfig();
    let kubeconfig = kubeconfig.display();
    let pins = rows::folder(&cluster.topology.node)?;
    let store = cluster.server().store();
    let targets = targets::all(store);
    let shown = targets.iter().find(|target| target.service == "web").or_else(|| targets.first());
    let vip = shown.map_or_else(|| "VIP:PORT".to_owned(), targets::Target::address);
    let deployment = if is_deployed(store, "web") { "web" } else { "NAME" };
    Ok(format!(
        "lab {id} is up until Ctrl-C or `cargo xtask lab down`. Things to try, in another terminal:\n\
         \n  cargo xtask lab exec node1 -- ip -br addr; cargo xtask lab exec pod/NAME -- ip route\
         \n  cargo xtask lab exec node1 -- kube-router status; cargo xtask lab exec node1 -- kube-router plan\
         \n  cargo xtask lab exec router -- birdc show route\
         \n  cargo xtask lab exec node1 -- gobgp neighbor; cargo xtask lab exec node1 -- ip route show proto 17\
         \n  cargo xtask lab logs node1 | grep Peer.Up\
         \n  export KUBECONFIG={kubeconfig}; kubectl get pods,svc -A -o wide\
         \n  kubectl scale deployment {deployment} --replicas=5 && for i in $(seq 20); do cargo xtask lab exec \
         node1 -- lab probe tcp {vip}; done\
         \n  cargo xtask lab exec node1 -- bpftool map dump pinned {pins}/FRONTENDS4",
    ))
}

fn is_deployed(store: &Store, name: &str) -> bool {
    let deployments = store.list(Kind::Deployment);
    deployments.iter().any(|one| one.pointer("/metadata/name").is_some_and(|found| found == name))
}
