//! The body as a whole, by rule 1 of `django_app/orders/rules.py`.
//!
//! With `lenient`, which looks at every value, serde_json keeps that rule (127 levels is its own limit) in all but one
//! point: numbers may have any size. One beyond a double is just too large for the member that it stands in.

use molt_entry::{Codec, EntryError, Payload};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::fault;
use crate::lenient::Lenient;
use crate::request::Request;

/// Decodes the body.
pub fn read(payload: Payload<'_>) -> Result<Request<'_>, EntryError> {
    let (format, request) = match payload.codec {
        Codec::Json => ("JSON", std::str::from_utf8(payload.bytes).ok().and_then(read_json)),
        Codec::Msgpack => ("MessagePack", payload.decode().ok()),
        other => {
            let other = format!("{other:?}").to_lowercase();
            return Err(EntryError::invalid(format!("entry \"order_summary\" takes json and msgpack, not {other}")));
        }
    };
    let Lenient(request) = request.ok_or_else(|| fault(&format!("the body is not valid {format}"), None, None))?;
    Ok(request)
}

fn read_json(text: &str) -> Option<Lenient<Request<'_>>> {
    serde_json::from_str(text).ok().or_else(|| {
        let tamed = tame(text);
        // A reader lends no text, so the request does not borrow from `tamed`.
        let mut decoder = serde_json::Deserializer::from_reader(tamed.as_bytes());
        let request = Lenient::deserialize(&mut decoder).ok()?;
        decoder.end().ok().map(|()| request)
    })
}

/// The text with 1e99, which no member takes either, for every number that is too large for a double.
fn tame(text: &str) -> String {
    let mut tamed = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) {
        let (between, token) = rest.split_at(start);
        let end = if token.starts_with('"') {
            string_end(token.as_bytes())
        } else {
            token.find(|c: char| !c.is_ascii_digit() && !"+-.eE".contains(c)).unwrap_or(token.len())
        };
        let (token, after) = token.split_at(end);
        let is_number = serde_json::from_str::<IgnoredAny>(token).is_ok() && !token.starts_with('"');
        let too_large = is_number && serde_json::from_str::<f64>(token).is_err();
        tamed.extend([between, if too_large { "1e99" } else { token }]);
        rest = after;
    }
    tamed + rest
}

/// Where the string that `token` begins with is over.
fn string_end(token: &[u8]) -> usize {
    let mut bytes = token.iter().enumerate().skip(1);
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return at + 1,
            b'\\' => _ = bytes.next(),
            _ => {}
        }
    }
    token.len()
}
