//! The matrix for people, in lines of at most 120 columns.

use std::fmt::Write as _;

use super::{Backend, Cell, Matrix};

/// Wide enough for `65536 169.254.255.1 slow`.
const COLUMN: usize = 27;

const LEGEND: &str = "\
the path matrix: bytes there and as many back, the source that the backend saw, and whether the flow is fast
(past the stack) or slow; \"here\" is the node that balances, \"there\" one in the other subnet";

/// A paragraph for each client and what it dials, with a line for each protocol and a column for each backend. What is
/// wrong with a cell is said by its fact.
pub(in crate::lab) fn table(matrix: &Matrix) -> String {
    let header = Backend::ALL.iter().fold("     ".to_owned(), |line, backend| column(line, backend.name()));
    let mut text = format!("{LEGEND}\n\n{header}");
    let mut rest = matrix.cells.as_slice();
    while let Some(first) = rest.first() {
        let same = rest.iter().take_while(|cell| cell.row == first.row).count();
        let (row, others) = rest.split_at(same);
        rest = others;
        let _ = write!(text, "\n{} (here is {}, there is {})", first.row, first.here, first.there);
        for line in row.chunk_by(|one, next| one.protocol == next.protocol) {
            let _ = write!(text, "\n{}", columns(line));
        }
    }
    for impossible in &matrix.impossible {
        let _ = write!(text, "\n{}: cannot be", impossible.row);
        for line in wrapped(&impossible.why) {
            let _ = write!(text, "\n    {line}");
        }
    }
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

fn columns(cells: &[Cell]) -> String {
    let protocol = cells.first().map_or("", |cell| &cell.protocol);
    cells.iter().fold(format!("  {protocol}"), |line, cell| {
        let text = if cell.is_right() { cell.line() } else { "FAILED".to_owned() };
        column(line, &text)
    })
}

fn column(line: String, text: &str) -> String {
    line + &format!(" {text:<COLUMN$}")
}

/// Lines of at most a hundred columns.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        if lines.last().is_some_and(|line| line.len() + word.len() >= 100) {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::matrix::Impossible;

    fn cell(row: &str, protocol: &str, backend: Backend, fast: Option<bool>) -> Cell {
        Cell {
            row: row.to_owned(),
            here: "node1".to_owned(),
            there: "node3".to_owned(),
            backend,
            protocol: protocol.to_owned(),
            bytes: Some(65536),
            source: Some("169.254.255.1".to_owned()),
            expected: "169.254.255.1".to_owned(),
            fast,
            error: None,
        }
    }

    #[test]
    fn the_table_fits_a_terminal_and_names_what_failed_and_what_cannot_be() {
        let protocols = ["tcp", "udp"];
        let row = |row: &'static str, fast| {
            protocols
                .into_iter()
                .flat_map(move |protocol| Backend::ALL.map(|backend| cell(row, protocol, backend, fast)))
        };
        let cells = row("pod dials", Some(false)).chain(row("process dials", None)).collect();
        let why = "it is so ".repeat(30);
        let impossible = vec![Impossible { row: "outside dials".to_owned(), why }];
        let text = table(&Matrix { cells, impossible });
        assert!(text.lines().all(|line| line.len() <= 120), "{text}");
        let lines: Vec<&str> = text.lines().skip(3).collect();
        let [header, _, tcp, udp, _, failed, ..] = lines.as_slice() else { panic!("{text}") };
        assert_eq!(header.find("pod there"), tcp.rfind("65536").map(|at| at - 2 * (COLUMN + 1)), "{text}");
        assert!(udp.starts_with("  udp 65536 169.254.255.1 slow "), "{text}");
        assert!(failed.starts_with("  tcp FAILED  "), "{text}");
        assert!(text.contains("outside dials: cannot be\n    it is so"), "{text}");
    }
}
