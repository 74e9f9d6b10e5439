//! Randomness without a state: hashes of (seed, stream, number), so that it makes no difference
//! how a run was cut.

use libm::{floor, sqrt};

/// What a stream's name is hashed to; one stream for each thing that varies.
pub(crate) type Stream = u64;

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finalizer of `SplitMix64` (Steele, Lea, Flood 2014): each bit of the input stirs all bits.
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The stream of a name (FNV-1a 64, stirred).
pub(crate) const fn stream(name: &str) -> Stream {
    let (bytes, mut hash, mut i) = (name.as_bytes(), 0xcbf2_9ce4_8422_2325_u64, 0);
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0100_0000_01b3);
        i += 1;
    }
    mix(hash)
}

/// A stream of its own below another, e.g. the arrivals of one zone.
pub(crate) const fn branch(stream: Stream, name: Stream) -> Stream {
    mix(stream.wrapping_add(name.rotate_left(17)))
}

/// 64 random bits.
pub(crate) const fn bits(seed: u64, stream: Stream, number: i64) -> u64 {
    mix(mix(seed.wrapping_add(stream)).wrapping_add((number as u64).wrapping_mul(GOLDEN)))
}

/// Evenly from 0 to below 1.
pub(crate) fn uniform(seed: u64, stream: Stream, number: i64) -> f64 {
    // 53 bits: each value is a double exactly.
    (bits(seed, stream, number) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Bell-shaped, mean 0, deviation 1, never beyond ±3.47: the sum of four even ones. The bound is
/// wanted: no reading is ever absurd.
pub(crate) fn bell(seed: u64, stream: Stream, number: i64) -> f64 {
    let bits = bits(seed, stream, number);
    let quarter = |shift: u32| ((bits >> shift) & 0xffff) as f64 / 65_536.0;
    (quarter(0) + quarter(16) + quarter(32) + quarter(48) - 2.0) * 1.732_050_807_568_877_2
}

/// Bell-shaped and autocorrelated: a smooth line through one [`bell`] value every `period` minutes,
/// scaled so that its deviation is 1 between them too.
pub(crate) fn drift(seed: u64, stream: Stream, minute: i64, period: i64) -> f64 {
    let block = minute.div_euclid(period);
    let at = minute.rem_euclid(period) as f64 / period as f64;
    let late = at * at * (3.0 - 2.0 * at);
    let early = 1.0 - late;
    let sum = early * bell(seed, stream, block) + late * bell(seed, stream, block + 1);
    sum / sqrt(early * early + late * late)
}

/// Rounds to the nearest of `steps` values a unit, halves upwards.
pub(crate) fn round_to(value: f64, steps: f64) -> f64 {
    // Adding zero turns −0 into 0, which reads better and serializes the same everywhere.
    floor(value * steps + 0.5) / steps + 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bells_have_mean_0_and_deviation_1_and_are_bounded() {
        for drawn in [|i| bell(7, stream("a"), i), |i| drift(7, stream("a"), i * 37, 60)] {
            let values: Vec<f64> = (0..20_000).map(drawn).collect();
            let mean = values.iter().sum::<f64>() / 20_000.0;
            let square = values.iter().map(|v| v * v).sum::<f64>() / 20_000.0;
            assert!(mean.abs() < 0.05, "{mean}");
            assert!((square - 1.0).abs() < 0.05, "{square}");
            assert!(values.iter().all(|v| v.abs() < 5.0));
        }
    }

    #[test]
    fn streams_and_seeds_differ_and_the_line_is_smooth() {
        assert_ne!(bits(1, stream("a"), 0), bits(2, stream("a"), 0));
        assert_ne!(bits(1, stream("a"), 0), bits(1, stream("b"), 0));
        for minute in -500..500 {
            let here = drift(3, stream("x"), minute, 240);
            let next = drift(3, stream("x"), minute + 1, 240);
            assert!((here - next).abs() < 0.1);
        }
    }

    #[test]
    fn rounding_gives_the_double_one_would_write() {
        assert!((round_to(21.449, 10.0) - 21.4).abs() < f64::EPSILON);
        assert_eq!(round_to(-0.04, 10.0).to_bits(), 0.0_f64.to_bits());
    }
}
