//! The entry, called as the worker calls it. That it agrees with the Python summaries on thousands of requests, valid
//! and broken, is tested in `django_app/orders/tests`.

use demo_entries::molt_entries_v1;
use molt_entry::testing::{Answer, Request, call};
use molt_entry::{abi, json};
use serde_json::Value;

fn line(qty: u32, price: &str, discount: &str) -> Value {
    json!({"customer": "Ada", "region": "north", "qty": qty, "price": price, "discount": discount})
}

fn answer(request: &Request) -> Value {
    match call(molt_entries_v1, "order_summary", request) {
        Answer::Ok { body, .. } => serde_json::from_slice(&body).expect("JSON"),
        failed => panic!("{failed:?}"),
    }
}

fn fault(body: &str) -> (String, Value) {
    match call(molt_entries_v1, "order_summary", &Request::json(body)) {
        Answer::Failed { outcome: abi::OUTCOME_INVALID_INPUT, message, details, .. } => (message, details),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_line_by_hand() {
    // 12.34 * 12 * 0.95 * 0.97 = 136.45572; 5% of 136.46 is 6.823. The second line's net, 1.00, is under min_amount.
    let request = json!({"min_amount": 1.01, "orders": [line(12, "12.34", "0.05"), line(1, "1", "0")]});
    let row = json!({"region": "north", "count": 1, "net": "136.46", "tax": "6.82", "gross": "143.28",
        "mean": "143.28", "p50": "143.28", "p95": "143.28", "max": "143.28"});
    let expected = json!({
        "regions": [row],
        "top_customers": [{"customer": "Ada", "gross": "143.28"}],
        "totals": {"lines": 2, "count": 1, "net": "136.46", "tax": "6.82", "gross": "143.28"},
    });
    assert_eq!(answer(&Request::json(request.to_string())), expected);
    assert_eq!(answer(&Request::msgpack(request).accept(molt_entry::Codec::Json)), expected);
}

#[test]
fn ties_go_to_the_even_cent_and_the_largest_line_fits() {
    let net = |line: Value| answer(&Request::json(json!({"orders": [line]}).to_string()))["totals"]["net"].clone();
    assert_eq!(net(line(1, "0.05", "0.5")), "0.02"); // 0.025
    assert_eq!(net(line(1, "0.15", "0.5")), "0.08"); // 0.075
    assert_eq!(net(line(10_000, "999999.99", "0")), "8799999912.00");
}

#[test]
fn faults_name_line_and_field() {
    let body = json!({"orders": [line(1, "1", "0"), line(0, "x", "0"), 7]}).to_string();
    let (message, details) = fault(&body);
    assert_eq!(
        (message.as_str(), details),
        ("qty must be an integer from 1 to 10000", json!({"index": 1, "field": "qty"}))
    );
    // A number beyond a double is too large for its member; it does not make the body malformed.
    let (message, details) = fault(&body.replace(r#""qty":0"#, r#""qty":1e999"#));
    assert_eq!(
        (message.as_str(), details),
        ("qty must be an integer from 1 to 10000", json!({"index": 1, "field": "qty"}))
    );
    let (message, details) = fault(&body.replace(r#""qty":0"#, r#""qty":01e999"#));
    assert_eq!((message.as_str(), details), ("the body is not valid JSON", json!({"index": null, "field": null})));
}
