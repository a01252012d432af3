//! `flows`: who talks to whom by way of this node's programs.

use serde::{Deserialize, Serialize};

use super::Answer;
use super::table::{Table, age};

/// The whole answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Flows {
    /// The latest packet first.
    pub(crate) flows: Vec<Flow>,
    /// Of all that were asked for, how many are not here.
    pub(crate) more: usize,
}

/// A connection, both directions of it. Ends are address and port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Flow {
    pub(crate) protocol: String,
    pub(crate) client: String,
    /// What the client dialled.
    pub(crate) frontend: String,
    pub(crate) backend: String,
    /// As whom the backend sees the client.
    pub(crate) source: String,
    /// `namespace/name`, if a service balanced it and is still there.
    pub(crate) service: Option<String>,
    pub(crate) state: String,
    /// `fast`: past the host's stack; else `slow`.
    pub(crate) path: String,
    pub(crate) age_seconds: f64,
    pub(crate) idle_seconds: f64,
    pub(crate) packets_in: u64,
    pub(crate) bytes_in: u64,
    pub(crate) packets_out: u64,
    pub(crate) bytes_out: u64,
}

impl Answer for Flows {
    fn text(&self, wide: bool) -> String {
        let mut headings = vec![
            "PROTO",
            "CLIENT",
            "FRONTEND",
            "BACKEND",
            "STATE",
            "PATH",
            "AGE",
            "IDLE",
            "PACKETS IN/OUT",
            "BYTES IN/OUT",
        ];
        headings.extend(wide.then_some(["SEEN AS", "SERVICE"]).into_iter().flatten());
        let mut table = Table::new(&headings);
        for flow in &self.flows {
            let (old, idle) = (age(flow.age_seconds), age(flow.idle_seconds));
            let packets = format!("{}/{}", flow.packets_in, flow.packets_out);
            let bytes = format!("{}/{}", flow.bytes_in, flow.bytes_out);
            let service = flow.service.clone().unwrap_or_default();
            let mut cells: Vec<&dyn std::fmt::Display> = vec![
                &flow.protocol,
                &flow.client,
                &flow.frontend,
                &flow.backend,
                &flow.state,
                &flow.path,
                &old,
                &idle,
                &packets,
                &bytes,
            ];
            if wide {
                cells.extend([&flow.source as &dyn std::fmt::Display, &service]);
            }
            table.row(&cells);
        }
        let more = self.more;
        match (table.is_empty(), more) {
            (true, 0) => "no flow\n".to_owned(),
            (_, 0) => table.to_string(),
            _ => format!("{table}\n{more} more; see them by --limit, or name an address\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted() {
        assert_eq!(Flows::default().text(false), "no flow\n");
        let text = Flows { flows: Vec::new(), more: 7 }.text(false);
        assert!(text.ends_with("\n7 more; see them by --limit, or name an address\n"), "{text}");
    }
}
