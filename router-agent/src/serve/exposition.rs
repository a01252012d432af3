//! Prometheus' text format 0.0.4.

use std::fmt::{Display, Write as _};

use crate::measure::Histogram;

/// The content type of a page.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every name begins with it.
const PREFIX: &str = "kube_router_";

/// A page under construction. A family's samples follow its head.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
}

/// The samples of one name.
#[derive(Debug)]
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: String,
}

impl Page {
    pub(super) fn gauge(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(&format!("{PREFIX}{name}"), "gauge", help)
    }

    pub(super) fn counter(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(&format!("{PREFIX}{name}"), "counter", help)
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        let read = histogram.read();
        let name = format!("{PREFIX}{name}");
        let text = self.family(&name, "histogram", help).text;
        // A String takes whatever is written to it.
        for (bound, count) in &read.buckets {
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {}", read.count);
        let _ = writeln!(text, "{name}_sum {}\n{name}_count {}", read.sum, read.count);
    }

    /// One whose name is not ours alone.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) -> Family<'_> {
        let _ = writeln!(self.text, "# HELP {name} {}\n# TYPE {name} {kind}", escape(help, false));
        Family { text: &mut self.text, name: name.to_owned() }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

impl Family<'_> {
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value, true))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "{}{labels} {value}", self.name);
        self
    }
}

fn escape(text: &str, quotes: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quotes { text.replace('"', "\\\"") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_its_head_and_its_samples() {
        let mut page = Page::default();
        page.gauge("up", "Is \"it\" up?\nYes.").sample(&[], 1).sample(&[("a", "b\"c\\d\n"), ("e", "")], 0.5);
        let expected = "# HELP kube_router_up Is \"it\" up?\\nYes.\n# TYPE kube_router_up gauge\nkube_router_up 1\n\
                        kube_router_up{a=\"b\\\"c\\\\d\\n\",e=\"\"} 0.5\n";
        assert_eq!(page.into_text(), expected);
    }

    #[test]
    fn a_histogram_ends_with_everything() {
        let mut page = Page::default();
        page.histogram("exports", "Pages.", &crate::measure::EXPORTS);
        let text = page.into_text();
        assert!(text.contains("kube_router_exports_bucket{le=\"0.005\"} "), "{text}");
        assert!(
            text.contains("_bucket{le=\"+Inf\"} ") && text.contains("kube_router_exports_count "),
            "{text}"
        );
    }
}
