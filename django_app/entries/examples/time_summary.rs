//! Times the order summary without worker, rings and Django: a body in, the answer out.
//!
//! ```sh
//! (cd django_app && python -m orders.generate --out ../orders.json)
//! cargo run --release -p demo-entries --example time_summary orders.json
//! ```

use std::time::Instant;

use molt_entry::testing::{Answer, Request, call};

const ROUNDS: usize = 2_000;

fn main() {
    let path = std::env::args().nth(1).expect("usage: time_summary BODY.json");
    let body = std::fs::read(&path).unwrap_or_else(|why| panic!("{path}: {why}"));
    let size = body.len();
    let request = Request::json(body);
    let mut answer = None;
    let mut millis: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            answer = Some(call(demo_entries::molt_entries_v1, "order_summary", &request));
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    millis.sort_by(f64::total_cmp);
    let at = |share: f64| millis[(ROUNDS as f64 * share) as usize];
    println!("{size} bytes, {ROUNDS} rounds: min {:.3} p50 {:.3} p99 {:.3} ms", millis[0], at(0.5), at(0.99));
    match answer {
        Some(Answer::Ok { body, allocs, alloc_bytes, .. }) => {
            println!("answer {} bytes; {allocs} allocations, {alloc_bytes} bytes", body.len());
        }
        failed => panic!("{failed:?}"),
    }
}
