#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| molt_ipc_shm_fuzz::worker::run(data));
