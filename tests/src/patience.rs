//! How long tests wait for what must come: longer where the machine is emulated.

use std::time::Duration;

/// The environment variable that says by which factor waits are longer; 1 unless set.
pub const VARIABLE: &str = "ROUTER_TEST_PATIENCE";

/// A limit, as long as it has to be here.
pub fn patient(limit: Duration) -> Duration {
    limit * std::env::var(VARIABLE).ok().and_then(|factor| factor.parse().ok()).unwrap_or(1)
}
