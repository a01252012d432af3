//! Our data path in a guest.
//!
//! The object's maps are filled directly, with the rows that the agent would write, and its programs are attached
//! where the agent attaches them (tcx where the kernel has it, else clsact). The agent itself does not run: it does
//! nothing for a packet, and an API server beside it would cost the guest minutes.

use std::fs;

use anyhow::{Context as _, Result};
use aya::programs::tc::qdisc_add_clsact;
use aya::programs::{SchedClassifier, TcAttachType};
use router_common::abi::{
    Backend, Device, Frontend, FrontendKey, LAYOUT, Meta, Pod, Slot, SlotKey, device_flags, device_kind,
    meta_flags, protocol,
};

use super::arms::{Arm, Kind};
use super::load::SERVER_PORT;
use super::world::{BRIDGE_MAC, CLIENT, NODE, SERVER, SERVICE_MAC, SERVICE_PORT, ports, vip};
use crate::packets::kernel::Loaded;
use crate::packets::{Hook, MARK, World};

/// Fills the maps and attaches the programs.
pub(super) fn attach(loaded: &mut Loaded, arm: Arm) -> Result<()> {
    loaded.hold(&tables(arm)?)?;
    let pods = [CLIENT, SERVER].map(|pod| format!("pod-{}", pod.0));
    for pod in &pods {
        hook(loaded, Hook::PodIn, pod, TcAttachType::Ingress)?;
        hook(loaded, Hook::PodOut, pod, TcAttachType::Egress)?;
    }
    hook(loaded, Hook::ServiceIn, "kube-svc-far", TcAttachType::Ingress)?;
    hook(loaded, Hook::UplinkIn, "eth0", TcAttachType::Ingress)?;
    Ok(())
}

fn hook(loaded: &mut Loaded, hook: Hook, device: &str, side: TcAttachType) -> Result<()> {
    let program: &mut SchedClassifier =
        loaded.ebpf().program_mut(hook.program()).context(hook.program())?.try_into()?;
    // It stands already where the other side of the device has a program.
    let _ = qdisc_add_clsact(device);
    program.attach(device, side).with_context(|| format!("{} on {device}", hook.program()))?;
    Ok(())
}

fn index(device: &str) -> Result<u32> {
    let path = format!("/sys/class/net/{device}/ifindex");
    Ok(fs::read_to_string(&path).context(path)?.trim().parse()?)
}

fn tables(arm: Arm) -> Result<World> {
    let (near, far) = (index("kube-svc")?, index("kube-svc-far")?);
    let mut world = World {
        meta: Meta {
            layout: LAYOUT,
            generation: 1,
            lease: u64::MAX,
            flags: if arm.kind == Kind::Slow { 0 } else { meta_flags::FAST },
            mark: MARK,
            bridge_ifindex: index("kube-bridge")?,
            service_near_ifindex: near,
            service_far_ifindex: far,
            bridge_mac: BRIDGE_MAC,
            service_mac: SERVICE_MAC,
            port_first: 49_152,
            port_last: 65_535,
            node4: NODE.octets(),
            node6: [0; 16],
            node_port_first: 0,
            node_port_last: 0,
            pad: [0; 4],
        },
        devices: vec![
            (near, Device { kind: device_kind::SERVICE_NEAR, flags: 0 }),
            (far, Device { kind: device_kind::SERVICE_FAR, flags: 0 }),
            (index("eth0")?, Device { kind: device_kind::UPLINK, flags: 0 }),
        ],
        frontends: Vec::new(),
        slots: Vec::new(),
        backends: Vec::new(),
        pods: Vec::new(),
        flows: Vec::new(),
    };
    for (name, address, mac) in [CLIENT, SERVER] {
        let ifindex = index(&format!("pod-{name}"))?;
        world.devices.push((ifindex, Device { kind: device_kind::POD, flags: device_flags::BOUND }));
        world.pods.push((address.octets(), Pod { ifindex, mac, flags: 0 }));
    }
    let row = |address: std::net::Ipv4Addr, port, protocol| FrontendKey {
        address: address.octets(),
        port,
        protocol,
        pad: 0,
    };
    for service in 0..arm.services {
        world.frontends.push((row(vip(service), 0, 0), Frontend { service: 0, count: 0 }));
    }
    for (service, (_, address, name)) in (1..).zip(ports(arm)) {
        let protocol = if name == "tcp" { protocol::TCP } else { protocol::UDP };
        world.frontends.push((row(address, SERVICE_PORT, protocol), Frontend { service, count: 1 }));
        world.slots.push((SlotKey { service, index: 0 }, Slot { backend: service }));
        let backend = Backend { address: SERVER.1.octets(), port: SERVER_PORT, flags: 0, service };
        world.backends.push((service, backend));
    }
    Ok(world)
}
