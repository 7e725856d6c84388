//! A fence: believes what a watcher of the machines has registered about a lost node.
//!
//! What it says is believed: calling a node dead while its processes still run breaks `restart =
//! strict`. `Dead` needs evidence that cannot be wrong later; that nothing was heard is none.
//! The watcher is an ordinary client: when a machine is off for good it creates the process
//! `power/NODE` with the share `off EPOCH`, on another node.
//! `cargo doc --open -p maitred-guest` shows what else there is.

use maitred_guest::{Fence, FenceVerdict, Host, LostNode, Records, export_fence};

/// One instance of the policy. What it keeps between calls is a cache: hosts replace instances.
#[derive(Default)]
pub struct Policy;

const ASK_AGAIN_MS: u32 = 1_000;

impl Fence for Policy {
    const NAME: &'static str = env!("CARGO_PKG_NAME");
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    /// 50 ms of processor time; looking a record up does not count. An error means that nothing is
    /// known, and the host asks again, later each time.
    fn examine(
        &self,
        lost: &LostNode,
        _: &dyn Host,
        records: &dyn Records,
    ) -> Result<FenceVerdict, String> {
        // Evidence about another life of the node says nothing about this one.
        let proof = format!("off {}", lost.epoch);
        let seen = records.get("power", &lost.node).is_some_and(|record| {
            record.running && record.node != lost.node && record.share == proof.as_bytes()
        });
        Ok(if seen {
            FenceVerdict::Dead(format!("power/{} says: {proof}", lost.node))
        } else {
            FenceVerdict::AliveOrUnknown(ASK_AGAIN_MS)
        })
    }
}

export_fence!(Policy);

#[cfg(test)]
mod tests {
    use super::*;
    use maitred_guest::Process;
    use maitred_guest::testing::{TestHost, TestRecords, examine, lost_node};

    #[test]
    fn only_proof_about_this_life_counts() {
        let record = Process {
            node: "watcher".to_owned(),
            address: "watcher:1".to_owned(),
            pid: String::new(),
            share: b"off 7".to_vec(),
            incarnation: "1".to_owned(),
            running: true,
        };
        let mut records = TestRecords::default();
        records.0.insert(("power".to_owned(), "n1".to_owned()), record);
        let ask = |epoch| examine::<Policy>(&lost_node("n1", epoch), &TestHost::default(), &records);
        let again = Ok(FenceVerdict::AliveOrUnknown(ASK_AGAIN_MS));
        assert_eq!(ask(7), Ok(FenceVerdict::Dead("power/n1 says: off 7".to_owned())));
        assert_eq!(ask(8), again);
    }
}
