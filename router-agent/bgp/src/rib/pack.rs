//! Changes on their way to messages: prefixes that share attributes and audience go together.

use std::collections::HashMap;
use std::sync::Arc;

use super::export::GroupKey;
use super::log::Audience;
use super::wire;
use crate::family::Prefix;
use crate::message::attribute::Attributes;

#[derive(Default)]
pub(super) struct Changes {
    /// In the order in which each first came up, so that equal inputs make equal bytes.
    bundles: Vec<Bundle>,
    by_content: HashMap<(usize, Audience), usize>,
    last: Option<((usize, Audience), usize)>,
}

struct Bundle {
    /// `None`: the prefixes are withdrawn.
    attributes: Option<Arc<Attributes>>,
    audience: Audience,
    prefixes: Vec<Prefix>,
}

impl Changes {
    pub(super) fn announce(&mut self, prefix: Prefix, attributes: &Arc<Attributes>, audience: Audience) {
        self.add(prefix, Some(attributes), audience);
    }

    pub(super) fn withdraw(&mut self, prefix: Prefix, audience: Audience) {
        self.add(prefix, None, audience);
    }

    fn add(&mut self, prefix: Prefix, attributes: Option<&Arc<Attributes>>, audience: Audience) {
        let content = (attributes.map_or(0, |it| Arc::as_ptr(it).addr()), audience);
        let index = match self.last {
            Some((last, index)) if last == content => index,
            _ => *self.by_content.entry(content).or_insert_with(|| {
                let attributes = attributes.cloned();
                self.bundles.push(Bundle { attributes, audience, prefixes: Vec::new() });
                self.bundles.len() - 1
            }),
        };
        self.last = Some((content, index));
        if let Some(bundle) = self.bundles.get_mut(index) {
            bundle.prefixes.push(prefix);
        }
    }

    pub(super) fn encode(self, key: &GroupKey) -> impl Iterator<Item = (Arc<[u8]>, Audience)> {
        self.bundles.into_iter().flat_map(move |Bundle { attributes, audience, prefixes }| {
            let messages = match &attributes {
                Some(attributes) => wire::announce(key, attributes, &prefixes),
                None => wire::withdraw(key, &prefixes),
            };
            messages.into_iter().map(move |bytes| (bytes, audience))
        })
    }
}
