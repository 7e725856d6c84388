//! The shapes of modules as others see them: versions, what decides, what was done, who vouches.
//!
//! These are copies made for an answer, as in [`crate::record`].

use rkyv::{Archive, Deserialize, Serialize};

use crate::id::{Digest, ModuleName, Revision, TypeName};
use crate::limits::{FINDINGS_NOTES_MAX, REASON_BYTES_MAX};

/// What a module is for.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModuleKind {
    /// Chooses nodes: world `selector-module`.
    Selector,
    /// Starts processes: world `callback-module`.
    Callback,
    /// Says whether a lost node is dead: world `fence-module`.
    Fence,
}

/// One version of a module.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct ModuleVersion {
    /// 1 for the first push under the name; grows by one.
    pub version: u32,
    /// The identity of its bytes.
    pub digest: Digest,
    /// Bytes.
    pub bytes: u64,
    /// What it calls itself: name and version.
    pub title: String,
    /// The features it wants, for a selector.
    pub features: Vec<String>,
    /// Milliseconds since 1970 of the push.
    pub pushed_ms: u64,
    /// The interface that it exports: `selector`, `scanner`, `callback` or `fence`.
    pub world: String,
    /// The version of `maitred:policy` that it was built against: `0.2.0`.
    pub abi: String,
    /// What a callback wants to be asked besides.
    pub hooks: Vec<Hook>,
    /// Who signed it, if anybody did.
    pub signature: Option<Signature>,
}

/// The hash by which decisions name a configuration: the first 8 bytes of its blake3 hash,
/// little-endian.
#[must_use]
pub fn config_hash(config: &str) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = Digest::of(config.as_bytes()).0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// What a callback may want to be asked or told besides `spawn`.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// A process's node was lost.
    NodeLost,
    /// A process has ended by itself.
    Exit,
    /// A life that it began is given up.
    Compensate,
}

/// A detached ed25519 signature of a module. What is signed is in the sandbox's `signature`.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Signature {
    /// The public key.
    pub key: [u8; 32],
    /// The signature.
    pub bytes: [u8; 64],
}

/// A version that decides for a share of the ids, while another one is active.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct CanaryRecord {
    /// Which version.
    pub version: u32,
    /// Its configuration.
    pub config: String,
    /// The number of that configuration.
    pub config_version: u32,
    /// The share of the ids, 1 to 100. An id is in or out for as long as the share does not change,
    /// and stays in when it grows.
    pub percent: u8,
    /// Only for these types; empty for all.
    pub types: Vec<TypeName>,
    /// What takes it back by itself; empty for nothing.
    pub guard: String,
    /// When it began to decide.
    pub activated: Revision,
}

/// A version that runs beside the active one, without deciding anything.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ShadowRecord {
    /// Which version.
    pub version: u32,
    /// Its configuration.
    pub config: String,
    /// When it began.
    pub since: Revision,
}

/// What was done with a module.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModuleAction {
    /// A version was uploaded.
    Pushed,
    /// A version decides.
    Activated,
    /// The active version got another configuration.
    Configured,
    /// A version decides for a share of the ids.
    CanaryStarted,
    /// The version before decides again; or the canary decides no more.
    RolledBack,
    /// The same, by the rule that the version was activated with.
    AutoRolledBack,
    /// A version runs in shadow.
    ShadowStarted,
    /// It does no more.
    ShadowStopped,
    /// A version was removed.
    Removed,
}

/// One line of a module's history.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ModuleEvent {
    /// When, as users see it.
    pub revision: Revision,
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// What.
    pub action: ModuleAction,
    /// The version that it is about; after a rollback, the one that decides now.
    pub version: u32,
    /// The number of its configuration; 0 where there is none.
    pub config_version: u32,
    /// The hash of its configuration.
    pub config: u64,
    /// The share of the ids; 100 for all.
    pub percent: u8,
    /// Only for these types; empty for all.
    pub types: Vec<TypeName>,
    /// Why, for a rollback; `signed` for a push that changed nothing but the signature. At most 512 bytes.
    pub cause: Option<String>,
}

/// A module: everything under one name.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct ModuleRecord {
    /// Its name.
    pub name: ModuleName,
    /// What it is for.
    pub kind: ModuleKind,
    /// All versions, oldest first.
    pub versions: Vec<ModuleVersion>,
    /// The version that decides now.
    pub active: Option<u32>,
    /// What a rollback would make active.
    pub previous: Option<u32>,
    /// The configuration of the active version.
    pub config: String,
    /// Its number: the module's configurations are counted, and none is changed in place.
    pub config_version: u32,
    /// What takes the active version back by itself; empty for nothing.
    pub guard: String,
    /// A version that decides for a share of the ids.
    pub canary: Option<CanaryRecord>,
    /// A version that runs in shadow.
    pub shadow: Option<ShadowRecord>,
    /// What decided once, for all or for a share, and was taken from it since, or was removed: the
    /// program does not activate a standard module again that is among them. At most 64, newest last.
    pub declined: Vec<Digest>,
    /// When the active version was activated.
    pub activated: Revision,
    /// When anything of it last changed.
    pub revision: Revision,
}

/// What the host that took an upload found out about it. For its author: it is kept nowhere, and
/// another host, or the same one an hour later, measures something else.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
pub struct Findings {
    /// What is odd about it although it was accepted; see [`Findings::note`] for its bounds.
    pub notes: Vec<String>,
    /// Milliseconds until it could be run; next to none where its machine code had been kept.
    pub compile_ms: u32,
    /// Bytes of all memories of one instance, after the trial.
    pub memory_bytes: u64,
    /// Nanoseconds of one decision over [`Findings::nodes`] nodes, the mean of the trial's; 0 where none
    /// was made: a callback, a fence, or a selector that wants a configuration.
    pub decision_nanos: u64,
    /// Nodes that the trial's decisions chose from.
    pub nodes: u32,
}

impl Findings {
    /// Adds a note: the first [`FINDINGS_NOTES_MAX`] are kept, [`REASON_BYTES_MAX`] bytes of each. They
    /// may hold a module's own words.
    pub fn note(&mut self, mut note: String) {
        if self.notes.len() < FINDINGS_NOTES_MAX {
            note.truncate(note.floor_char_boundary(REASON_BYTES_MAX));
            self.notes.push(note);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_bounded_in_number_and_length() {
        let mut findings = Findings::default();
        for _ in 0..20 {
            findings.note("\u{e9}".repeat(REASON_BYTES_MAX));
        }
        assert_eq!(findings.notes.len(), FINDINGS_NOTES_MAX);
        assert!(
            findings
                .notes
                .iter()
                .all(|note| note.len() == REASON_BYTES_MAX)
        );
    }
}
