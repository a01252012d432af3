//! Packet cases, each once through host code and once through the kernel.

use router_common::verdict::Verdict;
use router_tests::packets::build::{Macs, Segment, tcp};
use router_tests::packets::{
    BRIDGE_MAC, Case, Hook, MARK, NEIGHBOUR, Outcome, POD, POD_MAC, VIP, World, kernel, model,
};

const FROM_POD: Macs = Macs { source: POD_MAC, destination: BRIDGE_MAC };

fn cases() -> Vec<Case> {
    vec![Case {
        name: "a SYN from a pod for a VIP leaves for the only backend, by the stack, marked",
        hook: Hook::PodIn,
        world: World::new().service(&[(NEIGHBOUR, 8080, 0)]),
        packet: tcp(FROM_POD, (POD, 40_000), (VIP, 80), 64, Segment::SYN, b""),
        verdict: Verdict::Pass,
        out: Some(tcp(FROM_POD, (POD, 40_000), (NEIGHBOUR, 8080), 64, Segment::SYN, b"")),
    }]
}

fn check(case: &Case, place: &str, outcome: &Outcome) {
    assert_eq!(outcome.verdict, case.verdict, "{place}: {}", case.name);
    let expected = case.out.as_ref().unwrap_or(&case.packet);
    assert_eq!(&outcome.packet, expected, "{place}: {}", case.name);
}

#[test]
fn every_case_holds_in_host_code() {
    for case in cases() {
        check(&case, "host", &model::run(&case));
    }
}

#[test]
fn every_case_holds_in_the_kernel() {
    for case in cases() {
        check(&case, "kernel", &kernel::run(&case).unwrap());
    }
}

#[test]
fn what_is_translated_and_passed_up_carries_our_mark() {
    let case = cases().swap_remove(0);
    assert_eq!(model::run(&case).mark, MARK);
    assert_eq!(kernel::run(&case).unwrap().mark, MARK);
}
