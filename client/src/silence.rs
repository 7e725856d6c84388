//! When a quiet connection is a dead one: pure, with the time as an argument.
//!
//! A program that was killed does not say goodbye, and the idle time-out is far too long to wait
//! for. So when something is due from the other side and nothing at all comes, it is probed, and
//! given up when even that is not acknowledged. A connection on which nothing is due costs nothing,
//! and a slow but living host is probed less and less often.

use std::time::Duration;

use tokio::time::Instant;

/// Silence after which the other side is probed, at first and at most.
const PROBE_MIN: Duration = Duration::from_millis(500);
const PROBE_MAX: Duration = Duration::from_secs(5);
/// Longest that a probe may stay unacknowledged.
const ANSWER_MAX: Duration = Duration::from_millis(1_500);

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Fine,
    /// Send something that must be acknowledged.
    Probe,
    /// The other side is gone.
    Gone,
}

#[derive(Debug)]
pub(crate) struct Silence {
    received: u64,
    sent: u64,
    heard: Instant,
    probed: Option<Instant>,
    probe_after: Duration,
}

impl Silence {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            received: 0,
            sent: 0,
            heard: now,
            probed: None,
            probe_after: PROBE_MIN,
        }
    }

    /// Judges by what was received and sent so far (packets, and frames to be acknowledged), and by
    /// whether answers are waited for.
    pub(crate) fn look(&mut self, now: Instant, received: u64, sent: u64, waiting: bool) -> Look {
        if received != self.received || (!waiting && sent == self.sent) {
            // What only came because of a probe makes the next one come later.
            self.probe_after = match self.probed.take() {
                Some(_) if received != self.received => (self.probe_after * 2).min(PROBE_MAX),
                _ => PROBE_MIN,
            };
            (self.received, self.sent, self.heard) = (received, sent, now);
            return Look::Fine;
        }
        match self.probed {
            None if now - self.heard >= self.probe_after => {
                self.probed = Some(now);
                Look::Probe
            }
            Some(at) if now - at >= ANSWER_MAX => Look::Gone,
            _ => Look::Fine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn silence_is_probed_and_then_given_up() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut silence = Silence::new(start);
        assert_eq!(silence.look(at(0), 5, 5, true), Look::Fine);
        assert_eq!(silence.look(at(499), 5, 5, true), Look::Fine);
        assert_eq!(silence.look(at(500), 5, 5, true), Look::Probe);
        assert_eq!(silence.look(at(1_999), 5, 6, true), Look::Fine);
        assert_eq!(silence.look(at(2_000), 5, 6, true), Look::Gone);
    }

    #[tokio::test]
    async fn a_slow_host_is_probed_ever_less_often() {
        let start = Instant::now();
        let mut silence = Silence::new(start);
        let (mut received, mut probes) = (1, Vec::new());
        for millis in (0..20_000).step_by(20) {
            let now = start + Duration::from_millis(millis);
            match silence.look(now, received, 1, true) {
                Look::Probe => {
                    probes.push(millis);
                    received += 1;
                }
                look => assert_eq!(look, Look::Fine),
            }
        }
        assert_eq!(probes, [500, 1_520, 3_540, 7_560, 12_580, 17_600]);
    }

    #[tokio::test]
    async fn nothing_is_probed_when_nothing_is_due_but_a_lost_keep_alive_is() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut silence = Silence::new(start);
        assert_eq!(silence.look(at(0), 5, 5, false), Look::Fine);
        assert_eq!(silence.look(at(60_000), 5, 5, false), Look::Fine);
        assert_eq!(silence.look(at(60_100), 5, 6, false), Look::Fine);
        assert_eq!(silence.look(at(60_500), 5, 6, false), Look::Probe);
    }
}
