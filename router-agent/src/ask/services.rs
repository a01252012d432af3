//! `services`: what can be dialled, who answers, and how much.

use serde::{Deserialize, Serialize};

use super::Answer;
use super::table::{Table, age};

/// The whole answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Services {
    /// Since traffic was last counted; `None` before the first time.
    pub(crate) counted_seconds: Option<f64>,
    pub(crate) services: Vec<Service>,
}

/// What can be dialled: one address, port and protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Service {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) port: u16,
    /// `TCP` or `UDP`.
    pub(crate) protocol: String,
    /// Endpoints that new flows go to.
    pub(crate) ready: Vec<String>,
    /// Endpoints that keep the flows they have.
    pub(crate) draining: Vec<String>,
    pub(crate) traffic: Traffic,
}

/// Since the agent's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Traffic {
    pub(crate) connections: u64,
    /// From clients.
    pub(crate) packets_in: u64,
    pub(crate) bytes_in: u64,
    /// To clients.
    pub(crate) packets_out: u64,
    pub(crate) bytes_out: u64,
}

impl Answer for Services {
    fn text(&self, wide: bool) -> String {
        let mut headings =
            vec!["SERVICE", "FRONTEND", "READY", "DRAINING", "CONNECTIONS", "PACKETS IN/OUT", "BYTES IN/OUT"];
        headings.extend(wide.then_some("BACKENDS"));
        let mut table = Table::new(&headings);
        for service in &self.services {
            let Service { namespace, name, ready, draining, traffic, .. } = service;
            let name = format!("{namespace}/{name}");
            let frontend = format!("{}:{}/{}", service.address, service.port, service.protocol);
            let packets = format!("{}/{}", traffic.packets_in, traffic.packets_out);
            let bytes = format!("{}/{}", traffic.bytes_in, traffic.bytes_out);
            let (ready_count, draining_count) = (ready.len(), draining.len());
            let leaving = draining.iter().map(|backend| format!("{backend} (draining)"));
            let backends: Vec<String> = ready.iter().cloned().chain(leaving).collect();
            let backends = backends.join(",");
            let mut cells: Vec<&dyn std::fmt::Display> =
                vec![&name, &frontend, &ready_count, &draining_count, &traffic.connections, &packets, &bytes];
            if wide {
                cells.push(&backends);
            }
            table.row(&cells);
        }
        if table.is_empty() {
            return "no service\n".to_owned();
        }
        let counted =
            self.counted_seconds.map_or_else(|| "not yet".to_owned(), |ago| format!("{} ago", age(ago)));
        format!("{table}\ntraffic since the agent's start, counted {counted}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_named_if_asked_for() {
        let service = Service {
            namespace: "default".into(),
            name: "web".into(),
            address: "10.96.0.1".into(),
            port: 80,
            protocol: "TCP".into(),
            ready: vec!["10.244.0.2:8080".into()],
            draining: vec!["10.244.0.3:8080".into()],
            traffic: Traffic {
                connections: 7,
                packets_in: 70,
                bytes_in: 700,
                packets_out: 60,
                bytes_out: 600,
            },
        };
        let answer = Services { counted_seconds: Some(4.0), services: vec![service] };
        let text = answer.text(false);
        let row = text.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(row, "default/web 10.96.0.1:80/TCP 1 1 7 70/60 700/600");
        assert!(text.ends_with("counted 4.0s ago\n"), "{text}");
        assert!(answer.text(true).contains("10.244.0.2:8080,10.244.0.3:8080 (draining)"));
        assert_eq!(Services::default().text(false), "no service\n");
    }
}
