//! Each answer, gathered from those who know.

pub(super) mod bgp;
pub(super) mod flows;
pub(super) mod plan;
pub(super) mod routes;
pub(super) mod services;
pub(super) mod status;
