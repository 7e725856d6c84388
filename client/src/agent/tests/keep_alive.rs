//! When keep-alives go out, and how.

use super::*;

/// Steps to the next keep-alive: its sequence, and whether it goes by the stream.
fn next(bench: &mut Bench) -> (u64, bool) {
    for _ in 0..10 {
        bench.now = bench.agent.next_us();
        let effects = bench.step(Input::Tick);
        let sent = effects.iter().find_map(|effect| match effect {
            Effect::KeepAlive {
                sequence,
                by_stream,
                ..
            } => Some((*sequence, *by_stream)),
            _ => None,
        });
        if let Some(sent) = sent {
            return sent;
        }
    }
    panic!("no keep-alive is sent");
}

#[test]
fn a_short_lease_is_renewed_more_often_for_its_length() {
    for (ttl_us, period_us) in [
        (1_000_000, 166_666),
        (2_999_999, 499_999),
        (3_000_000, 750_000),
        (6_000_000, 1_500_000),
        (60_000_000, 2_000_000),
    ] {
        let agent = Agent::new(ttl_us, KILL_BOUND);
        let mut bench = Bench { agent, now: 0 };
        bench.step(Input::Tick);
        bench.enrolled(1, 1, &[], 0);
        assert_eq!(next(&mut bench), (2, false));
        assert_eq!(bench.now, period_us, "{ttl_us}");
    }
}

#[test]
fn after_two_without_an_answer_they_go_by_the_stream() {
    let mut bench = Bench::serving();
    assert_eq!(next(&mut bench), (2, false));
    assert_eq!(next(&mut bench), (3, true));
    // That one is answered: datagrams are only tried now and then.
    bench.ack(3, true);
    assert_eq!(bench.agent.lease_until_us(), bench.now + SAFE);
    let mut sent = Vec::new();
    for _ in 4..=20 {
        let (sequence, by_stream) = next(&mut bench);
        if by_stream {
            bench.ack(sequence, true);
        } else {
            sent.push(sequence);
        }
    }
    assert_eq!(sent, [8, 16]);
}

#[test]
fn a_datagram_that_is_answered_brings_them_back() {
    let mut bench = Bench::serving();
    next(&mut bench);
    assert_eq!(next(&mut bench), (3, true));
    bench.ack(3, true);
    for sequence in 4..8 {
        assert_eq!(next(&mut bench), (sequence, true));
        bench.ack(sequence, true);
    }
    assert_eq!(next(&mut bench), (8, false));
    bench.ack(8, true);
    assert_eq!(next(&mut bench), (9, false));
}
