//! How a version is named on the command line: `NAME`, or `NAME@VERSION`.

use std::str::FromStr;

use maitred_protocol::ModuleName;

/// A module, and one of its versions if one is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Versioned {
    pub(super) name: ModuleName,
    pub(super) version: Option<u32>,
}

impl Versioned {
    /// The version for the wire, where 0 is the newest.
    pub(super) fn number(&self) -> u32 {
        self.version.unwrap_or(0)
    }
}

impl FromStr for Versioned {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        let name = ModuleName::new(name).map_err(|error| error.to_string())?;
        let version = version.map(|text| match text.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err("a version is a whole number from 1, as in my-rule@2".to_owned()),
        });
        Ok(Self {
            name,
            version: version.transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_follows_an_at_sign() {
        let read = |text: &str| text.parse::<Versioned>().map(|one| (one.name, one.version));
        let name = ModuleName::new("my-rule").unwrap();
        assert_eq!(read("my-rule"), Ok((name.clone(), None)));
        assert_eq!(read("my-rule@12"), Ok((name, Some(12))));
        for bad in [
            "",
            "@1",
            "my-rule@",
            "my-rule@0",
            "my-rule@x",
            "my-rule@1@2",
            "My@1",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
