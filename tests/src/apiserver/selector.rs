//! Label and field selectors, as query strings and Services spell them.

use serde_json::Value;

use super::kinds::Kind;
use super::status::Status;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

/// All requirements must hold. An object without the label passes the negative ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Labels(Vec<(String, Test)>);

impl Labels {
    /// Parses `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    pub(super) fn parse(text: &str) -> Result<Self, Status> {
        let wrong = |part: &str| Status::bad_request(format!("unable to parse requirement: {part:?}"));
        split(text)
            .map(|part| requirement(part).ok_or_else(|| wrong(part)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// A plain map of labels, as a Service's selector is.
    pub(super) fn from_map(map: &Value) -> Self {
        let pairs = map.as_object().into_iter().flatten();
        Self(
            pairs
                .map(|(name, value)| {
                    (name.clone(), Test::In(vec![value.as_str().unwrap_or_default().to_owned()]))
                })
                .collect(),
        )
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.0.iter().all(|(name, test)| {
            let value = labels.get(name).and_then(Value::as_str);
            match test {
                Test::In(values) => value.is_some_and(|value| values.iter().any(|wanted| wanted == value)),
                Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|wanted| wanted != value)),
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
            }
        })
    }
}

/// Parts at top-level commas: those in brackets belong to a set.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
}

fn requirement(part: &str) -> Option<(String, Test)> {
    let set = |values: &str| {
        let inner = values.trim().strip_prefix('(')?.strip_suffix(')')?;
        Some(inner.split(',').map(|value| value.trim().to_owned()).collect())
    };
    let (name, test) = if let Some((name, values)) = part.split_once(" notin ") {
        (name, Test::NotIn(set(values)?))
    } else if let Some((name, values)) = part.split_once(" in ") {
        (name, Test::In(set(values)?))
    } else if let Some((name, value)) = part.split_once("!=") {
        (name, Test::NotIn(vec![value.trim().into()]))
    } else if let Some((name, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        (name, Test::In(vec![value.trim().into()]))
    } else if let Some(name) = part.strip_prefix('!') {
        (name, Test::Absent)
    } else {
        (part, Test::Exists)
    };
    let name = name.trim();
    let good = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    (!name.is_empty() && name.chars().all(good)).then(|| (name.to_owned(), test))
}

/// `field=value` and `field!=value`, for the fields the real server indexes.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields(Vec<(String, bool, String)>);

impl Fields {
    pub(super) fn parse(kind: Kind, text: &str) -> Result<Self, Status> {
        let mut all = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (field, equal, value) = if let Some((field, value)) = part.split_once("!=") {
                (field, false, value)
            } else if let Some((field, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (field, true, value)
            } else {
                return Err(Status::bad_request(format!("invalid selector: {part:?}; can't understand it")));
            };
            if !supported(kind, field) {
                return Err(Status::bad_request(format!("field label not supported: {field}")));
            }
            all.push((field.to_owned(), equal, value.to_owned()));
        }
        Ok(Self(all))
    }

    pub(super) fn require(&mut self, field: &str, value: &str) {
        self.0.push((field.into(), true, value.into()));
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(field, equal, wanted)| (text_at(object, field) == *wanted) == *equal)
    }
}

fn supported(kind: Kind, field: &str) -> bool {
    if field == "metadata.name" || field == "metadata.namespace" {
        return true;
    }
    match kind {
        Kind::Pod => [
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ]
        .contains(&field),
        Kind::Namespace => field == "status.phase",
        Kind::Node => field == "spec.unschedulable",
        Kind::Service => field == "spec.clusterIP" || field == "spec.type",
        Kind::Event => {
            field.starts_with("involvedObject.")
                || field.starts_with("regarding.")
                || ["reason", "type", "reportingComponent", "source"].contains(&field)
        }
        _ => false,
    }
}

fn text_at(object: &Value, field: &str) -> String {
    let field = field.replace("regarding.", "involvedObject.");
    let found = field.split('.').fold(object, |value, name| &value[name]);
    match found {
        Value::String(text) => text.clone(),
        Value::Null => {
            if field == "spec.unschedulable" || field == "spec.hostNetwork" { "false" } else { "" }.into()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors_match_as_kubernetes_does() {
        let pod = json!({"metadata": {"labels": {"app": "web", "tier": "front"}}});
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app!=web", false),
            ("zone!=a", true),
            ("app in (db,web),tier notin (back)", true),
            ("app in (db)", false),
            ("app notin (web)", false),
            ("app,!zone", true),
            ("zone", false),
            ("!app", false),
        ] {
            assert_eq!(Labels::parse(text).unwrap().matches(&pod), expected, "{text}");
        }
    }

    #[test]
    fn malformed_label_selectors_are_refused() {
        for text in ["=web", "app in web", "a b", "app in (a"] {
            assert_eq!(Labels::parse(text).unwrap_err().code, 400, "{text}");
        }
    }

    #[test]
    fn field_selectors_compare_text_and_refuse_unknown_fields() {
        let pod =
            json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}});
        let matches = |text| Fields::parse(Kind::Pod, text).unwrap().matches(&pod);
        assert!(matches("spec.nodeName=n1,status.phase!=Failed"));
        assert!(!matches("spec.nodeName="));
        assert!(!matches("metadata.name!=a"));
        assert_eq!(Fields::parse(Kind::Pod, "spec.colour=red").unwrap_err().code, 400);
    }
}
