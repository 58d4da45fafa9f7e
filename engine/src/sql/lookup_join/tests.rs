//! A lookup join answers what the hash join answers: random keys of every type, and every way in which they do not allow it.

use arrow_array::builder::{Int32Builder, StringBuilder};
use arrow_array::{Date32Array, Int64Array, StringArray, UInt8Array};
use arrow_schema::DataType;
use datafusion::arrow::compute::cast;
use datafusion::arrow::util::display::array_value_to_string;
use datafusion::datasource::MemTable;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::{collect, displayable};
use datafusion::prelude::{SessionConfig, SessionContext};

use super::*;

/// Pseudorandom numbers of a seed (xorshift).
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A key of that type, a text and a number to each row.
fn batch(draw: &mut Draw, keys: &[Option<i64>], data_type: &DataType) -> RecordBatch {
    let (mut text, mut number) = (StringBuilder::new(), Int32Builder::new());
    for _ in keys {
        text.append_option((draw.below(9) > 0).then(|| format!("text {}", draw.below(50))));
        number.append_option((draw.below(9) > 0).then(|| draw.below(1_000) as i32));
    }
    let keys: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
    let keys = match data_type {
        DataType::Date32 => {
            let days = keys.as_any().downcast_ref::<Int64Array>().unwrap();
            Arc::new(days.iter().map(|day| day.map(|day| day as i32)).collect::<Date32Array>()) as ArrayRef
        }
        other => cast(&keys, other).unwrap(),
    };
    let columns: [(&str, ArrayRef); 3] =
        [("k", keys), ("t", Arc::new(text.finish())), ("n", Arc::new(number.finish()))];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, values)| (name, values, true))).unwrap()
}

fn context(tables: [(&str, Vec<RecordBatch>); 2], memory: Option<usize>) -> SessionContext {
    let mut config = SessionConfig::new().with_target_partitions(2).with_batch_size(128);
    config.options_mut().optimizer.enable_dynamic_filter_pushdown = false;
    config.options_mut().optimizer.enable_join_dynamic_filter_pushdown = false;
    let mut runtime = RuntimeEnvBuilder::new();
    if let Some(bytes) = memory {
        runtime = runtime.with_memory_pool(Arc::new(GreedyMemoryPool::new(bytes)));
    }
    let context = SessionContext::new_with_config_rt(config, runtime.build_arc().unwrap());
    for (name, batches) in tables {
        let schema = batches[0].schema();
        let mut parts = vec![Vec::new(), Vec::new()];
        for (number, batch) in batches.into_iter().enumerate() {
            parts[number % 2].push(batch);
        }
        context.register_table(name, Arc::new(MemTable::try_new(schema, parts).unwrap())).unwrap();
    }
    context
}

async fn plans(context: &SessionContext, sql: &str) -> (Arc<dyn ExecutionPlan>, Arc<dyn ExecutionPlan>) {
    let plan = async || context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
    // Two of them: a hash join keeps what it has built.
    (plan().await, look_up_joins(plan().await).unwrap())
}

fn lookups(plan: &Arc<dyn ExecutionPlan>) -> usize {
    displayable(plan.as_ref()).indent(false).to_string().matches("LookupJoinExec").count()
}

/// The rows as text, sorted.
fn rows(batches: &[RecordBatch]) -> Vec<String> {
    let mut rows: Vec<String> = batches
        .iter()
        .flat_map(|batch| {
            (0..batch.num_rows()).map(|row| {
                let values = batch.columns().iter().map(|column| match column.is_null(row) {
                    true => "null".to_owned(),
                    false => array_value_to_string(column, row).unwrap(),
                });
                values.collect::<Vec<_>>().join("|")
            })
        })
        .collect();
    rows.sort();
    rows
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap().block_on(work)
}

#[test]
fn random_keys_find_what_a_hash_join_finds() {
    run(async {
        let mut draw = Draw(0x1234_5678_9abc_def1);
        let types = [
            DataType::Int8,
            DataType::Int16,
            DataType::Int32,
            DataType::Int64,
            DataType::UInt8,
            DataType::UInt16,
            DataType::UInt32,
            DataType::UInt64,
            DataType::Date32,
            DataType::Utf8,
            DataType::LargeUtf8,
            DataType::Utf8View,
        ];
        let mut found = 0;
        for round in 0..240 {
            let data_type = &types[draw.below(types.len() as u64) as usize];
            let small = matches!(data_type, DataType::Int8 | DataType::UInt8);
            let signed = matches!(
                data_type,
                DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Date32
            ) || data_type.is_string();
            let start = if signed { draw.below(60) as i64 - 50 } else { draw.below(40) as i64 };
            // Apart by so much; a few of them twice, in some of the rounds, and some null.
            let step =
                if small {
                    1
                } else {
                    [1, 1, 3, 40, 90_000][draw
                        .below(if *data_type == DataType::Int16 || *data_type == DataType::UInt16 { 4 } else { 5 })
                        as usize]
                };
            let count = draw.below(70);
            let mut keys: Vec<Option<i64>> = (0..count as i64).map(|n| Some(start + n * step)).collect();
            if round % 4 == 0 && count > 3 {
                keys[1] = keys[2];
            }
            if draw.below(2) == 0 {
                keys.extend([None, None]);
            }
            let dimension = batch(&mut draw, &keys, data_type);
            let facts = (0..1 + draw.below(5)).map(|_| {
                let all = draw.below(5) == 0;
                let keys: Vec<Option<i64>> = (0..draw.below(600))
                    .map(|_| match draw.below(8) {
                        0 if !all => None,
                        1 if !all => Some(draw.below(100) as i64),
                        _ => Some(start + draw.below(count.max(1)) as i64 * step),
                    })
                    .collect();
                batch(&mut draw, &keys, data_type)
            });
            let facts: Vec<RecordBatch> = facts.collect();
            let context = context([("facts", facts), ("dim", vec![dimension])], None);
            let kind = ["inner", "left"][draw.below(2) as usize];
            let columns = [
                "f.k, f.n, d.t, d.n as other",
                "d.k, f.t",
                "count(*) as rows, sum(d.n) as n, sum(f.n) as own",
                "f.n",
                "count(*) as rows",
            ][draw.below(5) as usize];
            let condition = ["", "where d.n > 300", "where f.n > 500"][draw.below(3) as usize];
            let sql = format!("select {columns} from facts f {kind} join dim d on f.k = d.k {condition}");
            let (general, looked_up) = plans(&context, &sql).await;
            found += lookups(&looked_up);
            let again = Arc::clone(&looked_up);
            let shown = displayable(looked_up.as_ref()).indent(false).to_string();
            let expected = rows(&collect(general, context.task_ctx()).await.unwrap());
            assert_eq!(
                rows(&collect(looked_up, context.task_ctx()).await.unwrap()),
                expected,
                "round {round}: {sql}\n{shown}"
            );
            // A plan that is kept runs again, over what there is then.
            let again = datafusion::physical_plan::execution_plan::reset_plan_states(again).unwrap();
            assert_eq!(
                rows(&collect(again, context.task_ctx()).await.unwrap()),
                expected,
                "round {round}, again: {sql}"
            );
        }
        assert!(found > 150, "{found} of 240 joins may be looked up");
    });
}

#[test]
fn only_joins_that_can_be_looked_up_are() {
    run(async {
        let mut draw = Draw(9);
        let keys: Vec<Option<i64>> = (0..50).map(Some).collect();
        let dimension = batch(&mut draw, &keys, &DataType::Int32);
        let facts: Vec<RecordBatch> = (0..8).map(|_| batch(&mut draw, &keys, &DataType::Int32)).collect();
        let context = context([("facts", facts), ("dim", vec![dimension])], None);
        for (sql, expected) in [
            ("select f.n, d.n from facts f join dim d on f.k = d.k", 1),
            ("select f.n, d.n from facts f left join dim d on f.k = d.k", 1),
            ("select f.n, d.n from dim d right join facts f on f.k = d.k", 1),
            ("select f.n, d.n from facts f join dim d on f.k + 1 = d.k", 1),
            ("select f.n, d.n from facts f full join dim d on f.k = d.k", 0),
            ("select d.n from dim d left join facts f on f.k = d.k", 1), // the facts are few enough to be looked up here
            ("select f.n from facts f where f.k in (select k from dim)", 0),
            ("select f.n, d.n from facts f join dim d on f.t = d.t", 1),
            ("select f.n, d.n from facts f join dim d on f.t || '!' = d.t", 1),
            ("select f.n, d.n from facts f join dim d on f.k = d.k and f.n < d.n", 0),
            ("select f.n, d.n from facts f join dim d on f.k = d.k and f.n = d.n", 0),
            ("select f.n, d.n from facts f join dim d on f.k is not distinct from d.k", 0),
        ] {
            let (_, plan) = plans(&context, sql).await;
            assert_eq!(lookups(&plan), expected, "{sql}\n{}", displayable(plan.as_ref()).indent(false));
        }
    });
}

/// Keys at both ends of what 64 bits hold are too far apart for an array, and are found all the same.
#[test]
fn keys_at_the_ends_of_their_type_are_found() {
    run(async {
        let mut draw = Draw(21);
        let ends = [Some(i64::MIN), Some(i64::MAX), Some(0), Some(-1), None];
        for keys in [&ends[..], &ends[..1], &ends[1..2], &ends[2..4], &ends[4..], &[]] {
            let dimension = batch(&mut draw, keys, &DataType::Int64);
            let probes: Vec<Option<i64>> =
                (0..300).map(|n| ends[n % 5].map(|end| end.wrapping_add(n as i64 % 3))).collect();
            let facts = vec![batch(&mut draw, &probes, &DataType::Int64)];
            let context = context([("facts", facts), ("dim", vec![dimension])], None);
            for kind in ["inner", "left"] {
                let sql = format!("select f.k, d.k as other, d.t from facts f {kind} join dim d on f.k = d.k");
                let (general, looked_up) = plans(&context, &sql).await;
                let expected = rows(&collect(general, context.task_ctx()).await.unwrap());
                assert_eq!(rows(&collect(looked_up, context.task_ctx()).await.unwrap()), expected, "{keys:?}, {kind}");
            }
        }
    });
}

/// Every partition hears of an error of the build side, and memory is given back.
#[test]
fn a_build_side_beyond_the_memory_is_an_error() {
    run(async {
        let keys: Vec<Option<i64>> = (0..20_000).map(Some).collect();
        let dimension = batch(&mut Draw(3), &keys, &DataType::Int64);
        let facts = vec![batch(&mut Draw(4), &[keys.clone(), keys].concat(), &DataType::Int64)];
        let context = context([("facts", facts), ("dim", vec![dimension])], Some(100_000));
        let (_, plan) = plans(&context, "select f.n, d.n, d.t from facts f join dim d on f.k = d.k").await;
        assert_eq!(lookups(&plan), 1);
        let error = collect(Arc::clone(&plan), context.task_ctx()).await.unwrap_err();
        assert!(matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)), "{error}");
        drop(plan);
        assert_eq!(context.runtime_env().memory_pool.reserved(), 0);
    });
}

/// Where the keys allow no lookup, the general join has the rows, and nobody else.
#[test]
fn rows_that_the_general_join_takes_over_are_held_once() {
    run(async {
        let keys: Vec<Option<i64>> = (0..2_000).map(|number| Some(number * 90_000)).collect();
        // Two batches: the general join makes one of them, a copy.
        let dimension: Vec<_> = keys.chunks(1_000).map(|keys| batch(&mut Draw(3), keys, &DataType::Int64)).collect();
        let owners = |batch: &RecordBatch| batch.column(2).to_data().buffers()[0].strong_count();
        let probes: Vec<Option<i64>> = keys.iter().cycle().take(20_000).copied().collect();
        let facts: Vec<_> = probes.chunks(500).map(|keys| batch(&mut Draw(4), keys, &DataType::Int64)).collect();
        let context = context([("facts", facts), ("dim", dimension.clone())], Some(10 << 20));
        let (_, plan) = plans(&context, "select f.n, d.n, d.t from facts f join dim d on f.k = d.k").await;
        assert_eq!(lookups(&plan), 1);
        let at_rest: Vec<usize> = dimension.iter().map(owners).collect();
        let mut rows = datafusion::physical_plan::execute_stream(Arc::clone(&plan), context.task_ctx()).unwrap();
        assert!(rows.next().await.unwrap().unwrap().num_rows() > 0);
        assert_eq!(dimension.iter().map(owners).collect::<Vec<_>>(), at_rest, "the join has its own copy");
        let reserved = context.runtime_env().memory_pool.reserved();
        assert!(reserved > slice_bytes(&dimension[0]).unwrap(), "{reserved} bytes are counted");
        drop((rows, plan));
        // The tasks that feed the answer end in their own time.
        while context.runtime_env().memory_pool.reserved() > 0 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn keys_lead_to_their_rows() {
    let memory = |bytes| {
        let pool: Arc<dyn datafusion::execution::memory_pool::MemoryPool> = Arc::new(GreedyMemoryPool::new(bytes));
        MemoryConsumer::new("test").register(&pool)
    };
    let rows =
        |keys: ArrayRef| (RecordBatch::try_from_iter_with_nullable([("k", Arc::clone(&keys), true)]).unwrap(), keys);
    let table = |keys: Vec<Option<i64>>, bytes| {
        let (rows, keys) = rows(Arc::new(Int64Array::from(keys)));
        let memory = memory(bytes);
        Slots::new(&keys, &memory).unwrap().map(|slots| Table::new(rows, slots, memory))
    };
    assert!(table(vec![Some(1), Some(2), Some(1)], 1 << 20).is_none(), "a key comes twice");
    assert!(table(vec![Some(0), Some(65_536)], 1 << 20).is_none(), "keys are far apart");
    assert!(table(vec![Some(0), Some(65_000)], 1 << 10).is_none(), "no memory");
    let there = table(vec![Some(-3), None, Some(65_000), Some(4)], 1 << 20).unwrap();
    let keys: ArrayRef =
        Arc::new(Int64Array::from(vec![Some(4), None, Some(-4), Some(-3), Some(i64::MAX), Some(65_000)]));
    let found = there.find(&keys, false).unwrap();
    assert_eq!((found.table.values().to_vec(), found.probe.unwrap().values().to_vec()), (vec![3, 0, 2], vec![0, 3, 5]));
    let all = there.find(&keys, true).unwrap();
    assert!(all.probe.is_none());
    assert_eq!(all.table.iter().collect::<Vec<_>>(), [Some(3), None, None, Some(0), None, Some(2)]);
    let some: ArrayRef = Arc::new(Int64Array::from_iter_values([65_000, -3]));
    let found = there.find(&some, false).unwrap();
    assert!(found.probe.is_none() && found.table.values().to_vec() == [2, 0]);
    let (rows, keys) = rows(Arc::new(UInt8Array::from(vec![255, 0])));
    let (slots, memory) = (memory(1 << 20), memory(1 << 20));
    let bytes = Table::new(rows, Slots::new(&keys, &slots).unwrap().unwrap(), memory);
    assert_eq!(bytes.find(&keys, false).unwrap().table.values().to_vec(), [0, 1]);
}

#[test]
fn texts_lead_to_their_rows() {
    let memory = |bytes| {
        let pool: Arc<dyn datafusion::execution::memory_pool::MemoryPool> = Arc::new(GreedyMemoryPool::new(bytes));
        MemoryConsumer::new("test").register(&pool)
    };
    let texts = |texts: Vec<Option<&str>>| Arc::new(StringArray::from(texts)) as ArrayRef;
    let table = |keys: ArrayRef, bytes| {
        let memory = memory(bytes);
        let rows = RecordBatch::try_from_iter_with_nullable([("k", Arc::clone(&keys), true)]).unwrap();
        Slots::new(&keys, &memory).unwrap().map(|slots| Table::new(rows, slots, memory))
    };
    assert!(table(texts(vec![Some("a"), Some("b"), Some("a")]), 1 << 20).is_none(), "a text comes twice");
    assert!(table(texts(vec![Some("a"), Some("b"), None, None]), 1 << 20).is_some(), "null is no text");
    assert!(table(texts(vec![Some(&*"long ".repeat(1_000))]), 1 << 10).is_none(), "no memory");
    let there = table(texts(vec![Some("north"), None, Some(""), Some("south")]), 1 << 20).unwrap();
    let keys = texts(vec![Some("south"), None, Some(""), Some("nort"), Some("north"), Some("northern")]);
    let found = there.find(&keys, false).unwrap();
    assert_eq!((found.table.values().to_vec(), found.probe.unwrap().values().to_vec()), (vec![3, 2, 0], vec![0, 2, 4]));
    let all = there.find(&keys, true).unwrap();
    assert_eq!(all.table.iter().collect::<Vec<_>>(), [Some(3), None, Some(2), None, Some(0), None]);
    let all_there = there.find(&keys.slice(4, 1), false).unwrap();
    assert!(all_there.probe.is_none(), "its columns go on as they are");
    let none = table(texts(vec![None]), 1 << 20).unwrap();
    assert_eq!(none.find(&keys, false).unwrap().table.len(), 0);
    let many = |count: u32| {
        Arc::new(StringArray::from_iter_values((0..count).map(|number| format!("customer {number}")))) as ArrayRef
    };
    let found = table(many(16_384), 1 << 20).unwrap().find(&many(16_384), false).unwrap();
    assert!(found.table.values().iter().copied().eq(0..16_384));
    assert!(table(many(16_385), 1 << 20).is_none(), "more than a cache has");
}
