//! A shared library that has nothing to do with molt.

/// Something to export.
#[unsafe(no_mangle)]
pub extern "C" fn unrelated() -> u32 {
    7
}
