//! Python capsules: structs of the Arrow C interface that Python gives back.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_schema::ffi::FFI_ArrowSchema;

/// PyCapsule_GetPointer, as Python told it: 0 until then.
static CAPSULE_POINTER: AtomicUsize = AtomicUsize::new(0);

/// Tells where PyCapsule_GetPointer is. Once, before the first capsule.
#[unsafe(no_mangle)]
pub extern "C" fn molt_capsule_setup(py_capsule_get_pointer: *mut c_void) {
    CAPSULE_POINTER.store(py_capsule_get_pointer as usize, Ordering::Release);
}

unsafe fn capsule_content(capsule: *mut c_void, kind: &CStr) -> *mut c_void {
    let function = CAPSULE_POINTER.load(Ordering::Acquire);
    if function == 0 {
        return ptr::null_mut();
    }
    // SAFETY: molt_capsule_setup was given the address of PyCapsule_GetPointer, which has this signature; a capsule's
    // destructor runs with the interpreter's lock held.
    unsafe {
        let get: unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void = std::mem::transmute(function);
        get(capsule, kind.as_ptr())
    }
}

/// Room for a stream, zeroed.
#[unsafe(no_mangle)]
pub extern "C" fn molt_stream_alloc() -> *mut c_void {
    Box::into_raw(Box::new(FFI_ArrowArrayStream::empty())).cast()
}

/// Room for a schema, zeroed.
#[unsafe(no_mangle)]
pub extern "C" fn molt_schema_alloc() -> *mut c_void {
    Box::into_raw(Box::new(FFI_ArrowSchema::empty())).cast()
}

/// The destructor of a capsule named "arrow_array_stream".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_stream_capsule_free(capsule: *mut c_void) {
    // SAFETY: Python calls it once, for a capsule whose content molt_stream_alloc made; dropping releases what is left.
    unsafe {
        let stream = capsule_content(capsule, c"arrow_array_stream");
        if !stream.is_null() {
            drop(Box::from_raw(stream.cast::<FFI_ArrowArrayStream>()));
        }
    }
}

/// The destructor of a capsule named "arrow_schema".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_schema_capsule_free(capsule: *mut c_void) {
    // SAFETY: as for streams.
    unsafe {
        let schema = capsule_content(capsule, c"arrow_schema");
        if !schema.is_null() {
            drop(Box::from_raw(schema.cast::<FFI_ArrowSchema>()));
        }
    }
}
