//! `/healthz`: whether the loops still turn; `/readyz`: whether the node's tables have been right once.
//!
//! A loop beats each time it has got on, and wakes often enough for it. Who has not beaten for its period, the time that
//! its first beat took and a little more is stuck, and a restart is what helps: so health says nothing of the cluster,
//! of peers or of Problems. Before the first lists everybody is healthy.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use anyhow::Result;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::any;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::interval;
use tracing::{error, info};

use crate::reconcile::Progress;

/// Upstream's, beyond a period.
const GRACE: Duration = Duration::from_millis(1_500);
/// How often it is looked at unprompted.
const LOOK: Duration = Duration::from_secs(5);

/// Upstream's limit for metrics is 5 s, whatever their period.
pub(crate) const METRICS_PERIOD: Duration = Duration::from_millis(3_500);

/// What beats count from.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The beats of one loop.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// As upstream logs it.
    name: &'static str,
    /// In ns from [`START`]; 0 is none since the lists.
    first: AtomicU64,
    last: AtomicU64,
}

impl Pulse {
    const fn of(name: &'static str) -> Self {
        Self { name, first: AtomicU64::new(0), last: AtomicU64::new(0) }
    }

    /// It has got on.
    pub(crate) fn beat(&self) {
        self.beat_at(START.elapsed());
    }

    fn beat_at(&self, now: Duration) {
        let now = nanos(now);
        let _ = self.first.compare_exchange(0, now, Relaxed, Relaxed);
        self.last.store(now, Relaxed);
    }

    /// From now on it counts.
    fn begin(&self, now: Duration) {
        self.first.store(0, Relaxed);
        self.last.store(nanos(now), Relaxed);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// The BGP speaker.
pub(crate) static ROUTING: Pulse = Pulse::of("Network Routing");
/// The loop of learned routes.
pub(crate) static ROUTES: Pulse = Pulse::of("Routes Sync");
/// The loop of services.
pub(crate) static SERVICES: Pulse = Pulse::of("NetworkService");
/// Who exposes metrics.
pub(crate) static METRICS: Pulse = Pulse::of("Metrics");

/// Whose beats are expected, and how often.
#[derive(Debug)]
pub(crate) struct Monitor {
    watched: Vec<(&'static Pulse, Duration)>,
    /// When everything had listed; nothing is expected before.
    begun: std::sync::OnceLock<Duration>,
}

impl Monitor {
    pub(crate) fn new(watched: Vec<(&'static Pulse, Duration)>) -> Self {
        LazyLock::force(&START);
        Self { watched, begun: std::sync::OnceLock::new() }
    }

    /// Everything has listed.
    fn begin(&self, now: Duration) {
        self.watched.iter().for_each(|(pulse, _)| pulse.begin(now));
        let _ = self.begun.set(now);
    }

    /// Who is stuck.
    pub(crate) fn stuck(&self) -> Vec<&'static str> {
        self.stuck_at(START.elapsed())
    }

    fn stuck_at(&self, now: Duration) -> Vec<&'static str> {
        let Some(begun) = self.begun.get() else { return Vec::new() };
        let is_stuck = |pulse: &Pulse, period: Duration| {
            let first = Duration::from_nanos(pulse.first.load(Relaxed));
            let last = Duration::from_nanos(pulse.last.load(Relaxed));
            let limit = period.saturating_add(first.saturating_sub(*begun)) + GRACE;
            now.saturating_sub(last) > limit
        };
        self.watched.iter().filter(|(pulse, period)| is_stuck(pulse, *period)).map(|it| it.0.name).collect()
    }

    /// Says who gets stuck, and who gets on again, until nobody tells of progress any more.
    pub(crate) async fn run(self: Arc<Self>, mut progress: watch::Receiver<Progress>) -> Result<()> {
        progress.wait_for(|progress| progress.unlisted.is_empty()).await?;
        self.begin(START.elapsed());
        let mut ticks = interval(LOOK);
        let mut before = Vec::new();
        loop {
            ticks.tick().await;
            let now = self.stuck();
            for name in now.iter().filter(|name| !before.contains(*name)) {
                error!("{name} Controller heartbeat missed");
            }
            for name in before.iter().filter(|name| !now.contains(*name)) {
                info!("{name} Controller beats again");
            }
            before = now;
        }
    }
}

/// Answers the kubelet.
pub(crate) async fn serve(
    listener: TcpListener,
    monitor: Arc<Monitor>,
    progress: watch::Receiver<Progress>,
) -> Result<()> {
    Ok(axum::serve(listener, router(monitor, progress)).await?)
}

fn router(monitor: Arc<Monitor>, progress: watch::Receiver<Progress>) -> Router {
    let alive = move || async move { answer(&monitor.stuck()) };
    let ready = move || async move { ready(&progress.borrow()) };
    Router::new().route("/healthz", any(alive)).route("/readyz", any(ready))
}

fn answer(stuck: &[&str]) -> (StatusCode, String) {
    if stuck.is_empty() {
        (StatusCode::OK, "OK\n".to_owned())
    } else {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("Unhealthy\nno heartbeat of: {}\n", stuck.join(", ")))
    }
}

fn ready(progress: &Progress) -> (StatusCode, String) {
    let missing: Vec<String> = progress.unlisted.iter().map(|kind| format!("{kind:?}")).collect();
    if !missing.is_empty() {
        (StatusCode::SERVICE_UNAVAILABLE, format!("Not ready\nno first list of: {}\n", missing.join(", ")))
    } else if progress.in_step {
        (StatusCode::OK, "OK\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "Not ready\nthe tables have not been right yet\n".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt as _;

    use super::*;

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn monitor() -> (Monitor, &'static Pulse) {
        let pulse: &'static Pulse = Box::leak(Box::new(Pulse::of("NetworkService")));
        (Monitor::new(vec![(pulse, at(10_000))]), pulse)
    }

    #[test]
    fn before_the_lists_everybody_is_healthy() {
        let (monitor, _) = monitor();
        assert_eq!(monitor.stuck_at(at(3_600_000)), Vec::<&str>::new());
    }

    #[test]
    fn who_misses_a_period_and_a_little_more_is_stuck_and_recovers() {
        let (monitor, pulse) = monitor();
        monitor.begin(at(1_000));
        pulse.beat_at(at(1_000));
        assert_eq!(monitor.stuck_at(at(12_500)), Vec::<&str>::new());
        assert_eq!(monitor.stuck_at(at(12_501)), ["NetworkService"]);
        pulse.beat_at(at(13_000));
        assert_eq!(monitor.stuck_at(at(24_500)), Vec::<&str>::new());
    }

    #[test]
    fn the_time_to_the_first_beat_is_added_for_good() {
        let (monitor, pulse) = monitor();
        monitor.begin(at(1_000));
        assert_eq!(monitor.stuck_at(at(12_501)), ["NetworkService"]);
        pulse.beat_at(at(4_000));
        pulse.beat_at(at(20_000));
        assert_eq!(monitor.stuck_at(at(34_500)), Vec::<&str>::new());
        assert_eq!(monitor.stuck_at(at(34_501)), ["NetworkService"]);
    }

    #[test]
    fn the_body_says_who() {
        assert_eq!(answer(&[]), (StatusCode::OK, "OK\n".to_owned()));
        let (code, text) = answer(&["NetworkService", "Metrics"]);
        assert_eq!(
            (code.as_u16(), text.as_str()),
            (500, "Unhealthy\nno heartbeat of: NetworkService, Metrics\n")
        );
    }

    #[tokio::test]
    async fn any_method_is_answered_and_other_paths_are_not() {
        let (stuck, _) = monitor();
        stuck.begin(START.elapsed());
        let told = watch::channel(Progress::default()).1;
        let asked = async |monitor: Monitor, method: &str, path: &str| {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            let answer = router(Arc::new(monitor), told.clone()).oneshot(request).await.unwrap();
            answer.status().as_u16()
        };
        // Its one beat is expected within ten seconds, which have just begun.
        assert_eq!(asked(stuck, "GET", "/healthz").await, 200);
        let never = Box::leak(Box::new(Pulse::of("Metrics")));
        let overdue = Monitor { watched: vec![(never, Duration::ZERO)], begun: Duration::ZERO.into() };
        tokio::time::sleep(GRACE + at(100)).await;
        assert_eq!(asked(overdue, "POST", "/healthz").await, 500);
        assert_eq!(asked(monitor().0, "GET", "/health").await, 404);
        assert_eq!(asked(monitor().0, "HEAD", "/readyz").await, 503);
    }

    #[test]
    fn ready_is_who_has_been_in_step() {
        let mut progress = Progress::default();
        assert_eq!(ready(&progress).0.as_u16(), 503);
        progress.in_step = true;
        assert_eq!(ready(&progress).0.as_u16(), 200);
        progress.unlisted.insert(router_core::cluster::Kind::Services);
        assert_eq!(
            ready(&progress),
            (StatusCode::SERVICE_UNAVAILABLE, "Not ready\nno first list of: Services\n".to_owned())
        );
    }
}
