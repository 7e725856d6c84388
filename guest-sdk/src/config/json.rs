//! JSON (RFC 8259) as configurations need it: objects and lists nest 4 deep at most, keys are unique,
//! and surrogate pairs are refused (write the character itself). Numbers stay text until someone asks.

/// How deep objects and lists may nest, the outermost object included.
const DEPTH_MAX: usize = 4;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, which is as good as no key.
    Null,
    /// `true` or `false`.
    Truth(bool),
    /// A number as it is written.
    Number(String),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// An object, in the order in which it is written; no key twice.
    Object(Vec<(String, Value)>),
}

/// The members of the one object that `text` has to be.
pub(super) fn object(text: &str) -> Result<Vec<(String, Value)>, String> {
    let mut rest = Scanner { text, at: 0 };
    rest.expect('{')?;
    let members = rest.members(1)?;
    rest.space();
    if rest.rest().is_empty() {
        Ok(members)
    } else {
        Err(rest.error("text after the object"))
    }
}

/// The value of a number of at most 15 digits and moderate size, exactly rounded: the standard
/// library's parser takes any number and is a third as large as a policy.
pub(super) fn decimal(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let (sign, whole) = match whole.strip_prefix('-') {
        Some(whole) => (-1.0, whole),
        None => (1.0, whole),
    };
    if whole.len() + fraction.len() > 15 {
        return None;
    }
    let digits = whole.bytes().chain(fraction.bytes());
    let number = digits.fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    let exponent: i32 = exponent.parse().ok()?;
    let power = exponent.checked_sub(fraction.len() as i32)?;
    // Both are exact in an f64 up to 10^22, so that the one operation rounds once.
    if power.unsigned_abs() > 22 {
        return None;
    }
    let scale = (0..power.unsigned_abs()).fold(1.0, |scale, _| scale * 10.0);
    let number = sign * number as f64;
    Some(if power < 0 {
        number / scale
    } else {
        number * scale
    })
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

    /// What follows the brace of an object that is the `depth`-th.
    fn members(&mut self, depth: usize) -> Result<Vec<(String, Value)>, String> {
        let mut members: Vec<(String, Value)> = Vec::new();
        if self.take('}') {
            return Ok(members);
        }
        loop {
            let name = self.string()?;
            if members.iter().any(|(have, _)| *have == name) {
                return Err(self.error("a repeated key"));
            }
            self.expect(':')?;
            members.push((name, self.value(depth)?));
            if !self.take(',') {
                return self.expect('}').map(|()| members);
            }
        }
    }

    /// What follows the bracket of a list.
    fn list(&mut self, depth: usize) -> Result<Vec<Value>, String> {
        let mut list = Vec::new();
        if self.take(']') {
            return Ok(list);
        }
        loop {
            list.push(self.value(depth)?);
            if !self.take(',') {
                return self.expect(']').map(|()| list);
            }
        }
    }

    /// A value inside of `depth` objects and lists.
    fn value(&mut self, depth: usize) -> Result<Value, String> {
        self.space();
        if self.rest().starts_with('"') {
            return self.string().map(Value::Text);
        }
        if self.rest().starts_with(['{', '[']) && depth == DEPTH_MAX {
            return Err(self.error("nested too deep"));
        }
        if self.take('{') {
            return self.members(depth + 1).map(Value::Object);
        }
        if self.take('[') {
            return self.list(depth + 1).map(Value::List);
        }
        let rest = self.rest();
        let end = rest
            .find([',', '}', ']', ' ', '\t', '\n', '\r'])
            .unwrap_or(rest.len());
        let word = rest.get(..end).unwrap_or_default();
        let value = match word {
            "null" => Value::Null,
            "true" | "false" => Value::Truth(word == "true"),
            _ if is_number(word) => Value::Number(word.to_owned()),
            _ => return Err(self.error("no value")),
        };
        self.at += end;
        Ok(value)
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

    /// What follows a backslash.
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
    fn everything_but_one_object_is_refused() {
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
            "{\"a\":[1,]}",
            "{\"a\":[1}",
            "{\"a\":[[[[]]]]}",
            "{\"a\":{\"b\":{\"c\":{\"d\":{}}}}}",
            "{\"a\":{\"b\":1,\"b\":1}}",
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
            assert!(object(json).is_err(), "{json}");
        }
        assert!(object("{\"a\":[[[1]]]}").is_ok());
    }

    #[test]
    fn decimals_are_exact() {
        for text in [
            "0",
            "-0.1",
            "1e3",
            "0.3",
            "123456789012345",
            "-2.5E-3",
            "7e22",
            "1.0",
        ] {
            assert_eq!(decimal(text), text.parse().ok(), "{text}");
        }
        for text in ["1234567890123456", "1e23", "1e-23", "1e99999999999"] {
            assert_eq!(decimal(text), None, "{text}");
        }
    }
}
