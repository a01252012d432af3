//! Packet cases, each once through host code and once through the kernel.

use router_tests::packets::{Case, MARK, Outcome, cases, kernel, model};

fn check(case: &Case, place: &str, outcome: &Outcome) -> Option<String> {
    case.check(outcome).err().map(|difference| format!("{place}: {}: {difference}", case.name))
}

#[test]
fn every_case_holds_in_host_code() {
    let failures: Vec<String> =
        cases::all().iter().filter_map(|case| check(case, "host", &model::run(case))).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_case_holds_in_the_kernel() {
    let mut loaded = kernel::Loaded::new(&kernel::object_path().unwrap()).unwrap();
    let failures: Vec<String> = cases::all()
        .iter()
        .filter_map(|case| match kernel::run(&mut loaded, case) {
            Ok(outcome) => check(case, "kernel", &outcome),
            Err(error) => Some(format!("kernel: {}: {error:#}", case.name)),
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn what_is_translated_and_passed_up_carries_our_mark() {
    let case = cases::all().swap_remove(0);
    let mut loaded = kernel::Loaded::new(&kernel::object_path().unwrap()).unwrap();
    assert_eq!(model::run(&case).mark, MARK);
    assert_eq!(kernel::run(&mut loaded, &case).unwrap().mark, MARK);
}
