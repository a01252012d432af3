//! The path of a two-octet peer made whole from `AS4_PATH` and `AS4_AGGREGATOR` (RFC 6793 §4.2.3).

use super::block::Block;
use crate::asn::Asn;
use crate::message::attribute::{AsPath, Segment, SegmentKind, kind};

pub(super) fn merge(block: &mut Block) {
    let aggregator = block.others.iter_mut().find(|other| other.kind == kind::AGGREGATOR);
    if let Some((aggregator, four_octet)) = aggregator.zip(block.as4_aggregator) {
        let short = Asn::TRANS.0.to_be_bytes();
        if !aggregator.value.starts_with(&short) {
            // Whoever aggregated last did not know of the AS4 attributes: they describe an older path.
            return;
        }
        aggregator.value = four_octet.into();
    }
    if let Some(as4_path) = block.as4_path.take() {
        block.as_path = block.as_path.take().map(|path| joined(path, &as4_path));
    }
}

/// The hops that `as4_path` lacks come from the front of `path`; one longer than `path` is not believed.
fn joined(path: AsPath, as4_path: &AsPath) -> AsPath {
    let Some(mut lacking) = path.hops().checked_sub(as4_path.hops()) else { return path };
    let mut segments = Vec::new();
    for segment in &path.0 {
        if lacking == 0 {
            break;
        }
        let asns = match segment.kind {
            SegmentKind::Set => {
                lacking -= 1;
                segment.asns.clone()
            }
            SegmentKind::Sequence => {
                let front: Box<[Asn]> = segment.asns.iter().copied().take(lacking).collect();
                lacking -= front.len();
                front
            }
        };
        segments.push(Segment { kind: segment.kind, asns });
    }
    segments.extend(as4_path.0.iter().cloned());
    AsPath(merged(segments))
}

/// Neighbouring sequences are one, so that the same path is the same value.
fn merged(segments: Vec<Segment>) -> Box<[Segment]> {
    let mut merged: Vec<Segment> = Vec::with_capacity(segments.len());
    for segment in segments {
        match merged.last_mut() {
            Some(last) if last.kind == SegmentKind::Sequence && segment.kind == SegmentKind::Sequence => {
                last.asns = [&*last.asns, &*segment.asns].concat().into();
            }
            _ => merged.push(segment),
        }
    }
    merged.into()
}
