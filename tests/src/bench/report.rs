//! The table: medians, how far rounds lie apart, and the ratio to the first arm.

use std::fmt::Write as _;

use serde::Serialize;

use super::arms::Arm;

/// What rounds of one kind said.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// Instructions.
    pub median: f64,
    /// (Largest - smallest) / median; no round is dropped.
    pub spread: f64,
    pub rounds: Vec<f64>,
}

impl Figure {
    /// None of no rounds.
    pub fn of(rounds: &[f64]) -> Option<Self> {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (first, last) = (sorted.first()?, sorted.last()?);
        let median = f64::midpoint(*sorted.get((sorted.len() - 1) / 2)?, *sorted.get(sorted.len() / 2)?);
        Some(Self { median, spread: (last - first) / median, rounds: rounds.to_vec() })
    }
}

/// One arm's row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub arm: String,
    pub services: u32,
    /// Instructions of a TCP connection, all of it.
    pub connection: Figure,
    pub connection_ratio: f64,
    /// Of a datagram and its answer.
    pub exchange: Figure,
    pub exchange_ratio: f64,
}

impl Row {
    /// One that is not compared yet.
    pub fn new(arm: Arm, connection: Figure, exchange: Figure) -> Self {
        let name = arm.kind.name().to_owned();
        Self {
            arm: name,
            services: arm.services,
            connection,
            connection_ratio: 1.0,
            exchange,
            exchange_ratio: 1.0,
        }
    }
}

/// What one hook costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HookCost {
    pub what: String,
    pub cost: Figure,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Matrix {
    pub kernel: String,
    pub rows: Vec<Row>,
    pub hooks: Vec<HookCost>,
}

impl Matrix {
    /// Sets every ratio: to the first row.
    #[must_use]
    pub fn compared(mut self) -> Self {
        let Some(first) = self.rows.first() else { return self };
        let (connection, exchange) = (first.connection.median, first.exchange.median);
        for row in &mut self.rows {
            row.connection_ratio = row.connection.median / connection;
            row.exchange_ratio = row.exchange.median / exchange;
        }
        self
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!("kernel {}; instructions, medians\n\n", self.kernel);
        let _ = writeln!(
            text,
            "{:<12} {:>8} {:>14} {:>7} {:>7} {:>14} {:>7} {:>7}",
            "arm", "services", "TCP connection", "ratio", "spread", "UDP exchange", "ratio", "spread"
        );
        for row in &self.rows {
            let _ = writeln!(
                text,
                "{:<12} {:>8} {:>14.0} {:>7.3} {:>6.1}% {:>14.0} {:>7.3} {:>6.1}%",
                row.arm,
                row.services,
                row.connection.median,
                row.connection_ratio,
                row.connection.spread * 100.0,
                row.exchange.median,
                row.exchange_ratio,
                row.exchange.spread * 100.0
            );
        }
        if !self.hooks.is_empty() {
            text.push_str("\none hook by itself\n\n");
        }
        for hook in &self.hooks {
            let _ = writeln!(
                text,
                "{:<48} {:>6.0} {:>6.1}%",
                hook.what,
                hook.cost.median,
                hook.cost.spread * 100.0
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(arm: &str, connection: f64) -> Row {
        let figure = |value: f64| Figure::of(&[value, value * 1.02, value * 1.01]).unwrap();
        Row::new(Arm::parse(arm, "1").unwrap(), figure(connection), figure(10.0))
    }

    #[test]
    fn a_median_and_the_spread_drop_no_round() {
        let figure = Figure::of(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!((figure.median, figure.spread), (2.0, 1.0));
        assert!(Figure::of(&[1.0, 3.0]).unwrap().median.total_cmp(&2.0).is_eq());
        assert_eq!(Figure::of(&[]), None);
    }

    #[test]
    fn rows_are_held_against_the_first() {
        let rows = vec![row("plain", 100_000.0), row("ours-fast", 105_000.0)];
        let matrix = Matrix { kernel: "6.12".into(), rows, hooks: Vec::new() }.compared();
        assert!((matrix.rows[0].connection_ratio - 1.0).abs() < 1e-9);
        assert!((matrix.rows[1].connection_ratio - 1.05).abs() < 1e-9);
        let table = matrix.table();
        assert!(table.contains("1.050") && table.contains("2.0%"), "{table}");
    }
}
