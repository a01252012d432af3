//! Debian's kernels, booted: the object loads on each within the verifier's known effort, and each packet case
//! holds. One boot of each kernel answers all its tests.

use std::fs;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use router_tests::packets::cases;
use router_tests::packets::kernel::{Loaded, object_path};
use router_tests::require;
use router_tests::verifier::{Counts, Table, load_all};
use router_tests::vm::{Ending, Finding, Guest, Report, Series};

/// A test of this binary that shows that tests run in a guest, and is quick there: no verifier.
const TEST: &str = "all::packets::every_case_holds_in_host_code";

/// The tests that send through a whole cluster.
const MATRIX: &str = "all::paths::";

/// What path tests do to a kernel and its tools, once each.
const PATHS: &str = "set -ex
    ip netns add a
    ip link add v0 type veth peer name v1 netns a
    ip link add b0 type bridge
    ip link set v0 master b0 up
    tc qdisc add dev v0 clsact
    sysctl -w net.bridge.bridge-nf-call-iptables=1
    nft add table ip t
    nft add chain ip t c '{ type nat hook postrouting priority 100; }'
    nft add rule ip t c ct state new masquerade
    iptables-nft -t nat -A POSTROUTING -s 10.0.0.0/8 -m comment --comment x -j MASQUERADE
    iptables-legacy -A FORWARD -m conntrack --ctstate INVALID -j DROP
    iptables-legacy -t nat -A PREROUTING -p tcp --dport 80 -m statistic --mode nth --every 2 --packet 0 \
        -j DNAT --to-destination 10.0.0.1:8080
    conntrack -L
    bpftool prog
    ethtool -K v0 tx off
    test -e /proc/net/ip_vs
    CNI_COMMAND=VERSION /usr/lib/cni/bridge </dev/null
    kube-router --version";

fn boot(series: Series) -> Report {
    let guest = Guest::new(series).unwrap().for_paths().unwrap().with_tests().unwrap();
    let words =
        ["release", "programs", "packets", "tests", TEST, "tests", MATRIX, "command", "sh", "-c", PATHS];
    let report = guest.run(&words).unwrap();
    eprintln!("guest {series}: {:.1} s", report.took.as_secs_f32());
    report
}

static V6_1: LazyLock<Report> = LazyLock::new(|| boot(Series::V6_1));
static V6_12: LazyLock<Report> = LazyLock::new(|| boot(Series::V6_12));

/// A guest's findings of one kind, without the kind's name.
fn findings(report: &Report, kind: &str) -> Vec<Finding> {
    let of_kind = |finding: &Finding| {
        let name = finding.name.strip_prefix(kind)?.trim_start().to_owned();
        Some(Finding { name, outcome: finding.outcome.clone() })
    };
    report.finished().unwrap().iter().filter_map(of_kind).collect()
}

fn release(report: &Report, series: Series) {
    let found = findings(report, "release");
    let release = found[0].outcome.as_ref().unwrap();
    assert!(release.starts_with(&format!("{series}.")), "{release}");
}

fn programs(report: &Report, series: Series) {
    let loaded = findings(report, "program ").into_iter().map(|finding| {
        let count = finding.outcome.unwrap_or_else(|log| panic!("{} does not load:\n{log}", finding.name));
        (finding.name, count.parse().unwrap())
    });
    compare(series.name(), &loaded.collect());
}

fn packets(report: &Report) {
    let found = findings(report, "packet ");
    assert_eq!(found.len(), cases::all().len());
    let failed: Vec<_> = found.iter().filter(|finding| finding.outcome.is_err()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

fn paths(report: &Report) {
    for (kind, least) in [("test ", 5), ("command ", 1)] {
        let found = findings(report, kind);
        assert!(found.len() >= least, "{kind}: only {}", found.len());
        for finding in found {
            let name = finding.name;
            finding.outcome.unwrap_or_else(|log| panic!("{name}: {log}\n{}", report.console));
        }
    }
}

/// Holds counts against the table, or writes them into it.
fn compare(series: &str, counts: &Counts) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    assert!(!counts.is_empty(), "the object has no program");
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/verifier.tsv");
    let mut table = Table::parse(&fs::read_to_string(&path).unwrap_or_default()).unwrap();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        table.replace(series, counts);
        fs::write(&path, table.text()).unwrap();
    }
    table.check(series, counts).unwrap();
}

#[test]
fn kernel_6_1_boots() {
    if require::vm() {
        release(&V6_1, Series::V6_1);
    }
}

#[test]
fn kernel_6_1_loads_every_program_as_cheaply_as_before() {
    if require::vm() {
        programs(&V6_1, Series::V6_1);
    }
}

#[test]
fn kernel_6_1_has_what_path_tests_need() {
    if require::vm() {
        paths(&V6_1);
    }
}

#[test]
fn kernel_6_1_holds_every_packet_case() {
    if require::vm() {
        packets(&V6_1);
    }
}

#[test]
fn kernel_6_12_boots() {
    if require::vm() {
        release(&V6_12, Series::V6_12);
    }
}

#[test]
fn kernel_6_12_loads_every_program_as_cheaply_as_before() {
    if require::vm() {
        programs(&V6_12, Series::V6_12);
    }
}

#[test]
fn kernel_6_12_has_what_path_tests_need() {
    if require::vm() {
        paths(&V6_12);
    }
}

#[test]
fn kernel_6_12_holds_every_packet_case() {
    if require::vm() {
        packets(&V6_12);
    }
}

#[test]
fn this_kernel_loads_every_program_as_cheaply_as_before() {
    if !require::root() {
        return;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let series = release.split(['.', '-']).take(2).collect::<Vec<_>>().join(".");
    let mut loaded = Loaded::maps(&object_path().unwrap()).unwrap();
    let counts: Counts = load_all(loaded.ebpf())
        .into_iter()
        .map(|(program, count)| {
            let count = count.unwrap_or_else(|log| panic!("{program} does not load:\n{log}"));
            (program, count)
        })
        .collect();
    let table = fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/verifier.tsv"));
    // The tests run on many a host; only kernels that were counted once can be compared.
    if std::env::var_os("UPDATE_EXPECT").is_some() || Table::parse(&table.unwrap()).unwrap().knows(&series) {
        compare(&series, &counts);
    } else {
        eprintln!("not compared: the table has no counts of {series}");
    }
}

#[test]
fn a_guest_that_hangs_fails_and_its_console_is_shown() {
    if !require::vm() {
        return;
    }
    let guest = Guest::new(Series::V6_1).unwrap().silence(Duration::from_secs(3));
    let report = guest.run(&["release", "hang"]).unwrap();
    assert_eq!(report.ending, Ending::Hung);
    let error = report.passed().unwrap_err().to_string();
    assert!(error.contains("hung") && error.contains("guest-init hangs now"), "{error}");
}

#[test]
fn a_guest_whose_command_dies_fails_and_its_console_is_shown() {
    if !require::vm() {
        return;
    }
    let report = Guest::new(Series::V6_1).unwrap().run(&["release", "nonsense"]).unwrap();
    assert_eq!(report.ending, Ending::Died);
    let error = report.passed().unwrap_err().to_string();
    assert!(error.contains("died") && error.contains("no such word: nonsense"), "{error}");
}

#[test]
fn a_guest_that_counts_instructions_runs_on_one_processor() {
    if !require::vm() {
        return;
    }
    let report = Guest::new(Series::V6_1).unwrap().counting().run(&["release", "command", "nproc"]).unwrap();
    report.passed().unwrap();
    assert_eq!(report.findings[1].outcome, Ok("1\n".to_owned()));
}
