use super::*;

#[test]
fn dbg() {
    let mut rib = Rib::new(RibConfig{limits: Limits{log_bytes:60,graves:0,noted:1,walked:1}, ..config()});
    let f = PeerFacts{four_octet:false, ..facts("172.16.0.2", Asn(65002))};
    rib.peer_up(PeerId(3), f.clone());
    rib.originate(prefix("10.96.0.1/32"), attributes("172.16.0.1", &[65001, 64512]), Duration::ZERO);
    rib.set_policies(open());
    dbg!(rib.adj_out(PeerId(3), Family::Ipv4Unicast).collect::<Vec<_>>());
    while rib.has_messages(PeerId(3)) {
        let m = rib.next_messages(PeerId(3), 300);
        println!("{m:?}"); let mut h = Heard::default(); h.listen(&m, &f); dbg!(h.routes, h.messages, h.needless);
    }
    panic!();
}
