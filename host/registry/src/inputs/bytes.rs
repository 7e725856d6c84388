//! Numbers, texts and floats, to bytes and checked back.

use super::InputsError;

/// What is written.
pub(super) trait Put {
    /// A number, 1 to 10 bytes (LEB128).
    fn put(&mut self, number: u64);
    /// From one number to another: small when they are near, also over the end of the range.
    fn put_step(&mut self, from: u64, to: u64);
    /// The same, of 32 bits.
    fn put_short_step(&mut self, from: u32, to: u32);
    /// Its length, and it.
    fn put_text(&mut self, text: &str);
    /// Its bits.
    fn put_float(&mut self, value: f32);
}

impl Put for Vec<u8> {
    fn put(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.push(number as u8);
    }

    fn put_step(&mut self, from: u64, to: u64) {
        let step = to.wrapping_sub(from) as i64;
        self.put(((step << 1) ^ (step >> 63)) as u64);
    }

    fn put_short_step(&mut self, from: u32, to: u32) {
        let step = to.wrapping_sub(from) as i32;
        self.put(u64::from(((step << 1) ^ (step >> 31)) as u32));
    }

    fn put_text(&mut self, text: &str) {
        self.put(text.len() as u64);
        self.extend_from_slice(text.as_bytes());
    }

    fn put_float(&mut self, value: f32) {
        self.extend_from_slice(&value.to_bits().to_le_bytes());
    }
}

/// What is yet to be read.
pub(super) struct Take<'a>(&'a [u8]);

impl<'a> Take<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn end(&self) -> Result<(), InputsError> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(InputsError::Damaged("bytes after the end of a frame"))
    }

    pub(super) fn exact<const N: usize>(&mut self) -> Result<[u8; N], InputsError> {
        let short = InputsError::Damaged("a frame that ends too early");
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(short)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn byte(&mut self) -> Result<u8, InputsError> {
        self.exact::<1>().map(|[byte]| byte)
    }

    pub(super) fn flag(&mut self) -> Result<bool, InputsError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(InputsError::Damaged("a flag that is neither 0 nor 1")),
        }
    }

    pub(super) fn number(&mut self) -> Result<u64, InputsError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(InputsError::Damaged("a number of more than 64 bits"))
    }

    pub(super) fn short(&mut self) -> Result<u32, InputsError> {
        let wide = InputsError::Damaged("a number of more than 32 bits");
        u32::try_from(self.number()?).map_err(|_| wide)
    }

    pub(super) fn step(&mut self, from: u64) -> Result<u64, InputsError> {
        let bits = self.number()?;
        let step = (bits >> 1) as i64 ^ -((bits & 1) as i64);
        Ok(from.wrapping_add(step as u64))
    }

    pub(super) fn short_step(&mut self, from: u32) -> Result<u32, InputsError> {
        let bits = self.short()?;
        let step = (bits >> 1) as i32 ^ -((bits & 1) as i32);
        Ok(from.wrapping_add(step as u32))
    }

    /// How many things follow, each of which takes a byte at least: what is claimed here is never
    /// more than there can be, so that room may be made for it.
    pub(super) fn count(&mut self) -> Result<usize, InputsError> {
        let count = self.number()?;
        if count > self.0.len() as u64 {
            return Err(InputsError::Damaged(
                "more of something than there are bytes",
            ));
        }
        Ok(count as usize)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, InputsError> {
        let length = self.count()?;
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| InputsError::Damaged("a text that is not UTF-8"))
    }

    /// A name, by the rules of its type.
    pub(super) fn name<T: std::str::FromStr>(&mut self) -> Result<T, InputsError> {
        let name = self.text()?.parse();
        name.map_err(|_| InputsError::Damaged("a name that cannot be one"))
    }

    pub(super) fn float(&mut self) -> Result<f32, InputsError> {
        Ok(f32::from_bits(u32::from_le_bytes(self.exact()?)))
    }
}

/// Writes the places at which two rows of the same length differ, and how.
pub(super) fn put_changes<T, U>(
    out: &mut Vec<u8>,
    before: &mut [T],
    now: &[U],
    mut put: impl FnMut(&mut Vec<u8>, &mut T, &U) -> bool,
) {
    let mut gap = 1;
    for (before, now) in before.iter_mut().zip(now) {
        let end = out.len();
        out.put(gap);
        if put(out, before, now) {
            gap = 1;
        } else {
            out.truncate(end);
            gap += 1;
        }
    }
    out.put(0);
}

/// Reads what [`put_changes`] wrote.
pub(super) fn take_changes<T>(
    bytes: &mut Take<'_>,
    before: &mut [T],
    mut take: impl FnMut(&mut Take<'_>, &mut T) -> Result<(), InputsError>,
) -> Result<(), InputsError> {
    let mut rest = before.iter_mut();
    loop {
        let Some(skip) = bytes.number()?.checked_sub(1) else {
            return Ok(());
        };
        let place = usize::try_from(skip).ok().and_then(|skip| rest.nth(skip));
        take(
            bytes,
            place.ok_or(InputsError::Damaged("a node that is not there"))?,
        )?;
    }
}
