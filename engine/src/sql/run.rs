//! One run of a physical plan on the calling thread, within its deadline, its cancel token and the bounds of an answer.

use std::sync::Arc;

use arrow_array::Array;
use arrow_array::RecordBatch;
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt;
use tokio::runtime::Handle;

use super::stop::{RunContext, Stopped};

/// How large an answer may be.
#[derive(Debug, Clone, Copy)]
pub struct AnswerLimits {
    pub rows: usize,
    pub bytes: usize,
}

/// How a run ended without an answer.
#[derive(Debug)]
pub enum RunError {
    Stopped(Stopped),
    /// What grew beyond its limit: "rows" or "bytes", and the limit.
    TooMuch(&'static str, usize),
    DataFusion(DataFusionError),
}

/// Collects the answer of `plan`. The plan is polled on this thread, so a small query never changes threads; only what it
/// spawns itself (partitions of a large one) runs on the runtime's.
pub fn collect(
    runtime: &Handle,
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
    context: &RunContext,
    limits: AnswerLimits,
) -> Result<Vec<RecordBatch>, RunError> {
    if let Some(stopped) = context.stopped() {
        return Err(RunError::Stopped(stopped));
    }
    runtime.block_on(async {
        let deadline = async {
            match context.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = context.cancel.cancelled() => Err(RunError::Stopped(Stopped::Cancelled)),
            () = deadline => Err(RunError::Stopped(Stopped::Deadline)),
            answer = gather(plan, task, limits) => answer,
        }
    })
}

async fn gather(
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
    limits: AnswerLimits,
) -> Result<Vec<RecordBatch>, RunError> {
    let mut stream = execute_stream(plan, task).map_err(RunError::DataFusion)?;
    let (mut batches, mut rows, mut bytes) = (Vec::new(), 0, 0);
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(RunError::DataFusion)?;
        if batch.num_rows() == 0 {
            continue;
        }
        rows += batch.num_rows();
        bytes += data_bytes(&batch).map_err(RunError::DataFusion)?;
        if rows > limits.rows {
            return Err(RunError::TooMuch("rows", limits.rows));
        }
        if bytes > limits.bytes {
            return Err(RunError::TooMuch("bytes", limits.bytes));
        }
        batches.push(batch);
    }
    Ok(batches)
}

/// Bytes of the rows themselves: an answer that is a slice of a large table does not count as that table.
fn data_bytes(batch: &RecordBatch) -> DfResult<usize> {
    let mut bytes = 0;
    for column in batch.columns() {
        bytes += column.to_data().get_slice_memory_size()?;
    }
    Ok(bytes)
}
