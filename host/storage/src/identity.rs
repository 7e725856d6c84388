//! Who a host is: the text of `VERSION`, which says it durably.
//!
//! ```text
//! maitred data directory
//! format 3
//! cluster 32 hexadecimal digits; zeros while the host is joining
//! host    its number; 0 while it is joining
//! instance, name
//! sum     crc32c of all lines before, 8 hexadecimal digits
//! ```
//! Only this very text is read: a digit that changed must not make a host another one. It must not
//! know where the text is kept.

use std::path::Path;

use maitred_protocol::{ClusterId, HostName};

use crate::StorageError;

/// The format of the directory that this program writes and reads.
pub const FORMAT_VERSION: u32 = 3;

const TITLE: &str = "maitred data directory";

/// Who a host is. Made with its data directory; the number and the cluster may come later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostIdentity {
    /// The cluster; zeros while joining.
    pub cluster: ClusterId,
    /// The host's number in it; 0 while joining.
    pub host: u64,
    /// Random, not 0: tells this directory from any other that has, or had, the same number.
    pub instance: u64,
    /// What people call it.
    pub name: HostName,
}

impl HostIdentity {
    /// A host that has no number yet, and asks a cluster for one.
    #[must_use]
    pub fn joining(instance: u64, name: HostName) -> Self {
        Self {
            cluster: ClusterId::default(),
            host: 0,
            instance,
            name,
        }
    }

    /// Whether it has its number.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.host != 0
    }

    pub(crate) fn check(&self) -> Result<(), StorageError> {
        let has_cluster = self.cluster != ClusterId::default();
        if self.instance == 0 || has_cluster != self.is_joined() {
            let what = format!("the identity {self:?} is neither a host's nor a joining one's");
            return Err(StorageError::OutOfOrder(what));
        }
        Ok(())
    }

    pub(crate) fn to_text(&self) -> String {
        let Self {
            cluster,
            host,
            instance,
            name,
        } = self;
        let text = format!(
            "{TITLE}\nformat {FORMAT_VERSION}\ncluster {cluster}\nhost {host}\ninstance {instance}\nname {name}\n"
        );
        let sum = crc32c::crc32c(text.as_bytes());
        format!("{text}sum {sum:08x}\n")
    }

    /// Reads the text of `file`.
    ///
    /// # Errors
    /// [`StorageError::FormatVersion`], [`StorageError::IdentityDamaged`].
    pub(crate) fn from_text(bytes: &[u8], file: &Path) -> Result<Self, StorageError> {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.lines();
        let titled = lines.next() == Some(TITLE);
        let format = lines.next().and_then(|line| line.strip_prefix("format "));
        let expected = FORMAT_VERSION.to_string();
        match format {
            Some(format) if titled && format == expected => {}
            format => {
                let unreadable = || text.chars().take(80).collect();
                let format = format.filter(|_| titled);
                return Err(StorageError::FormatVersion {
                    file: file.to_owned(),
                    found: format.map_or_else(unreadable, str::to_owned),
                    reads: FORMAT_VERSION,
                });
            }
        }
        let read = Self::from_lines(lines);
        // Written again it must be the same bytes: this also compares the sum.
        read.filter(|read| read.check().is_ok() && read.to_text().as_bytes() == bytes)
            .ok_or_else(|| StorageError::IdentityDamaged {
                file: file.to_owned(),
            })
    }

    fn from_lines<'a>(mut lines: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut value = |key: &str| lines.next()?.strip_prefix(key)?.strip_prefix(' ');
        let digits = value("cluster")?;
        let mut cluster = [0; 16];
        for (at, byte) in cluster.iter_mut().enumerate() {
            *byte = u8::from_str_radix(digits.get(at * 2..at * 2 + 2)?, 16).ok()?;
        }
        Some(Self {
            cluster: ClusterId(cluster),
            host: value("host")?.parse().ok()?,
            instance: value("instance")?.parse().ok()?,
            name: HostName::new(value("name")?).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined() -> HostIdentity {
        HostIdentity {
            cluster: ClusterId([0xa7; 16]),
            host: 4711,
            instance: u64::MAX,
            name: HostName::new("Eu-1.rack_2").unwrap(),
        }
    }

    fn read(bytes: &[u8]) -> Result<HostIdentity, StorageError> {
        HostIdentity::from_text(bytes, Path::new("VERSION"))
    }

    #[test]
    fn what_was_written_is_read_and_nothing_else_is() {
        for identity in [joined(), HostIdentity::joining(1, joined().name)] {
            let text = identity.to_text().into_bytes();
            assert_eq!(read(&text).unwrap(), identity);
            for at in 0..text.len() {
                let mut changed = text.clone();
                for bit in 0..8 {
                    changed[at] = text[at] ^ (1 << bit);
                    assert!(read(&changed).is_err(), "byte {at}, bit {bit}");
                }
                assert!(read(&text[..at]).is_err(), "cut at {at}");
            }
            assert!(read(&[&text[..], b"\n"].concat()).is_err());
        }
    }

    #[test]
    fn another_format_is_told_from_damage() {
        let text = joined().to_text();
        let damaged = read(text.replace("4711", "4712").as_bytes()).unwrap_err();
        assert!(matches!(damaged, StorageError::IdentityDamaged { .. }));
        for (text, shown) in [
            ("maitred data directory\nformat 2\nhost 1\n", "\"2\""),
            ("maitred data directory\nformat 4\nwhatever\n", "\"4\""),
            ("something else", "something else"),
        ] {
            let error = read(text.as_bytes()).unwrap_err();
            assert!(matches!(error, StorageError::FormatVersion { .. }));
            let said = error.to_string();
            assert!(said.contains(shown) && said.contains("format 3"), "{said}");
        }
    }

    #[test]
    fn half_an_identity_is_none() {
        let mut without_instance = joined();
        without_instance.instance = 0;
        let mut without_cluster = joined();
        without_cluster.cluster = ClusterId::default();
        let mut without_host = joined();
        without_host.host = 0;
        for bad in [without_instance, without_cluster, without_host] {
            assert!(bad.check().is_err());
            assert!(read(bad.to_text().as_bytes()).is_err());
        }
    }
}
