//! Packet cases, each once through host code and once through the kernel.

use router_tests::packets::{Case, MARK, Outcome, cases, kernel, model};

fn check(case: &Case, place: &str, outcome: &Outcome) {
    assert_eq!(outcome.verdict, case.verdict, "{place}: {}", case.name);
    let expected = case.out.as_ref().unwrap_or(&case.packet);
    assert_eq!(&outcome.packet, expected, "{place}: {}", case.name);
}

#[test]
fn every_case_holds_in_host_code() {
    for case in cases::all() {
        check(&case, "host", &model::run(&case));
    }
}

#[test]
fn every_case_holds_in_the_kernel() {
    for case in cases::all() {
        check(&case, "kernel", &kernel::run(&case).unwrap());
    }
}

#[test]
fn what_is_translated_and_passed_up_carries_our_mark() {
    let case = cases::all().swap_remove(0);
    assert_eq!(model::run(&case).mark, MARK);
    assert_eq!(kernel::run(&case).unwrap().mark, MARK);
}
