//! Timers: when the machine speaks, and when it gives up.

use std::time::Duration;

use super::{INBOUND, LOCAL, config, notifications, open, outputs, peer_in, seconds, words};
use crate::message::header::keepalive;
use crate::message::notification::error;
use crate::message::open::Open;
use crate::session::{DownReason, Input, Output, Peer, State};

/// Ticks at every deadline until `end`; what was said, and when.
fn run(peer: &mut Peer, end: Duration) -> Vec<(Duration, String)> {
    let mut said = Vec::new();
    while let Some(at) = peer.next_deadline().filter(|at| *at <= end) {
        peer.tick(at);
        said.push((at, words(peer)));
    }
    said
}

#[test]
fn keepalives_go_out_in_time_and_with_jitter() {
    let mut peer = peer_in(State::Established);
    let mut last = seconds(1);
    let mut gaps = Vec::new();
    for second in 2..600 {
        peer.handle(Input::Received(INBOUND, &keepalive()), seconds(second));
        for (at, said) in run(&mut peer, seconds(second)) {
            assert_eq!(said, "keepalive");
            gaps.push(at.checked_sub(last).unwrap());
            last = at;
        }
    }
    assert!(gaps.iter().all(|gap| (Duration::from_millis(7500)..=seconds(10)).contains(gap)), "{gaps:?}");
    gaps.dedup();
    assert!(gaps.len() > 40, "{gaps:?}");
}

#[test]
fn a_silent_peer_is_given_up_after_the_hold_time() {
    let mut peer = peer_in(State::Established);
    let said = run(&mut peer, seconds(31));
    assert_eq!(said.last(), Some(&(seconds(31), "4/0 close down-hold-timer-expired".to_owned())));
    assert_eq!((peer.state(), peer.statistics().flops, peer.changed()), (State::Idle, 1, Some(seconds(31))));
}

#[test]
fn a_peer_that_never_sends_an_open_is_given_up() {
    let mut peer = peer_in(State::OpenSent);
    assert_eq!(peer.next_deadline(), Some(seconds(241)));
    assert_eq!(run(&mut peer, seconds(241)), [(seconds(241), "4/0 close".to_owned())]);
}

#[test]
fn without_a_hold_time_silence_is_no_matter() {
    let mut peer = Peer::new(config());
    peer.handle(Input::Start, Duration::ZERO);
    peer.handle(Input::Connected { connection: INBOUND, outgoing: false, local: LOCAL }, seconds(1));
    peer.handle(Input::Received(INBOUND, &Open { hold_time: 0, ..open(9) }.encode()), seconds(1));
    // Until the session is up, it is.
    assert_eq!(peer.next_deadline(), Some(seconds(241)));
    peer.handle(Input::Received(INBOUND, &keepalive()), seconds(2));
    assert_eq!((peer.state(), peer.next_deadline()), (State::Established, None));
    peer.handle(Input::SendBlocked(INBOUND), seconds(3));
    assert_eq!(peer.next_deadline(), None);
}

#[test]
fn a_peer_that_does_not_read_is_given_up() {
    let blocked_at = seconds(2);
    let mut peer = peer_in(State::Established);
    peer.handle(Input::SendBlocked(INBOUND), blocked_at);
    let mut reason = None;
    for second in 2..600 {
        peer.handle(Input::Received(INBOUND, &keepalive()), seconds(second));
        peer.handle(Input::SendBlocked(INBOUND), seconds(second));
        peer.tick(seconds(second));
        let down = outputs(&mut peer).into_iter().find_map(|output| match output {
            Output::Down(reason, _) => Some(reason),
            _ => None,
        });
        if let Some(down) = down {
            assert_eq!(seconds(second), blocked_at + seconds(480));
            reason = Some(down);
            break;
        }
    }
    let Some(DownReason::NotificationSent(notification)) = reason else { panic!("{reason:?}") };
    assert_eq!(notification.error(), error::SEND_HOLD_TIMER_EXPIRED);

    let mut peer = peer_in(State::Established);
    peer.handle(Input::SendBlocked(INBOUND), seconds(2));
    peer.handle(Input::SendProgress(INBOUND), seconds(3));
    for second in 2..600 {
        peer.handle(Input::Received(INBOUND, &keepalive()), seconds(second));
        peer.tick(seconds(second));
    }
    assert_eq!(peer.state(), State::Established);
}

/// How long the machine waited before each of ten dials, all of which fail.
fn waits(peer: &mut Peer) -> Vec<Duration> {
    let mut last = Duration::ZERO;
    (0..10)
        .map(|_| {
            let at = peer.next_deadline().unwrap();
            peer.tick(at);
            assert_eq!(words(peer), "connect");
            peer.handle(Input::ConnectFailed, at);
            let wait = at.checked_sub(last).unwrap();
            last = at;
            wait
        })
        .collect()
}

#[test]
fn the_first_dial_is_at_once_and_the_next_ones_ever_later() {
    let mut peer = Peer::new(config());
    peer.handle(Input::Start, Duration::ZERO);
    let waits = waits(&mut peer);
    assert!(waits[0] < Duration::from_millis(250));
    for (index, wait) in (0..).zip(&waits[1..]) {
        let full = seconds(1 << index).min(seconds(120));
        assert!((full * 3 / 4..=full).contains(wait), "{index}: {wait:?}");
    }
}

#[test]
fn a_dial_without_an_answer_is_repeated() {
    let mut peer = peer_in(State::Connect);
    let at = peer.next_deadline().unwrap();
    assert!((seconds(90)..=seconds(121)).contains(&at));
    peer.tick(at);
    assert_eq!(words(&mut peer), "abort connect");
}

#[test]
fn only_a_session_that_lasted_makes_the_waits_short_again() {
    let flap = |peer: &mut Peer, at: Duration, lasts: Duration| {
        peer.handle(Input::Connected { connection: INBOUND, outgoing: false, local: LOCAL }, at);
        peer.handle(Input::Received(INBOUND, &open(9).encode()), at);
        peer.handle(Input::Received(INBOUND, &keepalive()), at);
        peer.handle(Input::Closed(INBOUND), at + lasts);
        outputs(peer);
        peer.next_deadline().unwrap().checked_sub(at + lasts).unwrap()
    };
    let mut peer = peer_in(State::Active);
    for minute in 0..8 {
        let wait = flap(&mut peer, seconds(60 * minute), seconds(1));
        assert!(wait >= seconds(1 << minute) * 3 / 4 || wait >= seconds(90), "{minute}: {wait:?}");
    }
    assert!(flap(&mut peer, seconds(1000), seconds(29)) >= seconds(90));
    assert!(flap(&mut peer, seconds(2000), seconds(30)) <= seconds(1));
}

#[test]
fn a_message_may_come_octet_by_octet() {
    let mut peer = peer_in(State::OpenSent);
    for octet in [open(9).encode(), keepalive(), keepalive()].concat() {
        peer.handle(Input::Received(INBOUND, &[octet]), seconds(2));
    }
    assert_eq!(peer.state(), State::Established);
    assert_eq!(peer.statistics().received.keepalive, 2);
    // Nothing that follows an error is read.
    let stream = [open(9).encode(), keepalive()].concat();
    peer.handle(Input::Received(INBOUND, &stream), seconds(3));
    let told: Vec<_> = notifications(&mut peer).iter().map(super::Notification::error).collect();
    assert_eq!(told, [error::UNEXPECTED_IN_ESTABLISHED]);
}
