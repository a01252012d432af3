//! `bgp`: this node's speaker, its neighbours, and what it announces.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::Answer;
use super::table::{Table, age};

/// The whole answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bgp {
    /// `None`: no BGP by this agent, or not yet.
    pub(crate) speaker: Option<Speaker>,
    pub(crate) peers: Vec<Peer>,
    /// Prefixes that this node originates; who is told of which, policies say.
    pub(crate) originated: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Speaker {
    pub(crate) asn: u32,
    pub(crate) router_id: String,
    pub(crate) port: u16,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) address: String,
    /// The node's name, or the flag that names it.
    pub(crate) description: String,
    pub(crate) asn: u32,
    /// Lower case, as in the metric `bgp_peer_info`.
    pub(crate) state: String,
    /// Since it came up, or went down; `None`: it has never been up.
    pub(crate) since_seconds: Option<f64>,
    pub(crate) received: usize,
    pub(crate) accepted: usize,
    pub(crate) advertised: usize,
    /// Why the session last went down; empty if it never has.
    pub(crate) last_error: String,
}

impl Answer for Bgp {
    fn text(&self, _wide: bool) -> String {
        let Some(Speaker { asn, router_id, port }) = &self.speaker else {
            return "no BGP: --run-router is off, or the node's address is not known (see status)\n"
                .to_owned();
        };
        let mut text = format!("AS {asn}, router id {router_id}, port {port}\n\n");
        let mut table = Table::new(&[
            "NEIGHBOR",
            "WHO",
            "AS",
            "STATE",
            "SINCE",
            "RECEIVED",
            "ACCEPTED",
            "ADVERTISED",
            "LAST ERROR",
        ]);
        for peer in &self.peers {
            let since = peer.since_seconds.map_or_else(|| "never up".to_owned(), age);
            let Peer { address, description, asn, state, received, accepted, advertised, last_error, .. } =
                peer;
            table.row(&[
                address,
                description,
                asn,
                state,
                &since,
                received,
                accepted,
                advertised,
                last_error,
            ]);
        }
        // A String takes whatever is written to it.
        let _ = if table.is_empty() { writeln!(text, "no neighbor") } else { write!(text, "{table}") };
        let _ = writeln!(
            text,
            "\noriginated: {}",
            if self.originated.is_empty() { "nothing".to_owned() } else { self.originated.join(", ") }
        );
        text
    }
}
