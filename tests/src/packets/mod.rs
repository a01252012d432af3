//! Packet cases: bytes into one hook, verdict and bytes out, run through host code ([`model`]) and through the
//! kernel ([`kernel`]) from one description.
//!
//! In every case the hook's device is interface 1 (the only one that a test run can always name), and no route
//! is known: where a case needs the kernel's own tables it is a path test instead.

pub mod build;
pub mod cases;
pub mod kernel;
pub mod model;

use router_common::abi::{
    Backend, Device, Flow, FlowKey, Frontend, FrontendKey, LAYOUT, Meta, Pod, Slot, SlotKey, device_flags,
    device_kind, meta_flags, protocol,
};
use router_common::verdict::Verdict;

/// One family's address.
pub type V4 = [u8; 4];

/// The device whose hook a case runs.
pub const DEVICE: u32 = 1;
/// Another pod's veth.
pub const OTHER: u32 = 9;
/// The pod behind [`DEVICE`], its neighbour, a pod of another node, this node, and a VIP.
pub const POD: V4 = [10, 244, 1, 5];
pub const NEIGHBOUR: V4 = [10, 244, 1, 6];
pub const REMOTE: V4 = [10, 244, 9, 7];
pub const NODE: V4 = [192, 168, 77, 2];
pub const VIP: V4 = [10, 96, 0, 10];
pub const POD_MAC: [u8; 6] = [2, 0, 0, 0, 1, 5];
pub const NEIGHBOUR_MAC: [u8; 6] = [2, 0, 0, 0, 1, 6];
pub const BRIDGE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const SERVICE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Interface of the near end of `kube-svc`.
pub const SERVICE_NEAR: u32 = 20;
/// The one node port.
pub const NODE_PORT: u16 = 30_080;
/// Bit 27.
pub const MARK: u32 = 1 << 27;

/// The hook a case runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    PodIn,
    PodOut,
    UplinkIn,
    UplinkOut,
    ServiceIn,
}

impl Hook {
    /// Each hook.
    pub const ALL: [Self; 5] = [Self::PodIn, Self::PodOut, Self::UplinkIn, Self::UplinkOut, Self::ServiceIn];

    /// The program's name in the object.
    pub const fn program(self) -> &'static str {
        match self {
            Self::PodIn => "pod_in",
            Self::PodOut => "pod_out",
            Self::UplinkIn => "uplink_in",
            Self::UplinkOut => "uplink_out",
            Self::ServiceIn => "svc_in",
        }
    }
}

/// What the maps hold when the packet comes.
#[derive(Clone, Debug)]
pub struct World {
    pub meta: Meta,
    pub frontends: Vec<(FrontendKey<V4>, Frontend)>,
    pub slots: Vec<(SlotKey, Slot)>,
    pub backends: Vec<(u32, Backend<V4>)>,
    pub pods: Vec<(V4, Pod)>,
    pub devices: Vec<(u32, Device)>,
    /// With whether they are confirmed.
    pub flows: Vec<(FlowKey<V4>, Flow<V4>, bool)>,
}

/// One case.
#[derive(Debug)]
pub struct Case {
    /// One line.
    pub name: &'static str,
    pub hook: Hook,
    pub world: World,
    /// Packets that went before, through the same maps.
    pub before: Vec<(Hook, Vec<u8>)>,
    /// The mark that the packet comes with.
    pub mark: u32,
    pub packet: Vec<u8>,
    pub verdict: Verdict,
    /// Bytes out; `None`: as they came in.
    pub out: Option<Vec<u8>>,
}

/// What a run showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub verdict: Verdict,
    pub packet: Vec<u8>,
    pub mark: u32,
}

impl Case {
    /// That a run showed what was expected.
    pub fn check(&self, outcome: &Outcome) -> Result<(), String> {
        let expected = self.out.as_ref().unwrap_or(&self.packet);
        if outcome.verdict == self.verdict && &outcome.packet == expected {
            return Ok(());
        }
        Err(format!(
            "\n  expected {:?} {}\n  got      {:?} {}",
            self.verdict,
            hex(expected),
            outcome.verdict,
            hex(&outcome.packet)
        ))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

impl World {
    /// Two local pods, no service; the fast path is off.
    pub fn new() -> Self {
        Self {
            meta: Meta {
                layout: LAYOUT,
                generation: 1,
                lease: u64::MAX,
                flags: 0,
                mark: MARK,
                bridge_ifindex: 21,
                service_near_ifindex: SERVICE_NEAR,
                service_far_ifindex: SERVICE_NEAR + 2,
                bridge_mac: BRIDGE_MAC,
                service_mac: SERVICE_MAC,
                port_first: 49_152,
                port_last: 65_535,
                node4: NODE,
                node6: [0; 16],
                node_port_first: 0,
                node_port_last: 0,
                pad: [0; 4],
            },
            frontends: Vec::new(),
            slots: Vec::new(),
            backends: Vec::new(),
            pods: vec![
                (POD, Pod { ifindex: DEVICE, mac: POD_MAC, flags: 0 }),
                (NEIGHBOUR, Pod { ifindex: OTHER, mac: NEIGHBOUR_MAC, flags: 0 }),
            ],
            devices: vec![
                (DEVICE, Device { kind: device_kind::POD, flags: device_flags::BOUND }),
                (OTHER, Device { kind: device_kind::POD, flags: device_flags::BOUND }),
            ],
            flows: Vec::new(),
        }
    }

    /// With `--fast-path`.
    #[must_use]
    pub fn fast(mut self) -> Self {
        self.meta.flags |= meta_flags::FAST;
        self
    }

    /// A service of both protocols on [`VIP`] port 80 with these backends.
    #[must_use]
    pub fn service(mut self, backends: &[(V4, u16, u16)]) -> Self {
        let vip = FrontendKey { address: VIP, port: 0, protocol: 0, pad: 0 };
        self.frontends.push((vip, Frontend { service: 0, count: 0 }));
        self.serve(VIP, 80, 1, backends)
    }

    /// The same on [`NODE_PORT`] of [`NODE`].
    #[must_use]
    pub fn node_port(mut self, backends: &[(V4, u16, u16)]) -> Self {
        (self.meta.node_port_first, self.meta.node_port_last) = (NODE_PORT, NODE_PORT);
        self.serve(NODE, NODE_PORT, 3, backends)
    }

    fn serve(mut self, address: V4, port: u16, first: u32, backends: &[(V4, u16, u16)]) -> Self {
        for (service, protocol) in [(first, protocol::TCP), (first + 1, protocol::UDP)] {
            let count = u32::try_from(backends.len()).expect("a case has few backends");
            self.frontends
                .push((FrontendKey { address, port, protocol, pad: 0 }, Frontend { service, count }));
            for (index, (address, port, flags)) in (0..).zip(backends) {
                let id = service * 100 + index;
                self.slots.push((SlotKey { service, index }, Slot { backend: id }));
                self.backends.push((id, Backend { address: *address, port: *port, flags: *flags, service }));
            }
        }
        self
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}
