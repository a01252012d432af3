//! `plan`: what the agent would write into the kernel now.

use std::fmt::Write as _;

use router_core::plan::Group;
use serde::{Deserialize, Serialize};

use super::Answer;

/// The whole answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// What the plan rests on, or leaves out.
    pub(crate) notes: Vec<String>,
    pub(crate) changes: Vec<Change>,
}

/// All that one owner would have done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) owner: String,
    /// Writes in order: puts, then deletes.
    pub(crate) ops: Vec<String>,
}

impl Plan {
    /// Takes in what a plane would do.
    pub(crate) fn add<Op: std::fmt::Display>(&mut self, groups: &[Group<Op>]) {
        self.changes.extend(groups.iter().filter(|group| !group.is_empty()).map(|group| Change {
            owner: group.owner.to_string(),
            ops: group.puts.iter().chain(&group.dels).map(ToString::to_string).collect(),
        }));
    }
}

impl Answer for Plan {
    fn text(&self, _wide: bool) -> String {
        let mut text = String::new();
        // A String takes whatever is written to it.
        for note in &self.notes {
            let _ = writeln!(text, "# {note}");
        }
        if self.changes.is_empty() {
            text.push_str("nothing to change\n");
            return text;
        }
        for Change { owner, ops } in &self.changes {
            let _ = writeln!(text, "{owner}");
            for op in ops {
                let _ = writeln!(text, "  {op}");
            }
        }
        let ops: usize = self.changes.iter().map(|change| change.ops.len()).sum();
        let _ = writeln!(text, "\n{ops} writes for {} owners; nothing was written", self.changes.len());
        text
    }
}

#[cfg(test)]
mod tests {
    use router_core::plan::Owner;

    use super::*;

    #[test]
    fn an_empty_plan_says_so_and_another_counts() {
        let mut plan = Plan::default();
        plan.add::<String>(&[Group::empty(Owner::Backend(1))]);
        assert_eq!(plan.text(false), "nothing to change\n");
        plan.notes.push("no routes".into());
        plan.add(&[Group { puts: vec!["put a"], dels: vec!["delete b"], ..Group::empty(Owner::Backend(7)) }]);
        let expected = "# no routes\nloose backend 7\n  put a\n  delete b\n\n2 writes for 1 owners; nothing was written\n";
        assert_eq!(plan.text(false), expected);
    }
}
