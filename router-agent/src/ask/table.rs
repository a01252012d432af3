//! What people read: columns as wide as they need, headings in capitals, ages as `kubectl` writes them.

use std::fmt::{self, Display, Write as _};

/// Rows under headings.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()] }
    }

    /// Cells without text are shown as `-`.
    pub(super) fn row(&mut self, cells: &[&dyn Display]) {
        let cell = |cell: &&dyn Display| Some(cell.to_string()).filter(|text| !text.is_empty());
        self.rows.push(cells.iter().map(|it| cell(it).unwrap_or_else(|| "-".to_owned())).collect());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }
}

impl Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| self.rows.iter().filter_map(|row| Some(row.get(column)?.chars().count())).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                write!(line, "{cell:width$}   ")?;
            }
            writeln!(formatter, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A time in its two largest units.
pub(super) fn age(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{seconds:.1}s");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an age is neither huge nor negative"
    )]
    let seconds = seconds as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_nothing_trails() {
        let mut table = Table::new(&["NAME", "READY", "WHY"]);
        table.row(&[&"default/web", &3, &""]);
        table.row(&[&"x", &10, &"because"]);
        let expected = "NAME          READY   WHY\ndefault/web   3       -\nx             10      because\n";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn an_age_has_two_units_at_most() {
        let rows = [
            (0.04, "0.0s"),
            (9.96, "10.0s"),
            (59.9, "59s"),
            (61.0, "1m1s"),
            (3_720.0, "1h2m"),
            (90_000.0, "1d1h"),
        ];
        for (seconds, expected) in rows {
            assert_eq!(age(seconds), expected);
        }
    }
}
