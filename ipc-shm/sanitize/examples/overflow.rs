//! Reads one byte behind what was allocated. The address sanitizer must say so, or its silence about the product means
//! nothing.

fn main() {
    let bytes = Box::new([1_u8; 64]);
    let behind = std::hint::black_box(bytes.as_ptr()).wrapping_add(64);
    // SAFETY: none, this is the fault that the sanitizer must see; without it, whatever lies there is read.
    std::hint::black_box(unsafe { behind.read() });
}
