//! The log: one line an event, on standard error. A line that is written by the thread that runs a request says of which
//! entry, from which process, and of which trace, whoever writes it: an entry's panic too.

use std::cell::Cell;
use std::fmt;
use std::io::IsTerminal;
use std::sync::OnceLock;

use molt_ipc_shm::TraceContext;
use molt_ipc_shm::worker::Inflight;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, format};
use tracing_subscriber::registry::LookupSpan;

/// The entries' names by their slots.
static NAMES: OnceLock<Vec<String>> = OnceLock::new();

thread_local! {
    /// What this thread runs. Plain data, not a span: setting it costs a few stores, and every request pays it.
    static CURRENT: Cell<Option<Origin>> = const { Cell::new(None) };
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    slot: u32,
    pid: u32,
    trace: Option<TraceContext>,
}

impl Origin {
    /// Of a request to the entry in that slot.
    pub fn of(request: &Inflight, slot: u32) -> Self {
        Self { slot, pid: request.pid(), trace: request.trace() }
    }

    /// Lines of this thread are this request's until the guard is dropped.
    pub fn enter(self) -> Entered {
        Entered(CURRENT.replace(Some(self)))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.get().and_then(|names| names.get(self.slot as usize)).map_or("", String::as_str);
        write!(out, "entry={name:?} pid={}", self.pid)?;
        self.trace.map_or(Ok(()), |trace| write!(out, " trace_id={} traceparent={trace}", trace.trace_id()))
    }
}

/// Gives the thread back to what it ran before.
#[derive(Debug)]
pub struct Entered(Option<Origin>);

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// Begins to write: what MOLT_LOG names, else what matters.
pub fn start() {
    let filter = EnvFilter::try_from_env("MOLT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal)
        .event_format(WithOrigin(format().with_target(false).with_ansi(terminal)))
        .init();
}

/// Says what the entries are called, once they are known.
pub fn name_entries(names: &[String]) {
    let _ = NAMES.set(names.to_vec());
}

/// The usual form of a line, and behind it the request's origin.
struct WithOrigin<F>(F);

impl<S, N, F> FormatEvent<S, N> for WithOrigin<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(origin) = CURRENT.get() else { return self.0.format_event(ctx, writer, event) };
        let mut line = String::new();
        self.0.format_event(ctx, Writer::new(&mut line), event)?;
        writeln!(writer, "{} {origin}", line.trim_end())
    }
}
