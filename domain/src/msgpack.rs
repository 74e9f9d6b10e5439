//! MessagePack without decoding it: where its values begin and end, and how many there are.
//!
//! <https://github.com/msgpack/msgpack/blob/master/spec.md>

/// Why bytes are no MessagePack that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A value ends behind the end.
    #[error("it ends in the middle of a value")]
    Cut,
    /// A byte that begins no value.
    #[error("byte {0:#04x} begins no value")]
    Unknown(u8),
    /// More values than are taken.
    #[error("more than {0} values")]
    TooMany(usize),
    /// Something follows the value.
    #[error("something follows the value")]
    More,
}

/// What begins at a place: its head, the bytes behind that, and the values inside.
struct Head {
    length: usize,
    bytes: usize,
    inside: usize,
    array: bool,
    map: bool,
}

fn head(from: &[u8]) -> Result<Head, Malformed> {
    let first = *from.first().ok_or(Malformed::Cut)?;
    let number = |bytes: usize| -> Result<usize, Malformed> {
        let digits = from.get(1..=bytes).ok_or(Malformed::Cut)?;
        Ok(digits.iter().fold(0, |number, digit| number << 8 | usize::from(*digit)))
    };
    let plain = |bytes| Head { length: 1, bytes, inside: 0, array: false, map: false };
    let long = |size: usize, extra: usize| -> Result<Head, Malformed> {
        Ok(Head { length: 1 + size, bytes: number(size)? + extra, ..plain(0) })
    };
    let array = |length, inside| Head { length, inside, array: true, ..plain(0) };
    let map = |length, inside: usize| Head { length, inside: inside * 2, map: true, ..plain(0) };
    Ok(match first {
        0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => plain(0),
        0x80..=0x8f => map(1, usize::from(first & 0x0f)),
        0x90..=0x9f => array(1, usize::from(first & 0x0f)),
        0xa0..=0xbf => plain(usize::from(first & 0x1f)),
        0xcc | 0xd0 => plain(1),
        0xcd | 0xd1 => plain(2),
        0xca | 0xce | 0xd2 => plain(4),
        0xcb | 0xcf | 0xd3 => plain(8),
        // An extension has a type behind its length.
        0xd4..=0xd8 => plain(1 + (1 << (first - 0xd4))),
        0xc4 | 0xd9 => long(1, 0)?,
        0xc5 | 0xda => long(2, 0)?,
        0xc6 | 0xdb => long(4, 0)?,
        0xc7 => long(1, 1)?,
        0xc8 => long(2, 1)?,
        0xc9 => long(4, 1)?,
        0xdc => array(3, number(2)?),
        0xdd => array(5, number(4)?),
        0xde => map(3, number(2)?),
        0xdf => map(5, number(4)?),
        0xc1 => return Err(Malformed::Unknown(first)),
    })
}

/// Where the value ends that begins at the start. Nothing nests deeper than memory: it is walked, not
/// called. `most` values are taken.
fn end(from: &[u8], most: usize) -> Result<usize, Malformed> {
    let (mut at, mut left, mut seen) = (0, 1usize, 0);
    while left > 0 {
        let Head { length, bytes, inside, .. } = head(from.get(at..).ok_or(Malformed::Cut)?)?;
        at += length + bytes;
        seen += 1;
        left = left - 1 + inside;
        if seen + left > most {
            return Err(Malformed::TooMany(most));
        }
    }
    if at > from.len() { Err(Malformed::Cut) } else { Ok(at) }
}

/// Checks that it is one value, of `most` values at most.
pub fn check(bytes: &[u8], most: usize) -> Result<(), Malformed> {
    if end(bytes, most)? == bytes.len() { Ok(()) } else { Err(Malformed::More) }
}

/// The elements of an array, each as it came; of anything else itself. `most` values in all.
pub fn elements(bytes: &[u8], most: usize) -> Result<Vec<&[u8]>, Malformed> {
    check(bytes, most)?;
    let Head { length, inside, array, .. } = head(bytes)?;
    if !array {
        return Ok(vec![bytes]);
    }
    let mut rest = &bytes[length..];
    (0..inside)
        .map(|_| {
            let (element, after) = rest.split_at(end(rest, most)?);
            rest = after;
            Ok(element)
        })
        .collect()
}

/// Whether a value is a map.
pub fn is_map(bytes: &[u8]) -> bool {
    head(bytes).is_ok_and(|head| head.map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn arrays_are_taken_apart_as_they_came() {
        // [{"a": 1}, {"b": [nil, "xy", -1, 2.5]}]
        let maps: [&[u8]; 2] =
            [b"\x81\xa1a\x01", b"\x81\xa1b\x94\xc0\xa2xy\xff\xcb\x40\x04\x00\x00\x00\x00\x00\x00"];
        let whole = [b"\x92", maps[0], maps[1]].concat();
        assert_eq!(elements(&whole, 100).unwrap(), maps);
        assert!(is_map(maps[0]) && !is_map(&whole));
        assert_eq!(elements(maps[0], 100).unwrap(), [maps[0]]);
        let long = [b"\xdc\x00\x02".as_slice(), maps[0], maps[1]].concat();
        assert_eq!(elements(&long, 100).unwrap(), maps);
    }

    #[test]
    fn what_is_none_is_named() {
        assert_eq!(check(b"", 9), Err(Malformed::Cut));
        assert_eq!(check(b"\xa2x", 9), Err(Malformed::Cut));
        assert_eq!(check(b"\xc1", 9), Err(Malformed::Unknown(0xc1)));
        assert_eq!(check(b"\x01\x02", 9), Err(Malformed::More));
        assert_eq!(check(b"\xdd\xff\xff\xff\xff", 9), Err(Malformed::TooMany(9)));
        assert_eq!(check(&vec![0x91; 1_000_000], 9), Err(Malformed::TooMany(9)));
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(all) = elements(&bytes, 1_000) {
                prop_assert!(all.iter().all(|one| check(one, 1_000).is_ok()));
            }
        }
    }
}
