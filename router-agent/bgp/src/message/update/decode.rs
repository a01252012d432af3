//! Bytes to [`Update`]: the three fields, and what the errors of the attributes do to the routes.

use std::net::IpAddr;

use super::block::{Block, Reach, Unreach};
use super::{Announcement, Context, Disposition, Update, as4};
use crate::family::{Family, Prefix};
use crate::message::attribute::{AsPath, Attributes, Origin};
use crate::message::nlri;
use crate::message::notification::{Notification, error};
use crate::message::wire::Reader;

/// Err resets the session.
pub fn decode(body: &[u8], context: &Context) -> Result<Update, Notification> {
    let overrun = || Notification::new(error::MALFORMED_ATTRIBUTE_LIST, &[]);
    let mut reader = Reader(body);
    let mut field = || {
        let len = usize::from(reader.u16()?);
        reader.take(len)
    };
    let withdrawn = field().ok_or_else(overrun)?;
    let attributes = field().ok_or_else(overrun)?;
    let nlri = reader.0;

    let invalid = |()| Notification::new(error::INVALID_NETWORK, &[]);
    let withdrawn = nlri::decode(Family::Ipv4Unicast, withdrawn).ok_or(()).map_err(invalid)?;
    let announced = nlri::decode(Family::Ipv4Unicast, nlri).ok_or(()).map_err(invalid)?;
    let mut block = Block::decode(attributes, !announced.is_empty(), context)?;
    let bare = withdrawn.is_empty() && announced.is_empty() && block.only_unreach();

    let mut update = Update { withdrawn, ..Update::default() };
    let reach = block.reach.take();
    let unreach = block.unreach.take();
    if bare {
        update.end_of_rib = match &unreach {
            None => Some(Family::Ipv4Unicast),
            Some(Unreach { routes: Some((family, prefixes)) }) if prefixes.is_empty() => Some(*family),
            Some(_) => None,
        };
    }
    if let Some(Unreach { routes: Some((_, prefixes)) }) = unreach {
        update.withdrawn.extend(prefixes);
    }

    let mut routes: Vec<(Family, Option<IpAddr>, Vec<Prefix>)> = Vec::new();
    if !announced.is_empty() {
        routes.push((Family::Ipv4Unicast, block.next_hop.map(IpAddr::from), announced));
    }
    if let Some(Reach { routes: Some((family, next_hop, prefixes)) }) = reach {
        routes.push((family, Some(next_hop), prefixes));
    }
    for (family, _, prefixes) in &mut routes {
        if !context.families.contains(*family) {
            prefixes.clear();
            let text = "family is not of this session";
            block.fault(Disposition::Discard, None, error::INVALID_NETWORK, text);
        }
        let before = prefixes.len();
        prefixes.retain(nlri::is_routable);
        if prefixes.len() < before {
            block.fault(Disposition::Discard, None, error::INVALID_NETWORK, "prefix is no unicast network");
        }
    }
    routes.retain(|(_, _, prefixes)| !prefixes.is_empty());
    if !context.families.contains(Family::Ipv4Unicast) {
        update.withdrawn.retain(|prefix| Family::of(prefix) != Family::Ipv4Unicast);
    }

    let withdraw = block.is_withdraw();
    update.faults = std::mem::take(&mut block.faults);
    if withdraw {
        update.withdrawn.extend(routes.into_iter().flat_map(|(_, _, prefixes)| prefixes));
        return Ok(update);
    }
    as4::merge(&mut block);
    block.others.sort_unstable_by_key(|other| other.kind);
    if let Some(parts) = block.origin.zip(block.as_path.take()) {
        update.announced = announcements(parts, block, routes);
    }
    Ok(update)
}

fn announcements(
    (origin, as_path): (Origin, AsPath),
    block: Block,
    routes: Vec<(Family, Option<IpAddr>, Vec<Prefix>)>,
) -> Vec<Announcement> {
    let attributes = Attributes {
        origin,
        as_path,
        next_hop: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        med: block.med,
        local_pref: block.local_pref,
        communities: block.communities,
        originator_id: block.originator_id,
        cluster_list: block.cluster_list,
        others: block.others.into(),
    };
    routes
        .into_iter()
        .filter_map(|(family, next_hop, prefixes)| {
            let attributes = Attributes { next_hop: next_hop?, ..attributes.clone() };
            Some(Announcement { family, attributes, prefixes })
        })
        .collect()
}
