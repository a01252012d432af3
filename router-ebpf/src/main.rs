//! The programs of kube-router that the kernel runs: attach points, and nothing else.
//!
//! Each reads the packet through [`ctx::Skb`], asks `router-common`'s hook of the same name what to do, and
//! turns the verdict into a return code here. Pass is -1: with tcx it hands on to the next program, with clsact it
//! leaves the decision to the next filter.

#![no_std]
#![no_main]

mod ctx;
mod maps;

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use router_common::hook;

use crate::ctx::Skb;

/// What a pod sends: ingress of its veth's host end.
#[classifier]
fn pod_in(context: TcContext) -> i32 {
    let mut skb = Skb::new(&context);
    let verdict = hook::pod::ingress(&mut skb);
    skb.act(verdict)
}

/// What the stack delivers to a pod: egress of its veth's host end.
#[classifier]
fn pod_out(context: TcContext) -> i32 {
    let mut skb = Skb::new(&context);
    let verdict = hook::pod::egress(&mut skb);
    skb.act(verdict)
}

/// What comes in from the network: ingress of an uplink with Ethernet headers.
#[classifier]
fn uplink_in(context: TcContext) -> i32 {
    let mut skb = Skb::new(&context);
    let verdict = hook::uplink::ingress(&mut skb);
    skb.act(verdict)
}

/// What leaves for the network: egress of the same uplink.
#[classifier]
fn uplink_out(context: TcContext) -> i32 {
    let mut skb = Skb::new(&context);
    let verdict = hook::uplink::egress(&mut skb);
    skb.act(verdict)
}

/// What was routed to a VIP: ingress of the far end of `kube-svc`.
#[classifier]
fn svc_in(context: TcContext) -> i32 {
    let mut skb = Skb::new(&context);
    let verdict = hook::service::ingress(&mut skb);
    skb.act(verdict)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never linked in: the build fails if the object holds a panic.
    loop {}
}

#[expect(unsafe_code, reason = "the kernel reads the licence from this section")]
// SAFETY: a constant that no Rust code refers to; the section holds nothing else.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
