//! The kinds this server knows, as one table.
//!
//! Discovery, routing, printing, defaulting and the store all read it, so a kind is added by adding rows here
//! and a column list in `columns`. Events have two rows, because two API groups show the same objects.

use std::fmt;

/// What the store keeps. Both event APIs share one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Namespace,
    Node,
    Pod,
    Service,
    EndpointSlice,
    NetworkPolicy,
    Deployment,
    Event,
    Lease,
}

impl Kind {
    pub const ALL: [Self; 9] = [
        Self::Namespace,
        Self::Node,
        Self::Pod,
        Self::Service,
        Self::EndpointSlice,
        Self::NetworkPolicy,
        Self::Deployment,
        Self::Event,
        Self::Lease,
    ];

    /// The row that shows this kind in its stored form.
    pub(super) fn resource(self) -> &'static Resource {
        RESOURCES.iter().find(|row| row.stored == self).expect("every kind has a row")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource().kind)
    }
}

/// One kind as one API group and version shows it.
#[derive(Debug)]
pub(super) struct Resource {
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub kind: &'static str,
    pub stored: Kind,
    pub namespaced: bool,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    /// Has a `status` that only its own subresource writes.
    pub status: bool,
    /// Has a `scale` subresource.
    pub scale: bool,
}

impl Resource {
    /// `v1`, or `apps/v1`.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.into() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods`, or `deployments.apps`, as error messages name it.
    pub(super) fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.into() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Shown with other field names than it is stored with.
    pub(super) fn renamed(&self) -> bool {
        self.group == "events.k8s.io"
    }
}

/// A row, in words: what it is called, and then what it has beyond that.
impl Resource {
    const fn core(plural: &'static str, singular: &'static str, kind: &'static str, stored: Kind) -> Self {
        Self::of("", plural, singular, kind, stored)
    }

    const fn of(
        group: &'static str,
        plural: &'static str,
        singular: &'static str,
        kind: &'static str,
        stored: Kind,
    ) -> Self {
        Self {
            group,
            version: "v1",
            plural,
            singular,
            kind,
            stored,
            namespaced: true,
            short_names: &[],
            categories: &[],
            status: false,
            scale: false,
        }
    }

    const fn cluster_wide(self) -> Self {
        Self { namespaced: false, ..self }
    }

    const fn short(self, names: &'static [&'static str]) -> Self {
        Self { short_names: names, ..self }
    }

    /// Among what `kubectl get all` shows.
    const fn in_all(self) -> Self {
        Self { categories: &["all"], ..self }
    }

    const fn with_status(self) -> Self {
        Self { status: true, ..self }
    }

    const fn with_scale(self) -> Self {
        Self { scale: true, ..self }
    }
}

/// The order of groups decides what a bare `events` means to kubectl: core comes first.
pub(super) static RESOURCES: [Resource; 10] = [
    Resource::core("namespaces", "namespace", "Namespace", Kind::Namespace)
        .cluster_wide()
        .short(&["ns"])
        .with_status(),
    Resource::core("nodes", "node", "Node", Kind::Node).cluster_wide().short(&["no"]).with_status(),
    Resource::core("pods", "pod", "Pod", Kind::Pod).short(&["po"]).in_all().with_status(),
    Resource::core("services", "service", "Service", Kind::Service).short(&["svc"]).in_all().with_status(),
    Resource::core("events", "event", "Event", Kind::Event).short(&["ev"]),
    Resource::of("apps", "deployments", "deployment", "Deployment", Kind::Deployment)
        .short(&["deploy"])
        .in_all()
        .with_status()
        .with_scale(),
    Resource::of("events.k8s.io", "events", "event", "Event", Kind::Event).short(&["ev"]),
    Resource::of(
        "networking.k8s.io",
        "networkpolicies",
        "networkpolicy",
        "NetworkPolicy",
        Kind::NetworkPolicy,
    )
    .short(&["netpol"]),
    Resource::of("coordination.k8s.io", "leases", "lease", "Lease", Kind::Lease),
    Resource::of("discovery.k8s.io", "endpointslices", "endpointslice", "EndpointSlice", Kind::EndpointSlice),
];

/// The row of one kind in one group and version.
pub(super) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|row| row.group == group && row.version == version && row.plural == plural)
}
