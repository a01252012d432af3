//! What the agent's token may do: the `ClusterRole` that is shipped in `deploy/`, enforced.
//!
//! Only `ClusterRoles` are read, and every one in the given text counts: bindings are assumed, so the text must
//! hold nothing but the agent's own roles.

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::kinds::Resource;
use super::status::Status;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// May do everything.
    Admin,
    /// May do what the `ClusterRole` says.
    Agent,
}

impl Identity {
    pub(super) fn user(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Agent => "system:serviceaccount:kube-system:kube-router",
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Role {
    rules: Vec<Rule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    resource_names: Vec<String>,
    verbs: Vec<String>,
}

#[derive(Deserialize)]
struct Document {
    kind: Option<String>,
    #[serde(default)]
    rules: Vec<Rule>,
}

/// One thing asked for, in the words of RBAC.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    /// With the subresource: `services/status`.
    pub resource: &'a str,
    pub name: &'a str,
}

impl Role {
    /// Reads every `ClusterRole` out of a text of several YAML documents.
    pub(super) fn parse(yaml: &str) -> Result<Self> {
        let mut rules = Vec::new();
        for text in documents(yaml) {
            let document: Option<Document> =
                serde_saphyr::from_str(&text).context("a manifest's document")?;
            if let Some(document) = document
                && document.kind.as_deref() == Some("ClusterRole")
            {
                rules.extend(document.rules);
            }
        }
        if rules.is_empty() {
            bail!("no ClusterRole with rules in the manifest");
        }
        Ok(Self { rules })
    }

    pub(super) fn allows(&self, ask: &Ask<'_>) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|item| item == "*" || item == wanted);
        self.rules.iter().any(|rule| {
            has(&rule.verbs, ask.verb)
                && has(&rule.api_groups, ask.group)
                && has(&rule.resources, ask.resource)
                && (rule.resource_names.is_empty() || rule.resource_names.iter().any(|name| name == ask.name))
        })
    }
}

/// YAML documents, split where a line is `---`.
fn documents(yaml: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    for line in yaml.lines() {
        if line.trim_end() == "---" {
            all.push(String::new());
        } else if let Some(last) = all.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    let content = |text: &String| text.lines().any(|line| !line.trim().is_empty() && !line.starts_with('#'));
    all.retain(content);
    all
}

/// The sentence a real server refuses with.
pub(super) fn refusal(identity: Identity, ask: &Ask<'_>, resource: &Resource, namespace: &str) -> Status {
    let scope = if namespace.is_empty() {
        "at the cluster scope".into()
    } else {
        format!("in the namespace \"{namespace}\"")
    };
    let name = if ask.name.is_empty() { String::new() } else { format!(" \"{}\"", ask.name) };
    Status::forbidden(format!(
        "{}{name} is forbidden: User \"{}\" cannot {} resource \"{}\" in API group \"{}\" {scope}",
        resource.qualified(),
        identity.user(),
        ask.verb,
        ask.resource,
        ask.group,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "\
# the agent
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: kube-router}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: kube-router}
rules:
- apiGroups: ['']
  resources: [services, pods]
  verbs: [get, list, watch]
- apiGroups: ['']
  resources: [services/status]
  verbs: [update]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [one]
  verbs: ['*']
";

    #[test]
    fn a_role_allows_what_its_rules_name_and_nothing_else() {
        let role = Role::parse(MANIFEST).unwrap();
        for (verb, group, resource, name, expected) in [
            ("list", "", "services", "", true),
            ("update", "", "services", "web", false),
            ("update", "", "services/status", "web", true),
            ("list", "apps", "services", "", false),
            ("delete", "coordination.k8s.io", "leases", "one", true),
            ("delete", "coordination.k8s.io", "leases", "two", false),
        ] {
            let ask = Ask { verb, group, resource, name };
            assert_eq!(role.allows(&ask), expected, "{ask:?}");
        }
    }

    #[test]
    fn a_manifest_without_a_role_is_refused() {
        let error = Role::parse("kind: ConfigMap\n").unwrap_err();
        assert!(error.to_string().contains("ClusterRole"), "{error}");
    }
}
