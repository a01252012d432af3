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

const BASE: Resource = Resource {
    group: "",
    version: "v1",
    plural: "",
    singular: "",
    kind: "",
    stored: Kind::Namespace,
    namespaced: true,
    short_names: &[],
    categories: &[],
    status: false,
    scale: false,
};

/// The order of groups decides what a bare `events` means to kubectl: core comes first.
pub(super) static RESOURCES: [Resource; 10] = [
    Resource {
        plural: "namespaces",
        singular: "namespace",
        kind: "Namespace",
        stored: Kind::Namespace,
        namespaced: false,
        short_names: &["ns"],
        status: true,
        ..BASE
    },
    Resource {
        plural: "nodes",
        singular: "node",
        kind: "Node",
        stored: Kind::Node,
        namespaced: false,
        short_names: &["no"],
        status: true,
        ..BASE
    },
    Resource {
        plural: "pods",
        singular: "pod",
        kind: "Pod",
        stored: Kind::Pod,
        short_names: &["po"],
        categories: &["all"],
        status: true,
        ..BASE
    },
    Resource {
        plural: "services",
        singular: "service",
        kind: "Service",
        stored: Kind::Service,
        short_names: &["svc"],
        categories: &["all"],
        status: true,
        ..BASE
    },
    Resource {
        plural: "events",
        singular: "event",
        kind: "Event",
        stored: Kind::Event,
        short_names: &["ev"],
        ..BASE
    },
    Resource {
        group: "apps",
        plural: "deployments",
        singular: "deployment",
        kind: "Deployment",
        stored: Kind::Deployment,
        short_names: &["deploy"],
        categories: &["all"],
        status: true,
        scale: true,
        ..BASE
    },
    Resource {
        group: "events.k8s.io",
        plural: "events",
        singular: "event",
        kind: "Event",
        stored: Kind::Event,
        short_names: &["ev"],
        ..BASE
    },
    Resource {
        group: "networking.k8s.io",
        plural: "networkpolicies",
        singular: "networkpolicy",
        kind: "NetworkPolicy",
        stored: Kind::NetworkPolicy,
        short_names: &["netpol"],
        ..BASE
    },
    Resource {
        group: "coordination.k8s.io",
        plural: "leases",
        singular: "lease",
        kind: "Lease",
        stored: Kind::Lease,
        ..BASE
    },
    Resource {
        group: "discovery.k8s.io",
        plural: "endpointslices",
        singular: "endpointslice",
        kind: "EndpointSlice",
        stored: Kind::EndpointSlice,
        ..BASE
    },
];

/// The row of one kind in one group and version.
pub(super) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|row| row.group == group && row.version == version && row.plural == plural)
}
