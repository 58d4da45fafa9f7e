//! The request, member by member: what the rules (`django_app/orders/rules.py`) take, and nothing else.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{MapAccess, SeqAccess};

use crate::lenient::{Lenient, Shape, Unread};

/// Every region with its tax rate in 1/10000, sorted by name.
pub const REGIONS: [(&str, u64); 8] = [
    ("central", 800),
    ("east", 725),
    ("north", 500),
    ("northeast", 625),
    ("northwest", 650),
    ("south", 950),
    ("southwest", 1025),
    ("west", 1200),
];

/// The body. `None`, here and in a line: missing, or not what the rules allow.
#[derive(Default)]
pub struct Request<'a> {
    pub is_object: bool,
    pub orders: Option<Vec<Line<'a>>>,
    /// In cents; `None` as a whole: left out.
    pub min_amount: Option<Option<u64>>,
}

/// One line.
#[derive(Default)]
pub struct Line<'a> {
    pub is_object: bool,
    pub qty: Option<u16>,
    /// An index of `REGIONS`.
    pub region: Option<u8>,
    pub customer: Option<Cow<'a, str>>,
    /// In cents.
    pub price: Option<u32>,
    /// In 1/10000.
    pub discount: Option<u16>,
}

/// The members that are read. Of a name that comes twice, the last one counts.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Name {
    MinAmount,
    Orders,
    Qty,
    Region,
    Customer,
    Price,
    Discount,
    #[serde(other)]
    Other,
}

impl<'a> Shape<'a> for Request<'a> {
    fn object<A: MapAccess<'a>>(mut members: A) -> Result<Self, A::Error> {
        let mut request = Self { is_object: true, ..Self::default() };
        while let Some(name) = members.next_key()? {
            match name {
                Name::MinAmount => request.min_amount = Some(min_amount(next(&mut members)?)),
                Name::Orders => request.orders = next::<Orders, _>(&mut members)?.0,
                _ => Unread = next(&mut members)?,
            }
        }
        Ok(request)
    }
}

#[derive(Default)]
struct Orders<'a>(Option<Vec<Line<'a>>>);

impl<'a> Shape<'a> for Orders<'a> {
    fn list<A: SeqAccess<'a>>(mut items: A) -> Result<Self, A::Error> {
        let mut lines = Vec::new();
        while let Some(Lenient(line)) = items.next_element()? {
            lines.push(line);
        }
        Ok(Self(Some(lines)))
    }
}

impl<'a> Shape<'a> for Line<'a> {
    fn object<A: MapAccess<'a>>(mut members: A) -> Result<Self, A::Error> {
        let mut line = Self { is_object: true, ..Self::default() };
        while let Some(name) = members.next_key()? {
            match name {
                Name::Qty => line.qty = qty(next(&mut members)?),
                Name::Region => line.region = region(next(&mut members)?),
                Name::Customer => line.customer = customer(next(&mut members)?),
                Name::Price => line.price = price(next(&mut members)?),
                Name::Discount => line.discount = discount(next(&mut members)?),
                _ => Unread = next(&mut members)?,
            }
        }
        Ok(line)
    }
}

fn next<'a, T: Shape<'a>, A: MapAccess<'a>>(members: &mut A) -> Result<T, A::Error> {
    members.next_value::<Lenient<T>>().map(|value| value.0)
}

/// A value as far as the members below can use one.
#[derive(Default)]
enum Scalar<'a> {
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
    #[default]
    Other,
}

impl<'a> Shape<'a> for Scalar<'a> {
    fn int(value: i64) -> Self {
        Self::Int(value)
    }

    fn float(value: f64) -> Self {
        Self::Float(value)
    }

    fn text(value: Cow<'a, str>) -> Self {
        Self::Text(value)
    }
}

fn min_amount(value: Scalar) -> Option<u64> {
    let amount = match value {
        Scalar::Int(int) => int as f64,
        Scalar::Float(float) => float,
        _ => return None,
    };
    let cents = (amount * 100.0).round();
    ((0.0..=1e12).contains(&amount) && cents / 100.0 == amount).then_some(cents as u64)
}

fn qty(value: Scalar) -> Option<u16> {
    match value {
        Scalar::Int(qty @ 1..=10_000) => Some(qty as u16),
        _ => None,
    }
}

fn region(value: Scalar) -> Option<u8> {
    let Scalar::Text(name) = value else { return None };
    REGIONS.iter().position(|region| region.0 == name).map(|index| index as u8)
}

fn customer(value: Scalar) -> Option<Cow<str>> {
    match value {
        Scalar::Text(name) if !name.is_empty() => Some(name),
        _ => None,
    }
}

fn price(value: Scalar) -> Option<u32> {
    decimal(value, 2).filter(|cents| (1..100_000_000).contains(cents)).map(|cents| cents as u32)
}

fn discount(value: Scalar) -> Option<u16> {
    decimal(value, 4).filter(|share| *share < 10_000).map(|share| share as u16)
}

/// Digits, and perhaps a point and up to `places` digits, as a whole number of 10^-places.
fn decimal(value: Scalar, places: u32) -> Option<u64> {
    let Scalar::Text(text) = value else { return None };
    let (mut number, mut digits, mut whole) = (0u64, 0, None);
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' => number = number.saturating_mul(10).saturating_add((byte - b'0').into()),
            b'.' if whole.is_none() && digits > 0 => {
                whole = Some(digits);
                continue;
            }
            _ => return None,
        }
        digits += 1;
    }
    let fraction = whole.map_or(0, |whole| digits - whole);
    let complete = digits > 0 && fraction <= places && (whole.is_none() || fraction > 0);
    complete.then(|| number.saturating_mul(10u64.pow(places - fraction)))
}
