//! Zone maps: the least and the greatest value of each column in each stretch of a table, so that a scan passes over stretches
//! in which no row can fulfil its condition.
//!
//! A table that stays with the worker is immutable, so a column's values are looked at once: when the first condition asks
//! for them. Whether a stretch is left out is decided by DataFusion's pruning predicate; the filter above the scan judges
//! every row that is left, so a zone map may know too little, and must never say too much.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, OnceLock};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, UInt32Array, UInt64Array};
use arrow_schema::{DataType, SchemaRef};
use datafusion::arrow::compute::take;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, DataFusionError, Result as DfResult, ScalarValue};
use datafusion::functions_aggregate::min_max::{MaxAccumulator, MinAccumulator};
use datafusion::logical_expr::Accumulator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;

use super::monotone::judged_by_bounds;

#[cfg(test)]
mod tests;

/// Rows of a stretch.
pub const ZONE_ROWS: usize = 1 << 14;
/// Longer texts are not kept.
const LONGEST_TEXT: usize = 256;

/// Rows `start..start + rows` of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    pub batch: usize,
    pub start: usize,
    pub rows: usize,
}

/// The zone maps of a table.
#[derive(Debug)]
pub struct ZoneMaps {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    zones: Vec<Stretch>,
    columns: Vec<OnceLock<Option<ColumnZones>>>,
    /// Held by the one who looks at a column.
    looking: Mutex<()>,
}

/// A column's values, a zone to a row.
#[derive(Debug)]
struct ColumnZones {
    /// Null: not known, or no value.
    least: ArrayRef,
    greatest: ArrayRef,
    nulls: ArrayRef,
}

impl ZoneMaps {
    /// Zones of at most `zone_rows` rows. Nothing is looked at yet.
    pub fn new(schema: SchemaRef, batches: Vec<RecordBatch>, zone_rows: usize) -> Self {
        let zones = batches.iter().enumerate().flat_map(|(number, batch)| {
            let rows = batch.num_rows();
            let stretch = move |start: usize| Stretch { batch: number, start, rows: zone_rows.min(rows - start) };
            (0..rows).step_by(zone_rows.max(1)).map(stretch)
        });
        let columns = schema.fields().iter().map(|_| OnceLock::new()).collect();
        Self { zones: zones.collect(), schema, batches, columns, looking: Mutex::default() }
    }

    /// The stretches that may have rows for which `condition` is true; `None`: all of them. A column that is asked for the first
    /// time is looked at, and `check` before each of its zones: an error of its own ends that.
    pub fn kept(
        &self,
        condition: &Arc<dyn PhysicalExpr>,
        check: &dyn Fn() -> DfResult<()>,
    ) -> DfResult<Option<Vec<Stretch>>> {
        let predicate = judged_by_bounds(condition, &self.schema).and_then(|condition| {
            PruningPredicateBuilder::new().with_file_schema(Arc::clone(&self.schema)).build(condition)
        });
        let Some(predicate) = predicate else { return Ok(None) };
        let looking = Looking { maps: self, check, ended: RefCell::default() };
        let kept = predicate.prune(&looking);
        if let Some(ended) = looking.ended.into_inner() {
            return Err(ended);
        }
        // What cannot be judged is read.
        Ok(kept.ok().filter(|kept| kept.contains(&false)).map(|kept| self.stretches(&kept)))
    }

    /// The zones that are kept, those side by side as one.
    fn stretches(&self, kept: &[bool]) -> Vec<Stretch> {
        let mut stretches: Vec<Stretch> = Vec::new();
        for (zone, _) in self.zones.iter().zip(kept).filter(|(_, kept)| **kept) {
            match stretches.last_mut() {
                Some(last) if last.batch == zone.batch && last.start + last.rows == zone.start => {
                    last.rows += zone.rows
                }
                _ => stretches.push(*zone),
            }
        }
        stretches
    }

    /// The least and the greatest value of a column, where they are known to be just these: a condition has asked for the
    /// column before, and each zone is known. Floats never are: NaN and the two zeros are no bounds.
    pub fn extremes(&self, column: usize) -> Option<(ScalarValue, ScalarValue)> {
        let zones = self.columns[column].get()?.as_ref()?;
        let data_type = self.schema.field(column).data_type();
        if zones.least.data_type() != data_type || data_type.is_floating() {
            return None;
        }
        let without_value = zones.nulls.as_primitive::<UInt64Type>().values().iter().zip(&self.zones);
        let without_value = without_value.filter(|(nulls, zone)| **nulls == zone.rows as u64).count();
        if zones.least.null_count() > without_value || without_value == self.zones.len() {
            return None;
        }
        let (least, _) = extremes(&zones.least).ok()?;
        let (_, greatest) = extremes(&zones.greatest).ok()?;
        Some((least, greatest))
    }

    /// What is known of the column of that name, if there is one.
    fn learn(&self, name: &str, check: &dyn Fn() -> DfResult<()>) -> DfResult<Option<&ColumnZones>> {
        let mut named = self.schema.fields().iter().enumerate().filter(|(_, field)| field.name() == name);
        let (Some((index, _)), None) = (named.next(), named.next()) else { return Ok(None) };
        let known = &self.columns[index];
        if known.get().is_none() {
            // One looks, the others wait for what it has seen.
            let _looking = self.looking.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if known.get().is_none() {
                let zones = self.look_at(index, check)?;
                return Ok(known.get_or_init(|| zones).as_ref());
            }
        }
        Ok(known.get().and_then(Option::as_ref))
    }

    fn look_at(&self, column: usize, check: &dyn Fn() -> DfResult<()>) -> DfResult<Option<ColumnZones>> {
        if !has_order(self.schema.field(column).data_type()) {
            return Ok(None);
        }
        let (mut least, mut greatest, mut nulls) = (Vec::new(), Vec::new(), Vec::new());
        for zone in &self.zones {
            check()?;
            let values = self.batches[zone.batch].column(column).slice(zone.start, zone.rows);
            nulls.push(values.logical_null_count() as u64);
            let Ok((low, high)) = bounds(&values) else { return Ok(None) };
            least.push(low);
            greatest.push(high);
        }
        if least.is_empty() {
            return Ok(None);
        }
        let (Ok(least), Ok(greatest)) = (ScalarValue::iter_to_array(least), ScalarValue::iter_to_array(greatest))
        else {
            return Ok(None);
        };
        Ok(Some(ColumnZones { least, greatest, nulls: Arc::new(UInt64Array::from(nulls)) }))
    }
}

/// The zone maps for a predicate that asks for columns: those not known yet are looked at, unless `check` ends that.
struct Looking<'a> {
    maps: &'a ZoneMaps,
    check: &'a dyn Fn() -> DfResult<()>,
    ended: RefCell<Option<DataFusionError>>,
}

impl Looking<'_> {
    fn column(&self, column: &Column) -> Option<&ColumnZones> {
        if self.ended.borrow().is_some() {
            return None;
        }
        self.maps.learn(&column.name, self.check).unwrap_or_else(|error| {
            self.ended.replace(Some(error));
            None
        })
    }
}

impl PruningStatistics for Looking<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.column(column).map(|zones| Arc::clone(&zones.least))
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.column(column).map(|zones| Arc::clone(&zones.greatest))
    }

    fn num_containers(&self) -> usize {
        self.maps.zones.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        self.column(column).map(|zones| Arc::clone(&zones.nulls))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.maps.zones.iter().map(|zone| Some(zone.rows as u64)).collect::<UInt64Array>()))
    }

    fn contained(&self, _: &Column, _: &std::collections::HashSet<ScalarValue>) -> Option<arrow_array::BooleanArray> {
        None
    }
}

fn has_order(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => has_order(values),
        DataType::Float32 | DataType::Float64 | DataType::Boolean | DataType::Utf8 | DataType::LargeUtf8 => true,
        DataType::Date32 | DataType::Date64 | DataType::Time32(_) | DataType::Time64(_) => true,
        DataType::Timestamp(..) | DataType::Duration(_) => true,
        other => other.is_integer() || matches!(other, DataType::Decimal128(..)),
    }
}

/// The least and the greatest value, or nulls of the type.
fn bounds(values: &ArrayRef) -> DfResult<(ScalarValue, ScalarValue)> {
    if let DataType::Dictionary(..) = values.data_type() {
        return bounds(&used(values)?);
    }
    let unknown = ScalarValue::try_from(values.data_type())?;
    let unknown = || (unknown.clone(), unknown.clone());
    let has_nan = match values.data_type() {
        DataType::Float32 => values.as_primitive::<Float32Type>().iter().flatten().any(f32::is_nan),
        DataType::Float64 => values.as_primitive::<Float64Type>().iter().flatten().any(f64::is_nan),
        _ => false,
    };
    if has_nan {
        return Ok(unknown());
    }
    Ok(match extremes(values)? {
        // Whether 0 and -0 are one value depends on who compares: with either of them, both are there.
        (ScalarValue::Float32(Some(low)), ScalarValue::Float32(Some(high))) => (
            ScalarValue::Float32(Some(if low == 0.0 { -0.0 } else { low })),
            ScalarValue::Float32(Some(if high == 0.0 { 0.0 } else { high })),
        ),
        (ScalarValue::Float64(Some(low)), ScalarValue::Float64(Some(high))) => (
            ScalarValue::Float64(Some(if low == 0.0 { -0.0 } else { low })),
            ScalarValue::Float64(Some(if high == 0.0 { 0.0 } else { high })),
        ),
        (low, high) if [&low, &high].into_iter().any(|text| text.try_as_str().flatten().is_some_and(is_long)) => {
            unknown()
        }
        both => both,
    })
}

/// The least and the greatest value as they are.
fn extremes(values: &ArrayRef) -> DfResult<(ScalarValue, ScalarValue)> {
    let (mut least, mut greatest) =
        (MinAccumulator::try_new(values.data_type())?, MaxAccumulator::try_new(values.data_type())?);
    least.update_batch(std::slice::from_ref(values))?;
    greatest.update_batch(std::slice::from_ref(values))?;
    Ok((least.evaluate()?, greatest.evaluate()?))
}

fn is_long(text: &str) -> bool {
    text.len() > LONGEST_TEXT
}

/// The values of a dictionary that some row has.
fn used(column: &ArrayRef) -> DfResult<ArrayRef> {
    let dictionary = column.as_any_dictionary();
    let mut used = vec![false; dictionary.values().len()];
    for (row, key) in dictionary.normalized_keys().into_iter().enumerate() {
        if let (true, Some(used)) = (dictionary.keys().is_valid(row), used.get_mut(key)) {
            *used = true;
        }
    }
    let keys = used.iter().enumerate().filter(|(_, used)| **used).map(|(key, _)| key as u32);
    Ok(take(dictionary.values(), &UInt32Array::from_iter_values(keys), None)?)
}
