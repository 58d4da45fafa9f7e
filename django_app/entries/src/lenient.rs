//! Decoding that does not fail on a wrong type: a type says what it takes, and anything else makes it its default. So
//! the first fault that is told is the first one by the rules, not the first one that a decoder trips over.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

/// What a type makes of the values that may stand in its place.
pub trait Shape<'a>: Default {
    fn int(_: i64) -> Self {
        Self::default()
    }

    fn float(_: f64) -> Self {
        Self::default()
    }

    fn text(_: Cow<'a, str>) -> Self {
        Self::default()
    }

    fn list<A: SeqAccess<'a>>(mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Lenient<Unread>>()?.is_some() {}
        Ok(Self::default())
    }

    fn object<A: MapAccess<'a>>(mut members: A) -> Result<Self, A::Error> {
        while members.next_entry::<Lenient<Unread>, Lenient<Unread>>()?.is_some() {}
        Ok(Self::default())
    }
}

/// A value that nobody reads. Unlike serde's `IgnoredAny` it is looked at in full: text has to be Unicode, and depth
/// counts.
#[derive(Default)]
pub struct Unread;

impl Shape<'_> for Unread {}

/// Reads a `Shape` from any format of serde's.
pub struct Lenient<T>(pub T);

impl<'a, T: Shape<'a>> Deserialize<'a> for Lenient<T> {
    fn deserialize<D: Deserializer<'a>>(decoder: D) -> Result<Self, D::Error> {
        decoder.deserialize_any(ShapeVisitor(PhantomData)).map(Lenient)
    }
}

struct ShapeVisitor<T>(PhantomData<T>);

impl<'a, T: Shape<'a>> Visitor<'a> for ShapeVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_i64<E>(self, value: i64) -> Result<T, E> {
        Ok(T::int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<T, E> {
        Ok(i64::try_from(value).map_or_else(|_| T::default(), T::int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<T, E> {
        Ok(T::float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<T, E> {
        Ok(T::text(Cow::Owned(value.to_owned())))
    }

    fn visit_borrowed_str<E>(self, value: &'a str) -> Result<T, E> {
        Ok(T::text(Cow::Borrowed(value)))
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_seq<A: SeqAccess<'a>>(self, items: A) -> Result<T, A::Error> {
        T::list(items)
    }

    fn visit_map<A: MapAccess<'a>>(self, members: A) -> Result<T, A::Error> {
        T::object(members)
    }
}
