//! What the kernel reports of this host's devices.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// A change of a device. Each says all there is to know of its device, so the last one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// The peer of a port of `kube-bridge` reports these addresses and this MAC.
    Bound {
        /// Host end of the veth.
        ifindex: u32,
        /// Name of the host end.
        name: String,
        /// MAC inside the pod.
        mac: [u8; 6],
        /// Every address inside the pod.
        addresses: Vec<IpAddr>,
        /// The veth has a queueing discipline of its own: deliver through the stack.
        no_fast: bool,
    },
    /// The port left the bridge, or its peer has no address any more.
    Unbound { ifindex: u32 },
    /// A device that leads out of the node.
    Uplink { ifindex: u32, name: String },
    /// It is gone, or leads nowhere now.
    UplinkGone { ifindex: u32 },
    /// Every address of this host outside pods.
    NodeAddresses(BTreeSet<IpAddr>),
    /// `kube-bridge` stands.
    Bridge { ifindex: u32, mac: [u8; 6] },
    /// `kube-bridge` is gone.
    BridgeGone,
}
