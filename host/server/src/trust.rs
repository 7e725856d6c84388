//! Whose modules this host takes and runs.
//!
//! Holds: with keys that must sign, nothing that none of them has signed is run, whoever recorded it;
//! a signature that does not fit is refused without such keys too. The standard modules are part of
//! the program, so their digests vouch for them. Keys are read once, when the host starts.

use hashbrown::HashSet;
use maitred_protocol::{Digest, ModuleKind, Signature};
use maitred_sandbox::signature::{self, PublicKey, PublicKeys};

use crate::config::{ConfigError, ServerConfig};
use crate::standard_modules;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    required: Option<PublicKeys>,
    /// What comes with the program.
    standard: HashSet<Digest>,
}

impl Trust {
    /// Reads the keys that the configuration names.
    ///
    /// # Errors
    /// [`ConfigError::Field`] when they cannot be read.
    pub(crate) fn open(config: &ServerConfig) -> Result<Self, ConfigError> {
        let Some(path) = &config.require_signed else {
            return Ok(Self::default());
        };
        let no = |problem: String| ConfigError::Field {
            field: "require_signed",
            problem: format!("names {}, which cannot be used: {problem}", path.display()),
        };
        let text = std::fs::read_to_string(path).map_err(|error| no(error.to_string()))?;
        let keys = PublicKeys::parse(&text).map_err(|error| no(error.to_string()))?;
        Ok(Self {
            required: Some(keys),
            standard: standard_modules::digests().collect(),
        })
    }

    /// Whether one of the keys that must sign here has signed a module; false where none must.
    pub(crate) fn is_signed(
        &self,
        kind: ModuleKind,
        digest: &Digest,
        signature: Option<&Signature>,
    ) -> bool {
        let keys = self.required.as_ref().zip(signature);
        keys.is_some_and(|(keys, signature)| keys.verify(signature, digest, kind).is_ok())
    }

    /// Whether a module may be run.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub(crate) fn judge(
        &self,
        kind: ModuleKind,
        digest: &Digest,
        signature: Option<&Signature>,
    ) -> Result<(), String> {
        const HOW: &str = "sign it with `maitred module sign` and a key that this host trusts, and push it with its signature";
        match (&self.required, signature) {
            (Some(_), _) if self.standard.contains(digest) => Ok(()),
            (Some(keys), Some(signature)) => keys
                .verify(signature, digest, kind)
                .map(drop)
                .map_err(|error| format!("{error}; {HOW}")),
            (Some(_), None) => Err(format!(
                "it is not signed, and this host runs signed modules only (require_signed): {HOW}"
            )),
            (None, Some(signature)) => {
                let key = PublicKey(signature.key);
                signature::verify(&key, signature, digest, kind).map_err(|error| error.to_string())
            }
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maitred_sandbox::signature::{generate, sign};

    const KIND: ModuleKind = ModuleKind::Selector;

    #[test]
    fn what_must_be_signed_is_run_only_with_a_signature_of_a_trusted_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let ((ours, public), (theirs, _)) = (generate().unwrap(), generate().unwrap());
        std::fs::write(&path, format!("{public} ops\n")).unwrap();
        let config = ServerConfig {
            require_signed: Some(path.clone()),
            ..ServerConfig::default()
        };
        let trust = Trust::open(&config).unwrap();
        let digest = Digest::of(b"a module");
        let good = sign(&ours, &digest, KIND).unwrap();
        let strange = sign(&theirs, &digest, KIND).unwrap();
        let of_another = sign(&ours, &Digest::of(b"another"), KIND).unwrap();
        assert_eq!(trust.judge(KIND, &digest, Some(&good)), Ok(()));
        for (signature, says) in [
            (None, "not signed"),
            (Some(&strange), "not one of the keys"),
            (Some(&of_another), "does not fit"),
        ] {
            let why = trust.judge(KIND, &digest, signature).unwrap_err();
            assert!(why.contains(says) && why.contains("module sign"), "{why}");
        }
        let is_signed = |signature| trust.is_signed(KIND, &digest, signature);
        assert!(is_signed(Some(&good)));
        assert!(!is_signed(None) && !is_signed(Some(&strange)) && !is_signed(Some(&of_another)));
        for standard in standard_modules::digests() {
            assert_eq!(trust.judge(KIND, &standard, None), Ok(()));
        }

        // Nobody must sign: whoever has, must have signed this.
        let anybody = Trust::open(&ServerConfig::default()).unwrap();
        assert_eq!(anybody.judge(KIND, &digest, None), Ok(()));
        assert_eq!(anybody.judge(KIND, &digest, Some(&strange)), Ok(()));
        assert!(anybody.judge(KIND, &digest, Some(&of_another)).is_err());
        assert!(!anybody.is_signed(KIND, &digest, Some(&good)));

        std::fs::write(&path, "# nobody\n").unwrap();
        let error = Trust::open(&config).unwrap_err().to_string();
        assert!(error.contains("require_signed"), "{error}");
    }
}
