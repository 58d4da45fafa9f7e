//! Uses each slow path of std's locks: `run.sh` reads their names out of it, and runs it to see that the wraps work.

use std::sync::{Arc, Condvar, Mutex, RwLock};
use std::time::Duration;

fn main() {
    let shared = Arc::new((Mutex::new(vec![0_u64]), Condvar::new(), RwLock::new(vec![0_u64])));
    let work = |number: u64| {
        let shared = shared.clone();
        std::thread::spawn(move || {
            let (lock, bell, table) = &*shared;
            for round in 0..20_000 {
                let mut guard = lock.lock().unwrap();
                guard[0] += number;
                match round % 9 {
                    0 => drop(bell.wait_timeout(guard, Duration::from_micros(1)).unwrap()),
                    // Never so, but the compiler does not know.
                    1 if guard.is_empty() => drop(bell.wait(guard).unwrap()),
                    2 => table.write().unwrap()[0] += 1,
                    3 => assert!(table.read().unwrap().len() == 1),
                    _ => bell.notify_one(),
                }
            }
        })
    };
    let threads: Vec<_> = (1..5).map(work).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(shared.0.lock().unwrap()[0], 20_000 * 10);
}
