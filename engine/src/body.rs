//! A request's body and params, as entries get them: a private bounded copy for decoders, tables where they lie.

use molt_ipc_shm::Codec;
use molt_ipc_shm::arena::BadHandle;
use molt_ipc_shm::frame::Handle;
use molt_ipc_shm::worker::{Inflight, Payload};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::sql::InputTable;
use crate::sql::rows::RowFormat;

/// Deepest nesting of MsgPack. The library's own bound of 1,024 is beyond what a thread's stack takes in every build.
pub const MSGPACK_DEPTH: usize = 100;

/// A body.
#[derive(Debug)]
pub enum Body<'a> {
    /// Encoded bytes that no other process can change.
    Bytes(Codec, &'a [u8]),
    /// Tables read in place, and bytes that had to be copied (0 where we placed them).
    Tables(Vec<InputTable>, u64),
}

/// A handle that is wrong is the client's fault, and its alone.
pub fn bad_handle(bad: BadHandle) -> Failure {
    Failure::invalid(format!("the request names bytes that are not its own: {bad}"))
}

/// The codec of the payload.
pub fn codec(request: &Inflight) -> Result<Codec, Failure> {
    let number = request.head.codec;
    request.codec().ok_or_else(|| Failure::invalid(format!("codec {number} is none of msgpack, json, raw, arrow")))
}

/// Reads the body: tables where they lie, anything else as a copy in `scratch` (or in the frame's copy).
pub fn read<'a>(request: &'a Inflight, scratch: &'a mut Vec<u8>) -> Result<Body<'a>, Failure> {
    let codec = codec(request)?;
    match request.payload().map_err(bad_handle)? {
        Payload::Tables(inputs) => {
            let mut copied = 0;
            let mut tables = Vec::with_capacity(inputs.len());
            for input in inputs {
                let (table, bytes) = table(request, input.name, &input.handle)?;
                copied += bytes;
                tables.push(table);
            }
            Ok(Body::Tables(tables, copied))
        }
        Payload::Arena(handle) if codec == Codec::Arrow => {
            let (table, copied) = table(request, String::new(), &handle)?;
            Ok(Body::Tables(vec![table], copied))
        }
        Payload::Arena(handle) => {
            request.copy_into(&handle, scratch);
            Ok(Body::Bytes(codec, scratch))
        }
        // Nothing is no table, but a statement without inputs needs none.
        Payload::Inline([]) => Ok(Body::Bytes(codec, &[])),
        Payload::Inline(bytes) if codec == Codec::Arrow => {
            // Too small for the arena when it was sent: it is put there, so that tables are read in one way only.
            let block = request
                .result_block(bytes.len())
                .map_err(|full| Failure::new(molt_ipc_shm::Outcome::Busy, full.to_string()))?;
            block.write(0, bytes);
            let handle = block.handle();
            let read = request.read_own_table(block).map_err(|fault| Failure::invalid(fault.to_string()))?;
            let table = InputTable { name: String::new(), schema: read.schema, batches: read.batches, inferred: false };
            Ok(Body::Tables(vec![table], handle.len + read.copied_bytes))
        }
        Payload::Inline(bytes) => Ok(Body::Bytes(codec, bytes)),
    }
}

/// The body as bytes, whatever its codec: for entries that decode by themselves.
pub fn bytes<'a>(request: &'a Inflight, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], Failure> {
    match request.payload().map_err(bad_handle)? {
        Payload::Inline(bytes) => Ok(bytes),
        Payload::Arena(handle) => {
            request.copy_into(&handle, scratch);
            Ok(scratch)
        }
        Payload::Tables(_) => {
            Err(Failure::invalid(format!("entry \"{}\" takes one body, not tables", request.entry())))
        }
    }
}

fn table(request: &Inflight, name: String, handle: &Handle) -> Result<(InputTable, u64), Failure> {
    let table = request.read_table(handle).map_err(|fault| {
        let which = if name.is_empty() { String::new() } else { format!("table \"{name}\": ") };
        Failure::invalid(format!("{which}{fault}"))
    })?;
    Ok((InputTable { name, schema: table.schema, batches: table.batches, inferred: false }, table.copied_bytes))
}

/// The params as a JSON object.
pub fn params(request: &Inflight) -> Result<Map<String, Value>, Failure> {
    let bytes = request.params().map_err(bad_handle)?;
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    from_msgpack(&bytes).map_err(|what| Failure::invalid(format!("the params are no MsgPack map: {what}")))
}

/// Decodes MsgPack, bounded in depth, all of the bytes.
pub fn from_msgpack<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, String> {
    let mut rest = bytes;
    let mut decoder = rmp_serde::Deserializer::new(&mut rest);
    decoder.set_max_depth(MSGPACK_DEPTH);
    let value = T::deserialize(&mut decoder).map_err(|error| error.to_string())?;
    drop(decoder);
    if rest.is_empty() { Ok(value) } else { Err(format!("{} bytes follow its end", rest.len())) }
}

/// JSON or MsgPack as rows; others hold none.
pub fn row_format(entry: &str, codec: Codec) -> Result<RowFormat, Failure> {
    match codec {
        Codec::Json => Ok(RowFormat::Json),
        Codec::MsgPack => Ok(RowFormat::MsgPack),
        other => Err(wrong_codec(entry, other, "arrow, json, msgpack")),
    }
}

/// The entry does not take that codec.
pub fn wrong_codec(entry: &str, codec: Codec, takes: &str) -> Failure {
    Failure::invalid(format!("entry \"{entry}\" takes and answers {takes}, not {}", codec.name()))
}
