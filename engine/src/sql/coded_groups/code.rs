//! Below: texts become numbers, and rows that a filter drops go before anything of them is copied.

use std::fmt;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{
    Array, ArrayRef, BooleanArray, GenericStringArray, OffsetSizeTrait, RecordBatch, RecordBatchOptions, UInt32Array,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::compute::{BatchCoalescer, FilterBuilder, FilterPredicate, prep_null_mask_filter};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result as DfResult, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{
    ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions, SchedulingType,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
};
use futures::{StreamExt, stream};

use super::codes::{Coder, Codes};
use super::renewed::Renewed;
use super::sample::is_repeated;
use crate::sql::scan::SlotScan;

/// A column of the answer: of the input as it is, or its texts' numbers.
#[derive(Debug, Clone)]
pub struct Column {
    pub input: usize,
    pub codes: Option<Arc<Codes>>,
}

/// Filters a table's rows, and gives numbers in the place of texts.
#[derive(Debug)]
pub struct CodeExec {
    /// A [`SlotScan`].
    scan: Arc<dyn ExecutionPlan>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    columns: Vec<Column>,
    properties: Arc<PlanProperties>,
}

impl CodeExec {
    /// `None`: what is to be coded is no text of a table.
    pub fn new(
        scan: &Arc<dyn ExecutionPlan>,
        filter: Option<&Arc<dyn PhysicalExpr>>,
        columns: Vec<Column>,
    ) -> Option<Self> {
        let schema = scan.schema();
        let coded = |column: &Column| column.codes.is_some();
        if !scan.is::<SlotScan>()
            || !columns
                .iter()
                .filter(|column| coded(column))
                .all(|column| schema.field(column.input).data_type().is_string())
        {
            return None;
        }
        let field = |column: &Column| {
            let field = schema.field(column.input);
            match coded(column) {
                true => Arc::new(Field::new(field.name(), DataType::UInt32, field.is_nullable())),
                false => Arc::clone(&schema.fields()[column.input]),
            }
        };
        let coded = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(coded),
            Partitioning::UnknownPartitioning(scan.output_partitioning().partition_count()),
            EmissionType::Incremental,
            scan.boundedness(),
        )
        .with_scheduling_type(SchedulingType::Cooperative); // as the scan is
        Some(Self { scan: Arc::clone(scan), filter: filter.cloned(), columns, properties: Arc::new(properties) })
    }

    /// The same for another run.
    pub fn renewed(&self, scan: Arc<dyn ExecutionPlan>, renewed: &mut Renewed) -> Self {
        let mut column = |column: &Column| Column {
            input: column.input,
            codes: column.codes.as_ref().map(|codes| renewed.codes(codes)),
        };
        let columns = self.columns.iter().map(&mut column).collect();
        Self { scan, filter: self.filter.clone(), columns, properties: Arc::clone(&self.properties) }
    }

    /// Which numbers it gives, column by column.
    #[cfg(test)]
    pub fn codes(&self) -> Vec<usize> {
        self.columns
            .iter()
            .filter_map(|column| column.codes.as_ref())
            .map(|codes| Arc::as_ptr(codes) as usize)
            .collect()
    }

    /// This run's rows; `None`: whether the texts among them come again and again, so that numbers for them are worth it, is
    /// not known, or they do not.
    pub fn rows_with_repeated_texts(&self) -> DfResult<Option<usize>> {
        let Some(scan) = self.scan.downcast_ref::<SlotScan>() else { return Ok(None) };
        let Some(data) = scan.in_memory()? else { return Ok(None) };
        let mut coded = self.columns.iter().filter(|column| column.codes.is_some());
        Ok(coded.all(|column| is_repeated(&data, scan.of_table(column.input))).then_some(data.rows))
    }
}

impl DisplayAs for CodeExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let schema = self.schema();
        let coded = self.columns.iter().zip(schema.fields()).filter(|(column, _)| column.codes.is_some());
        let names: Vec<&str> = coded.map(|(_, field)| field.name().as_str()).collect();
        write!(f, "CodeExec: [{}]", names.join(", "))?;
        match &self.filter {
            Some(filter) => write!(f, ", filter={filter}"),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for CodeExec {
    fn name(&self) -> &str {
        "CodeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.scan]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        self.filter.as_ref().map_or(Ok(TreeNodeRecursion::Continue), f)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        if options.children_properties == ChildrenPropertiesMode::Keep {
            let (filter, columns) = (self.filter.clone(), self.columns.clone());
            let properties = Arc::clone(&self.properties);
            return Ok(Arc::new(Self { scan: children.swap_remove(0), filter, columns, properties }));
        }
        match Self::new(&children[0], self.filter.as_ref(), self.columns.clone()) {
            Some(code) => Ok(Arc::new(code)),
            None => internal_err!("CodeExec stands on a table alone"),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let coder = |column: &Column| column.codes.clone().map(|codes| Coder::new(codes, context.memory_pool()));
        let state = Coding {
            filter: self.filter.clone(),
            columns: self.columns.iter().map(|column| (column.input, coder(column))).collect(),
            schema: self.schema(),
        };
        let rows = self.scan.execute(partition, Arc::clone(&context))?;
        let batch_size = context.session_config().batch_size();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), state.run(rows, batch_size))))
    }
}

/// One partition's run.
struct Coding {
    filter: Option<Arc<dyn PhysicalExpr>>,
    columns: Vec<(usize, Option<Coder>)>,
    schema: SchemaRef,
}

impl Coding {
    fn run(
        self,
        rows: SendableRecordBatchStream,
        batch_size: usize,
    ) -> impl futures::Stream<Item = DfResult<RecordBatch>> + Send {
        // Batches of which little is left are put together.
        let whole = BatchCoalescer::new(Arc::clone(&self.schema), batch_size)
            .with_biggest_coalesce_batch_size(Some(batch_size / 2));
        stream::try_unfold((self, rows, whole, false), |(mut coding, mut rows, mut whole, mut ended)| async move {
            loop {
                if let Some(batch) = whole.next_completed_batch() {
                    return Ok::<_, DataFusionError>(Some((batch, (coding, rows, whole, ended))));
                }
                if ended {
                    return Ok(None);
                }
                match rows.next().await {
                    Some(batch) => {
                        let coded = coding.code(&batch?)?;
                        if coding.columns.is_empty() {
                            return Ok(Some((coded, (coding, rows, whole, ended))));
                        }
                        whole.push_batch(coded)?;
                    }
                    None => {
                        ended = true;
                        whole.finish_buffered_batch()?;
                    }
                }
            }
        })
    }

    fn code(&mut self, batch: &RecordBatch) -> DfResult<RecordBatch> {
        let kept = match &self.filter {
            Some(filter) => Kept::new(filter, batch)?,
            None => Kept::All,
        };
        let mut columns = Vec::with_capacity(self.columns.len());
        for (column, coder) in &mut self.columns {
            let column = batch.column(*column);
            columns.push(match coder {
                Some(coder) => codes(coder, column, &kept)?,
                None => kept.of(column)?,
            });
        }
        let rows = RecordBatchOptions::new().with_row_count(Some(kept.count(batch.num_rows())));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &rows)?)
    }
}

/// The rows of a batch that a filter leaves.
enum Kept {
    All,
    Some(BooleanArray, FilterPredicate),
}

impl Kept {
    fn new(filter: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> DfResult<Self> {
        let kept = filter.evaluate(batch)?.into_array(batch.num_rows())?;
        let Some(kept) = kept.as_boolean_opt() else { return internal_err!("a filter is true or false") };
        if kept.true_count() == batch.num_rows() {
            return Ok(Self::All);
        }
        let kept = if kept.null_count() > 0 { prep_null_mask_filter(kept) } else { kept.clone() };
        let rows = FilterBuilder::new(&kept).optimize().build();
        Ok(Self::Some(kept, rows))
    }

    fn count(&self, all: usize) -> usize {
        match self {
            Self::All => all,
            Self::Some(_, rows) => rows.count(),
        }
    }

    fn of(&self, column: &ArrayRef) -> DfResult<ArrayRef> {
        match self {
            Self::All => Ok(Arc::clone(column)),
            Self::Some(_, rows) => Ok(rows.filter(column)?),
        }
    }
}

fn codes(coder: &mut Coder, column: &ArrayRef, kept: &Kept) -> DfResult<ArrayRef> {
    match column.data_type() {
        DataType::Utf8 => codes_of(column.as_string::<i32>(), kept, within(coder, column.as_string::<i32>())),
        DataType::LargeUtf8 => codes_of(column.as_string::<i64>(), kept, within(coder, column.as_string::<i64>())),
        DataType::Utf8View => {
            let texts = column.as_string_view();
            codes_of(texts, kept, |row| coder.code(texts.value(row)))
        }
        other => internal_err!("{other} is no type of texts"),
    }
}

fn within<'a, O: OffsetSizeTrait>(
    coder: &'a mut Coder,
    texts: &'a GenericStringArray<O>,
) -> impl FnMut(usize) -> DfResult<u32> + 'a {
    let (all, ends) = (texts.value_data(), texts.value_offsets());
    move |row| coder.code_within(all, ends[row].as_usize(), ends[row + 1].as_usize(), || texts.value(row))
}

#[inline]
fn codes_of(texts: &dyn Array, kept: &Kept, mut code: impl FnMut(usize) -> DfResult<u32>) -> DfResult<ArrayRef> {
    let nulls = texts.nulls().filter(|nulls| nulls.null_count() > 0);
    let mut codes = Vec::with_capacity(kept.count(texts.len()));
    match (kept, nulls) {
        (Kept::All, None) => {
            for row in 0..texts.len() {
                codes.push(code(row)?);
            }
        }
        (Kept::Some(kept, _), None) => {
            for row in kept.values().set_indices() {
                codes.push(code(row)?);
            }
        }
        // A null's place may hold any text, which would be learnt for nothing.
        (Kept::All, Some(nulls)) => {
            for row in 0..texts.len() {
                codes.push(if nulls.is_null(row) { 0 } else { code(row)? });
            }
        }
        (Kept::Some(kept, _), Some(nulls)) => {
            for row in kept.values().set_indices() {
                codes.push(if nulls.is_null(row) { 0 } else { code(row)? });
            }
        }
    }
    let nulls = match kept {
        Kept::All => nulls.cloned(),
        Kept::Some(_, rows) => nulls.and_then(|nulls| rows.filter_nulls(Some(nulls))),
    };
    Ok(Arc::new(UInt32Array::try_new(codes.into(), nulls)?))
}
