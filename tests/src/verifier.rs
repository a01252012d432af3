//! What the kernel's verifier makes of the object: whether each program loads, and how many instructions it had
//! to follow, held against a checked-in table so that a change that makes it work much harder is seen.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use aya::programs::SchedClassifier;

/// How much more the verifier may follow than the table says, in hundredths.
const RISE: u32 = 5;
/// Lines of the verifier's log that are shown of a program that does not load.
const TAIL: usize = 30;

/// Instructions followed, by program.
pub type Counts = BTreeMap<String, u32>;

/// Loads every program: what the verifier followed, or the end of what it said.
pub fn load_all(ebpf: &mut Ebpf) -> BTreeMap<String, Result<u32, String>> {
    ebpf.programs_mut()
        .map(|(name, program)| {
            let count = program.try_into().map_err(anyhow::Error::from).and_then(count);
            (name.to_owned(), count.map_err(|error| tail(&format!("{error:#}"))))
        })
        .collect()
}

fn count(program: &mut SchedClassifier) -> Result<u32> {
    program.load()?;
    program.info()?.verified_instruction_count().context("this kernel does not count verified instructions")
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default().join("\n")
}

/// The table: a count for each kernel series and program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table(BTreeMap<(String, String), u32>);

impl Table {
    /// Reads lines of series, program and count; `#` begins a comment.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let rows = lines.map(|line| row(line).with_context(|| format!("not a row: {line}")));
        Ok(Self(rows.collect::<Result<_>>()?))
    }

    /// As [`Self::parse`] reads it.
    pub fn text(&self) -> String {
        let mut text = "# Instructions that the verifier follows: kernel series, program, count.\n\
                        # UPDATE_EXPECT=1 cargo test -p router-tests vm   writes this file.\n"
            .to_owned();
        for ((series, program), count) in &self.0 {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{series}\t{program}\t{count}");
        }
        text
    }

    /// Whether anything is known of a series.
    pub fn knows(&self, series: &str) -> bool {
        self.0.keys().any(|(of, _)| of == series)
    }

    /// Puts a series' counts in the place of those it had.
    pub fn replace(&mut self, series: &str, counts: &Counts) {
        self.0.retain(|(of, _), _| of != series);
        self.0.extend(counts.iter().map(|(program, count)| ((series.to_owned(), program.clone()), *count)));
    }

    /// That the same programs are there and none rose by more than `RISE` percent.
    pub fn check(&self, series: &str, counts: &Counts) -> Result<()> {
        let known = self.0.iter().filter(|((of, _), _)| of == series);
        let known: BTreeMap<_, _> = known.map(|((_, program), count)| (program, *count)).collect();
        let mut wrong = Vec::new();
        for (program, count) in counts {
            match known.get(program) {
                Some(before) if u64::from(*count) * 100 > u64::from(*before) * u64::from(100 + RISE) => {
                    wrong.push(format!("{program} rose from {before} to {count}"));
                }
                Some(_) => {}
                None => wrong.push(format!("{program} ({count}) is not in the table")),
            }
        }
        wrong.extend(
            known
                .keys()
                .filter(|program| !counts.contains_key(**program))
                .map(|program| format!("{program} is gone")),
        );
        ensure!(wrong.is_empty(), "kernel {series}: {} (UPDATE_EXPECT=1 accepts it)", wrong.join(", "));
        Ok(())
    }
}

fn row(line: &str) -> Option<((String, String), u32)> {
    let mut words = line.split_whitespace();
    let row = ((words.next()?.to_owned(), words.next()?.to_owned()), words.next()?.parse().ok()?);
    words.next().is_none().then_some(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rows: &[(&str, u32)]) -> Counts {
        rows.iter().map(|(program, count)| ((*program).to_owned(), *count)).collect()
    }

    #[test]
    fn a_rise_over_five_percent_fails_and_names_the_program() {
        let mut table = Table::default();
        table.replace("6.1", &counts(&[("a", 1000), ("b", 10)]));
        table.check("6.1", &counts(&[("a", 1050), ("b", 1)])).unwrap();
        let error = table.check("6.1", &counts(&[("a", 1051), ("b", 10)])).unwrap_err().to_string();
        assert!(error.contains("a rose from 1000 to 1051") && !error.contains("b rose"), "{error}");
    }

    #[test]
    fn a_program_without_a_row_and_a_row_without_a_program_fail() {
        let mut table = Table::default();
        table.replace("6.1", &counts(&[("a", 1), ("b", 1)]));
        let error = table.check("6.1", &counts(&[("a", 1), ("c", 1)])).unwrap_err().to_string();
        assert!(error.contains("b is gone") && error.contains("c (1) is not in the table"), "{error}");
    }

    #[test]
    fn a_table_reads_what_it_writes_and_replaces_one_series_only() {
        let mut table = Table::parse("# x\n6.1 a 5\n6.12 a 7\n").unwrap();
        table.replace("6.1", &counts(&[("b", 6)]));
        assert_eq!(Table::parse(&table.text()).unwrap(), table);
        assert!(table.text().ends_with("6.1\tb\t6\n6.12\ta\t7\n"));
        assert!(Table::parse("6.1 a five").unwrap_err().to_string().contains("6.1 a five"));
    }
}
