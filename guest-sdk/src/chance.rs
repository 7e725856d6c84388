//! Chance and hashes for policies: the same everywhere and for ever.
//!
//! The only source of chance is the seed of a request. What is here is not for secrets: whoever
//! knows the seed knows the draw, and ids that collide can be made on purpose.

/// Numbers drawn from the seed of a request: SplitMix64 (Steele, Lea and Flood, "Fast splittable
/// pseudorandom number generators", OOPSLA 2014).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// Starts the sequence that belongs to `seed`.
    #[must_use]
    pub fn new(seed: u32) -> Self {
        Self(u64::from(seed))
    }

    /// The next 32 bits.
    pub fn draw(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(GAMMA);
        (mix(self.0) >> 32) as u32
    }

    /// A number from 0 to `bound` - 1, each as likely as the others but for a bias below
    /// `bound` / 2^32; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        ((u64::from(self.draw()) * u64::from(bound)) >> 32) as u32
    }
}

/// A 64-bit hash of bytes: FNV-1a, then the finaliser of SplitMix64 (FNV alone leaves the high bits
/// of short inputs nearly equal). Frozen: policies that hash ids must agree between versions.
#[must_use]
pub fn stable_hash(bytes: &[u8]) -> u64 {
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    }))
}

/// Spreads every bit of `value` over all 64; one-to-one. To hash a pair, mix one half, add the
/// other, and mix again.
#[must_use]
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The odd number nearest to 2^64 divided by the golden ratio.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_and_the_hash_are_frozen() {
        // The published first values of SplitMix64 for seed 0, high halves.
        let mut chance = Chance::new(0);
        assert_eq!(
            [chance.draw(), chance.draw(), chance.draw()],
            [0xe220_a839, 0x6e78_9e6a, 0x06c4_5d18]
        );
        // FNV-1a's published value for "foobar" is 0x85944171f73967e8; mixed, it is this.
        assert_eq!(stable_hash(b"foobar"), mix(0x8594_4171_f739_67e8));
        assert_ne!(stable_hash(b""), stable_hash(b"\0"));
    }

    #[test]
    fn draws_stay_below_their_bound() {
        let mut chance = Chance::new(7);
        assert_eq!(chance.below(0), 0);
        assert_eq!(chance.below(1), 0);
        let mut seen = [false; 5];
        for _ in 0..100 {
            seen[chance.below(5) as usize] = true;
        }
        assert_eq!(seen, [true; 5]);
    }
}
