//! JSON pointers (RFC 6901), without an allocation for what has no escape: a device type looks for
//! dozens of them in each message.

use serde_json::Value;
use std::borrow::Cow;

/// What a pointer leads to.
pub fn find<'v>(value: &'v Value, pointer: &str) -> Option<&'v Value> {
    if pointer.is_empty() {
        return Some(value);
    }
    let mut found = value;
    for token in pointer.strip_prefix('/')?.split('/') {
        found = match found {
            Value::Object(fields) => fields.get(&*unescaped(token))?,
            Value::Array(elements) => elements.get(index(token)?)?,
            _ => return None,
        };
    }
    Some(found)
}

/// A token as the key that it stands for.
pub fn unescaped(token: &str) -> Cow<'_, str> {
    // As bytes: a search by pattern costs more than the short token is worth.
    if token.bytes().any(|byte| byte == b'~') {
        token.replace("~1", "/").replace("~0", "~").into()
    } else {
        token.into()
    }
}

/// A place in a list: digits, without a leading zero.
fn index(token: &str) -> Option<usize> {
    let plain = token.bytes().all(|byte| byte.is_ascii_digit());
    if !plain || (token.len() > 1 && token.starts_with('0')) {
        return None;
    }
    token.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    proptest! {
        #[test]
        fn it_finds_what_the_library_finds(pointer in "(/(a|b|~0|~1|a~1b|0|1|01|-|\\+1|| )){0,4}") {
            let value = json!({"a": [{"b": 1, "~": 2, "/": 3, "a/b": {"": 4}}, [5, [6]]], "0": {"01": 7},
                "": {" ": 8, "-": 9, "+1": 10}, "b": null});
            prop_assert_eq!(find(&value, &pointer), value.pointer(&pointer));
        }
    }

    #[test]
    fn what_is_no_pointer_leads_nowhere() {
        assert_eq!(find(&json!({"a": 1}), "a"), None);
    }
}
