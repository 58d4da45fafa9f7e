//! A plan with a limit answers what the same plan answers without: random tables, every kind of key, all that can go wrong.

use arrow_array::builder::{Float64Builder, Int32Builder, StringBuilder};
use arrow_array::types::Int8Type;
use arrow_array::{
    BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Int64Array, StringArray, TimestampMillisecondArray,
};
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

/// Columns of every kind that rows are grouped or ordered by, with nulls, NaN, both zeros, and ties.
fn batch(draw: &mut Draw, rows: usize, groups: u64) -> RecordBatch {
    let (mut id, mut text, mut float) = (Int32Builder::new(), StringBuilder::new(), Float64Builder::new());
    for _ in 0..rows {
        id.append_option((draw.below(20) > 0).then(|| draw.below(groups) as i32));
        text.append_option((draw.below(15) > 0).then(|| format!("name {}", draw.below(groups))));
        let odd = [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0];
        float.append_option(match draw.below(12) {
            0 => None,
            1 => Some(odd[draw.below(6) as usize]),
            _ => Some(draw.below(40) as f64 / 8.0 - 2.0),
        });
    }
    let mut some = |bound: u64, nulls: u64| -> Vec<Option<i64>> {
        (0..rows).map(|_| (draw.below(nulls) > 0).then(|| draw.below(bound) as i64 - bound as i64 / 2)).collect()
    };
    let word: DictionaryArray<Int8Type> =
        some(6, 9).iter().map(|n| n.map(|n| ["a", "b", ""][n.unsigned_abs() as usize % 3])).collect();
    let money = Decimal128Array::from_iter(some(groups, 10).iter().map(|n| n.map(i128::from)));
    let moments = some(1 << 40, 10).into_iter().map(|moment| moment.map(|moment| moment >> 30));
    let columns: [(&str, ArrayRef); 9] = [
        ("id", Arc::new(id.finish())),
        ("text", Arc::new(text.finish())),
        ("float", Arc::new(float.finish())),
        ("word", Arc::new(word)),
        ("flag", Arc::new(BooleanArray::from_iter(some(2, 5).iter().map(|n| n.map(|n| n == 0))))),
        ("day", Arc::new(Date32Array::from_iter(some(9, 8).iter().map(|n| n.map(|n| n as i32))))),
        ("money", Arc::new(money.with_precision_and_scale(11, 2).unwrap())),
        ("moment", Arc::new(TimestampMillisecondArray::from_iter(moments).with_timezone("+02:00"))),
        ("small", Arc::new(arrow_array::UInt8Array::from_iter(some(250, 30).iter().map(|n| n.map(|n| n as u8))))),
    ];
    let nullable = columns.into_iter().map(|(name, values)| (name, values, true));
    RecordBatch::try_from_iter_with_nullable(nullable).unwrap()
}

fn context(partitions: usize, batches: Vec<RecordBatch>, memory: Option<usize>) -> SessionContext {
    let mut config = SessionConfig::new().with_target_partitions(partitions).with_batch_size(256);
    // As the engine has it: what one run learns must not stay in the plan for the next.
    config.options_mut().optimizer.enable_dynamic_filter_pushdown = false;
    let mut runtime = RuntimeEnvBuilder::new();
    if let Some(bytes) = memory {
        runtime = runtime.with_memory_pool(Arc::new(GreedyMemoryPool::new(bytes)));
    }
    let context = SessionContext::new_with_config_rt(config, runtime.build_arc().unwrap());
    let schema = batches[0].schema();
    let mut parts = vec![Vec::new(); partitions];
    for (number, batch) in batches.into_iter().enumerate() {
        parts[number % partitions].push(batch);
    }
    context.register_table("t", Arc::new(MemTable::try_new(schema, parts).unwrap())).unwrap();
    context
}

async fn plan(context: &SessionContext, sql: &str) -> Arc<dyn ExecutionPlan> {
    context.sql(sql).await.unwrap().create_physical_plan().await.unwrap()
}

fn limits(plan: &Arc<dyn ExecutionPlan>) -> usize {
    displayable(plan.as_ref()).indent(false).to_string().matches("GroupLimitExec").count()
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

/// What the statement answers with limits and without; fails where no limit is found for it.
async fn both(context: &SessionContext, sql: &str) -> (Vec<String>, Vec<String>) {
    let general = plan(context, sql).await;
    let limited = limit_groups(Arc::clone(&general)).unwrap();
    assert_eq!((limits(&general), limits(&limited)), (0, 1), "{sql}");
    let general = collect(general, context.task_ctx()).await.unwrap();
    let limited = collect(limited, context.task_ctx()).await.unwrap();
    (rows(&limited), rows(&general))
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap().block_on(work)
}

#[test]
fn random_tables_give_what_they_give_without() {
    run(async {
        let groups = ["id", "text", "word", "flag", "day", "money", "moment", "small", "id, word", "text, day, flag"];
        let orders =
            ["float", "id", "text", "word", "money", "day", "moment", "small", "flag", "float, text", "day, float"];
        let mut draw = Draw(0x9e37_79b9_7f4a_7c15);
        for round in 0..150 {
            let number = 1 + draw.below(40);
            let batches = (0..1 + draw.below(6)).map(|_| {
                let rows = draw.below(400) as usize;
                batch(&mut draw, rows, number)
            });
            let context = context(1 + round % 3, batches.collect(), None);
            let group = groups[draw.below(groups.len() as u64) as usize];
            let mut order = orders[draw.below(orders.len() as u64) as usize].to_owned();
            order += ["", " desc", " asc nulls first", " desc nulls last"][draw.below(4) as usize];
            let most = draw.below(6);
            let bound =
                ["place <= {}", "place < {} + 1", "{} >= place", "place <= {} and float is not null", "place = {}"]
                    [draw.below(5) as usize]
                    .replace("{}", &most.to_string());
            let (by, group) = match draw.below(12) {
                0 => (String::new(), "7"),
                _ => (format!("partition by {group}"), group),
            };
            // What ties leave open is not looked at: which of two rows comes first, not where their values do.
            let seen = order.split([' ', ',']).next().unwrap();
            let sql = format!(
                "select {group}, {seen} as seen, place from (select *, row_number() over ({by} order by {order}) as place \
                 from t) where {}",
                bound.replace("float", seen)
            );
            let (limited, general) = both(&context, &sql).await;
            assert_eq!(limited, general, "round {round}: {sql}");
        }
    });
}

#[test]
fn what_a_filter_does_not_bound_and_what_needs_all_rows_has_no_limit() {
    run(async {
        let context = context(2, vec![batch(&mut Draw(5), 100, 5)], None);
        let inner = |windows: &str| format!("select * from (select *, {windows} from t)");
        let place = "row_number() over (partition by id order by day) as place";
        for (windows, condition, expected) in [
            (place, "place <= 2", 1),
            (place, "place <= 2.5", 1),
            (place, "2 > place", 1),
            (place, "place = 1 and flag", 1),
            (place, "place <= 100000", 1), // found; it keeps all rows when the run starts
            (place, "place >= 2", 0),
            (place, "place <> 1", 0),
            (place, "place <= id", 0),
            (place, "place <= 2 or flag", 0),
            (place, "place + 1 <= 2", 0),
            (place, "id <= 2", 0),
            ("row_number() over (partition by float order by day) as place", "place <= 2", 0),
            ("row_number() over (partition by id order by random()) as place", "place <= 2", 0),
            ("rank() over (partition by id order by day) as place", "place <= 2", 0),
            (&format!("{place}, rank() over (partition by id order by day) as other"), "place <= 2", 1),
            (&format!("{place}, count(*) over (partition by id order by day) as other"), "place <= 2", 0),
            (&format!("{place}, sum(small) over (partition by id) as other"), "place <= 2", 0),
            (&format!("{place}, rank() over (partition by id order by float) as other"), "place <= 2", 1), // above the other
        ] {
            let plan = plan(&context, &format!("{} where {condition}", inner(windows))).await;
            let limited = limit_groups(plan).unwrap();
            let shown = displayable(limited.as_ref()).indent(false).to_string();
            assert_eq!(limits(&limited), expected, "{windows} where {condition}:\n{shown}");
        }
    });
}

/// Each row its own group: a limit gives up after its trial, and all rows come through.
#[test]
fn a_limit_that_drops_nothing_gives_up() {
    run(async {
        let rows_of = |start: i64| {
            let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(start..start + 50_000));
            let values: ArrayRef =
                Arc::new(Int64Array::from_iter_values((start..start + 50_000).map(|n| n * 7_919 % 1_000)));
            RecordBatch::try_from_iter([("id", ids), ("v", values)]).unwrap()
        };
        let batches: Vec<RecordBatch> = (0..12).map(|number| rows_of(number * 50_000)).collect();
        let context = context(1, batches.clone(), None);
        let sql = "select id, v, place from (select *, row_number() over (partition by id order by v) as place from t) \
                   where place <= 2";
        let (limited, general) = both(&context, sql).await;
        assert_eq!(limited.len(), 600_000);
        assert_eq!(limited, general);
        // The trial is over after six of the twelve batches; what comes then is not kept.
        let mut limit = limit(&context, sql, 2).await;
        let mut out = 0;
        for (number, batch) in batches.iter().enumerate() {
            out += limit.take(batch).unwrap().iter().map(RecordBatch::num_rows).sum::<usize>();
            assert_eq!(limit.keep.is_none(), number >= 5, "batch {number}");
            assert!(limit.keep.is_some() || out == (number + 1) * 50_000);
        }
        assert!(limit.end().unwrap().is_none());
    });
}

/// The limit of a statement's plan, for rows that are handed to it one batch at a time.
async fn limit(context: &SessionContext, sql: &str, most: usize) -> Limit {
    let limited = limit_groups(plan(context, sql).await).unwrap();
    let mut node = limited;
    while !node.is::<GroupLimitExec>() {
        let below = Arc::clone(node.children()[0]);
        node = below;
    }
    let limit = node.downcast_ref::<GroupLimitExec>().unwrap();
    limit.start(0, most, &context.task_ctx()).unwrap()
}

#[test]
fn a_limit_without_memory_gives_up_and_loses_nothing() {
    run(async {
        let mut draw = Draw(77);
        let batches: Vec<RecordBatch> = (0..40).map(|_| batch(&mut draw, 1_000, 3_000)).collect();
        let sql = "select id, float, place from (select *, row_number() over (partition by id order by float) as place \
                   from t) where place <= 3";
        let context = context(1, batches.clone(), Some(64 << 10));
        let whole = "select * from (select *, row_number() over (partition by id order by float) as place from t) \
                     where place <= 3";
        let mut limit = limit(&context, whole, 3).await;
        let mut out = Vec::new();
        for (number, batch) in batches.iter().enumerate() {
            let mut now = limit.take(batch).unwrap();
            now.reverse();
            out.extend(now);
            assert!(number == 0 || number > 2 || limit.keep.is_none(), "64 KiB hold so much?");
        }
        assert!(limit.end().unwrap().is_none() && limit.memory.size() == 0);
        let ample = self::context(1, out, None);
        let all = self::context(1, batches, None);
        let answer = async |context: &SessionContext| {
            rows(&collect(plan(context, sql).await, context.task_ctx()).await.unwrap())
        };
        assert_eq!(answer(&ample).await, answer(&all).await);
    });
}

/// Values that come in their order replace what was kept each time: what is held stays small all the same.
#[test]
fn what_is_held_does_not_grow_with_the_rows() {
    run(async {
        let names: ArrayRef = Arc::new(StringArray::from_iter_values((0..10_000).map(|n| format!("{:03}", n % 100))));
        let rows_of = |start: i64| {
            let values: ArrayRef = Arc::new(Int64Array::from_iter_values(start..start + 10_000));
            RecordBatch::try_from_iter([("name", Arc::clone(&names)), ("v", values)]).unwrap()
        };
        let context = context(1, vec![rows_of(0)], None);
        let sql = "select name, v from (select *, row_number() over (partition by name order by v desc, name) as place \
                   from t) where place <= 2";
        let mut limit = limit(&context, sql, 2).await;
        let mut most = 0;
        for number in 0..100 {
            assert!(limit.take(&rows_of(number * 10_000)).unwrap().is_empty());
            most = most.max(limit.memory.size());
        }
        assert!(most < 16 << 20, "{most} bytes for 200 rows");
        let kept = limit.end().unwrap().unwrap();
        assert_eq!(kept.iter().map(RecordBatch::num_rows).sum::<usize>(), 200);
        assert!(rows(&kept).iter().all(|row| row.split('|').next_back().unwrap().parse::<i64>().unwrap() >= 999_800));
    });
}

/// Keys of every width, close together and then not: the array and the hash table number groups alike.
#[test]
fn groups_are_numbered_as_they_are_seen() {
    let mut draw = Draw(4_242);
    let types = [
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::UInt8,
        DataType::UInt16,
        DataType::UInt32,
    ];
    for round in 0..200 {
        let data_type = &types[draw.below(7) as usize];
        let (least, greatest): (i64, i64) = match data_type {
            DataType::Int8 => (i8::MIN.into(), i8::MAX.into()),
            DataType::Int16 => (i16::MIN.into(), i16::MAX.into()),
            DataType::Int32 => (i32::MIN.into(), i32::MAX.into()),
            DataType::Int64 => (i64::MIN, i64::MAX),
            DataType::UInt8 => (0, u8::MAX.into()),
            DataType::UInt16 => (0, u16::MAX.into()),
            _ => (0, u32::MAX.into()),
        };
        let schema = Arc::new(Schema::new(vec![Field::new("", data_type.clone(), true)]));
        let mut groups = groups::Groups::new(schema).unwrap();
        let mut seen: Vec<Option<i64>> = Vec::new();
        let mut numbers = Vec::new();
        let mut centre = [least, greatest, least / 2 + greatest / 2][draw.below(3) as usize];
        for _ in 0..draw.below(8) {
            let keys: Vec<Option<i64>> = (0..draw.below(200))
                .map(|_| {
                    (draw.below(9) > 0)
                        .then(|| centre.saturating_add(draw.below(300) as i64 - 150).clamp(least, greatest))
                })
                .collect();
            let array: ArrayRef = Arc::new(Int64Array::from(keys.clone()));
            let array = datafusion::arrow::compute::cast(&array, data_type).unwrap();
            let count = groups.number(&[array], &mut numbers).unwrap();
            let expected: Vec<usize> = keys
                .iter()
                .map(|key| {
                    seen.iter().position(|other| other == key).unwrap_or_else(|| {
                        seen.push(*key);
                        seen.len() - 1
                    })
                })
                .collect();
            assert_eq!((count, &numbers), (seen.len(), &expected), "round {round}, {data_type}");
            // On to neighbours, below or above; now and then far away.
            let step = [-200, 200, -3_000_000, 40, -90_000][draw.below(5) as usize];
            centre = centre.saturating_add(step).clamp(least, greatest);
        }
    }
}
