//! W3C trace context: which trace a request belongs to, so that the worker's log lines can be found from a span.

use std::fmt;

/// What a `traceparent` header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: [u8; 16],
    parent_id: [u8; 8],
    flags: u8,
}

impl TraceContext {
    /// Bytes of it at the end of a request's frame.
    pub const BYTES: usize = 25;

    /// Reads the text of a `traceparent` header; `None`: it is none, and by the standard it is then as if there were none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let [version] = hex(version)?;
        // Later versions may say more behind these four.
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return None;
        }
        let [flags] = hex(flags)?;
        Self { trace_id: hex(trace)?, parent_id: hex(parent)?, flags }.valid()
    }

    /// As it lies in a frame: trace id, parent id, flags.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..16].copy_from_slice(&self.trace_id);
        out[16..24].copy_from_slice(&self.parent_id);
        out[24] = self.flags;
        out
    }

    /// Reads what lies in a frame; `None`: an id is zero, which stands for none.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let (mut trace_id, mut parent_id) = ([0; 16], [0; 8]);
        trace_id.copy_from_slice(&bytes[..16]);
        parent_id.copy_from_slice(&bytes[16..24]);
        Self { trace_id, parent_id, flags: bytes[24] }.valid()
    }

    fn valid(self) -> Option<Self> {
        (self.trace_id != [0; 16] && self.parent_id != [0; 8]).then_some(self)
    }

    /// The trace's id: 32 digits.
    pub fn trace_id(&self) -> impl fmt::Display {
        let id = u128::from_be_bytes(self.trace_id);
        fmt::from_fn(move |out| write!(out, "{id:032x}"))
    }
}

/// Bytes of lower-case hexadecimal digits, two each.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut out = [0; N];
    for (byte, [high, low]) in out.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(out)
}

impl fmt::Display for TraceContext {
    /// As a `traceparent` header of version 0.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parent = u64::from_be_bytes(self.parent_id);
        write!(out, "00-{}-{parent:016x}-{:02x}", self.trace_id(), self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::TraceContext;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_header_is_read_as_it_was_written_and_so_are_its_bytes() {
        let context = TraceContext::parse(TEXT).unwrap();
        assert_eq!(context.to_string(), TEXT);
        assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(TraceContext::decode(&context.encode()), Some(context));
        assert_eq!(context.encode()[..2], [0x4b, 0xf9]);
        // A later version, with something that we do not know: what we know is read.
        let later = TEXT.replacen("00", "01", 1) + "-more";
        assert_eq!(TraceContext::parse(&later), Some(context));
    }

    #[test]
    fn what_is_no_header_is_none() {
        let zeros = |digits: usize| "0".repeat(digits);
        for wrong in [
            String::new(),
            "00".into(),
            TEXT[..54].into(),
            TEXT.to_uppercase(),
            TEXT.replacen("00", "ff", 1),
            TEXT.to_owned() + "-more",
            TEXT.to_owned() + "0",
            TEXT.replace("4bf9", "4bg9"),
            TEXT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &zeros(32)),
            TEXT.replace("00f067aa0ba902b7", &zeros(16)),
            TEXT.replace('-', "_"),
            TEXT.replacen("4b", "\u{e9}", 1),
        ] {
            assert_eq!(TraceContext::parse(&wrong), None, "{wrong:?}");
        }
        assert_eq!(TraceContext::decode(&[0; TraceContext::BYTES]), None);
    }
}
