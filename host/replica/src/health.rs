//! How steady a node's keep-alives are: when it is suspect, when it is trusted again, and when it
//! has come and gone too often.
//!
//! Suspicion takes a node out of the candidates and does nothing else. It begins with silence and
//! ends with steady keep-alives, so that one that comes through now and then does not bring the node
//! back. Each suspicion adds a penalty that halves with time; a node with too large a one is damped
//! (the rule of route flap damping, RFC 2439, section 4.2, with one figure of merit a node).

/// Keep-alives in a row that must come on time before a suspect node is trusted again.
const STEADY: u8 = 3;

/// What a suspicion adds to the penalty, where damping begins, and where it ends.
const PENALTY: f64 = 1_000.0;
const DAMPED_ABOVE: f64 = 3_000.0;
const DAMPED_UNTIL: f64 = 1_000.0;

/// Microseconds in which a penalty halves.
const HALF_LIFE_US: f64 = 60_000_000.0;

/// See the head of this file.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Health {
    suspect: bool,
    steady: u8,
    penalty: f64,
    penalty_us: u64,
    damped: bool,
}

impl Health {
    fn penalty(&self, now_us: u64) -> f64 {
        let past_us = now_us.saturating_sub(self.penalty_us) as f64;
        self.penalty * (-past_us / HALF_LIFE_US).exp2()
    }

    /// The node has been silent for too long.
    pub(crate) fn missed(&mut self, now_us: u64) {
        if std::mem::replace(&mut self.suspect, true) {
            return;
        }
        self.steady = 0;
        self.penalty = self.penalty(now_us) + PENALTY;
        self.penalty_us = now_us;
        self.damped |= self.penalty > DAMPED_ABOVE;
    }

    /// A keep-alive has come, on time or late after the one before. Whether the node is trusted again
    /// from now on.
    pub(crate) fn heard(&mut self, on_time: bool) -> bool {
        if !self.suspect {
            return false;
        }
        self.steady = if on_time { self.steady + 1 } else { 1 };
        self.suspect = self.steady < STEADY;
        !self.suspect
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Milliseconds for which it is damped yet; 0 when it is not.
    pub(crate) fn damped_ms(&self, now_us: u64) -> u32 {
        let penalty = self.penalty(now_us);
        if !self.damped || penalty <= DAMPED_UNTIL {
            return 0;
        }
        let left_us = (penalty / DAMPED_UNTIL).log2() * HALF_LIFE_US;
        (left_us / 1_000.0) as u32 + 1
    }

    /// Ends damping when its time is over; whether it did.
    pub(crate) fn settle(&mut self, now_us: u64) -> bool {
        let over = self.damped && self.damped_ms(now_us) == 0;
        self.damped &= !over;
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn suspect_and_back(health: &mut Health, now_us: u64) {
        health.missed(now_us);
        assert!(health.is_suspect());
        while !health.heard(true) {}
        assert!(!health.is_suspect());
    }

    #[test]
    fn three_keep_alives_on_time_bring_a_suspect_node_back() {
        let mut health = Health::default();
        health.missed(0);
        assert!(!health.heard(false) && !health.heard(true));
        // A late one begins the count anew, and counts as the first.
        assert!(!health.heard(false) && !health.heard(true));
        assert!(health.heard(true));
    }

    #[test]
    fn a_node_that_comes_and_goes_is_damped_until_its_penalty_has_halved_twice() {
        let mut health = Health::default();
        for second in 0..3 {
            suspect_and_back(&mut health, second * SECOND);
            assert_eq!(health.damped_ms(second * SECOND), 0, "{second}");
        }
        suspect_and_back(&mut health, 3 * SECOND);
        let left_ms = health.damped_ms(3 * SECOND);
        assert!((110_000..120_000).contains(&left_ms), "{left_ms}");
        assert!(!health.settle(60 * SECOND));
        assert!(health.settle(130 * SECOND));
        assert_eq!(health.damped_ms(130 * SECOND), 0);
    }
}
