//! A statement's parameters: declared types, values out of a request, and the place in a kept plan where a run reads them.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow_schema::{DataType, TimeUnit};
use datafusion::common::{DataFusionError, Result as DfResult, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use serde_json::{Map, Value};

use super::instants::UTC;
use super::temporal;

/// The type of a parameter, or of a column in a declared input schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParamType {
    Float64,
    Int64,
    Utf8,
    Bool,
    /// Days, written `2026-11-23`.
    Date,
    /// A moment: microseconds in UTC, written `2026-11-23T18:05:00Z` or without the Z.
    Timestamp,
}

impl ParamType {
    const ALL: [(&'static str, Self); 6] = [
        ("float64", Self::Float64),
        ("int64", Self::Int64),
        ("utf8", Self::Utf8),
        ("bool", Self::Bool),
        ("date", Self::Date),
        ("timestamp", Self::Timestamp),
    ];

    /// The name in the manifest.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("?", |(name, _)| name)
    }

    /// The Arrow type that the planner sees.
    pub fn data_type(self) -> DataType {
        match self {
            Self::Float64 => DataType::Float64,
            Self::Int64 => DataType::Int64,
            Self::Utf8 => DataType::Utf8,
            Self::Bool => DataType::Boolean,
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        }
    }

    /// The value of this type that `value` stands for. Text is read as the type it should be, because parameters out of a
    /// URL are all text; null is a value of every type.
    fn scalar(self, value: &Value) -> Option<ScalarValue> {
        Some(match (self, value) {
            (_, Value::Null) => ScalarValue::try_from(self.data_type()).ok()?,
            (Self::Float64, Value::Number(number)) => ScalarValue::Float64(Some(number.as_f64()?)),
            (Self::Float64, Value::String(text)) => {
                ScalarValue::Float64(Some(text.trim().parse().ok().filter(|number: &f64| number.is_finite())?))
            }
            (Self::Int64, Value::Number(number)) => ScalarValue::Int64(Some(number.as_i64()?)),
            (Self::Int64, Value::String(text)) => ScalarValue::Int64(Some(text.trim().parse().ok()?)),
            (Self::Utf8, Value::String(text)) => ScalarValue::Utf8(Some(text.clone())),
            (Self::Bool, Value::Bool(flag)) => ScalarValue::Boolean(Some(*flag)),
            (Self::Bool, Value::String(text)) => ScalarValue::Boolean(Some(text.trim().to_lowercase().parse().ok()?)),
            (Self::Date, Value::String(text)) => ScalarValue::Date32(Some(temporal::parse_date(text)?)),
            (Self::Timestamp, Value::String(text)) => {
                ScalarValue::TimestampMicrosecond(Some(temporal::parse_timestamp(text)?), Some(UTC.into()))
            }
            _ => return None,
        })
    }
}

impl FromStr for ParamType {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|(name, _)| *name).collect();
            format!("unknown type \"{name}\"; the types are {}", known.join(", "))
        })
    }
}

/// Values by parameter name, in the order of the names: also the key of plans that hold their values.
pub type ParamValues = BTreeMap<String, ScalarValue>;

/// The declared parameters' values out of a request. Names that are not declared are left alone: they may be the view's own.
pub fn declared_values(types: &BTreeMap<String, ParamType>, given: &Map<String, Value>) -> Result<ParamValues, String> {
    let mut values = ParamValues::new();
    for (name, kind) in types {
        let value = given.get(name).ok_or_else(|| {
            format!("parameter \"{name}\" ({}) is missing; the request has {}", kind.name(), listed(given.keys()))
        })?;
        let scalar = kind
            .scalar(value)
            .ok_or_else(|| format!("parameter \"{name}\" must be {}, not {}", kind.name(), described(value)))?;
        values.insert(name.clone(), scalar);
    }
    Ok(values)
}

/// Values for a statement that declares no types: each value's own type.
pub fn inferred_values(names: impl Iterator<Item = String>, given: &Map<String, Value>) -> Result<ParamValues, String> {
    let mut values = ParamValues::new();
    for name in names {
        let value = given
            .get(&name)
            .ok_or_else(|| format!("parameter \"{name}\" is missing; the request has {}", listed(given.keys())))?;
        let scalar = match value {
            Value::Null => ScalarValue::Null,
            Value::Bool(flag) => ScalarValue::Boolean(Some(*flag)),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(integer), _) => ScalarValue::Int64(Some(integer)),
                (None, Some(float)) if number.is_f64() => ScalarValue::Float64(Some(float)),
                _ => return Err(format!("parameter \"{name}\": {number} does not fit into int64")),
            },
            Value::String(text) => ScalarValue::Utf8(Some(text.clone())),
            Value::Array(_) | Value::Object(_) => {
                return Err(format!("parameter \"{name}\" must be a single value, not {}", described(value)));
            }
        };
        values.insert(name, scalar);
    }
    if let Some(name) = given.keys().find(|name| !values.contains_key(*name)) {
        return Err(format!("parameter \"{name}\" is not used in the statement; hint: write it as ${name}"));
    }
    Ok(values)
}

/// What an error says about a value: its type, and the value itself where that is short.
fn described(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(flag) => format!("the boolean {flag}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text \"{}\"", text.chars().take(40).collect::<String>()),
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(fields) => format!("an object of {}", fields.len()),
    }
}

/// Names for an error message: quoted, at most twenty.
pub fn listed<'a, I: Iterator<Item = &'a String>>(names: I) -> String {
    let names: Vec<String> = names.map(|name| format!("\"{name}\"")).collect();
    match names.len() {
        0 => "none".into(),
        count if count > 20 => format!("{} and {} more", names[..20].join(", "), count - 20),
        _ => names.join(", "),
    }
}

/// Where a kept plan reads one parameter: empty but for the time of a run.
///
/// A value read while the plan is made would be frozen into it, so asking an empty cell is an error and leaves a mark: such a
/// statement is planned with its values instead.
#[derive(Debug, Default)]
pub struct ParamCell {
    value: std::sync::RwLock<Option<ScalarValue>>,
    asked_while_empty: AtomicBool,
}

impl ParamCell {
    /// Sets the value for the run that starts.
    pub fn set(&self, value: Option<ScalarValue>) {
        *self.value.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = value;
    }

    /// Whether the planner wanted to know the value.
    pub fn was_asked_while_empty(&self) -> bool {
        self.asked_while_empty.load(Ordering::Relaxed)
    }

    fn get(&self) -> DfResult<ScalarValue> {
        match &*self.value.read().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            Some(value) => Ok(value.clone()),
            None => {
                self.asked_while_empty.store(true, Ordering::Relaxed);
                Err(DataFusionError::Execution("a parameter has no value while planning".into()))
            }
        }
    }
}

/// A function without arguments whose value is a [`ParamCell`]'s: what stands in a kept plan for `$name`.
#[derive(Debug)]
pub struct ParamFunction {
    label: String,
    data_type: DataType,
    cell: Arc<ParamCell>,
    signature: Signature,
}

impl ParamFunction {
    /// `label` is what the parameter is called in column names: `$min`.
    pub fn new(label: String, data_type: DataType, cell: Arc<ParamCell>) -> Self {
        // Stable, not volatile: within one run it is a constant, and the plan is past the rules that fold constants.
        Self { label, data_type, cell, signature: Signature::nullary(Volatility::Stable) }
    }
}

impl PartialEq for ParamFunction {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.cell, &other.cell)
    }
}

impl Eq for ParamFunction {}

impl Hash for ParamFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.cell).hash(state);
    }
}

impl ScalarUDFImpl for ParamFunction {
    fn name(&self) -> &str {
        &self.label
    }

    fn schema_name(&self, _: &[Expr]) -> DfResult<String> {
        Ok(self.label.clone())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.data_type.clone())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        self.cell.get().map(ColumnarValue::Scalar)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn values_take_the_declared_type_and_text_is_read_as_it() {
        let types: BTreeMap<String, ParamType> =
            ParamType::ALL.iter().map(|(name, kind)| (name.to_string(), *kind)).collect();
        let typed = object(json!({"float64": 2, "int64": -3, "utf8": "x", "bool": true, "date": "1970-01-02",
            "timestamp": "1970-01-01T00:00:01.5Z", "other": [1]}));
        let text = object(json!({"float64": "2", "int64": "-3", "utf8": "x", "bool": "True", "date": "1970-01-02",
            "timestamp": "1970-01-01 00:00:01.5"}));
        let values = declared_values(&types, &typed).unwrap();
        assert_eq!(values, declared_values(&types, &text).unwrap());
        assert_eq!(values["float64"], ScalarValue::Float64(Some(2.0)));
        assert_eq!(values["int64"], ScalarValue::Int64(Some(-3)));
        assert_eq!(values["date"], ScalarValue::Date32(Some(1)));
        assert_eq!(values["timestamp"], ScalarValue::TimestampMicrosecond(Some(1_500_000), Some(UTC.into())));
        let nulls: Map<String, Value> = types.keys().map(|name| (name.clone(), Value::Null)).collect();
        assert!(declared_values(&types, &nulls).unwrap().values().all(ScalarValue::is_null));
    }

    #[test]
    fn a_missing_or_mistyped_parameter_is_named_with_its_types() {
        let types = BTreeMap::from([("min".to_string(), ParamType::Float64)]);
        let missing = declared_values(&types, &object(json!({"mni": 1}))).unwrap_err();
        assert_eq!(missing, "parameter \"min\" (float64) is missing; the request has \"mni\"");
        for (value, expected) in [
            (json!("ten"), "must be float64, not the text \"ten\""),
            (json!([1]), "must be float64, not an array of 1"),
            (json!("NaN"), "must be float64, not the text \"NaN\""),
        ] {
            let error = declared_values(&types, &object(json!({"min": value}))).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let whole = BTreeMap::from([("n".to_string(), ParamType::Int64)]);
        assert!(declared_values(&whole, &object(json!({"n": 1.5}))).unwrap_err().contains("must be int64"));
        assert!("float".parse::<ParamType>().unwrap_err().contains("the types are float64"));
    }

    #[test]
    fn a_cell_says_that_it_was_asked_without_a_value() {
        let cell = ParamCell::default();
        cell.set(Some(ScalarValue::Int64(Some(1))));
        assert_eq!(cell.get().unwrap(), ScalarValue::Int64(Some(1)));
        assert!(!cell.was_asked_while_empty());
        cell.set(None);
        cell.get().unwrap_err();
        assert!(cell.was_asked_while_empty());
    }

    #[test]
    fn an_ad_hoc_parameter_has_its_values_type() {
        let names = || ["a".to_string(), "b".to_string()].into_iter();
        let values = inferred_values(names(), &object(json!({"a": 1, "b": "x"}))).unwrap();
        assert_eq!(values["a"], ScalarValue::Int64(Some(1)));
        assert!(inferred_values(names(), &object(json!({"a": 1}))).unwrap_err().contains("\"b\" is missing"));
        assert!(inferred_values(names(), &object(json!({"a": 1, "b": [1]}))).unwrap_err().contains("single value"));
        assert!(inferred_values(names(), &object(json!({"a": 1, "b": 2, "c": 3}))).unwrap_err().contains("not used"));
        assert!(inferred_values(names(), &object(json!({"a": u64::MAX, "b": 2}))).unwrap_err().contains("int64"));
    }
}
