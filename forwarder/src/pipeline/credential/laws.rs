//! The laws of the credential, each by itself and over generated histories of two streams and their secret.

use fastrand::Rng;

use super::*;

const ALERTS: Stream = Stream::Alerts;
const ACTIVITIES: Stream = Stream::Activities;
const SECOND: Millis = 1_000;
const MINUTE: Millis = 60 * SECOND;

fn both() -> Credential {
    Credential::new([ALERTS, ACTIVITIES], 0)
}

#[expect(clippy::unnecessary_wraps, reason = "as the machine takes it")]
fn secret(number: u8) -> Option<SecretId> {
    Some(SecretId::of(&number.to_string()))
}

fn is_free(credential: &Credential, secret: Option<SecretId>, now: Millis) -> [bool; 2] {
    [ALERTS, ACTIVITIES].map(|stream| credential.next_try(stream, secret, now) <= now)
}

/// A stream asks and is refused.
fn refused(credential: &mut Credential, number: u8, refusal: Refusal, now: Millis) -> Halt {
    credential.offered(ALERTS, secret(number), now);
    credential.refused(ALERTS, refusal, now, 0.0)
}

#[test]
fn a_dead_credential_halts_all_streams_and_one_tries_for_them() {
    let mut it = both();
    assert_eq!(is_free(&it, secret(1), 0), [true, true]);
    let halt = refused(&mut it, 1, Refusal::Credential, 0);
    assert_eq!(halt, Halt { wait: DEAD, is_first: true });
    assert_eq!(is_free(&it, secret(1), MINUTE - 1), [false, false]);
    assert_eq!(is_free(&it, secret(1), MINUTE), [true, false], "one tries for both");
    it.offered(ALERTS, secret(1), MINUTE);
    it.accepted(ALERTS, MINUTE + 1);
    assert_eq!(is_free(&it, secret(1), MINUTE + 1), [true, true], "it lives again");
}

#[test]
fn waits_grow_to_five_minutes_and_another_secret_begins_anew() {
    let mut it = both();
    let waits = [0, 1, 2, 3, 4].map(|n| refused(&mut it, 1, Refusal::Credential, n).wait.as_secs());
    assert_eq!(waits, [60, 120, 240, 300, 300]);
    assert_eq!(is_free(&it, secret(2), 5), [true, true], "another secret is tried at once");
    let first = refused(&mut it, 2, Refusal::Credential, 5);
    assert_eq!(first, Halt { wait: DEAD, is_first: true });
    assert!(!refused(&mut it, 2, Refusal::Credential, 6).is_first);
    it.unheard(ALERTS);
    assert!(refused(&mut it, 2, Refusal::Credential, 7).is_first, "an outage lay between");
    let longest = it.refused(ALERTS, Refusal::Credential, 8, 1.0).wait;
    assert!(longest <= DEAD_MAX + DEAD_MAX / 4);
}

#[test]
fn a_stream_that_is_forbidden_halts_alone() {
    for refusal in [Refusal::Stream, Refusal::Question] {
        let mut it = both();
        it.offered(ALERTS, secret(1), 0);
        it.accepted(ALERTS, 0);
        assert_eq!(refused(&mut it, 1, refusal, 1).wait, DEAD);
        assert_eq!(is_free(&it, secret(1), 2), [false, true], "{refusal:?}");
        assert_eq!(is_free(&it, secret(2), 2), [true, true], "another secret may be allowed");
        assert_eq!(is_free(&it, secret(1), MINUTE + 1), [true, true], "{refusal:?}");
    }
}

#[test]
fn what_is_refused_on_a_later_page_of_each_poll_waits_longer_and_longer() {
    for refusal in [Refusal::Stream, Refusal::Question] {
        let mut it = both();
        let waits = [0, 1, 2].map(|n| {
            it.offered(ALERTS, secret(1), n);
            it.accepted(ALERTS, n);
            it.refused(ALERTS, refusal, n, 0.0).wait.as_secs()
        });
        assert_eq!(waits, [60, 120, 240], "{refusal:?}");
        it.accepted(ALERTS, 3);
        it.unheard(ALERTS);
        assert!(refused(&mut it, 1, refusal, 4).is_first, "a whole poll lay between");
    }
}

#[test]
fn a_stream_that_does_not_ask_after_all_holds_up_no_other() {
    let mut it = both();
    it.reserved(ALERTS, secret(1));
    assert_eq!(is_free(&it, secret(1), 0), [true, false]);
    it.released(ALERTS);
    assert_eq!(is_free(&it, secret(1), 0), [true, true]);
}

#[test]
fn a_secret_is_worth_a_try_for_each_stream_that_has_not_tried_it() {
    let mut it = both();
    let another =
        |it: &Credential, number| [ALERTS, ACTIVITIES].map(|of| it.is_another(of, secret(number)));
    it.offered(ALERTS, secret(1), 0);
    assert_eq!(another(&it, 1), [false, false], "what one was refused with halts both");
    assert_eq!(another(&it, 2), [true, true]);
    it.offered(ALERTS, secret(2), 0);
    it.offered(ACTIVITIES, secret(2), 0);
    assert_eq!(another(&it, 2), [false, false]);
    it.offered(ACTIVITIES, secret(3), 0);
    assert_eq!(another(&it, 3), [true, false], "the other one has not tried it");
    it.refused(ACTIVITIES, Refusal::Credential, 0, 0.0);
    assert_eq!(another(&it, 3), [false, false], "it is dead for both");
    it.offered(ALERTS, None, 0);
    assert!(!it.is_another(ALERTS, None), "there is nothing to try");
}

#[test]
fn an_absent_secret_is_looked_for_every_second() {
    let mut it = both();
    it.offered(ALERTS, None, 0);
    assert_eq!(it.refused(ALERTS, Refusal::Missing, 0, 1.0).wait, MISSING);
    assert_eq!(is_free(&it, None, SECOND), [true, false]);
    assert_eq!(is_free(&it, secret(1), 1), [true, true], "it is there");
    it.offered(ALERTS, secret(1), 1);
    it.accepted(ALERTS, 2);
    assert_eq!(is_free(&it, secret(1), 2), [true, true]);
}

#[test]
fn while_a_secret_is_not_proven_one_stream_tries_it() {
    let mut it = both();
    it.reserved(ACTIVITIES, secret(1));
    assert_eq!(is_free(&it, secret(1), 3_600_000), [false, true], "it waits for the budget");
    it.offered(ACTIVITIES, secret(1), 0);
    assert_eq!(is_free(&it, secret(1), 1), [false, true]);
    assert_eq!(is_free(&it, secret(1), AFTER_THE_OTHER), [true, true], "it takes too long");
    it.unheard(ACTIVITIES);
    assert_eq!(is_free(&it, secret(1), 3), [true, true], "an outage proves nothing");
    it.offered(ALERTS, secret(1), 4);
    it.refused(ALERTS, Refusal::Stream, 5, 0.0);
    assert_eq!(is_free(&it, secret(1), 6), [false, true], "the API took it");
    it.offered(ALERTS, secret(1), MINUTE + 6);
    assert_eq!(is_free(&it, secret(1), MINUTE + 7), [true, true], "what is proven is free for all");
}

#[test]
fn what_was_sent_before_the_secret_changed_says_nothing_of_the_new_one() {
    let mut it = both();
    it.offered(ALERTS, secret(1), 0);
    it.offered(ACTIVITIES, secret(2), 1);
    it.refused(ALERTS, Refusal::Credential, 2, 0.0);
    it.accepted(ACTIVITIES, 3);
    assert_eq!(is_free(&it, secret(2), 4), [true, true]);
    it.offered(ALERTS, secret(2), 5);
    it.offered(ACTIVITIES, secret(3), 6);
    it.refused(ACTIVITIES, Refusal::Credential, 7, 0.0);
    it.accepted(ALERTS, 8);
    assert_eq!(is_free(&it, secret(3), 9), [false, false], "the new one stays dead");
}

#[test]
fn where_no_stream_is_read_what_was_refused_is_tried_as_it_changes_and_all_else_now_and_then() {
    let mut it = both();
    assert_eq!(it.check_due(MINUTE - 1), None);
    assert_eq!(it.check_due(MINUTE), Some(ALERTS), "nobody has tried it yet");
    assert_eq!(it.check_due(MINUTE + 1), None);
    refused(&mut it, 1, Refusal::Credential, MINUTE);
    assert_eq!(it.worth_a_try(secret(1)), None);
    assert_eq!(it.worth_a_try(secret(2)), Some(ALERTS), "one for both");
    it.offered(ALERTS, secret(2), 2 * MINUTE);
    it.refused(ALERTS, Refusal::Stream, 2 * MINUTE, 0.0);
    it.offered(ACTIVITIES, secret(2), 2 * MINUTE);
    it.refused(ACTIVITIES, Refusal::Stream, 2 * MINUTE, 0.0);
    it.offered(ALERTS, secret(3), 3 * MINUTE);
    it.accepted(ALERTS, 3 * MINUTE);
    assert_eq!(it.worth_a_try(secret(3)), Some(ACTIVITIES), "each that is forbidden");
    assert_eq!(it.check_due(12 * MINUTE), None, "it was tried nine minutes ago");
    assert_eq!(it.check_due(13 * MINUTE), Some(ALERTS));
}

/// One stream as the loop drives it: it asks as soon as it may, and has an answer some time later.
#[derive(Debug, Default)]
struct Actor {
    asked: Option<(u8, Millis)>,
}

/// A history of secrets that change, die and are revived, requests that take their time, and outages.
fn live(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut it = both();
    let (mut stored, mut good) = (1_u8, rng.bool());
    let mut actors = [Actor::default(), Actor::default()];
    // When the stored secret was refused last, and since when nothing was offered though it could be.
    let mut refused_at: Option<Millis> = None;
    let mut quiet_since: Millis = 0;
    for now in (0..3 * 3_600_000).step_by(500) {
        match rng.u16(0..4_000) {
            0 => {
                (stored, good) = (stored.wrapping_add(1), rng.bool());
                (refused_at, quiet_since) = (None, now);
            }
            1 => good = !good,
            _ => {}
        }
        for (actor, stream) in actors.iter_mut().zip([ALERTS, ACTIVITIES]) {
            if let Some((number, until)) = actor.asked {
                if until > now {
                    continue;
                }
                actor.asked = None;
                quiet_since = now;
                match rng.u8(0..10) {
                    0 => it.unheard(stream),
                    _ if number == stored && good => {
                        it.accepted(stream, now);
                        refused_at = None;
                    }
                    _ => {
                        it.refused(stream, Refusal::Credential, now, rng.f64());
                        if number == stored {
                            refused_at = Some(now);
                        }
                    }
                }
            }
            if it.next_try(stream, secret(stored), now) <= now && (good || rng.u8(0..4) > 0) {
                if let Some(at) = refused_at {
                    let apart = now - at;
                    assert!(apart >= MINUTE, "{apart} ms after a refusal, history {seed}");
                }
                it.reserved(stream, secret(stored));
                it.offered(stream, secret(stored), now);
                // What was under way with a proven secret when it died is one try.
                actor.asked = Some((stored, now + rng.i64(1..30_000)));
                quiet_since = now;
            }
        }
        let longest = millis(DEAD_MAX + DEAD_MAX / 4) + 2 * AFTER_THE_OTHER;
        assert!(now - quiet_since <= longest, "untried for {} ms", now - quiet_since);
    }
}

#[test]
fn in_any_history_a_dead_secret_is_tried_once_a_minute_and_within_some_minutes() {
    for seed in 0..60 {
        live(seed);
    }
}
