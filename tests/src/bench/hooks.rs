//! What each hook costs by itself: one packet through `BPF_PROG_TEST_RUN`, timed by the kernel around the program.
//!
//! The shortest way through a program (an IPv6 packet, which passes) is taken off, and with it what the timing costs.

use anyhow::Result;

use super::load::SERVER_PORT;
use super::world::SERVICE_PORT;
use crate::packets::build::{Macs, Segment, tcp, udp};
use crate::packets::kernel::Loaded;
use crate::packets::{BRIDGE_MAC, DEVICE, Hook, NEIGHBOUR, NEIGHBOUR_MAC, POD, POD_MAC, VIP, World};

/// A packet whose way through one hook is counted.
struct Sample {
    name: &'static str,
    fast: bool,
    /// What goes before, in that order.
    before: Vec<(Hook, Vec<u8>)>,
    hook: Hook,
    packet: Vec<u8>,
}

/// Instructions of each hook for packets between two pods of one node, one value a run.
pub(super) fn costs(loaded: &mut Loaded, runs: u32) -> Result<Vec<(&'static str, Vec<f64>)>> {
    let mut costs = Vec::new();
    for sample in samples() {
        let mut spent = Vec::new();
        for _ in 0..runs {
            loaded.hold(&world(sample.fast))?;
            for (hook, packet) in &sample.before {
                loaded.run(*hook, packet, 0)?;
            }
            let empty = loaded.cost(sample.hook, &passing())?;
            let whole = loaded.cost(sample.hook, &sample.packet)?;
            spent.push((whole.as_secs_f64() - empty.as_secs_f64()) * 1e9);
        }
        costs.push((sample.name, spent));
    }
    Ok(costs)
}

/// Both pods are behind the one device that a test run can name, so that requests and replies come through it.
fn world(fast: bool) -> World {
    let mut world = World::new().service(&[(NEIGHBOUR, SERVER_PORT, 0)]);
    for (_, pod) in &mut world.pods {
        pod.ifindex = DEVICE;
    }
    if fast { world.fast() } else { world }
}

fn passing() -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0x86, 0xdd]);
    frame.resize(118, 0);
    frame
}

fn samples() -> Vec<Sample> {
    let (client, dialled, backend) = ((POD, 40_000), (VIP, SERVICE_PORT), (NEIGHBOUR, SERVER_PORT));
    let from = Macs { source: POD_MAC, destination: BRIDGE_MAC };
    let back = Macs { source: NEIGHBOUR_MAC, destination: BRIDGE_MAC };
    let payload = [7; 64];
    let syn = |to| tcp(from, client, to, 64, Segment::SYN, &[]);
    let data = |to| tcp(from, client, to, 64, Segment::DATA, &payload);
    let reply = || tcp(back, backend, client, 64, Segment::DATA, &payload);
    let question = || udp(from, client, dialled, 64, &payload);
    let sent = |packet| (Hook::PodIn, packet);
    let answered = || vec![sent(syn(dialled)), sent(reply())];
    let settled = || [answered(), vec![sent(data(dialled))]].concat();
    let one = |name, before, hook, packet| Sample { name, fast: true, before, hook, packet };
    let slow = |name, hook, packet| Sample { name, fast: false, before: settled(), hook, packet };
    vec![
        one("pod_in: first packet of a flow", vec![], Hook::PodIn, syn(dialled)),
        one("pod_in: the packet that confirms it", answered(), Hook::PodIn, data(dialled)),
        one("pod_in: a request, fast", settled(), Hook::PodIn, data(dialled)),
        one("pod_in: a reply, fast", settled(), Hook::PodIn, reply()),
        one("pod_in: a datagram, fast, not confirmed", vec![sent(question())], Hook::PodIn, question()),
        slow("pod_in: a request, slow", Hook::PodIn, data(dialled)),
        slow("pod_out: that request, at its server", Hook::PodOut, data(backend)),
        slow("pod_in: a reply, slow", Hook::PodIn, reply()),
        slow("pod_out: that reply, at its client", Hook::PodOut, reply()),
        one("pod_in: first packet to a pod's own address", vec![], Hook::PodIn, syn(backend)),
        one("pod_in: a later one", vec![sent(syn(backend))], Hook::PodIn, data(backend)),
    ]
}
