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
    rest.expect(b'{', "no `{`")?;
    let members = rest.members(1)?;
    rest.space();
    if rest.at == text.len() {
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

/// Reads byte by byte, which is much less code than by characters; every place where it cuts the text
/// is beside an ASCII byte, and so a border between characters.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn error(&self, what: &str) -> String {
        format!("configuration: {what} at byte {}", self.at)
    }

    /// The next byte; 0, which no valid text has outside of a string, at the end.
    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    fn from(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn space(&mut self) {
        while is_space(self.peek()) {
            self.at += 1;
        }
    }

    fn take(&mut self, wanted: u8) -> bool {
        self.space();
        let found = self.peek() == wanted;
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, wanted: u8, or: &str) -> Result<(), String> {
        if self.take(wanted) {
            Ok(())
        } else {
            Err(self.error(or))
        }
    }

    /// What follows the brace of an object that is the `depth`-th.
    fn members(&mut self, depth: usize) -> Result<Vec<(String, Value)>, String> {
        let mut members: Vec<(String, Value)> = Vec::new();
        if self.take(b'}') {
            return Ok(members);
        }
        loop {
            let name = self.string()?;
            if members.iter().any(|(have, _)| *have == name) {
                return Err(self.error("a repeated key"));
            }
            self.expect(b':', "no `:`")?;
            members.push((name, self.value(depth)?));
            if !self.take(b',') {
                return self.expect(b'}', "no `}`").map(|()| members);
            }
        }
    }

    /// What follows the bracket of a list.
    fn list(&mut self, depth: usize) -> Result<Vec<Value>, String> {
        let mut list = Vec::new();
        if self.take(b']') {
            return Ok(list);
        }
        loop {
            list.push(self.value(depth)?);
            if !self.take(b',') {
                return self.expect(b']', "no `]`").map(|()| list);
            }
        }
    }

    /// A value inside of `depth` objects and lists.
    fn value(&mut self, depth: usize) -> Result<Value, String> {
        self.space();
        match self.peek() {
            b'"' => return self.string().map(Value::Text),
            b'{' | b'[' if depth == DEPTH_MAX => return Err(self.error("nested too deep")),
            b'{' => {
                self.at += 1;
                return self.members(depth + 1).map(Value::Object);
            }
            b'[' => {
                self.at += 1;
                return self.list(depth + 1).map(Value::List);
            }
            _ => {}
        }
        let start = self.at;
        while !is_space(self.peek()) && !matches!(self.peek(), 0 | b',' | b'}' | b']') {
            self.at += 1;
        }
        match self.from(start) {
            "null" => Ok(Value::Null),
            "true" => Ok(Value::Truth(true)),
            "false" => Ok(Value::Truth(false)),
            word if is_number(word.as_bytes()) => Ok(Value::Number(word.to_owned())),
            _ => Err(self.error("no value")),
        }
    }

    fn string(&mut self) -> Result<String, String> {
        self.expect(b'"', "no `\"`")?;
        let mut text = String::new();
        loop {
            let start = self.at;
            while !matches!(self.peek(), b'"' | b'\\' | 0..b' ') {
                self.at += 1;
            }
            text.push_str(self.from(start));
            let last = self.peek();
            if last < b' ' {
                return Err(self.error("an open string, or a control character in one"));
            }
            self.at += 1;
            if last == b'"' {
                return Ok(text);
            }
            text.push(self.escape()?);
        }
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Result<char, String> {
        let escaped = self.peek();
        self.at += 1;
        Ok(match escaped {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'"' | b'\\' | b'/' => char::from(escaped),
            b'u' => {
                let mut code = 0;
                for _ in 0..4 {
                    let digit = char::from(self.peek()).to_digit(16);
                    code = code * 16 + digit.ok_or_else(|| self.error("a wrong escape"))?;
                    self.at += 1;
                }
                char::from_u32(code).ok_or_else(|| self.error("a surrogate"))?
            }
            _ => return Err(self.error("a wrong escape")),
        })
    }
}

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// JSON's grammar: an optional minus, an integer without leading zeros, a fraction, an exponent.
fn is_number(word: &[u8]) -> bool {
    /// What follows the digits that a text starts with; none when there are none.
    fn digits(text: &[u8]) -> Option<&[u8]> {
        let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        text.get(count..).filter(|_| count > 0)
    }
    let unsigned = word.strip_prefix(b"-").unwrap_or(word);
    let rest = match unsigned {
        [b'0', rest @ ..] => Some(rest),
        _ => digits(unsigned),
    };
    let rest = rest.and_then(|rest| match rest {
        [b'.', fraction @ ..] => digits(fraction),
        _ => Some(rest),
    });
    let rest = rest.and_then(|rest| match rest {
        [b'e' | b'E', b'+' | b'-', exponent @ ..] | [b'e' | b'E', exponent @ ..] => {
            digits(exponent)
        }
        _ => Some(rest),
    });
    rest.is_some_and(<[u8]>::is_empty)
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
            "{\"a\":-01}",
            "{\"a\":1e+}",
            "{\"a\":1.5.5}",
            "{\"a\":\0}",
            "{\"a\0\":1}",
            "{} \0",
            "{\"a\":\u{a0}1}",
        ] {
            assert!(object(json).is_err(), "{json}");
        }
        for json in [
            "{\"a\":[[[1]]]}",
            "{\"a\":-0.5e-7,\"é\":[10,0,0e0]}",
            "\t{ } \r\n",
        ] {
            assert!(object(json).is_ok(), "{json}");
        }
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
