//! The demo's native entry: the order summary, by the rules in `django_app/orders/rules.py`. Money is whole cents and
//! every rounding is exact. `lenient` and `strict` make its faults the very ones that the Python summaries find.

mod lenient;
mod request;
mod strict;

use std::borrow::Cow;

use foldhash::{HashMap, HashMapExt};
use molt_entry::{Ctx, EntryError, Payload, json};
use serde::{Serialize, Serializer};

use crate::request::{Line, REGIONS};

molt_entry::export! { "order_summary" => order_summary }

const TOP_CUSTOMERS: usize = 10;

#[derive(Serialize)]
struct Summary<'a> {
    regions: Vec<RegionRow>,
    top_customers: Vec<CustomerRow<'a>>,
    totals: Totals,
}

#[derive(Serialize)]
struct RegionRow {
    region: &'static str,
    count: usize,
    net: Money,
    tax: Money,
    gross: Money,
    mean: Money,
    p50: Money,
    p95: Money,
    max: Money,
}

#[derive(Serialize)]
struct CustomerRow<'a> {
    customer: Cow<'a, str>,
    gross: Money,
}

#[derive(Serialize)]
struct Totals {
    lines: usize,
    count: usize,
    net: Money,
    tax: Money,
    gross: Money,
}

/// Cents, written as "12.34".
struct Money(u128);

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{}.{:02}", self.0 / 100, self.0 % 100))
    }
}

/// What the lines of a region come to. The sums are wide enough for any number of lines.
#[derive(Default)]
struct Region {
    net: u128,
    tax: u128,
    gross: Vec<u64>,
}

fn order_summary<'a>(payload: Payload<'a>, _: &Ctx) -> Result<Summary<'a>, EntryError> {
    let request = strict::read(payload)?;
    if !request.is_object {
        return Err(fault("the body must be an object", None, None));
    }
    let orders = request.orders.ok_or_else(|| fault("orders must be a list", None, Some("orders")))?;
    let min_amount = request.min_amount.unwrap_or(Some(0)).ok_or_else(|| {
        let rule = "min_amount must be a number from 0 to 1000000000000 with at most 2 decimals";
        fault(rule, None, Some("min_amount"))
    })?;

    let lines = orders.len();
    let mut regions: [Region; REGIONS.len()] = Default::default();
    let mut customers: HashMap<Cow<'a, str>, u128> = HashMap::with_capacity(1024);
    for (index, line) in orders.into_iter().enumerate() {
        let (region, customer, net, tax) = amounts(index, line)?;
        if net >= min_amount {
            regions[region].net += u128::from(net);
            regions[region].tax += u128::from(tax);
            regions[region].gross.push(net + tax);
            *customers.entry(customer).or_default() += u128::from(net + tax);
        }
    }

    let mut top: Vec<_> = customers.into_iter().collect();
    top.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    top.truncate(TOP_CUSTOMERS);
    let net = regions.iter().map(|region| region.net).sum();
    let tax = regions.iter().map(|region| region.tax).sum();
    let count = regions.iter().map(|region| region.gross.len()).sum();
    let kept = REGIONS.iter().zip(regions).filter(|(_, region)| !region.gross.is_empty());
    Ok(Summary {
        regions: kept.map(|((name, _), region)| row(name, region)).collect(),
        top_customers: top.into_iter().map(|(customer, gross)| CustomerRow { customer, gross: Money(gross) }).collect(),
        totals: Totals { lines, count, net: Money(net), tax: Money(tax), gross: Money(net + tax) },
    })
}

/// Region, customer, net and tax of a line, or its first fault.
fn amounts<'a>(index: usize, line: Line<'a>) -> Result<(usize, Cow<'a, str>, u64, u64), EntryError> {
    let wrong = |field, rule: &str| fault(&format!("{field} must be {rule}"), Some(index), Some(field));
    if !line.is_object {
        return Err(fault("a line must be an object", Some(index), None));
    }
    let qty = line.qty.ok_or_else(|| wrong("qty", "an integer from 1 to 10000"))?;
    let region = line.region.ok_or_else(|| {
        let names = REGIONS.map(|region| region.0).join(", ");
        wrong("region", &format!("one of {names}"))
    })?;
    let customer = line.customer.ok_or_else(|| wrong("customer", "a non-empty string"))?;
    let price = line
        .price
        .ok_or_else(|| wrong("price", "a decimal string over 0 and under 1000000 with at most 2 decimals"))?;
    let discount =
        line.discount.ok_or_else(|| wrong("discount", "a decimal string from 0 to under 1 with at most 4 decimals"))?;

    let left_by_tier = match qty {
        50.. => 88,
        20.. => 93,
        10.. => 97,
        _ => 100,
    };
    // At most 10^8 * 10^4 * 10^4 * 10^2 = 10^18, in 10^-8: a u64 holds it.
    let exact = u64::from(price) * u64::from(qty) * u64::from(10_000 - discount) * left_by_tier;
    let net = half_even(exact / 1_000_000, exact % 1_000_000, 1_000_000);
    let exact = net * REGIONS[usize::from(region)].1;
    Ok((region.into(), customer, net, half_even(exact / 10_000, exact % 10_000, 10_000)))
}

fn row(region: &'static str, Region { net, tax, mut gross }: Region) -> RegionRow {
    gross.sort_unstable();
    let (sum, count) = (net + tax, gross.len());
    let mean = half_even((sum / count as u128) as u64, (sum % count as u128) as u64, count as u64);
    let at = |index: usize| Money(gross[index].into());
    let (p50, p95, max) = (at(count / 2), at(count * 95 / 100), at(count - 1));
    RegionRow {
        region,
        count,
        net: Money(net),
        tax: Money(tax),
        gross: Money(sum),
        mean: Money(mean.into()),
        p50,
        p95,
        max,
    }
}

/// Rounds a division by `unit` as `Decimal` does: to the nearest, and from the middle to the even one.
fn half_even(quotient: u64, rest: u64, unit: u64) -> u64 {
    quotient + u64::from(rest * 2 > unit || (rest * 2 == unit && quotient % 2 == 1))
}

fn fault(message: &str, index: Option<usize>, field: Option<&str>) -> EntryError {
    EntryError::invalid(message).details(json!({"index": index, "field": field}))
}
