//! Bodies in and out: which codecs there are, and how a function's types decide what it takes.

use std::io::{ErrorKind, Write};

use rmp_serde::decode::Error;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::abi;
use crate::error::EntryError;

/// What serde_json has by itself, for MsgPack too: a body that reaches this many levels of arrays and maps is refused.
const DEPTH_LIMIT: usize = 128;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Codec {
    Msgpack = abi::CODEC_MSGPACK,
    Json = abi::CODEC_JSON,
    Raw = abi::CODEC_RAW,
    Arrow = abi::CODEC_ARROW,
}

impl Codec {
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        [Self::Msgpack, Self::Json, Self::Raw, Self::Arrow].into_iter().find(|codec| *codec as u32 == number)
    }

    /// Its bit in [`abi::EntryDef::codecs`].
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// A request's body, not yet decoded. An entry that takes it instead of a type of its own gets every codec, and may
/// decode when and as it likes.
#[derive(Debug, Clone, Copy)]
pub struct Payload<'a> {
    pub codec: Codec,
    pub bytes: &'a [u8],
}

impl<'a> Payload<'a> {
    /// Decodes a JSON or MsgPack body. `T` may borrow text from it (`&'a str`, `Cow<'a, str>` with `#[serde(borrow)]`).
    ///
    /// # Errors
    /// `InvalidInput` when the body is malformed, does not fit `T`, is nested too deeply or goes on after its value.
    /// For JSON the details carry `line` and `column`, both from 1.
    pub fn decode<T: Deserialize<'a>>(self) -> Result<T, EntryError> {
        match self.codec {
            Codec::Json => decode_json(self.bytes),
            Codec::Msgpack => {
                decode_msgpack(self.bytes).map_err(|why| EntryError::invalid(format!("the body is {why}")))
            }
            other => Err(EntryError::invalid(format!("the body is {other:?}, but this entry reads JSON or MsgPack"))),
        }
    }
}

/// The whole body is checked as UTF-8 once: then text is borrowed from it without another look, and what no field takes
/// (which serde_json would skip unseen) is text too.
fn decode_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, EntryError> {
    let text = std::str::from_utf8(bytes).map_err(|why| {
        EntryError::invalid(format!("the body is not valid JSON: it is not UTF-8 from byte {} on", why.valid_up_to()))
    })?;
    serde_json::from_str(text).map_err(|why| {
        let reason = if why.is_data() { "does not fit" } else { "is not valid JSON" };
        EntryError::invalid(format!("the body {reason}: {why}"))
            .details(serde_json::json!({"line": why.line(), "column": why.column()}))
    })
}

/// Decodes one MsgPack value that has to fill `bytes`. The error is a clause without a subject.
pub(crate) fn decode_msgpack<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    let mut decoder = rmp_serde::Deserializer::from_read_ref(bytes);
    decoder.set_max_depth(DEPTH_LIMIT);
    let value = T::deserialize(&mut decoder).map_err(|why| format!("not valid MsgPack, or does not fit: {why}"))?;
    // The decoder does not tell where it stands; at the end of the bytes it finds no further marker.
    match IgnoredAny::deserialize(&mut decoder) {
        Err(Error::InvalidMarkerRead(why)) if why.kind() == ErrorKind::UnexpectedEof => Ok(value),
        _ => Err("not valid MsgPack: more bytes follow its value".to_string()),
    }
}

/// What a function can take: any serde type (then its requests are JSON or MsgPack), or [`Payload`].
pub trait Input<'a>: Sized {
    /// Bits of the codecs, see [`Codec::bit`].
    const CODECS: u32;

    /// Reads it from a request's body.
    fn read(payload: Payload<'a>) -> Result<Self, EntryError>;
}

impl<'a, T: Deserialize<'a>> Input<'a> for T {
    const CODECS: u32 = Codec::Json.bit() | Codec::Msgpack.bit();

    fn read(payload: Payload<'a>) -> Result<Self, EntryError> {
        payload.decode()
    }
}

impl<'a> Input<'a> for Payload<'a> {
    const CODECS: u32 = Codec::Json.bit() | Codec::Msgpack.bit() | Codec::Raw.bit() | Codec::Arrow.bit();

    fn read(payload: Payload<'a>) -> Result<Self, EntryError> {
        Ok(payload)
    }
}

/// What a function can answer: any serde type (written in the codec that the caller accepts), or [`Raw`].
pub trait Output {
    /// Writes it as `accept` asks. An error is either the writer's or says why it cannot be written so.
    fn write(&self, accept: Codec, to: &mut impl Write) -> Result<(), EntryError>;

    /// How many bytes that will be, where it is known beforehand.
    fn size_hint(&self) -> Option<usize> {
        None
    }
}

impl<T: Serialize> Output for T {
    fn write(&self, accept: Codec, to: &mut impl Write) -> Result<(), EntryError> {
        match accept {
            Codec::Json => serde_json::to_writer(to, self).map_err(unwritable),
            Codec::Msgpack => rmp_serde::encode::write_named(to, self).map_err(unwritable),
            other => Err(EntryError::invalid(format!("the answer is JSON or MsgPack, but {other:?} was asked for"))),
        }
    }
}

/// An answer whose bytes are sent as they are, whatever was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Raw<B>(pub B);

impl<B: AsRef<[u8]>> Output for Raw<B> {
    fn write(&self, _accept: Codec, to: &mut impl Write) -> Result<(), EntryError> {
        to.write_all(self.0.as_ref()).map_err(unwritable)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.as_ref().len())
    }
}

/// An answer that cannot be written: the entry's fault (a map whose keys are no strings, in JSON), never the caller's.
pub(crate) fn unwritable(why: impl std::fmt::Display) -> EntryError {
    EntryError::internal(format!("the answer cannot be written: {why}"))
}
