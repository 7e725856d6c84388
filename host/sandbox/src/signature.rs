//! Who vouches for a module: detached ed25519 signatures, and the files that keys are in.
//!
//! Holds: what is signed is [`CONTEXT`], the blake3 digest of the component and one byte for its kind
//! (0 selector, 1 callback, 2 fence), so that no signature fits another kind or another purpose. A
//! private key is PEM of PKCS#8, as `openssl genpkey -algorithm ed25519` writes it, too. A public key
//! is a line `ed25519 HEX NAME`, a signature a line `ed25519 HEX HEX`: the key, then what it signed.
//!
//! It decides nothing about who must sign; it reads and writes no file.

use std::fmt;
use std::str::FromStr;

use maitred_protocol::{Digest, ModuleKind, Signature};
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

const CONTEXT: &[u8; 18] = b"maitred-module-v1\0";
const ALGORITHM: &str = "ed25519";
const PEM_TAG: &str = "PRIVATE KEY";
/// Keys that one file may hold.
pub const KEYS_MAX: usize = 64;
/// Bytes of the name beside a key.
pub const KEY_NAME_BYTES_MAX: usize = 64;

/// Why something is not signed, or not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Make another with `module keygen`, or use the right file.
    #[error("it is no private key: PEM of an ed25519 key in PKCS#8 is wanted")]
    PrivateKey,
    /// The system gave no random numbers.
    #[error("no key could be made: the system has no random numbers")]
    Random,
    /// A line of a key file.
    #[error("line {line} is no public key: `ed25519`, 64 hexadecimal digits and a name are wanted")]
    PublicKey {
        /// From 1.
        line: usize,
    },
    /// The limit on key files.
    #[error("there are more than {KEYS_MAX} keys")]
    TooManyKeys,
    /// No line would ever be believed.
    #[error("there is no key in it")]
    NoKeys,
    /// Not what `module sign` writes.
    #[error("it is no signature: `ed25519` and 64 and 128 hexadecimal digits are wanted")]
    Signature,
    /// Sign with a key that is trusted, or have it added.
    #[error("it is signed by {0}, which is not one of the keys")]
    Unknown(PublicKey),
    /// The bytes were changed after they were signed, or it was signed as another kind of module.
    #[error("the signature of {0} does not fit the module: sign it again, as the kind that it is")]
    Wrong(PublicKey),
}

/// What somebody's signatures are checked with.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM} {}", Hex(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = SignatureError;

    fn from_str(text: &str) -> Result<Self, SignatureError> {
        let mut words = text.split_whitespace();
        let key = words.next().filter(|word| *word == ALGORITHM);
        let key = key.and(words.next()).and_then(bytes).map(Self);
        key.ok_or(SignatureError::PublicKey { line: 1 })
    }
}

/// The keys that are trusted, each with a name for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublicKeys(Vec<(PublicKey, String)>);

impl PublicKeys {
    /// Reads a key file: a key a line, 1 to [`KEYS_MAX`]; blank lines and lines that start with `#`
    /// are skipped.
    ///
    /// # Errors
    /// The first line that is no key, with its number; too many keys, or none.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        let mut keys = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = SignatureError::PublicKey { line: number + 1 };
            let key = line.parse().map_err(|_| wrong.clone())?;
            let name = line.splitn(3, char::is_whitespace).nth(2).unwrap_or("");
            if name.len() > KEY_NAME_BYTES_MAX {
                return Err(wrong);
            }
            if keys.len() == KEYS_MAX {
                return Err(SignatureError::TooManyKeys);
            }
            keys.push((key, name.trim().to_owned()));
        }
        if keys.is_empty() {
            return Err(SignatureError::NoKeys);
        }
        Ok(Self(keys))
    }

    /// Checks that one of these keys has signed the module; answers with the name beside the key.
    ///
    /// # Errors
    /// [`SignatureError::Unknown`] or [`SignatureError::Wrong`].
    pub fn verify(
        &self,
        signature: &Signature,
        digest: &Digest,
        kind: ModuleKind,
    ) -> Result<&str, SignatureError> {
        let signer = PublicKey(signature.key);
        let known = self.0.iter().find(|(key, _)| *key == signer);
        let (key, name) = known.ok_or(SignatureError::Unknown(signer))?;
        verify(key, signature, digest, kind)?;
        Ok(name)
    }
}

/// Makes a key: the text of its private half, and its public half.
///
/// # Errors
/// When the system has no random numbers.
pub fn generate() -> Result<(String, PublicKey), SignatureError> {
    let document =
        Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| SignatureError::Random)?;
    let text = pem::encode(&pem::Pem::new(PEM_TAG, document.as_ref()));
    let public = public_key(&text)?;
    Ok((text, public))
}

/// The public half of a private key.
///
/// # Errors
/// When the text is no such key.
pub fn public_key(pkcs8_pem: &str) -> Result<PublicKey, SignatureError> {
    let pair = pair(pkcs8_pem)?;
    let bytes = pair.public_key().as_ref().try_into();
    bytes.map(PublicKey).map_err(|_| SignatureError::PrivateKey)
}

/// Signs the module with this digest, as this kind.
///
/// # Errors
/// When `pkcs8_pem` is no private key.
pub fn sign(
    pkcs8_pem: &str,
    digest: &Digest,
    kind: ModuleKind,
) -> Result<Signature, SignatureError> {
    let signature = pair(pkcs8_pem)?.sign(&message(digest, kind));
    let bytes = signature.as_ref().try_into();
    Ok(Signature {
        key: public_key(pkcs8_pem)?.0,
        bytes: bytes.map_err(|_| SignatureError::PrivateKey)?,
    })
}

/// Checks a signature against one key.
///
/// # Errors
/// [`SignatureError::Unknown`] when it says that another key made it, else [`SignatureError::Wrong`].
pub fn verify(
    key: &PublicKey,
    signature: &Signature,
    digest: &Digest,
    kind: ModuleKind,
) -> Result<(), SignatureError> {
    if signature.key != key.0 {
        return Err(SignatureError::Unknown(PublicKey(signature.key)));
    }
    UnparsedPublicKey::new(&ED25519, &key.0)
        .verify(&message(digest, kind), &signature.bytes)
        .map_err(|_| SignatureError::Wrong(*key))
}

/// The line that `module sign` writes.
#[must_use]
pub fn format_signature(signature: &Signature) -> String {
    format!("{} {}\n", PublicKey(signature.key), Hex(&signature.bytes))
}

/// Reads that line.
///
/// # Errors
/// When it is none.
pub fn parse_signature(text: &str) -> Result<Signature, SignatureError> {
    let mut words = text.split_whitespace();
    let mut next = || words.next().ok_or(SignatureError::Signature);
    if next()? != ALGORITHM {
        return Err(SignatureError::Signature);
    }
    let (key, signed) = (next()?, next()?);
    if words.next().is_some() {
        return Err(SignatureError::Signature);
    }
    Ok(Signature {
        key: bytes(key).ok_or(SignatureError::Signature)?,
        bytes: bytes(signed).ok_or(SignatureError::Signature)?,
    })
}

fn pair(pkcs8_pem: &str) -> Result<Ed25519KeyPair, SignatureError> {
    let document = pem::parse(pkcs8_pem).map_err(|_| SignatureError::PrivateKey)?;
    if document.tag() != PEM_TAG {
        return Err(SignatureError::PrivateKey);
    }
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(document.contents())
        .map_err(|_| SignatureError::PrivateKey)
}

fn message(digest: &Digest, kind: ModuleKind) -> [u8; 51] {
    let mut message = [0; 51];
    message[..18].copy_from_slice(CONTEXT);
    message[18..50].copy_from_slice(&digest.0);
    message[50] = match kind {
        ModuleKind::Selector => 0,
        ModuleKind::Callback => 1,
        ModuleKind::Fence => 2,
    };
    message
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Reads exactly `N` bytes in hexadecimal digits.
fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digits = hex.as_bytes();
    if digits.len() != 2 * N || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: Digest = Digest([7; 32]);

    #[test]
    fn what_is_signed_is_believed_and_nothing_else() {
        let (private, public) = generate().unwrap();
        let signature = sign(&private, &DIGEST, ModuleKind::Callback).unwrap();
        let check = |signature: &Signature, digest, kind| verify(&public, signature, digest, kind);
        assert_eq!(check(&signature, &DIGEST, ModuleKind::Callback), Ok(()));
        let wrong = Err(SignatureError::Wrong(public));
        assert_eq!(check(&signature, &DIGEST, ModuleKind::Fence), wrong);
        assert_eq!(
            check(&signature, &Digest([8; 32]), ModuleKind::Callback),
            wrong
        );
        let mut changed = signature;
        changed.bytes[40] ^= 1;
        assert_eq!(check(&changed, &DIGEST, ModuleKind::Callback), wrong);

        let (_, other) = generate().unwrap();
        let keys = |one: &PublicKey| {
            PublicKeys::parse(&format!("# ours\n\n{other} bob\n{one} alice in ops\n"))
        };
        let known = keys(&public).unwrap();
        let name = known.verify(&signature, &DIGEST, ModuleKind::Callback);
        assert_eq!(name, Ok("alice in ops"));
        let unknown = keys(&other).unwrap();
        let error = unknown.verify(&signature, &DIGEST, ModuleKind::Callback);
        assert_eq!(error, Err(SignatureError::Unknown(public)));
    }

    /// The first of RFC 8032's test vectors (section 7.1), as a key that OpenSSL wrote: without the
    /// public half, which ring's own have.
    #[test]
    fn keys_of_others_are_read() {
        let private = "-----BEGIN PRIVATE KEY-----\n\
                       MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
                       -----END PRIVATE KEY-----\n";
        let public = "ed25519 d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(public_key(private).unwrap().to_string(), public);
        for wrong in [
            "",
            "x",
            &private.replace("MC4C", "MC4D"),
            &private.replace("PRIVATE", "PUBLIC"),
        ] {
            assert_eq!(public_key(wrong), Err(SignatureError::PrivateKey));
        }
    }

    #[test]
    fn texts_are_read_back() {
        let (private, public) = generate().unwrap();
        let signature = sign(&private, &DIGEST, ModuleKind::Selector).unwrap();
        let line = format_signature(&signature);
        assert_eq!(line.lines().count(), 1);
        assert_eq!(parse_signature(&line), Ok(signature));
        for wrong in [
            "",
            "ed25519",
            &line[8..],
            &line[..line.len() - 2],
            &format!("{line} x"),
        ] {
            assert_eq!(
                parse_signature(wrong),
                Err(SignatureError::Signature),
                "{wrong}"
            );
        }
        assert_eq!(public.to_string().parse(), Ok(public));
        assert_eq!(PublicKeys::parse("# none\n"), Err(SignatureError::NoKeys));
        let bad = PublicKeys::parse(&format!("{public} a\ned25519 é{} b", "0".repeat(62)));
        assert_eq!(bad, Err(SignatureError::PublicKey { line: 2 }));
        let many = format!("{public} a\n").repeat(KEYS_MAX + 1);
        assert_eq!(PublicKeys::parse(&many), Err(SignatureError::TooManyKeys));
    }
}
