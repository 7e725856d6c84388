//! How many bytes a second this host sends in bulk, to everybody together.
//!
//! Snapshots and modules share the network with Raft. They may take their part of it and no more,
//! so that a host that catches up never costs the group its leader. It must not know what is sent.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What was not used may be made up for, this far back.
const BURST: Duration = Duration::from_millis(50);

/// The account: when the next byte may leave, as time since some beginning.
#[derive(Debug)]
struct Account {
    per_s: u64,
    free_at: Duration,
}

impl Account {
    /// Books `bytes` and says how long to wait before they are sent.
    fn book(&mut self, now: Duration, bytes: usize) -> Duration {
        let begin = self.free_at.max(now.saturating_sub(BURST));
        let takes = bytes as f64 / self.per_s as f64;
        self.free_at = begin + Duration::from_secs_f64(takes);
        begin.saturating_sub(now)
    }
}

/// A limit that all senders share.
#[derive(Debug)]
pub(crate) struct Rate {
    began: Instant,
    account: Option<Mutex<Account>>,
}

impl Rate {
    /// At most `per_s` bytes a second; 0 for no limit.
    pub(crate) fn new(per_s: u64) -> Self {
        let account = (per_s > 0).then(|| {
            Mutex::new(Account {
                per_s,
                free_at: Duration::ZERO,
            })
        });
        Self {
            began: Instant::now(),
            account,
        }
    }

    /// Waits until `bytes` may be sent.
    pub(crate) async fn take(&self, bytes: usize) {
        let Some(account) = &self.account else { return };
        let wait = {
            let mut account = account.lock().unwrap_or_else(PoisonError::into_inner);
            account.book(self.began.elapsed(), bytes)
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: usize = 10_000;

    #[test]
    fn no_more_leaves_than_the_rate_allows_however_many_send() {
        let per_s = 1_000_000;
        let mut account = Account {
            per_s,
            free_at: Duration::ZERO,
        };
        // Ten senders, each of which sends its next piece as soon as it may, on a clock of our own.
        let mut senders = [Duration::from_secs(10); 10];
        let mut sent = Vec::new();
        for _ in 0..2_000 {
            senders.sort_unstable();
            let leaves = senders[0] + account.book(senders[0], PIECE);
            sent.push(leaves);
            senders[0] = leaves;
        }
        sent.sort_unstable();
        for (at, begin) in sent.iter().enumerate() {
            for (count, end) in sent[at..].iter().enumerate().skip(1).step_by(97) {
                let allowed = ((*end - *begin) + BURST).as_secs_f64() * per_s as f64;
                let got = count * PIECE;
                assert!(got as f64 <= allowed + 1.0, "{got} of {allowed}");
            }
        }
        // Nor much less.
        let took = (sent[sent.len() - 1] - sent[0]).as_secs_f64();
        assert!((19.0..21.0).contains(&took), "{took}");
    }
}
