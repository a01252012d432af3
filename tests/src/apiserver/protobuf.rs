//! The one object that is read from protobuf: a Namespace, since `kubectl create namespace` of 1.32 and later sends
//! nothing else, asks nobody before, and does not come back with JSON when it is refused.
//!
//! Absent: every other kind, whose fields would need their schema. A manifest (`-f`) is always JSON.
//! The wire format: <https://protobuf.dev/programming-guides/encoding/>; the envelope: `runtime.Unknown` of
//! `k8s.io/apimachinery/pkg/runtime/generated.proto`, behind four bytes.

use serde_json::{Map, Value, json};

const MAGIC: &[u8] = b"k8s\0";

/// The Namespace in a body, as JSON; nothing if it is none, or broken.
pub(super) fn namespace(body: &[u8]) -> Option<Value> {
    let envelope = fields(body.strip_prefix(MAGIC)?)?;
    let described = fields(first(&envelope, 1)?)?;
    if (text(&described, 1)?, text(&described, 2)?) != ("v1", "Namespace") {
        return None;
    }
    let object = fields(first(&envelope, 2)?)?;
    let sent = fields(first(&object, 1).unwrap_or_default())?;
    let mut metadata = Map::new();
    for (number, field) in [(1, "name"), (2, "generateName")] {
        if let Some(text) = text(&sent, number).filter(|text| !text.is_empty()) {
            metadata.insert(field.into(), text.into());
        }
    }
    for (number, field) in [(11, "labels"), (12, "annotations")] {
        let entries = sent.iter().filter(|(found, _)| *found == number);
        let entry = |entry: &[u8]| {
            let entry = fields(entry)?;
            Some((text(&entry, 1)?.to_owned(), text(&entry, 2).unwrap_or_default().into()))
        };
        let entries: Map<String, Value> = entries.map(|(_, bytes)| entry(bytes)).collect::<Option<_>>()?;
        if !entries.is_empty() {
            metadata.insert(field.into(), entries.into());
        }
    }
    Some(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
}

/// The fields of a message that hold bytes, with their numbers, in order; nothing if it is broken.
fn fields(mut message: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            0 => drop(varint(&mut message)?),
            1 => drop(take(&mut message, 8)?),
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                found.push((tag >> 3, take(&mut message, length)?));
            }
            5 => drop(take(&mut message, 4)?),
            _ => return None,
        }
    }
    Some(found)
}

fn first<'a>(fields: &[(u64, &'a [u8])], number: u64) -> Option<&'a [u8]> {
    fields.iter().find(|(found, _)| *found == number).map(|(_, bytes)| *bytes)
}

fn text<'a>(fields: &[(u64, &'a [u8])], number: u64) -> Option<&'a str> {
    std::str::from_utf8(first(fields, number)?).ok()
}

fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for place in 0..10 {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(from: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    fn body(kind: &[u8], object: &[u8]) -> Vec<u8> {
        let described = [field(1, b"v1"), field(2, kind)].concat();
        [MAGIC, &field(1, &described), &field(2, object), &field(3, b""), &field(4, b"")].concat()
    }

    #[test]
    fn a_namespace_is_read_and_nothing_else_is() {
        let label = [field(1, b"team"), field(2, b"a")].concat();
        // A number between the fields, as a creation time has.
        let metadata = [field(1, b"other"), vec![7 << 3, 0x80, 0x01], field(11, &label)].concat();
        let object = [field(1, &metadata), field(2, b""), field(3, b"")].concat();
        let expected = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "other", "labels": {"team": "a"}}});
        assert_eq!(namespace(&body(b"Namespace", &object)), Some(expected));
        assert_eq!(namespace(&body(b"Secret", &object)), None);
        assert_eq!(namespace(b"{}"), None);
        let whole = body(b"Namespace", &object);
        // What remains behind the object is empty: six bytes that may be missing.
        for end in 0..whole.len() - 4 {
            assert_eq!(namespace(&whole[..end]), None, "cut off at {end}");
        }
    }
}
