//! What is waited for, and for how long.

mod pair;

use super::Progress::{Absent, Telling, Whole};
use super::*;

const PATIENCE: Duration = Duration::from_secs(90);
const AWAITED: Progress = Telling { awaited: true };
const PASSED_OVER: Progress = Telling { awaited: false };

/// Whether all that we announce is there, how far the neighbours are, the second, and what is reached then.
type Row = (&'static str, bool, &'static [Progress], u64, &'static [Milestone]);

/// What is reached at that second, all at once.
fn reached(mut restart: Restart, settled: bool, neighbours: &[Progress], second: u64) -> Vec<Milestone> {
    let now = Duration::from_secs(second);
    std::iter::from_fn(|| restart.next(settled, neighbours.iter().copied(), now)).collect()
}

#[test]
fn those_are_waited_for_that_came_up_and_can_tell() {
    use Milestone::{Announce, Sweep};
    let rows: &[Row] = &[
        ("nobody is there", true, &[], 0, &[Announce, Sweep]),
        ("all have told all", true, &[Whole, Whole], 1, &[Announce, Sweep]),
        ("one has not", true, &[Whole, AWAITED], 89, &[]),
        ("nor in time", true, &[Whole, AWAITED], 90, &[Announce, Sweep]),
        (
            "one may not, since it restarts, or knows no graceful restart",
            true,
            &[Whole, PASSED_OVER],
            1,
            &[Announce],
        ),
        ("two that restart do not wait for each other", true, &[PASSED_OVER], 1, &[Announce]),
        ("one may come up yet", true, &[Whole, Absent], 4, &[]),
        ("one has not come up", true, &[Whole, Absent], 5, &[Announce]),
        ("nobody has come up", true, &[Absent], 5, &[Announce]),
        ("nor does anybody", true, &[Absent], 90, &[Announce, Sweep]),
        ("our own routes are not there", false, &[Whole], 89, &[]),
        ("and do not come", false, &[Whole], 90, &[Announce, Sweep]),
    ];
    for (name, settled, neighbours, second, milestones) in rows {
        let restart = Restart::graceful(Duration::ZERO, PATIENCE);
        assert_eq!(reached(restart, *settled, neighbours, *second), *milestones, "{name}");
    }
}

#[test]
fn without_graceful_restart_only_the_sweep_waits() {
    let plain = || Restart::plain(Duration::ZERO, PATIENCE);
    assert!(!plain().is_deferring() && Restart::graceful(Duration::ZERO, PATIENCE).is_deferring());
    assert_eq!(reached(plain(), false, &[Absent, Whole], 89), []);
    assert_eq!(reached(plain(), false, &[Absent, Whole], 90), [Milestone::Sweep]);
    assert_eq!(reached(plain(), false, &[Whole], 1), [Milestone::Sweep]);
}

#[test]
fn it_asks_to_be_asked_until_there_is_nothing_more_to_say() {
    let mut restart = Restart::graceful(Duration::ZERO, PATIENCE);
    let seconds = Duration::from_secs;
    assert_eq!(restart.next_deadline(seconds(1)), Some(FIRST_SESSIONS));
    assert_eq!(restart.next_deadline(seconds(5)), Some(PATIENCE));
    assert_eq!(restart.next(true, [Absent].into_iter(), seconds(5)), Some(Milestone::Announce));
    assert_eq!(restart.next_deadline(seconds(5)), Some(PATIENCE));
    assert_eq!(restart.next(true, [Absent].into_iter(), seconds(90)), Some(Milestone::Sweep));
    assert_eq!(restart.next_deadline(seconds(90)), None);
    assert_eq!(restart.next(true, [Whole].into_iter(), seconds(91)), None);
}
