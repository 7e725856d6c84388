//! Reads one text or number out of a configuration, which is a flat JSON object.
//!
//! Strict and small instead of general: a JSON library would be larger than the policies. The whole
//! text must be one object whose values are strings, numbers, `true`, `false` or `null`; an object
//! or a list as a value, a repeated key, and anything after the object are errors, never ignored.
//! It works on the text alone and knows nothing of the host.

/// The text under `key` in the flat JSON object `json`; none when there is no such key or it is
/// `null`.
///
/// # Errors
/// When `json` is not a flat object, a key is repeated, or the value under `key` is no string.
///
/// ```
/// use maitred_guest::config::text;
/// assert_eq!(text(r#"{"label": "rack", "width": 3}"#, "label"), Ok(Some("rack".to_owned())));
/// assert_eq!(text("{}", "label"), Ok(None));
/// assert!(text(r#"{"label": ["rack"]}"#, "label").is_err());
/// ```
pub fn text(json: &str, key: &str) -> Result<Option<String>, String> {
    match value(json, key)? {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Text(text)) => Ok(Some(text)),
        Some(Value::Number(_) | Value::Truth) => {
            Err(format!("configuration: `{key}` has to be a string"))
        }
    }
}

/// The whole number under `key` in the flat JSON object `json`; none when there is no such key or
/// it is `null`.
///
/// # Errors
/// When `json` is not a flat object, a key is repeated, or the value under `key` is not written as
/// a whole number from 0 to 2^32 - 1 (`1000`, not `1e3`).
///
/// ```
/// use maitred_guest::config::number;
/// assert_eq!(number(r#"{"label": "rack", "width": 3}"#, "width"), Ok(Some(3)));
/// assert_eq!(number("{}", "width"), Ok(None));
/// assert!(number(r#"{"width": -3}"#, "width").is_err());
/// ```
pub fn number(json: &str, key: &str) -> Result<Option<u32>, String> {
    match value(json, key)? {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(Some(number))) => Ok(Some(number)),
        Some(Value::Number(None) | Value::Text(_) | Value::Truth) => Err(format!(
            "configuration: `{key}` has to be a whole number from 0 to {}",
            u32::MAX
        )),
    }
}

/// The value under `key`, once the whole of `json` has been read.
fn value(json: &str, key: &str) -> Result<Option<Value>, String> {
    let mut rest = Scanner { text: json, at: 0 };
    let mut seen: Vec<String> = Vec::new();
    let mut found = None;
    rest.expect('{')?;
    if !rest.take('}') {
        loop {
            let name = rest.string()?;
            if seen.contains(&name) {
                return Err(rest.error("a repeated key"));
            }
            rest.expect(':')?;
            let value = rest.value()?;
            if name == key {
                found = Some(value);
            }
            seen.push(name);
            if !rest.take(',') {
                rest.expect('}')?;
                break;
            }
        }
    }
    rest.space();
    if rest.rest().is_empty() {
        Ok(found)
    } else {
        Err(rest.error("text after the object"))
    }
}

enum Value {
    Text(String),
    /// None when it is no whole number from 0 to 2^32 - 1.
    Number(Option<u32>),
    Truth,
    Null,
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn error(&self, what: &str) -> String {
        format!("configuration: {what} at byte {}", self.at)
    }

    fn space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn take(&mut self, wanted: char) -> bool {
        self.space();
        let found = self.rest().starts_with(wanted);
        self.at += if found { wanted.len_utf8() } else { 0 };
        found
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        if self.take(wanted) {
            Ok(())
        } else {
            Err(self.error(&format!("no `{wanted}`")))
        }
    }

    fn next(&mut self) -> Result<char, String> {
        let next = self
            .rest()
            .chars()
            .next()
            .ok_or_else(|| self.error("an open string"))?;
        self.at += next.len_utf8();
        Ok(next)
    }

    fn string(&mut self) -> Result<String, String> {
        self.expect('"')?;
        let mut text = String::new();
        loop {
            match self.next()? {
                '"' => return Ok(text),
                '\\' => text.push(self.escape()?),
                character if character < ' ' => return Err(self.error("a control character")),
                character => text.push(character),
            }
        }
    }

    /// What follows a backslash. Surrogate pairs are refused: write the character itself.
    fn escape(&mut self) -> Result<char, String> {
        Ok(match self.next()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            character @ ('"' | '\\' | '/') => character,
            'u' => {
                let mut code = 0;
                for _ in 0..4 {
                    let digit = self
                        .next()?
                        .to_digit(16)
                        .ok_or_else(|| self.error("a wrong escape"))?;
                    code = code * 16 + digit;
                }
                char::from_u32(code).ok_or_else(|| self.error("a surrogate"))?
            }
            _ => return Err(self.error("a wrong escape")),
        })
    }

    fn value(&mut self) -> Result<Value, String> {
        self.space();
        if self.rest().starts_with('"') {
            return self.string().map(Value::Text);
        }
        let rest = self.rest();
        let end = rest
            .find([',', '}', ' ', '\t', '\n', '\r'])
            .unwrap_or(rest.len());
        let word = rest.get(..end).unwrap_or_default();
        let value = match word {
            "null" => Value::Null,
            "true" | "false" => Value::Truth,
            _ if is_number(word) => Value::Number(word.parse().ok()),
            _ => return Err(self.error("no string, number, true, false or null")),
        };
        self.at += end;
        Ok(value)
    }
}

/// JSON's grammar: an optional minus, an integer without leading zeros, a fraction, an exponent.
fn is_number(word: &str) -> bool {
    let unsigned = word.strip_prefix('-').unwrap_or(word);
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && digits(fraction)
        && digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_objects_are_read() {
        let json = " { \"a\" : \"x\\n\\u00e9\\\"\" , \"b\" : -1.5e+3 , \"c\":true,\"d\":null,\"é\":\"ü\" } ";
        assert_eq!(text(json, "a"), Ok(Some("x\né\"".to_owned())));
        assert_eq!(text(json, "é"), Ok(Some("ü".to_owned())));
        assert_eq!(text(json, "d"), Ok(None));
        assert_eq!(text(json, "e"), Ok(None));
        assert!(text(json, "b").is_err());
        assert!(text(json, "c").is_err());
    }

    #[test]
    fn only_whole_numbers_are_numbers() {
        let json = r#"{"a":0,"b":4294967295,"c":4294967296,"d":-1,"e":1.0,"f":1e3,"g":"1","h":true,"i":null}"#;
        assert_eq!(number(json, "a"), Ok(Some(0)));
        assert_eq!(number(json, "b"), Ok(Some(u32::MAX)));
        for key in ["c", "d", "e", "f", "g", "h"] {
            assert!(number(json, key).is_err(), "{key}");
        }
        assert_eq!(number(json, "i"), Ok(None));
        assert_eq!(number(json, "j"), Ok(None));
    }

    #[test]
    fn everything_else_is_refused() {
        for json in [
            "",
            "null",
            "[]",
            "{",
            "}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "{\"a\":1 \"b\":2}",
            "{} {}",
            "{\"a\":{}}",
            "{\"a\":[1]}",
            "{\"a\":\"x}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12\"}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":.5}",
            "{\"a\":1e}",
            "{\"a\":+1}",
            "{\"a\":-}",
            "{\"a\":tru}",
            "{\"a\":\"\n\"}",
            "{'a':1}",
            "{\"a\":1,\"a\":2}",
            "{\"a\":NaN}",
        ] {
            assert!(text(json, "z").is_err(), "{json}");
            assert!(number(json, "z").is_err(), "{json}");
        }
    }
}
