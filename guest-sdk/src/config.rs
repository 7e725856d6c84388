//! Reads a configuration: one JSON object whose keys the policy names beforehand.
//!
//! Strict and small instead of general: a JSON library would be larger than the policies. A key that
//! is not named, a repeated key, anything after the object and whatever is not JSON are errors,
//! never ignored, so that a typing error is refused before a version is activated with it. It works
//! on the text alone and knows nothing of the host.

mod json;

use std::ops::RangeInclusive;

pub use json::Value;

/// Refuses every configuration but an empty one: what a policy without keys makes of it.
///
/// # Errors
/// A sentence for the operator, unless `json` is `{}`.
pub fn nothing(json: &str) -> Result<(), String> {
    let written = json.bytes().filter(|&byte| !json::is_space(byte));
    if written.eq(*b"{}") {
        Ok(())
    } else {
        Err("configuration: there is nothing to configure".to_owned())
    }
}

/// A configuration that was read.
///
/// ```
/// use maitred_guest::config::Config;
/// let config = Config::parse(r#"{"label": "rack", "choices": 3}"#, &["label", "choices", "local"])?;
/// assert_eq!(config.text("label")?, Some("rack"));
/// assert_eq!(config.number("choices", 1..=16)?, Some(3));
/// assert_eq!(config.truth("local")?, None);
/// assert!(Config::parse(r#"{"lable": "rack"}"#, &["label"]).is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Config(Vec<(String, Value)>);

impl Config {
    /// Reads `json`, whose keys have to be among `keys`.
    ///
    /// # Errors
    /// A sentence for the operator: what is wrong, and where.
    pub fn parse(json: &str, keys: &[&str]) -> Result<Self, String> {
        let members = json::object(json)?;
        match members
            .iter()
            .find(|(key, _)| !keys.contains(&key.as_str()))
        {
            Some((key, _)) => Err(format!(
                "configuration: no key `{key}`; there are {}",
                keys.join(", ")
            )),
            None => Ok(Self(members)),
        }
    }

    /// The value under `key`; none when there is no such key or it is `null`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        let (_, value) = self.0.iter().find(|(have, _)| have == key)?;
        (*value != Value::Null).then_some(value)
    }

    /// The text under `key`, if any.
    ///
    /// # Errors
    /// When it is something else.
    pub fn text(&self, key: &str) -> Result<Option<&str>, String> {
        self.get(key).map(|value| value.text(key)).transpose()
    }

    /// The whole number under `key` (`1000`, not `1e3`), if any.
    ///
    /// # Errors
    /// When it is something else, or out of `range`.
    pub fn number(&self, key: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, String> {
        self.get(key)
            .map(|value| value.number(key, range))
            .transpose()
    }

    /// The number under `key`, if any.
    ///
    /// # Errors
    /// When it is something else, out of `range`, or of more than 15 digits.
    pub fn real(&self, key: &str, range: RangeInclusive<i32>) -> Result<Option<f32>, String> {
        self.get(key)
            .map(|value| value.real(key, range))
            .transpose()
    }

    /// The `true` or `false` under `key`, if any.
    ///
    /// # Errors
    /// When it is something else.
    pub fn truth(&self, key: &str) -> Result<Option<bool>, String> {
        self.get(key).map(|value| value.truth(key)).transpose()
    }

    /// The list of texts under `key`, if any.
    ///
    /// # Errors
    /// When it is something else.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>, String> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let Value::List(list) = value else {
            return Err(wrong(key, "a list of strings"));
        };
        list.iter()
            .map(|one| one.text(key))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// The members of the object under `key`, in the order in which they are written, if any.
    ///
    /// # Errors
    /// When it is something else.
    pub fn pairs(&self, key: &str) -> Result<Option<&[(String, Value)]>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(members)) => Ok(Some(members)),
            Some(_) => Err(wrong(key, "an object")),
        }
    }
}

impl Value {
    /// This value as a text; `key` is what an error calls it.
    ///
    /// # Errors
    /// When it is none.
    pub fn text(&self, key: &str) -> Result<&str, String> {
        match self {
            Self::Text(text) => Ok(text),
            _ => Err(wrong(key, "a string")),
        }
    }

    /// This value as a whole number; `key` is what an error calls it.
    ///
    /// # Errors
    /// When it is none, or out of `range`.
    pub fn number(&self, key: &str, range: RangeInclusive<u32>) -> Result<u32, String> {
        let number = match self {
            Self::Number(text) => text.parse().ok(),
            _ => None,
        };
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                let (from, to) = range.into_inner();
                wrong(key, &format!("a whole number from {from} to {to}"))
            })
    }

    /// This value as a number; `key` is what an error calls it.
    ///
    /// # Errors
    /// When it is none, out of `range`, or of more than 15 digits.
    pub fn real(&self, key: &str, range: RangeInclusive<i32>) -> Result<f32, String> {
        let number = match self {
            Self::Number(text) => json::decimal(text),
            _ => None,
        };
        let (from, to) = range.into_inner();
        number
            .filter(|number| (f64::from(from)..=f64::from(to)).contains(number))
            .map(|number| number as f32)
            .ok_or_else(|| wrong(key, &format!("a number from {from} to {to}")))
    }

    /// This value as `true` or `false`; `key` is what an error calls it.
    ///
    /// # Errors
    /// When it is neither.
    pub fn truth(&self, key: &str) -> Result<bool, String> {
        match self {
            Self::Truth(truth) => Ok(*truth),
            _ => Err(wrong(key, "true or false")),
        }
    }
}

fn wrong(key: &str, wanted: &str) -> String {
    format!("configuration: `{key}` has to be {wanted}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &[&str] = &["a", "b", "c", "d", "e", "f", "g", "h", "i", "é"];

    #[test]
    fn values_are_read_by_their_kind() {
        let json = " { \"a\" : \"x\\n\\u00e9\\\"\" , \"b\" : -1.5e+1 , \"c\":true,\"d\":null,\
                    \"é\":\"ü\", \"f\": [\"p\", \"q\"], \"g\": {\"north\": 3, \"south\": 0.25}, \
                    \"h\": [], \"i\": {} } ";
        let config = Config::parse(json, KEYS).unwrap();
        assert_eq!(config.text("a"), Ok(Some("x\né\"")));
        assert_eq!(config.text("é"), Ok(Some("ü")));
        assert_eq!(config.text("d"), Ok(None));
        assert_eq!(config.text("e"), Ok(None));
        assert_eq!(config.real("b", -20..=0), Ok(Some(-15.0)));
        assert_eq!(config.truth("c"), Ok(Some(true)));
        assert_eq!(config.texts("f"), Ok(Some(vec!["p", "q"])));
        assert_eq!(config.texts("h"), Ok(Some(vec![])));
        let caps = config.pairs("g").unwrap().unwrap();
        assert_eq!(caps[0].0, "north");
        assert_eq!(caps[0].1.number("g", 0..=9), Ok(3));
        assert_eq!(caps[1].1.real("g", 0..=1), Ok(0.25));
        assert_eq!(config.pairs("i"), Ok(Some(&[][..])));
        for key in ["b", "c", "f", "g"] {
            assert!(config.text(key).is_err());
        }
        assert!(config.texts("a").is_err() && config.texts("g").is_err());
        assert!(config.pairs("f").is_err() && config.truth("a").is_err());
    }

    #[test]
    fn numbers_keep_their_range() {
        let json = r#"{"a":0,"b":4294967295,"c":4294967296,"d":-1,"e":1.0,"f":1e3,"g":"1","h":true,"i":null}"#;
        let config = Config::parse(json, KEYS).unwrap();
        assert_eq!(config.number("a", 0..=0), Ok(Some(0)));
        assert_eq!(config.number("b", 0..=u32::MAX), Ok(Some(u32::MAX)));
        for key in ["c", "d", "e", "f", "g", "h"] {
            assert!(config.number(key, 0..=u32::MAX).is_err(), "{key}");
        }
        assert_eq!(config.number("i", 0..=9), Ok(None));
        assert_eq!(
            config.number("a", 1..=16),
            Err("configuration: `a` has to be a whole number from 1 to 16".to_owned())
        );
        assert_eq!(config.real("f", 0..=1_000), Ok(Some(1_000.0)));
        assert!(config.real("f", 0..=999).is_err() && config.real("h", 0..=1).is_err());
    }

    #[test]
    fn keys_that_nobody_reads_are_refused() {
        let error = Config::parse(r#"{"lable": 1}"#, &["label", "weight"]).unwrap_err();
        assert_eq!(
            error,
            "configuration: no key `lable`; there are label, weight"
        );
        assert_eq!(nothing(" { } "), Ok(()));
        for json in ["", "{", "[]", r#"{"a": 1}"#] {
            assert!(nothing(json).is_err(), "{json}");
        }
    }
}
