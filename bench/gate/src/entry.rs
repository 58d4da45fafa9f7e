//! A JSON body through the demo's native entry, by the ABI that the worker uses.

use molt_entry::testing::{Answer, Request, call};

use crate::Arguments;

const LINES: usize = 200;

/// Order lines as the demo's generator makes them.
fn body() -> String {
    let lines: Vec<String> = (0..LINES)
        .map(|line| {
            let region = ["north", "south", "east", "west", "southwest"][line % 5];
            let category = ["grocery", "tools", "clothing"][line % 3];
            let (customer, quantity, price) = (line * 7 % 400, 1 + line % 9, 1_000 + line * 3_701 % 99_000);
            format!(
                r#"{{"id": {line}, "customer": "C{customer:05}", "region": "{region}", "category": "{category}", "qty": {quantity}, "price": "{}.{:02}", "discount": "0.125", "ts": {}}}"#,
                price / 100,
                price % 100,
                1_760_000_000 + line
            )
        })
        .collect();
    format!(r#"{{"min_amount": 10, "orders": [{}]}}"#, lines.join(", "))
}

/// Asks the entry.
pub fn walk(arguments: &Arguments) {
    let request = Request::json(body());
    crate::walk(arguments, || match call(demo_entries::molt_entries_v1, "order_summary", &request) {
        Answer::Ok { .. } => {}
        failed => panic!("{failed:?}"),
    });
}
