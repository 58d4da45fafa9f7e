//! `record!`: a fixed little-endian record, declared once, with its offsets derived from the declaration.
//!
//! Every header in the segment, in a ring or on the socket is one of these. The macro refuses a declaration whose fields
//! leave a hole or do not add up to the stated size, so an offset is never typed by hand, and `FIELDS` lets a test hold
//! `spec/layout.md` against the compiled truth.

/// One field of a record: where it lies and how wide it is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The field's name, as in `spec/layout.md`.
    pub name: &'static str,
    /// Bytes from the record's start.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
}

macro_rules! record {
    ($(#[$meta:meta])* $name:ident: $bytes:literal { $( $(#[$field_meta:meta])* $field:ident: $type:ty, )* }) => {
        $(#[$meta])*
        #[allow(missing_docs, reason = "a group of fields may share one comment")]
        #[repr(C)]
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct $name { $( $(#[$field_meta])* pub $field: $type, )* }

        impl $name {
            /// Bytes of the record.
            pub const BYTES: usize = $bytes;
            /// Every field with its place.
            pub const FIELDS: &'static [$crate::record::Field] = &[$( $crate::record::Field {
                name: stringify!($field),
                offset: std::mem::offset_of!($name, $field),
                size: size_of::<$type>(),
            }, )*];

            /// The record as it lies in memory and on the wire.
            #[inline]
            pub fn encode(&self) -> [u8; $bytes] {
                let mut out = [0; $bytes];
                $( out[std::mem::offset_of!($name, $field)..][..size_of::<$type>()]
                    .copy_from_slice(&self.$field.to_le_bytes()); )*
                out
            }

            /// Reads a record from a private copy of its bytes.
            pub fn decode(bytes: &[u8; $bytes]) -> Self {
                Self { $( $field: {
                    let mut field = [0; size_of::<$type>()];
                    field.copy_from_slice(&bytes[std::mem::offset_of!($name, $field)..][..size_of::<$type>()]);
                    <$type>::from_le_bytes(field)
                }, )* }
            }
        }

        const _: () = {
            assert!(size_of::<$name>() == $bytes, "the fields do not add up to the stated size");
            let mut end = 0;
            let mut i = 0;
            while i < $name::FIELDS.len() {
                assert!($name::FIELDS[i].offset == end, "a hole between two fields");
                end += $name::FIELDS[i].size;
                i += 1;
            }
            assert!(end == $bytes, "a hole at the end");
        };
    };
}
pub(crate) use record;
