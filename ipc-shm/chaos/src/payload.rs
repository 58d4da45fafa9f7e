//! Bodies whose every byte says whose they are: a block that two owners share, a stale handle or a torn copy shows at once.

/// The body's own head: client, sequence number, bytes in all, bytes wanted back.
pub const HEAD: usize = 16;

/// Whose request a body belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// The client process, as the stage numbers it.
    pub client: u32,
    /// The request, as the client numbers it.
    pub seq: u32,
}

impl Key {
    fn seed(self, salt: u64) -> u64 {
        (u64::from(self.client) << 32 | u64::from(self.seq)) ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// Bytes that differ by seed and place (splitmix64 of the place).
pub fn fill(seed: u64, out: &mut [u8]) {
    for (place, chunk) in out.chunks_mut(8).enumerate() {
        let mut word = seed.wrapping_add((place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bytes = (word ^ (word >> 31)).to_le_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
    }
}

/// A request's body of at least [`HEAD`] bytes; `want`: what its entry is asked for (bytes, microseconds).
pub fn request(key: Key, len: usize, want: u32) -> Vec<u8> {
    let len = len.max(HEAD);
    let mut body = vec![0; len];
    body[..4].copy_from_slice(&key.client.to_le_bytes());
    body[4..8].copy_from_slice(&key.seq.to_le_bytes());
    body[8..12].copy_from_slice(&(len as u32).to_le_bytes());
    body[12..16].copy_from_slice(&want.to_le_bytes());
    fill(key.seed(1), &mut body[HEAD..]);
    body
}

/// Checks a request's body to its last byte: whose it is, and what is wanted.
pub fn check(body: &[u8]) -> Result<(Key, u32), String> {
    let word =
        |at: usize| body.get(at..at + 4).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    let (Some(client), Some(seq), Some(len), Some(want)) = (word(0), word(4), word(8), word(12)) else {
        return Err(format!("a body of {} bytes", body.len()));
    };
    let key = Key { client, seq };
    if len as usize != body.len() {
        return Err(format!("{key:?} says {len} bytes, {} came", body.len()));
    }
    differs(&request(key, len as usize, want), body)
        .map_or(Ok((key, want)), |at| Err(format!("{key:?}: byte {at} of {len} is {:#x}, another's or torn", body[at])))
}

/// The answer of `turn`.
pub fn turned(body: &[u8]) -> Vec<u8> {
    body.iter().map(|byte| !byte).collect()
}

/// The answer of `grow`.
pub fn grown(key: Key, len: usize) -> Vec<u8> {
    let mut body = vec![0; len];
    fill(key.seed(2), &mut body);
    body
}

/// The first byte in which two bodies differ.
pub fn differs(expected: &[u8], found: &[u8]) -> Option<usize> {
    if expected == found {
        return None;
    }
    let first = expected.iter().zip(found).position(|(one, other)| one != other);
    Some(first.unwrap_or(expected.len().min(found.len()).saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_changed_byte_of_a_body_is_found() {
        let key = Key { client: 7, seq: 9 };
        let body = request(key, 1000, 5);
        assert_eq!(check(&body), Ok((key, 5)));
        for at in 0..body.len() {
            let mut changed = body.clone();
            changed[at] ^= 1;
            assert_ne!(check(&changed), Ok((key, 5)), "byte {at}");
        }
        assert!(check(&body[..999]).is_err() && check(&[]).is_err());
    }

    #[test]
    fn no_two_requests_share_their_bytes() {
        let one = grown(Key { client: 1, seq: 1 }, 64);
        assert!(one != grown(Key { client: 1, seq: 2 }, 64) && one != grown(Key { client: 2, seq: 1 }, 64));
    }
}
