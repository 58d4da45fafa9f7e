//! The place of every byte in a segment. No other file knows an offset.
//!
//! ```text
//!   0  +-----------------------------+
//!      | header                 4096 |  who made it, sizes, where the rest lies; the ready word
//!      +-----------------------------+
//!      | sessions   512 each         |  one slot a client process: state, counters, lease bitmap
//!      +-----------------------------+
//!      | channels  1024 each         |  positions and sleep words of both rings, each on lines of its own
//!      +-----------------------------+
//!      | attention                   |  the worker's sleep word, then one bit a channel, one bit a session
//!      +-----------------------------+
//!      | cells        8 each         |  one word a request in flight
//!      +-----------------------------+
//!      | totals    8 each            |  one counter an outcome
//!      | entries                     |  one histogram an entry
//!      +-----------------------------+
//!      | catalogue                   |  what the worker says of its tables, twice
//!      +-----------------------------+
//!      | extents      8 each         |  one control word an extent
//!      +-----------------------------+  page boundary
//!      | rings                       |  request ring, response ring, request ring, ...
//!      +-----------------------------+  extent boundary
//!      | arena                       |  extents
//!      +-----------------------------+
//! ```
//!
//! All integers are little-endian. Words that two processes write at different times lie 128 bytes apart: processors of
//! this class fetch lines in pairs (Intel's optimisation manual, "spatial prefetcher"; crossbeam's `CachePadded` uses the
//! same figure).

use crate::record::record;

/// Changes with every change of a byte's place or meaning. Not the package's version.
pub const LAYOUT_VERSION: u32 = 3;
/// The first eight bytes of every segment.
pub const MAGIC: u64 = u64::from_le_bytes(*b"MOLTSHM1");
/// Two cache lines.
pub const LINE: usize = 128;
/// Frames in rings and blocks in the arena begin at multiples of this.
pub const ALIGN: usize = 64;
/// Bytes of a page.
pub const PAGE: usize = 4096;

record! {
    /// The first page, written once before the ready word says so, never changed after.
    Header: 512 {
        /// [`MAGIC`].
        magic: u64,
        /// [`LAYOUT_VERSION`].
        layout_version: u32,
        /// 4096.
        header_bytes: u32,
        /// [`layout_hash`] of the code that made the segment.
        layout_hash: u64,
        /// Bytes of the whole segment.
        total_bytes: u64,
        /// A random number that no other start of a worker has.
        instance: u64,
        /// The worker's process.
        worker_pid: u32,
        /// The worker's user.
        worker_uid: u32,
        /// CLOCK_MONOTONIC nanoseconds at start.
        started_ns: u64,
        /// Nanoseconds since 1970 at start.
        started_unix_ns: u64,
        /// Slots in the session table.
        sessions: u32,
        /// Slots in the channel table.
        channels: u32,
        /// Bytes of one ring: a power of two.
        ring_bytes: u32,
        /// Request cells of one channel.
        cells_per_channel: u32,
        /// Lease bits of one session.
        leases_per_session: u32,
        /// Slots in the entry table.
        entries: u32,
        /// Bytes of one extent: a power of two.
        extent_bytes: u32,
        /// Extents in the arena.
        extents: u32,
        /// Offsets of the parts, in the order of the picture.
        sessions_at: u64,
        channels_at: u64,
        attention_at: u64,
        cells_at: u64,
        totals_at: u64,
        entries_at: u64,
        catalogue_at: u64,
        extents_at: u64,
        rings_at: u64,
        arena_at: u64,
        /// Largest request body, bytes.
        max_body: u64,
        /// Most arena bytes one session may hold.
        session_quota: u64,
        /// Bytes used of `socket`.
        socket_len: u64,
        /// The Unix socket's path, the rest zero.
        socket: Path,
        /// Zero.
        reserved: Reserved,
        /// FNV-1a of the bytes before this field.
        checksum: u64,
    }
}

/// Bytes of the longest socket path: sockaddr_un has 108, one is for the NUL, nine for the ending of the name under which
/// the socket is bound before it is moved into place.
pub const SOCKET_PATH_MAX: usize = 98;

/// A path of at most [`SOCKET_PATH_MAX`] bytes as it lies in the header.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path(pub [u8; 112]);
/// Bytes that are zero today.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserved(pub [u8; 192]);

impl Default for Path {
    fn default() -> Self {
        Self([0; 112])
    }
}
impl Path {
    fn to_le_bytes(self) -> [u8; 112] {
        self.0
    }
    fn from_le_bytes(bytes: [u8; 112]) -> Self {
        Self(bytes)
    }
}
impl Default for Reserved {
    fn default() -> Self {
        Self([0; 192])
    }
}
impl Reserved {
    fn to_le_bytes(self) -> [u8; 192] {
        self.0
    }
    fn from_le_bytes(bytes: [u8; 192]) -> Self {
        Self(bytes)
    }
}

/// Offset in the segment of the ready word (u32): [`STATE_STARTING`], then [`STATE_SERVING`], stored last; later
/// [`STATE_STOPPING`] and [`STATE_STOPPED`].
pub const READY_AT: usize = 1024;
/// The worker still writes the header.
pub const STATE_STARTING: u32 = 0;
/// The worker serves.
pub const STATE_SERVING: u32 = 1;
/// The worker finishes what runs and refuses the rest.
pub const STATE_STOPPING: u32 = 2;
/// The worker has left in good order.
pub const STATE_STOPPED: u32 = 3;
/// Offset of the heartbeat word (u64): CLOCK_MONOTONIC nanoseconds of the poller's last full scan.
pub const HEARTBEAT_AT: usize = 1024 + LINE;

/// Offset of what the worker's supervisor says, in the header page.
pub const SUPERVISION_AT: usize = 1024 + 2 * LINE;

/// Places inside the supervision block. The supervisor writes them, also when the worker is dead.
pub mod supervision {
    /// u32: the supervisor's process; 0: nobody supervises this worker.
    pub const PID: usize = 0;
    /// u32: starts before this one.
    pub const RESTARTS: usize = 4;
    /// u32: workers in a row that died young.
    pub const IN_A_ROW: usize = 8;
    /// u32: how the last worker that died ended: 256 and its exit code, or 512 and the signal; 0: none has died.
    pub const LAST_END: usize = 12;
    /// u64: CLOCK_MONOTONIC nanoseconds of that end.
    pub const LAST_END_NS: usize = 16;
    /// u64: CLOCK_MONOTONIC nanoseconds when the next worker is started; 0: this one has not died.
    pub const NEXT_START_NS: usize = 24;
}

/// Offset of what the worker says of requests that do not end, in the header page.
pub const OVERDUE_AT: usize = 1024 + 3 * LINE;

/// Places inside the block of requests that do not end: their time was up long ago, and their entry runs on.
pub mod overdue {
    /// u32: how many.
    pub const COUNT: usize = 0;
    /// u32: the entry slot of the one whose time was up first.
    pub const ENTRY: usize = 4;
    /// u64: CLOCK_MONOTONIC nanoseconds when its time was up.
    pub const SINCE_NS: usize = 8;
}

/// Places inside a session slot.
pub mod session {
    use super::LINE;
    /// u64: [`super::slot_word`] of generation and state.
    pub const WORD: usize = 0;
    /// u32: the client's process.
    pub const PID: usize = 8;
    /// u32: the client's user.
    pub const UID: usize = 12;
    /// u64: CLOCK_MONOTONIC nanoseconds at attach.
    pub const STARTED: usize = 16;
    /// u32: channels it has.
    pub const CHANNELS: usize = 24;
    /// u32: requests taken and not answered yet.
    pub const IN_FLIGHT: usize = 28;
    /// u32: leases not let go of.
    pub const LEASES: usize = 32;
    /// u64: bytes that they keep, each once.
    pub const LEASED_BYTES: usize = 40;
    /// u64: CLOCK_MONOTONIC nanoseconds when the oldest of them was lent; 0: it has none.
    pub const OLDEST_LEASE_NS: usize = 48;
    /// Bitmap: the client sets bit n to let go of lease n; the worker clears it. There is room for 2,048 leases.
    pub const RELEASED: usize = LINE;
    /// u64: the slot's generation as long as its client uses the slot (the client writes it).
    pub const HELD: usize = 3 * LINE;
    /// Bytes of a slot.
    pub const BYTES: usize = 4 * LINE;
}

/// Places inside a channel slot. Each word is written by one side alone, but for the sleep words (see `doorbell`) and who
/// uses it.
pub mod channel {
    use super::LINE;
    /// u64: [`super::slot_word`] of generation and state.
    pub const WORD: usize = 0;
    /// u32: the session slot that owns it.
    pub const SESSION: usize = 8;
    /// u64: requests consumed (worker writes).
    pub const REQUEST_HEAD: usize = LINE;
    /// u64: requests committed (client writes).
    pub const REQUEST_TAIL: usize = 2 * LINE;
    /// u64: responses consumed (client writes).
    pub const RESPONSE_HEAD: usize = 3 * LINE;
    /// u64: responses committed (worker writes).
    pub const RESPONSE_TAIL: usize = 4 * LINE;
    /// u64: the client sleeps for a response.
    pub const RESPONSE_SLEEP: usize = 5 * LINE;
    /// u64: the client sleeps for room in the request ring.
    pub const ROOM_SLEEP: usize = 6 * LINE;
    /// u64: who uses it, its client or nobody (see `checkout`).
    pub const CHECKOUT: usize = 7 * LINE;
    /// Bytes of a slot.
    pub const BYTES: usize = 8 * LINE;
}

/// Places inside the attention block.
pub mod attention {
    use super::LINE;
    /// u64: the worker's poller sleeps.
    pub const WORKER_SLEEP: usize = 0;
    /// The first word of channel bits; each word on lines of its own.
    pub const CHANNELS: usize = LINE;
    /// Bits of one word.
    pub const BITS: usize = 64;
}

/// Places inside an entry slot: its name, then a histogram of its running times.
pub mod entry {
    /// Bytes of the name (zero-padded, cut when longer).
    pub const NAME_BYTES: usize = 64;
    /// u64: calls answered.
    pub const CALLS: usize = NAME_BYTES;
    /// u64: the longest it may take, nanoseconds; 0: no limit of its own.
    pub const LIMIT: usize = CALLS + 8;
    /// u64: bit 0, running it twice does no harm.
    pub const FLAGS: usize = LIMIT + 8;
    /// u64 each: bucket counts.
    pub const BUCKETS_AT: usize = 128;
    /// 64 powers of two, each cut into 8.
    pub const BUCKETS: usize = 64 * 8;
    /// Bytes of a slot.
    pub const BYTES: usize = BUCKETS_AT + BUCKETS * 8;
}

/// Places inside the catalogue: two copies of one text, written in turn. The text is JSON, see `catalogue`.
pub mod catalogue {
    use super::LINE;
    /// u64: copies written since the start. The copy that is whole is this number's, by its lowest bit.
    pub const COUNT: usize = 0;
    /// The first copy; the second one follows.
    pub const COPIES: usize = LINE;
    /// Bytes of a copy.
    pub const COPY_BYTES: usize = 32 << 10;
    /// u64, in a copy: bytes of its text.
    pub const LEN: usize = 0;
    /// In a copy: its text.
    pub const TEXT: usize = 8;
    /// Bytes of it all.
    pub const BYTES: usize = COPIES + 2 * COPY_BYTES;
}

/// Counters in the totals block: one a request, then one an outcome in the order of its number, then the others.
pub mod totals {
    /// Requests taken.
    pub const REQUESTS: usize = 0;
    /// Outcome n counts at `OUTCOMES + n`.
    pub const OUTCOMES: usize = 1;
    /// Doorbell bytes that the worker sent.
    pub const DOORBELLS: usize = 11;
    /// Sessions cut for breaking a rule.
    pub const CUT: usize = 12;
    /// Bytes of tables that had to be copied since their layout could not be read in place.
    pub const COPIED_BYTES: usize = 13;
    /// Requests that were not answered since something still read their tables: a defect of the worker.
    pub const STUCK: usize = 14;
    /// Counters there is room for.
    pub const COUNT: usize = 32;
}

/// State of a session or channel slot: free, in use, closing (nothing new), quarantined (broke a rule, process alive).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SlotState {
    /// Nobody's.
    Free = 0,
    /// In use.
    Active = 1,
    /// The client has left; its leases or requests have not.
    Closing = 2,
    /// It broke a rule and its process still lives.
    Quarantined = 3,
}

impl SlotState {
    /// The state in a slot word's low byte; an unknown number reads as quarantined.
    pub fn of(word: u64) -> Self {
        match word as u8 {
            0 => Self::Free,
            1 => Self::Active,
            2 => Self::Closing,
            _ => Self::Quarantined,
        }
    }
}

/// A slot word: generation in the high 56 bits, state in the low 8.
pub fn slot_word(generation: u64, state: SlotState) -> u64 {
    generation << 8 | state as u64
}

/// The sizes that a segment is made with. Every offset follows from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Session slots.
    pub sessions: u32,
    /// Channel slots.
    pub channels: u32,
    /// Bytes of one ring, a power of two.
    pub ring_bytes: u32,
    /// Cells of one channel.
    pub cells_per_channel: u32,
    /// Lease bits of one session, at most 2,048, a multiple of 64.
    pub leases_per_session: u32,
    /// Entry slots.
    pub entries: u32,
    /// Bytes of one extent, a power of two of at least a page.
    pub extent_bytes: u32,
    /// Extents.
    pub extents: u32,
}

const fn up(value: usize, to: usize) -> usize {
    value.next_multiple_of(to)
}

impl Geometry {
    /// The sizes for an arena of that many bytes (rounded up to whole extents). A small arena, as in a container whose
    /// /dev/shm has 64 MB, gets fewer channels too.
    pub fn for_arena(arena_bytes: u64) -> Self {
        let extent_bytes = 256 << 10;
        let channels = if arena_bytes >= 128 << 20 { 320 } else { 64 };
        Self {
            sessions: 256,
            channels,
            ring_bytes: 32 << 10,
            // With every cell in use, the response ring still has room for a reserved frame each (120 * 256 < 32 KiB).
            cells_per_channel: 120,
            leases_per_session: 1024,
            entries: 64,
            extent_bytes,
            extents: u32::try_from(arena_bytes.div_ceil(extent_bytes as u64).max(4)).unwrap_or(u32::MAX),
        }
    }

    /// Why these sizes cannot be, if so. Bounds keep every later sum far from overflow.
    pub fn fault(&self) -> Option<&'static str> {
        let power = |value: u32, low: u32, high: u32| value.is_power_of_two() && (low..=high).contains(&value);
        match () {
            _ if !(1..=4096).contains(&self.sessions) => Some("sessions"),
            _ if !(1..=65536).contains(&self.channels) => Some("channels"),
            // The longest frame with params inline must be under half of the ring, or padding could keep it out for ever.
            _ if !power(self.ring_bytes, 16384, 1 << 26) => Some("ring_bytes"),
            _ if !(1..=4096).contains(&self.cells_per_channel) => Some("cells_per_channel"),
            _ if !(64..=2048).contains(&self.leases_per_session) || !self.leases_per_session.is_multiple_of(64) => {
                Some("leases_per_session")
            }
            _ if !(1..=4096).contains(&self.entries) => Some("entries"),
            _ if !power(self.extent_bytes, PAGE as u32, 1 << 30) => Some("extent_bytes"),
            _ if !(1..=1 << 20).contains(&self.extents) => Some("extents"),
            _ => None,
        }
    }

    /// Offset of the session table.
    pub const fn sessions_at(&self) -> usize {
        PAGE
    }
    /// Offset of the channel table.
    pub const fn channels_at(&self) -> usize {
        up(self.sessions_at() + self.sessions as usize * session::BYTES, LINE)
    }
    /// Offset of the attention block.
    pub const fn attention_at(&self) -> usize {
        self.channels_at() + self.channels as usize * channel::BYTES
    }
    /// Words of channel bits.
    pub const fn channel_words(&self) -> usize {
        (self.channels as usize).div_ceil(attention::BITS)
    }
    /// Words of session bits.
    pub const fn session_words(&self) -> usize {
        (self.sessions as usize).div_ceil(attention::BITS)
    }
    /// Offset of the cells.
    pub const fn cells_at(&self) -> usize {
        self.attention_at() + attention::CHANNELS + (self.channel_words() + self.session_words()) * LINE
    }
    /// Offset of the totals.
    pub const fn totals_at(&self) -> usize {
        up(self.cells_at() + self.channels as usize * self.cells_per_channel as usize * 8, LINE)
    }
    /// Offset of the entry table.
    pub const fn entries_at(&self) -> usize {
        up(self.totals_at() + totals::COUNT * 8, LINE)
    }
    /// Offset of the catalogue.
    pub const fn catalogue_at(&self) -> usize {
        up(self.entries_at() + self.entries as usize * entry::BYTES, LINE)
    }
    /// Offset of the extents' control words.
    pub const fn extents_at(&self) -> usize {
        self.catalogue_at() + catalogue::BYTES
    }
    /// Offset of the rings.
    pub const fn rings_at(&self) -> usize {
        up(self.extents_at() + self.extents as usize * 8, PAGE)
    }
    /// Offset of the arena.
    pub const fn arena_at(&self) -> usize {
        up(self.rings_at() + self.channels as usize * 2 * self.ring_bytes as usize, self.extent_bytes as usize)
    }
    /// Bytes of the arena.
    pub const fn arena_bytes(&self) -> usize {
        self.extents as usize * self.extent_bytes as usize
    }
    /// Bytes of the whole segment.
    pub const fn total_bytes(&self) -> usize {
        self.arena_at() + self.arena_bytes()
    }

    /// Offset of one session slot.
    pub fn session(&self, slot: u32) -> usize {
        assert!(slot < self.sessions);
        self.sessions_at() + slot as usize * session::BYTES
    }
    /// Offset of one channel slot.
    pub fn channel(&self, index: u32) -> usize {
        assert!(index < self.channels);
        self.channels_at() + index as usize * channel::BYTES
    }
    /// Offset of a channel's request ring.
    pub fn request_ring(&self, index: u32) -> usize {
        assert!(index < self.channels);
        self.rings_at() + index as usize * 2 * self.ring_bytes as usize
    }
    /// Offset of a channel's response ring.
    pub fn response_ring(&self, index: u32) -> usize {
        self.request_ring(index) + self.ring_bytes as usize
    }
    /// Offset of one request cell.
    pub fn cell(&self, channel: u32, cell: u32) -> usize {
        assert!(channel < self.channels && cell < self.cells_per_channel);
        self.cells_at() + (channel as usize * self.cells_per_channel as usize + cell as usize) * 8
    }
    /// Offset of one counter.
    pub fn total(&self, counter: usize) -> usize {
        assert!(counter < totals::COUNT);
        self.totals_at() + counter * 8
    }
    /// Offset of one entry slot.
    pub fn entry(&self, index: u32) -> usize {
        assert!(index < self.entries);
        self.entries_at() + index as usize * entry::BYTES
    }
    /// Offset of the catalogue's copy of that number.
    pub fn catalogue_copy(&self, count: u64) -> usize {
        self.catalogue_at() + catalogue::COPIES + (count as usize & 1) * catalogue::COPY_BYTES
    }
    /// Offset of one extent's control word.
    pub fn extent(&self, index: u32) -> usize {
        assert!(index < self.extents);
        self.extents_at() + index as usize * 8
    }
    /// Offset of one extent's bytes.
    pub fn extent_data(&self, index: u32) -> usize {
        assert!(index < self.extents);
        self.arena_at() + index as usize * self.extent_bytes as usize
    }
    /// Offset of the word that holds a channel's attention bit.
    pub fn channel_word(&self, word: usize) -> usize {
        assert!(word < self.channel_words());
        self.attention_at() + attention::CHANNELS + word * LINE
    }
    /// Offset of the word that holds a session's attention bit.
    pub fn session_word(&self, word: usize) -> usize {
        assert!(word < self.session_words());
        self.attention_at() + attention::CHANNELS + (self.channel_words() + word) * LINE
    }
    /// Offset of the poller's sleep word.
    pub fn worker_sleep(&self) -> usize {
        self.attention_at() + attention::WORKER_SLEEP
    }

    /// The geometry that a header states.
    pub fn of(header: &Header) -> Self {
        Self {
            sessions: header.sessions,
            channels: header.channels,
            ring_bytes: header.ring_bytes,
            cells_per_channel: header.cells_per_channel,
            leases_per_session: header.leases_per_session,
            entries: header.entries,
            extent_bytes: header.extent_bytes,
            extents: header.extents,
        }
    }

    /// Writes sizes and offsets into a header.
    pub fn fill(&self, header: &mut Header) {
        header.total_bytes = self.total_bytes() as u64;
        header.sessions = self.sessions;
        header.channels = self.channels;
        header.ring_bytes = self.ring_bytes;
        header.cells_per_channel = self.cells_per_channel;
        header.leases_per_session = self.leases_per_session;
        header.entries = self.entries;
        header.extent_bytes = self.extent_bytes;
        header.extents = self.extents;
        header.sessions_at = self.sessions_at() as u64;
        header.channels_at = self.channels_at() as u64;
        header.attention_at = self.attention_at() as u64;
        header.cells_at = self.cells_at() as u64;
        header.totals_at = self.totals_at() as u64;
        header.entries_at = self.entries_at() as u64;
        header.catalogue_at = self.catalogue_at() as u64;
        header.extents_at = self.extents_at() as u64;
        header.rings_at = self.rings_at() as u64;
        header.arena_at = self.arena_at() as u64;
    }
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo): finds a flipped byte, defends against nothing else.
pub const fn fnv1a(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    hash
}

/// A number that changes when a field of a record moves: two builds that disagree about a byte cannot attach.
#[cfg(not(loom))]
pub fn layout_hash() -> u64 {
    use crate::frame::{Handle, RequestHead, ResponseHead};
    use crate::handshake::{Hello, Leave, Opened, Welcome};
    let records = [
        Header::FIELDS,
        RequestHead::FIELDS,
        ResponseHead::FIELDS,
        Handle::FIELDS,
        Hello::FIELDS,
        Welcome::FIELDS,
        Opened::FIELDS,
        Leave::FIELDS,
    ];
    let places = [
        [session::WORD, session::PID, session::UID, session::STARTED, session::RELEASED, session::BYTES],
        [session::CHANNELS, session::IN_FLIGHT, session::LEASES, entry::LIMIT, entry::FLAGS, totals::COUNT],
        [channel::WORD, channel::SESSION, channel::REQUEST_HEAD, channel::REQUEST_TAIL, channel::BYTES, LINE],
        [channel::RESPONSE_HEAD, channel::RESPONSE_TAIL, channel::RESPONSE_SLEEP, channel::ROOM_SLEEP, ALIGN, PAGE],
        [entry::NAME_BYTES, entry::CALLS, entry::BUCKETS_AT, entry::BUCKETS, entry::BYTES, READY_AT],
    ];
    let supervised = [supervision::PID, supervision::RESTARTS, supervision::IN_A_ROW, supervision::LAST_END];
    let tables = [catalogue::COUNT, catalogue::COPIES, catalogue::COPY_BYTES, catalogue::LEN, catalogue::TEXT];
    let leased = [session::LEASED_BYTES, session::OLDEST_LEASE_NS];
    let late = [OVERDUE_AT, overdue::COUNT, overdue::ENTRY, overdue::SINCE_NS, crate::TraceContext::BYTES];
    let clients = [session::HELD, channel::CHECKOUT];
    let mut text = format!(
        "{LAYOUT_VERSION} {HEARTBEAT_AT} {SUPERVISION_AT} {places:?} {supervised:?} {late:?} {clients:?} {tables:?} {leased:?}"
    );
    for field in records.into_iter().flatten() {
        text.push_str(&format!(" {}:{}:{}", field.name, field.offset, field.size));
    }
    fnv1a(text.as_bytes())
}
