//! Names and numbers of things, each a type of its own, so that two of them cannot be swapped.
//!
//! Text ids check their bounds when they are made; those that come from a peer are checked by
//! [`crate::codec::decode`] before anyone sees them.

use std::fmt;

use rkyv::{Archive, Deserialize, Serialize};

use crate::limits::{ID_BYTES_MAX, NAME_BYTES_MAX};

/// A text that cannot be the name of anything, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} {problem}")]
pub struct InvalidName {
    /// What it was to be, for example "process type".
    pub what: &'static str,
    /// The offending text, cut to 80 bytes.
    pub text: String,
    /// What is wrong, as the end of a sentence.
    pub problem: &'static str,
}

impl InvalidName {
    fn new(what: &'static str, text: &str, problem: &'static str) -> Self {
        let cut = (0..=text.len().min(80))
            .rev()
            .find(|&at| text.is_char_boundary(at));
        let text = text[..cut.unwrap_or(0)].to_owned();
        Self {
            what,
            text,
            problem,
        }
    }
}

fn check_name(what: &'static str, text: &str, upper: bool) -> Result<(), InvalidName> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(InvalidName::new(what, text, "must have 1 to 64 characters"));
    }
    let ok = |c: char| {
        c.is_ascii_lowercase()
            || c.is_ascii_digit()
            || c == '_'
            || c == '-'
            || (upper && (c.is_ascii_uppercase() || c == '.'))
    };
    if text.chars().all(ok) {
        return Ok(());
    }
    let problem = if upper {
        "may only use letters, digits, '.', '_' and '-'"
    } else {
        "may only use a-z, 0-9, '_' and '-'"
    };
    Err(InvalidName::new(what, text, problem))
}

fn check_id(what: &'static str, text: &str) -> Result<(), InvalidName> {
    if text.is_empty() || text.len() > ID_BYTES_MAX {
        return Err(InvalidName::new(what, text, "must have 1 to 256 bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err(InvalidName::new(
            what,
            text,
            "must not have control characters",
        ));
    }
    Ok(())
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks the bounds.
            ///
            /// # Errors
            /// [`InvalidName`] says which bound was broken.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
                let made = Self(text.into());
                made.check()?;
                Ok(made)
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            pub(crate) fn check(&self) -> Result<(), InvalidName> {
                let check: fn(&'static str, &str) -> Result<(), InvalidName> = $check;
                check($what, &self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }
    };
}

text_id!(
    /// The type of a process: `[a-z0-9_-]{1,64}`.
    TypeName, "process type", |what, text| check_name(what, text, false)
);
text_id!(
    /// The name of a module: `[a-z0-9_-]{1,64}`.
    ModuleName, "module name", |what, text| check_name(what, text, false)
);
text_id!(
    /// The name of a node: letters, digits, `.`, `_` and `-`, 1 to 64 of them.
    NodeName, "node name", |what, text| check_name(what, text, true)
);
text_id!(
    /// The name of a host: letters, digits, `.`, `_` and `-`, 1 to 64 of them.
    HostName, "host name", |what, text| check_name(what, text, true)
);
text_id!(
    /// The id of a process within its type: 1 to 256 bytes of UTF-8 without control characters.
    ProcessId, "process id", check_id
);

/// What names a process: its type and its id. Written `type/id`.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessKey {
    /// The process type.
    pub type_name: TypeName,
    /// The id, unique within the type.
    pub id: ProcessId,
}

impl ProcessKey {
    /// Checks both halves.
    ///
    /// # Errors
    /// [`InvalidName`] names the half that is out of bounds.
    pub fn new(type_name: &str, id: &str) -> Result<Self, InvalidName> {
        Ok(Self {
            type_name: TypeName::new(type_name)?,
            id: ProcessId::new(id)?,
        })
    }

    pub(crate) fn check(&self) -> Result<(), InvalidName> {
        self.type_name.check()?;
        self.id.check()
    }
}

impl fmt::Display for ProcessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.type_name, self.id)
    }
}

impl fmt::Debug for ProcessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for ProcessKey {
    type Err = InvalidName;

    /// Reads `type/id`; the id may itself contain slashes.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text.split_once('/') {
            Some((type_name, id)) => Self::new(type_name, id),
            None => Err(InvalidName::new("process key", text, "must be TYPE/ID")),
        }
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash,
            Default,
        )]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number_id!(
    /// A Raft index as users see it: every change has one, and they only grow.
    Revision
);
number_id!(
    /// The revision of a process's reservation: its fencing token. The incarnations of a key only grow.
    Incarnation
);
number_id!(
    /// The revision of a node's registration. A name that registers again gets a larger one.
    NodeEpoch
);
number_id!(
    /// A client's session in the replicated state: the revision at which it was opened.
    ClientId
);

/// A client's idempotency key: the same one is carried out at most once.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
pub struct RequestId {
    /// The session.
    pub client: ClientId,
    /// Grows with every request of the session.
    pub sequence: u64,
}

/// The blake3 hash of a module's bytes: its identity.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default,
)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Hashes `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The first 12 hexadecimal digits: enough for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which cluster: made by chance when it was founded, or restored from a snapshot. Hosts of
/// different clusters do not talk to each other.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default,
)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_bounds() {
        assert!(TypeName::new("player_2-x").is_ok());
        assert!(TypeName::new("a".repeat(64)).is_ok());
        for bad in ["", "Player", "a b", "ä", &"a".repeat(65)] {
            assert!(TypeName::new(bad).is_err(), "{bad:?} passed");
        }
        assert!(NodeName::new("Eu-1.rack_2").is_ok());
        assert!(NodeName::new("eu/1").is_err());
        assert!(ProcessId::new("ä".repeat(128)).is_ok());
        assert!(ProcessId::new("ä".repeat(129)).is_err());
        assert!(ProcessId::new("a\nb").is_err());
    }

    #[test]
    fn a_key_reads_back_and_its_id_may_hold_slashes() {
        let key: ProcessKey = "room/a/b".parse().unwrap();
        assert_eq!((key.type_name.as_str(), key.id.as_str()), ("room", "a/b"));
        assert_eq!(key.to_string(), "room/a/b");
        assert!("room".parse::<ProcessKey>().is_err());
    }

    #[test]
    fn an_error_cuts_long_text_at_a_character() {
        let error = TypeName::new("ä".repeat(100)).unwrap_err();
        assert_eq!(error.text.len(), 80);
    }
}
