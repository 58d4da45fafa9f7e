//! Times JSON decoders on the demo's request, each filling the very types that the entry fills, text borrowed where it can
//! be. The answers are compared before anything is timed; the decoders take turns.
//!
//! ```sh
//! (cd django_app && python -m orders.generate --out ../orders.json)
//! cargo run --release -p molt-decoders -- orders.json
//! ```
#![allow(dead_code, reason = "the entry's types are used as a whole, the fields that they keep are not read here")]

#[path = "../../../django_app/entries/src/lenient.rs"]
mod lenient;
#[path = "../../../django_app/entries/src/request.rs"]
mod request;

use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use serde::Deserialize;

use lenient::Lenient;
use request::Request;

/// Times JSON decoders on the demo's request.
#[derive(Parser)]
struct Arguments {
    /// A body of the order summary.
    body: PathBuf,
    /// Turns of each decoder.
    #[arg(long, default_value_t = 1_500)]
    turns: usize,
}

/// Lines, and the sum of what they cost: what every decoder must agree on.
type Seen = (usize, u64);

fn seen(request: &Lenient<Request<'_>>) -> Seen {
    let lines = request.0.orders.as_deref().unwrap_or_default();
    (lines.len(), lines.iter().filter_map(|line| line.price).map(u64::from).sum())
}

/// A decoder's name, and a turn of it.
type Decoder<'a> = (&'static str, Box<dyn FnMut() -> Seen + 'a>);

fn decoders(body: &[u8]) -> Vec<Decoder<'_>> {
    let text = || std::str::from_utf8(body).expect("UTF-8");
    let (mut copy, mut buffers) = (Vec::new(), simd_json::Buffers::default());
    vec![
        ("serde_json", Box::new(move || seen(&serde_json::from_str(text()).expect("JSON")))),
        ("sonic-rs", Box::new(move || seen(&sonic_rs::from_str(text()).expect("JSON")))),
        (
            "simd-json",
            // It decodes in place: the body is the caller's, so a copy is its own.
            Box::new(move || {
                copy.clear();
                copy.extend_from_slice(body);
                let mut tape = simd_json::Deserializer::from_slice_with_buffers(&mut copy, &mut buffers).expect("JSON");
                seen(&Lenient::deserialize(&mut tape).expect("JSON"))
            }),
        ),
    ]
}

fn main() {
    let arguments = Arguments::parse();
    let body = std::fs::read(&arguments.body).unwrap_or_else(|why| panic!("{}: {why}", arguments.body.display()));
    let mut decoders = decoders(&body);
    let found: Vec<Seen> = decoders.iter_mut().map(|(_, turn)| turn()).collect();
    assert!(found.iter().all(|seen| *seen == found[0]), "the decoders do not agree: {found:?}");
    let mut took = vec![Vec::with_capacity(arguments.turns); decoders.len()];
    for _ in 0..arguments.turns {
        for ((_, turn), took) in decoders.iter_mut().zip(&mut took) {
            let began = Instant::now();
            std::hint::black_box(turn());
            took.push(began.elapsed().as_secs_f64() * 1e6);
        }
    }
    println!("{} bytes, {} lines, microseconds over {} turns", body.len(), found[0].0, arguments.turns);
    for ((name, _), mut took) in decoders.into_iter().zip(took) {
        took.sort_by(f64::total_cmp);
        println!("{name:12} least {:4.0}  median {:4.0}", took[0], took[took.len() / 2]);
    }
}
