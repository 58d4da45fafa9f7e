//! SQL in the worker: entries of the manifest and ad-hoc queries, run by DataFusion on tables where they lie.
//!
//! The way of a request to a SQL entry:
//! 1. At start [`SqlEngine::prepare`] counts, parses and searches the statement (`check`): one read-only query, bounded in
//!    size and depth, its parameters declared.
//! 2. A request brings Arrow tables, or rows that become one ([`rows`]), and parameters, which are bound as values of their
//!    declared types, never as text (`params`).
//! 3. The first request with tables of a form plans (`plan`), and the physical plan is kept (`kept`). Its leaves are slots
//!    (`scan`) and its parameters cells, so later requests only put their rows and values in: the planner does not run.
//! 4. The plan runs on the calling thread (`run`), stoppable at every batch and in every join (`stop`).
//! 5. The answer's batches go out as they are, or as rows or columns in JSON or MsgPack ([`answer`]); what went wrong is said in the words
//!    of the statement (`errors`).
//!
//! An ad-hoc query takes the same way and is planned each time, with its values and exact table sizes.

pub mod answer;
mod bounded;
mod catalog;
mod check;
mod coded_groups;
mod column;
mod decimals;
mod disk;
mod engine;
mod entry;
mod errors;
mod files;
mod group_limit;
mod instants;
mod kept;
mod loading;
mod lookup_join;
mod lost;
mod memory;
mod monotone;
mod params;
mod pieces;
mod plan;
pub mod rows;
mod run;
mod scan;
mod seen;
mod stop;
mod temporal;
#[cfg(test)]
mod tests;
mod zones;

pub use answer::Shape;
pub use catalog::{Catalog, Listed, Version};
pub use disk::DiskTable;
#[cfg(test)]
pub use engine::SqlAnswer;
pub use engine::{InputTable, SqlEngine, SqlLimits};
pub use entry::{EntryLimits, SqlEntry, SqlSpec};
pub use files::{LoadError, read_file};
pub use loading::Loading;
pub use lost::Lost;
pub use memory::Spill;
pub use params::ParamType;
pub use scan::TableData;
pub use stop::{RunContext, Stopped};
