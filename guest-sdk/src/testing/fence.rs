//! A question to a fence, and its answer checked as the host checks it.

use super::TestHost;
use crate::glue::FenceInstance;
use crate::{Fence, FenceVerdict, LostNode, PROOF_BYTES_MAX, RETRY_MS, Records};

/// The node `node` at `node:1`, whose lease of that epoch ran out three seconds ago; the first
/// question. Its fields are public; set what the test is about.
#[must_use]
pub fn lost_node(node: &str, epoch: u64) -> LostNode {
    LostNode {
        node: node.to_owned(),
        epoch: epoch.to_string(),
        address: format!("{node}:1"),
        labels: Vec::new(),
        lost_for_ms: 3_000,
        attempt: 1,
        seed: crate::stable_hash(node.as_bytes()) as u32,
        time: 1_700_000_000,
    }
}

/// Asks a fresh instance of a fence, configured by `host`.
///
/// # Errors
/// The fence's own, or what is out of bounds in its answer, which the host does not believe.
pub fn examine<F: Fence>(
    lost: &LostNode,
    host: &TestHost,
    records: &dyn Records,
) -> Result<FenceVerdict, String> {
    let verdict = FenceInstance::<F>::new(host).examine(lost, host, records)?;
    match &verdict {
        FenceVerdict::Dead(proof) if proof.len() > PROOF_BYTES_MAX => {
            Err(format!("a proof of {} bytes", proof.len()))
        }
        FenceVerdict::AliveOrUnknown(ms) if !RETRY_MS.contains(ms) => {
            Err(format!("asks to be asked again in {ms} ms"))
        }
        _ => Ok(verdict),
    }
}

#[cfg(test)]
mod tests {
    use super::super::TestRecords;
    use super::*;
    use crate::Host;
    use crate::config::Config;

    /// Answers what it was configured to.
    #[derive(Default)]
    struct Parrot(Option<FenceVerdict>);

    impl Fence for Parrot {
        const NAME: &'static str = "parrot";
        const VERSION: &'static str = "1";

        fn configure(&mut self, host: &dyn Host) -> Result<(), String> {
            let config = Config::parse(&host.config(), &["ms", "letters"])?;
            let ms = config.number("ms", 0..=u32::MAX)?;
            let letters = config.number("letters", 0..=1_000)?;
            self.0 = ms
                .map(FenceVerdict::AliveOrUnknown)
                .or(letters.map(|count| FenceVerdict::Dead("x".repeat(count as usize))));
            Ok(())
        }

        fn examine(
            &self,
            _: &LostNode,
            _: &dyn Host,
            _: &dyn Records,
        ) -> Result<FenceVerdict, String> {
            self.0.clone().ok_or_else(|| "it knows nothing".to_owned())
        }
    }

    #[test]
    fn answers_out_of_bounds_are_no_verdicts() {
        let ask = |config: &str| {
            let host = TestHost::with_config(config);
            examine::<Parrot>(&lost_node("n", 7), &host, &TestRecords::default())
        };
        for ms in [100, 60_000] {
            assert_eq!(
                ask(&format!("{{\"ms\": {ms}}}")),
                Ok(FenceVerdict::AliveOrUnknown(ms))
            );
        }
        assert!(ask(r#"{"ms": 99}"#).is_err());
        assert!(ask(r#"{"ms": 60001}"#).is_err());
        assert_eq!(
            ask(r#"{"letters": 512}"#),
            Ok(FenceVerdict::Dead("x".repeat(512)))
        );
        assert!(ask(r#"{"letters": 513}"#).is_err());
        assert_eq!(ask("{}"), Err("it knows nothing".to_owned()));
        // A refused configuration answers every question.
        assert!(ask(r#"{"ms": "soon"}"#).unwrap_err().contains("`ms`"));
    }
}
