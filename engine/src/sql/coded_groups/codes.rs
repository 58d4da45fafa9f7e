//! Numbers for texts: equal texts have the same number, in every partition of a run.

use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};

use arrow_array::{ArrayRef, LargeStringArray, StringArray, StringViewArray, UInt32Array};
use arrow_schema::DataType;
use datafusion::common::{DataFusionError, Result as DfResult, internal_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// The texts of one column, or of columns that are compared with each other, in the order in which they were first seen.
#[derive(Debug, Default)]
pub struct Codes {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    table: HashTable<u32>,
    texts: Texts,
    /// Drawn anew for each run, so that texts that are slow in one are not in the next.
    hashes: RandomState,
    memory: Option<MemoryReservation>,
}

/// Texts by their numbers: all of them one after the other, and where each ends.
#[derive(Debug, Default)]
struct Texts {
    bytes: String,
    ends: Vec<usize>,
}

impl Texts {
    fn get(&self, code: u32) -> &str {
        let code = code as usize;
        let start = code.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[code]]
    }

    fn push(&mut self, text: &str) {
        self.bytes.push_str(text);
        self.ends.push(self.bytes.len());
    }
}

impl Codes {
    /// The texts that these numbers stand for, as an array of that type; no number is null.
    pub fn texts(&self, codes: &UInt32Array, data_type: &DataType) -> DfResult<ArrayRef> {
        let seen = self.seen();
        let texts = codes.iter().map(|code| code.map(|code| seen.texts.get(code)));
        Ok(match data_type {
            DataType::Utf8 => Arc::new(StringArray::from_iter(texts)),
            DataType::LargeUtf8 => Arc::new(LargeStringArray::from_iter(texts)),
            DataType::Utf8View => Arc::new(StringViewArray::from_iter(texts)),
            other => return internal_err!("{other} is no type of texts"),
        })
    }

    fn code(&self, text: &str, pool: &Arc<dyn MemoryPool>) -> DfResult<u32> {
        let mut seen = self.seen();
        let Seen { table, texts, hashes, memory } = &mut *seen;
        let hash = hashes.hash_one(text);
        if let Some(code) = table.find(hash, |code| texts.get(*code) == text) {
            return Ok(*code);
        }
        let code = u32::try_from(texts.ends.len())
            .map_err(|_| DataFusionError::ResourcesExhausted("more than 2^32 texts to group by".into()))?;
        let memory = memory.get_or_insert_with(|| MemoryConsumer::new("GroupTexts").register(pool));
        // The text, where it ends, and its place in a table that may be half empty.
        memory.try_grow(text.len() + size_of::<usize>() + 4 * size_of::<u32>())?;
        texts.push(text);
        table.insert_unique(hash, code, |code| hashes.hash_one(texts.get(*code)));
        Ok(code)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// One partition's own tables in front of `Codes`, so that threads meet only at a text that is new to one of them.
pub struct Coder {
    codes: Arc<Codes>,
    hashes: RandomState,
    /// Some of the short ones, each at a place that its hash gives: one look finds most of what comes again and again.
    near: Vec<Short>,
    short: HashTable<Short>,
    long: HashTable<(Box<str>, u32)>,
    pool: Arc<dyn MemoryPool>,
    memory: MemoryReservation,
}

/// Bytes of a short text, which lies in two words: it is compared without a look elsewhere.
const SHORT: usize = 16;
/// Bits of a hash that give a place in `near`: the table then lies in a core's first cache.
const NEAR_BITS: u32 = 9;

/// A text of [`SHORT`] bytes at most, with zeros after its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Words {
    words: [u64; 2],
    len: u32,
}

#[derive(Debug, Clone, Copy)]
struct Short {
    text: Words,
    code: u32,
}

impl Short {
    /// No text is as long as this one.
    const NONE: Self = Self { text: Words { words: [0; 2], len: u32::MAX }, code: 0 };
}

impl Coder {
    pub fn new(codes: Arc<Codes>, pool: &Arc<dyn MemoryPool>) -> Self {
        Self {
            codes,
            hashes: RandomState::default(),
            near: vec![Short::NONE; 1 << NEAR_BITS],
            short: HashTable::new(),
            long: HashTable::new(),
            pool: Arc::clone(pool),
            memory: MemoryConsumer::new("GroupTexts").register(pool),
        }
    }

    /// The number of a text.
    pub fn code(&mut self, text: &str) -> DfResult<u32> {
        match text.len() <= SHORT {
            true => {
                let mut bytes = [0; SHORT];
                bytes[..text.len()].copy_from_slice(text.as_bytes());
                self.short(Words::new(bytes, text.len()), || text)
            }
            false => self.long(text),
        }
    }

    /// The number of the text `all[start..end]`, whose bounds are known to lie between characters. Which of several lengths a
    /// short one has is no branch: the bytes after it are read along and masked.
    #[inline]
    pub fn code_within<'a>(
        &mut self,
        all: &'a [u8],
        start: usize,
        end: usize,
        text: impl Fn() -> &'a str,
    ) -> DfResult<u32> {
        let len = end.wrapping_sub(start);
        match all.get(start..).and_then(|rest| rest.first_chunk::<SHORT>()) {
            Some(bytes) if len <= SHORT => self.short(Words::new(*bytes, len), text),
            _ => self.code(text()),
        }
    }

    #[inline]
    fn short<'a>(&mut self, text: Words, whole: impl Fn() -> &'a str) -> DfResult<u32> {
        let hash = text.hash(&self.hashes);
        let near = &self.near[(hash >> (u64::BITS - NEAR_BITS)) as usize];
        if near.text == text {
            return Ok(near.code);
        }
        self.short_far(text, hash, whole())
    }

    #[inline(never)]
    fn short_far(&mut self, text: Words, hash: u64, whole: &str) -> DfResult<u32> {
        if let Some(known) = self.short.find(hash, |known| known.text == text) {
            return Ok(known.code);
        }
        let code = self.codes.code(whole, &self.pool)?;
        self.memory.try_grow(2 * size_of::<Short>())?;
        let (hashes, known) = (&self.hashes, Short { text, code });
        self.short.insert_unique(hash, known, |known| known.text.hash(hashes));
        let near = &mut self.near[(hash >> (u64::BITS - NEAR_BITS)) as usize];
        if near.text == Short::NONE.text {
            *near = known; // whoever was first stays: two that take turns would both be looked for elsewhere
        }
        Ok(code)
    }

    fn long(&mut self, text: &str) -> DfResult<u32> {
        let hash = self.hashes.hash_one(text);
        if let Some((_, code)) = self.long.find(hash, |(known, _)| **known == *text) {
            return Ok(*code);
        }
        let code = self.codes.code(text, &self.pool)?;
        self.memory.try_grow(text.len() + 2 * size_of::<(Box<str>, u32)>())?;
        let hashes = &self.hashes;
        self.long.insert_unique(hash, (text.into(), code), |(known, _)| hashes.hash_one(&**known));
        Ok(code)
    }
}

impl Words {
    /// The first `len` of these bytes, [`SHORT`] at most.
    #[inline]
    fn new(bytes: [u8; SHORT], len: usize) -> Self {
        let bytes = u128::from_le_bytes(bytes) & MASKS[len];
        Self { words: [bytes as u64, (bytes >> 64) as u64], len: len as u32 }
    }

    #[inline]
    fn hash(self, hashes: &RandomState) -> u64 {
        let mut hasher = hashes.build_hasher();
        hasher.write_u64(self.words[0]);
        hasher.write_u64(self.words[1]);
        hasher.finish()
    }
}

/// The bytes of a text of each length.
const MASKS: [u128; SHORT + 1] = {
    let mut masks = [u128::MAX; SHORT + 1];
    let mut len = 0;
    while len < SHORT {
        masks[len] = (1 << (8 * len)) - 1;
        len += 1;
    }
    masks
};

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::GreedyMemoryPool;

    use super::*;

    fn pool(bytes: usize) -> Arc<dyn MemoryPool> {
        Arc::new(GreedyMemoryPool::new(bytes))
    }

    #[test]
    fn equal_texts_and_no_others_have_one_number() {
        // Every length around those where the words change, and texts that differ in one byte, wherever it is.
        let mut texts: Vec<String> = (0..40).map(|len| "x".repeat(len)).collect();
        for len in 1..40 {
            texts.extend((0..len).map(|at| format!("{}y{}", "x".repeat(at), "x".repeat(len - at - 1))));
        }
        texts.extend(["\0", "\0\0", "\0\0\0", "\0\0\0\0", "ä", "aäa"].map(str::to_owned));
        let (codes, pool) = (Arc::new(Codes::default()), pool(1 << 20));
        let mut coders = [Coder::new(codes.clone(), &pool), Coder::new(codes.clone(), &pool)];
        for (number, text) in texts.iter().enumerate() {
            assert_eq!(coders[number % 2].code(text).unwrap() as usize, number, "{text:?} is new");
        }
        for coder in &mut coders {
            for (number, text) in texts.iter().enumerate() {
                assert_eq!(coder.code(text).unwrap() as usize, number, "{text:?}");
            }
        }
        let numbers: UInt32Array = (0..texts.len() as u32).rev().map(Some).chain([None, Some(3)]).collect();
        let named: Vec<Option<&str>> =
            texts.iter().rev().map(|text| Some(text.as_str())).chain([None, Some(texts[3].as_str())]).collect();
        for data_type in [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View] {
            let array = codes.texts(&numbers, &data_type).unwrap();
            assert_eq!(*array.data_type(), data_type);
            let array = datafusion::arrow::compute::cast(&array, &DataType::Utf8).unwrap();
            let array = array.as_any().downcast_ref::<StringArray>().unwrap();
            assert_eq!(array.iter().collect::<Vec<_>>(), named, "{data_type}");
        }
        assert!(codes.texts(&numbers, &DataType::Int32).is_err());
        // The same within all of them, where others follow, and at the very end.
        let all: String = texts.concat();
        let mut end = 0;
        for (number, text) in texts.iter().enumerate() {
            let start = end;
            end += text.len();
            let code = coders[1].code_within(all.as_bytes(), start, end, || &all[start..end]);
            assert_eq!(code.unwrap() as usize, number, "{text:?}");
        }
        drop((coders, codes));
        assert_eq!(pool.reserved(), 0);
    }

    #[test]
    fn what_is_learnt_counts_and_may_be_refused() {
        let (codes, pool) = (Arc::new(Codes::default()), pool(4_000));
        let mut coder = Coder::new(codes.clone(), &pool);
        let refused = (0..1_000).find_map(|number| coder.code(&format!("text {number}")).err()).unwrap();
        assert!(matches!(refused, DataFusionError::ResourcesExhausted(_)), "{refused}");
        let long = coder.code(&"long ".repeat(1_000)).unwrap_err();
        assert!(matches!(long, DataFusionError::ResourcesExhausted(_)), "{long}");
        assert_eq!(coder.code("text 0").unwrap(), 0, "what is known stays known");
    }
}
