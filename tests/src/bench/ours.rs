//! Our data path in a guest, and what each of its hooks costs by itself.
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
use crate::packets::build::{Macs, Segment, tcp, udp};
use crate::packets::kernel::{Loaded, object_path};
use crate::packets::{self, Hook, MARK, World};

/// Loads, fills and attaches. The programs stay as long as the result.
pub(super) fn attach(arm: Arm) -> Result<Loaded> {
    let mut loaded = Loaded::new(&object_path()?)?;
    loaded.hold(&tables(arm)?)?;
    let pods = [CLIENT, SERVER].map(|pod| format!("pod-{}", pod.0));
    for pod in &pods {
        hook(&mut loaded, Hook::PodIn, pod, TcAttachType::Ingress)?;
        hook(&mut loaded, Hook::PodOut, pod, TcAttachType::Egress)?;
    }
    hook(&mut loaded, Hook::ServiceIn, "kube-svc-far", TcAttachType::Ingress)?;
    hook(&mut loaded, Hook::UplinkIn, "eth0", TcAttachType::Ingress)?;
    Ok(loaded)
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
            pad: [0; 8],
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

/// A packet whose way through one hook is counted.
struct Sample {
    name: &'static str,
    fast: bool,
    /// What goes before, in that order.
    before: Vec<(Hook, Vec<u8>)>,
    hook: Hook,
    packet: Vec<u8>,
}

/// Instructions of each hook for packets of a flow between two pods of one node, by `BPF_PROG_TEST_RUN`; what the
/// shortest way through a program costs (an IPv6 packet, which passes) is taken off. One value a run.
pub(super) fn hook_costs(runs: u32) -> Result<Vec<(&'static str, Vec<f64>)>> {
    let mut loaded = Loaded::new(&object_path()?)?;
    let mut nothing = vec![0; 60];
    nothing.extend([0; 60]);
    if let Some(kind) = nothing.get_mut(12..14) {
        kind.copy_from_slice(&[0x86, 0xdd]);
    }
    let mut costs = Vec::new();
    for sample in samples() {
        let mut spent = Vec::new();
        // The first run finds cold caches of the emulator, not of the program: instructions are the same.
        for _ in 0..runs {
            let world = World::new().service(&[(packets::NEIGHBOUR, SERVER_PORT, 0)]);
            loaded.hold(&if sample.fast { world.fast() } else { world })?;
            for (hook, packet) in &sample.before {
                loaded.run(*hook, packet)?;
            }
            let empty = loaded.cost(sample.hook, &nothing)?;
            let whole = loaded.cost(sample.hook, &sample.packet)?;
            spent.push(whole.as_nanos() as f64 - empty.as_nanos() as f64);
        }
        costs.push((sample.name, spent));
    }
    Ok(costs)
}

fn samples() -> Vec<Sample> {
    let client = (packets::POD, 40_000);
    let (dialled, backend) = ((packets::VIP, SERVICE_PORT), (packets::NEIGHBOUR, SERVER_PORT));
    let macs = |source| Macs { source, destination: packets::BRIDGE_MAC };
    let from = macs(packets::POD_MAC);
    let back = macs(packets::NEIGHBOUR_MAC);
    let syn = || (Hook::PodIn, tcp(from, client, dialled, 64, Segment::SYN, &[]));
    let data = || tcp(from, client, dialled, 64, Segment::DATA, &[7; 64]);
    let reply = || tcp(back, backend, client, 64, Segment::DATA, &[7; 64]);
    let translated = || tcp(back, client, backend, 63, Segment::DATA, &[7; 64]);
    let answered = || vec![syn(), (Hook::PodIn, reply())];
    let settled = || [answered(), vec![(Hook::PodIn, data())]].concat();
    let question = || udp(from, client, dialled, 64, &[7; 64]);
    let sample = |name, fast, before, hook, packet| Sample { name, fast, before, hook, packet };
    vec![
        sample("pod_in: first packet of a flow", true, vec![], Hook::PodIn, syn().1),
        sample("pod_in: the packet that confirms it", true, answered(), Hook::PodIn, data()),
        sample("pod_in: a request, fast", true, settled(), Hook::PodIn, data()),
        sample("pod_in: a request, slow", false, settled(), Hook::PodIn, data()),
        sample(
            "pod_in: a datagram, fast, not yet confirmed",
            true,
            vec![(Hook::PodIn, question())],
            Hook::PodIn,
            question(),
        ),
        sample("pod_out: a request, slow, at its server", false, settled(), Hook::PodOut, translated()),
        sample(
            "pod_in: a packet of a direct flow",
            true,
            vec![(Hook::PodIn, translated_syn())],
            Hook::PodIn,
            direct(),
        ),
    ]
}

fn direct() -> Vec<u8> {
    let macs = Macs { source: packets::POD_MAC, destination: packets::BRIDGE_MAC };
    tcp(macs, (packets::POD, 40_000), (packets::NEIGHBOUR, SERVER_PORT), 64, Segment::DATA, &[7; 64])
}

fn translated_syn() -> Vec<u8> {
    let macs = Macs { source: packets::POD_MAC, destination: packets::BRIDGE_MAC };
    tcp(macs, (packets::POD, 40_000), (packets::NEIGHBOUR, SERVER_PORT), 64, Segment::SYN, &[])
}
