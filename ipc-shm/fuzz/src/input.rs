//! A fuzzer's bytes, read as numbers and slices. At its end it gives zeros: every input means something.

/// What is left of an input.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// At most `len` bytes.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn number<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let taken = self.bytes(N);
        bytes[..taken.len()].copy_from_slice(taken);
        bytes
    }

    pub fn u8(&mut self) -> u8 {
        self.number::<1>()[0]
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.number())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.number())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.number())
    }

    /// A number near to a sensible one, or any: what makes off-by-ones as likely as nonsense.
    pub fn near(&mut self, sensible: u64) -> u64 {
        match self.u8() {
            0 => sensible,
            by @ 1..=100 => sensible.wrapping_add(by as u64).wrapping_sub(50),
            101..=180 => sensible.wrapping_add((self.u8() as i8 as i64 as u64).wrapping_mul(64)),
            181..=220 => self.u16() as u64,
            _ => self.u64(),
        }
    }
}
