use std::path::Path;

use super::*;
use crate::node::links::{Port, Reader};
use crate::node::service_link::Keeper;
use crate::sys::netlink::Changes;
use crate::sys::testing::{in_namespace, in_namespace_with_bpffs, run};

const DEVICES: &str = "ip link add kube-bridge type bridge; ip link set kube-bridge up; \
    ip link add veth1 type veth peer name peer1; ip link set veth1 master kube-bridge up; \
    ip link add eth0 type veth peer name far0; ip link set eth0 up; ip addr add 192.0.2.1/24 dev eth0";

fn view() -> View {
    Reader::open().unwrap().read(&Changes { overrun: true, ..Changes::default() }).unwrap()
}

fn attacher(attach: Attach, pins: Option<&Path>) -> Attacher {
    let ebpf = bpf::load(bpf::OBJECT, pins).unwrap();
    Attacher::new(ebpf, attach, pins).unwrap()
}

fn pin_folder() -> std::path::PathBuf {
    pins(Path::new(bpf::BPFFS)).expect("a bpffs")
}

/// Our programs on a hook, by either way of attaching.
fn filters(device: &str, hook: &str) -> usize {
    run(&format!("tc filter show dev {device} {hook}")).matches("direct-action").count()
}

fn links(device: &str, kind: aya::programs::TcAttachType) -> Vec<String> {
    let (_, programs) = SchedClassifier::query_tcx(device, kind).unwrap();
    programs.iter().map(|program| program.name_as_str().unwrap_or("").to_owned()).collect()
}

#[test]
fn clsact_puts_each_program_on_its_hook_once_and_leaves_it_there() {
    in_namespace(|| {
        run(DEVICES);
        Keeper::open().unwrap().repair().unwrap();
        let mut attacher = attacher(Attach::Clsact, None);
        attacher.follow(&view(), true);
        attacher.follow(&view(), true);
        assert_eq!(attacher.refused().collect::<Vec<_>>(), []);
        drop(attacher);
        for (device, hook, program) in [
            ("veth1", "ingress", POD_IN),
            ("veth1", "egress", POD_OUT),
            ("eth0", "ingress", UPLINK_IN),
            ("eth0", "egress", UPLINK_OUT),
            (FAR, "ingress", SERVICE_IN),
        ] {
            let listing = run(&format!("tc filter show dev {device} {hook}"));
            assert_eq!(listing.matches("direct-action").count(), 1, "{listing}");
            assert!(listing.contains(program), "{listing}");
        }
        assert_eq!(filters(FAR, "egress"), 0);
        // Another run replaces what it finds.
        let mut next = self::attacher(Attach::Clsact, None);
        next.follow(&view(), true);
        assert_eq!(filters("veth1", "ingress"), 1);
    });
}

#[test]
fn a_port_that_leaves_the_bridge_loses_its_programs() {
    in_namespace(|| {
        run(DEVICES);
        let mut attacher = attacher(Attach::Clsact, None);
        attacher.follow(&view(), true);
        run("ip link set veth1 nomaster");
        attacher.follow(&view(), false);
        assert_eq!((filters("veth1", "ingress"), filters("veth1", "egress")), (0, 0));
        assert_eq!(filters("eth0", "ingress"), 1);
    });
}

#[test]
fn a_filter_that_somebody_deletes_is_back_after_an_audit() {
    in_namespace(|| {
        run(DEVICES);
        let mut attacher = attacher(Attach::Clsact, None);
        attacher.follow(&view(), true);
        run("tc qdisc del dev veth1 clsact");
        attacher.follow(&view(), true);
        assert_eq!((filters("veth1", "ingress"), filters("veth1", "egress")), (1, 1));
    });
}

#[test]
fn a_device_with_a_foreign_ingress_qdisc_is_refused_and_the_others_go_on() {
    in_namespace(|| {
        run(DEVICES);
        run("tc qdisc add dev veth1 ingress");
        let mut attacher = attacher(Attach::Clsact, None);
        attacher.follow(&view(), true);
        let refused: Vec<_> = attacher.refused().map(|(_, reason)| reason.to_owned()).collect();
        assert_eq!(refused.len(), 2, "{refused:?}");
        assert!(refused[0].contains("veth1 has a foreign `ingress` qdisc"), "{refused:?}");
        assert_eq!((filters("veth1", "ingress"), filters("eth0", "ingress")), (0, 1));
        run("tc qdisc del dev veth1 ingress");
        attacher.follow(&view(), true);
        assert_eq!(attacher.refused().count(), 0);
        assert_eq!(filters("veth1", "ingress"), 1);
    });
}

#[test]
fn tcx_links_outlive_the_process_and_are_replaced_by_the_next() {
    use aya::programs::TcAttachType::{Egress, Ingress};
    in_namespace_with_bpffs(|| {
        run(DEVICES);
        let folder = pin_folder();
        let mut first = attacher(Attach::Auto, Some(&folder));
        assert_eq!(first.mode(), &Mode::Tcx(folder.clone()));
        first.follow(&view(), true);
        assert_eq!(first.refused().collect::<Vec<_>>(), []);
        drop(first);
        assert_eq!(links("veth1", Ingress), [POD_IN]);
        assert_eq!(links("veth1", Egress), [POD_OUT]);
        let before = SchedClassifier::query_tcx("eth0", Ingress).unwrap().1[0].id();
        let mut second = attacher(Attach::Tcx, Some(&folder));
        second.follow(&view(), true);
        assert_eq!(links("veth1", Ingress), [POD_IN]);
        assert_eq!(links("eth0", Ingress), [UPLINK_IN]);
        assert_ne!(SchedClassifier::query_tcx("eth0", Ingress).unwrap().1[0].id(), before);
        // A device that went leaves no pin behind it, and one that takes its index is attached to.
        let index = run("cat /proc/net/dev_snmp6/veth1 | awk '/ifIndex/ {print $2}'").trim().to_owned();
        run("ip link del veth1");
        second.follow(&view(), false);
        assert!(!folder.join(format!("link_{index}_ingress")).exists());
        run(&format!("ip link add again index {index} type veth peer name peer1"));
        run("ip link set again master kube-bridge up");
        second.follow(&view(), false);
        assert_eq!(links("again", Ingress), [POD_IN]);
    });
}

#[test]
fn changing_the_way_of_attaching_leaves_one_copy_on_each_hook() {
    use aya::programs::TcAttachType::Ingress;
    in_namespace_with_bpffs(|| {
        run(DEVICES);
        let folder = pin_folder();
        attacher(Attach::Clsact, Some(&folder)).follow(&view(), true);
        assert_eq!((links("veth1", Ingress).len(), filters("veth1", "ingress")), (0, 1));
        attacher(Attach::Tcx, Some(&folder)).follow(&view(), true);
        assert_eq!((links("veth1", Ingress).len(), filters("veth1", "ingress")), (1, 0));
        attacher(Attach::Clsact, Some(&folder)).follow(&view(), true);
        assert_eq!((links("veth1", Ingress).len(), filters("veth1", "ingress")), (0, 1));
    });
}

#[test]
fn tcx_without_a_bpffs_says_what_to_do() {
    in_namespace(|| {
        let ebpf = bpf::load(bpf::OBJECT, None).unwrap();
        let error = Attacher::new(ebpf, Attach::Tcx, None).unwrap_err();
        assert!(error.to_string().contains("needs a bpffs at /sys/fs/bpf"), "{error:#}");
    });
}

#[test]
fn pods_and_uplinks_get_two_programs_and_kube_svc_one_at_its_far_end() {
    let view = View {
        ports: BTreeMap::from([(7, Port { name: "veth7".to_owned(), peer: None, no_fast: false })]),
        uplinks: BTreeMap::from([(2, "eth0".to_owned())]),
        service: Some(crate::node::service_link::ServiceLink { near: 3, far: 4, mac: [0; 6] }),
        ..View::default()
    };
    let places: Vec<_> = places(&view).into_iter().map(|(key, place)| (key, place.program)).collect();
    assert_eq!(
        places,
        [
            ((2, Hook::Ingress), UPLINK_IN),
            ((2, Hook::Egress), UPLINK_OUT),
            ((4, Hook::Ingress), SERVICE_IN),
            ((7, Hook::Ingress), POD_IN),
            ((7, Hook::Egress), POD_OUT),
        ]
    );
}
