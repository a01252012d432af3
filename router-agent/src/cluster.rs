//! The Kubernetes side: API objects in, events of the model out.

pub(crate) mod lines;
pub(crate) mod narrow;
pub(crate) mod report;
pub(crate) mod translate;
pub(crate) mod watch;
