//! `routes`: what BGP taught, what the kernel has of it, and which prefixes lead to services.

use serde::{Deserialize, Serialize};

use super::Answer;
use super::table::Table;

/// The whole answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Routes {
    /// `None`: no BGP by this agent.
    pub(crate) learned: Option<Vec<Learned>>,
    pub(crate) services: Vec<ToServices>,
}

/// A prefix that BGP chose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Learned {
    pub(crate) prefix: String,
    pub(crate) next_hop: String,
    pub(crate) device: Option<String>,
    /// The peer whose path it is, if it is still there.
    pub(crate) from: Option<String>,
    /// `in kernel`, `pending`, `refused` or `failed`.
    pub(crate) state: String,
    /// Why, where it is refused or failed.
    pub(crate) reason: String,
}

/// A prefix of VIPs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ToServices {
    pub(crate) prefix: String,
    pub(crate) device: String,
    pub(crate) in_kernel: bool,
}

impl Answer for Routes {
    fn text(&self, _wide: bool) -> String {
        let mut table = Table::new(&["PREFIX", "NEXT HOP", "DEVICE", "FROM", "STATE", "WHY"]);
        for it in self.learned.iter().flatten() {
            let (device, from) = (it.device.clone().unwrap_or_default(), it.from.clone().unwrap_or_default());
            table.row(&[&it.prefix, &it.next_hop, &device, &from, &it.state, &it.reason]);
        }
        for ToServices { prefix, device, in_kernel } in &self.services {
            table.row(&[
                prefix,
                &"",
                device,
                &"services",
                &if *in_kernel { "in kernel" } else { "pending" },
                &"",
            ]);
        }
        if table.is_empty() { "no route\n".to_owned() } else { table.to_string() }
    }
}
