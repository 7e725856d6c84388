//! Which handshakes to take: a pure decision from counts and a time that is handed in.
//!
//! A handshake costs about a millisecond of a core, so a storm of them is shed early: below the
//! soft limit everybody is let in; beyond it, or when a source calls too often, the caller must
//! first prove its address (a Retry); beyond the hard limits it is refused.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

/// How many connections and handshakes a host takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time.
    pub connections_max: usize,
    /// Handshakes under way past which callers must prove their address first.
    pub handshakes_soft: usize,
    /// Handshakes under way past which callers are refused.
    pub handshakes_max: usize,
    /// Handshakes a second that one source (an IPv4 address, an IPv6 /64) may begin on average.
    pub source_per_second: u32,
    /// Handshakes that one source may begin at once.
    pub source_burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            handshakes_soft: 64,
            handshakes_max: 1_024,
            source_per_second: 1_000,
            source_burst: 4_000,
        }
    }
}

/// Sources that are remembered at a time; a full bucket is forgotten first.
const SOURCES_MAX: usize = 16_384;

/// What to do with a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Retry,
    Refuse,
}

/// What is known of a caller and of the load when it calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) source: IpAddr,
    /// Whether it has proved its address.
    pub(crate) validated: bool,
    pub(crate) handshakes: usize,
    pub(crate) connections: usize,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

/// The sources' token buckets.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: Limits,
    sources: HashMap<IpAddr, Bucket>,
}

impl Admission {
    pub(crate) fn new(limits: Limits) -> Self {
        let sources = HashMap::new();
        Self { limits, sources }
    }

    pub(crate) fn decide(&mut self, caller: Caller, now: Instant) -> Verdict {
        let limits = self.limits;
        if caller.connections >= limits.connections_max
            || caller.handshakes >= limits.handshakes_max
        {
            return Verdict::Refuse;
        }
        if caller.handshakes >= limits.handshakes_soft && !caller.validated {
            return Verdict::Retry;
        }
        match (self.take(prefix(caller.source), now), caller.validated) {
            (true, _) => Verdict::Accept,
            // The address may be forged to use up somebody else's bucket.
            (false, false) => Verdict::Retry,
            (false, true) => Verdict::Refuse,
        }
    }

    fn take(&mut self, source: IpAddr, now: Instant) -> bool {
        let burst = f64::from(self.limits.source_burst);
        let rate = f64::from(self.limits.source_per_second);
        let refilled = |bucket: &Bucket| {
            let seconds = now.saturating_duration_since(bucket.filled).as_secs_f64();
            (bucket.tokens + seconds * rate).min(burst)
        };
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&source) {
            self.sources.retain(|_, bucket| refilled(bucket) < burst);
            if self.sources.len() >= SOURCES_MAX {
                return false;
            }
        }
        let bucket = self.sources.entry(source).or_insert(Bucket {
            tokens: burst,
            filled: now,
        });
        bucket.tokens = refilled(bucket);
        bucket.filled = now;
        let enough = bucket.tokens >= 1.0;
        if enough {
            bucket.tokens -= 1.0;
        }
        enough
    }
}

fn prefix(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn caller(source: &str) -> Caller {
        Caller {
            source: source.parse().unwrap(),
            validated: false,
            handshakes: 0,
            connections: 0,
        }
    }

    #[test]
    fn a_source_that_calls_too_often_must_prove_itself_then_is_refused() {
        let limits = Limits {
            source_per_second: 10,
            source_burst: 2,
            ..Limits::default()
        };
        let mut admission = Admission::new(limits);
        let start = Instant::now();
        let eager = caller("10.0.0.1");
        assert_eq!(admission.decide(eager, start), Verdict::Accept);
        assert_eq!(admission.decide(eager, start), Verdict::Accept);
        assert_eq!(admission.decide(eager, start), Verdict::Retry);
        let proven = Caller {
            validated: true,
            ..eager
        };
        assert_eq!(admission.decide(proven, start), Verdict::Refuse);
        // Others are not affected, and a tenth of a second brings one more.
        assert_eq!(admission.decide(caller("10.0.0.2"), start), Verdict::Accept);
        let later = start + Duration::from_millis(100);
        assert_eq!(admission.decide(proven, later), Verdict::Accept);
        assert_eq!(admission.decide(proven, later), Verdict::Refuse);
    }

    #[test]
    fn load_asks_for_proof_first_and_refuses_at_the_hard_limits() {
        let mut admission = Admission::new(Limits::default());
        let now = Instant::now();
        let busy = Caller {
            handshakes: 64,
            ..caller("::1")
        };
        assert_eq!(admission.decide(busy, now), Verdict::Retry);
        let proven = Caller {
            validated: true,
            ..busy
        };
        assert_eq!(admission.decide(proven, now), Verdict::Accept);
        let storm = Caller {
            handshakes: 1_024,
            ..proven
        };
        assert_eq!(admission.decide(storm, now), Verdict::Refuse);
        let full = Caller {
            connections: 20_000,
            ..caller("::1")
        };
        assert_eq!(admission.decide(full, now), Verdict::Refuse);
    }

    #[test]
    fn an_ipv6_neighbourhood_is_one_source_and_the_table_is_bounded() {
        let limits = Limits {
            source_per_second: 1,
            source_burst: 1,
            ..Limits::default()
        };
        let mut admission = Admission::new(limits);
        let now = Instant::now();
        assert_eq!(
            admission.decide(caller("2001:db8::1"), now),
            Verdict::Accept
        );
        assert_eq!(admission.decide(caller("2001:db8::2"), now), Verdict::Retry);
        for n in 0..SOURCES_MAX as u32 + 10 {
            let source = IpAddr::V4(n.into());
            let _ = admission.decide(
                Caller {
                    source,
                    ..caller("::1")
                },
                now,
            );
        }
        assert_eq!(admission.sources.len(), SOURCES_MAX);
        // Once the buckets have filled up again, newcomers find room.
        let later = now + Duration::from_secs(2);
        assert_eq!(
            admission.decide(caller("192.0.2.1"), later),
            Verdict::Accept
        );
    }
}
