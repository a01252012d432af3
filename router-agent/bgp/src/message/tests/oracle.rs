//! A second opinion: what we accept without fault, netgauze accepts, and reads the same fields.

use std::net::{IpAddr, Ipv4Addr};

use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::path_attribute as theirs;
use netgauze_bgp_pkt::path_attribute::PathAttributeValue;
use netgauze_bgp_pkt::update::BgpUpdateMessage;
use netgauze_bgp_pkt::wire::deserializer::BgpParsingContext;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput as _;
use proptest::collection::vec;
use proptest::prelude::*;

use super::internal;
use super::properties::{attributes, ipv4_prefix};
use crate::family::{Family, Prefix};
use crate::message::attribute::Attributes;
use crate::message::header::Frame;
use crate::message::update::{self, announce};

fn parse(message: &[u8]) -> Result<BgpMessage, String> {
    let mut context = BgpParsingContext::new(true, [].into(), [].into(), true, true, true, true);
    BgpMessage::parse(&mut SliceReader::new(message), &mut context).map_err(|error| format!("{error:?}"))
}

/// The fields that both decode, ours first.
fn compare(attributes: &Attributes, prefixes: &[Prefix], other: &BgpUpdateMessage) {
    // They keep the bits past the length, which mean nothing.
    let nlri: Vec<Prefix> = other.nlri().iter().map(|nlri| nlri.network().address().trunc().into()).collect();
    assert_eq!(nlri, prefixes);
    let mut communities = Vec::new();
    let mut clusters = Vec::new();
    let (mut med, mut local_pref, mut originator) = (None, None, None);
    for attribute in other.path_attributes() {
        match attribute.value() {
            PathAttributeValue::Origin(origin) => assert_eq!(*origin as u8, attributes.origin as u8),
            PathAttributeValue::AsPath(theirs::AsPath::As4PathSegments(segments)) => {
                let have = segments
                    .iter()
                    .map(|segment| (segment.segment_type() as u8, segment.as_numbers().to_vec()));
                let want = attributes.as_path.0.iter().map(|segment| {
                    (segment.kind as u8, segment.asns.iter().map(|asn| asn.0).collect::<Vec<u32>>())
                });
                assert!(have.eq(want), "{segments:?}");
            }
            PathAttributeValue::NextHop(next_hop) => {
                assert_eq!(IpAddr::V4(next_hop.next_hop()), attributes.next_hop);
            }
            PathAttributeValue::MultiExitDiscriminator(metric) => med = Some(metric.metric()),
            PathAttributeValue::LocalPreference(metric) => local_pref = Some(metric.metric()),
            PathAttributeValue::Communities(list) => {
                communities =
                    list.communities().iter().map(netgauze_bgp_pkt::community::Community::value).collect();
            }
            PathAttributeValue::Originator(id) => originator = Some(id.id()),
            PathAttributeValue::ClusterList(list) => {
                clusters = list
                    .cluster_list()
                    .iter()
                    .map(netgauze_bgp_pkt::path_attribute::ClusterId::id)
                    .collect::<Vec<Ipv4Addr>>();
            }
            PathAttributeValue::UnknownAttribute(unknown) => {
                let ours = attributes.others.iter().find(|other| other.kind == unknown.code());
                assert_eq!(ours.map(|other| &*other.value), Some(unknown.value()));
            }
            _ => {}
        }
    }
    assert_eq!((med, local_pref), (attributes.med, attributes.local_pref));
    assert_eq!(originator, attributes.originator_id);
    assert_eq!((communities, clusters), (attributes.communities.to_vec(), attributes.cluster_list.to_vec()));
}

proptest! {
    #[test]
    fn what_we_write_is_read_alike(attributes in attributes(), prefixes in vec(ipv4_prefix(), 1..100)) {
        for message in announce(&attributes, Family::Ipv4Unicast, &prefixes, &internal()).unwrap() {
            let frame = Frame::next(&message, false).unwrap().unwrap();
            let ours = update::decode(frame.body(), &internal()).unwrap();
            let Ok(BgpMessage::Update(theirs)) = parse(&message) else { panic!("{:?}", parse(&message)) };
            compare(&ours.announced[0].attributes, &ours.announced[0].prefixes, &theirs);
        }
    }

    #[test]
    fn what_we_accept_of_mutated_messages_they_accept(
        attributes in attributes(),
        prefixes in vec(ipv4_prefix(), 1..20),
        changes in vec((23usize..500, any::<u8>()), 1..3),
    ) {
        let mut message = announce(&attributes, Family::Ipv4Unicast, &prefixes, &internal()).unwrap().remove(0);
        for (at, value) in changes {
            let len = message.len();
            if let Some(octet) = message.get_mut(at % len).filter(|_| at % len >= 23) {
                *octet = value;
            }
        }
        let frame = Frame::next(&message, false).unwrap().unwrap();
        let Ok(ours) = update::decode(frame.body(), &internal()) else { return Ok(()) };
        let [announced] = &ours.announced[..] else { return Ok(()) };
        // What we keep as bytes they take apart, and may dislike.
        let known_only = announced.attributes.others.iter().all(|other| other.kind == 99);
        if !ours.faults.is_empty() || !ours.withdrawn.is_empty() || !known_only {
            return Ok(());
        }
        let theirs = match parse(&message) {
            Ok(BgpMessage::Update(theirs)) => theirs,
            // RFC 7606 §3 c is about the optional and transitive bits alone.
            Err(error) if error.contains("InvalidPartialFlagValue") => return Ok(()),
            other => panic!("{other:?}"),
        };
        compare(&announced.attributes, &announced.prefixes, &theirs);
    }
}
