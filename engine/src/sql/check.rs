//! What a statement may be, decided before DataFusion sees it: one query that reads tables it was given, small enough for
//! code that recurses.
//!
//! The order matters. Bytes, tokens, operators and nesting are counted on the token list, because parser, planner and
//! optimiser recurse over the tree (`a+1+1+...` with 2,000 terms overflows the stack and aborts the process). Only then is
//! the statement parsed, and the tree is searched for what does not merely read.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, DataType, Expr, ObjectName, Query, Select, SelectItem, SetExpr, Statement, TableFactor, Value,
    ValueWithSpan, Visit, Visitor,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, Word};

/// Longest statement, bytes.
pub const MAX_BYTES: usize = 64 * 1024;
/// Most tokens, white space and comments aside.
pub const MAX_TOKENS: usize = 16 * 1024;
/// Most operators: each may be one more level of the tree.
pub const MAX_OPERATORS: usize = 400;
/// Deepest nesting of parentheses, brackets and braces.
pub const MAX_NESTING: usize = 40;
/// Most table references after every WITH query is put in place of its name.
pub const MAX_TABLES: usize = 100;

/// Most items of a list of a fixed size: a null of such a type has them all.
const MAX_ITEMS: u64 = 1_024;

/// Functions that make much out of little. They run while planning, outside of the memory pool and of every deadline.
const AMPLIFIERS: [&str; 10] = [
    "repeat",
    "lpad",
    "rpad",
    "range",
    "generate_series",
    "array_repeat",
    "list_repeat",
    "array_resize",
    "list_resize",
    "space",
];

/// A statement that passed every check.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Always `Statement::Query`.
    pub statement: Statement,
    /// The parameters it names, without the dollar sign.
    pub params: BTreeSet<String>,
    /// The tables that it reads from outside itself, as written after folding to lower case.
    pub tables: BTreeSet<String>,
    /// The columns that it may ask for.
    pub columns: Asked,
}

/// The columns that a statement may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// `select *`, or a natural join.
    All,
    /// Those of a name that stands in the statement, whatever it stands for.
    Named(BTreeSet<String>),
}

impl Asked {
    /// Whether the statement may ask for a column of that name.
    pub fn has(&self, column: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(column),
        }
    }
}

/// Who wrote the statement: a manifest is trusted with functions that a client is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Manifest,
    Client,
}

/// Parses `sql`, or says why it will not be run. Messages give line and column where there is one.
pub fn check(sql: &str, source: Source) -> Result<Checked, String> {
    if sql.len() > MAX_BYTES {
        return Err(format!("the statement has {} bytes, the limit is {MAX_BYTES}", sql.len()));
    }
    let dialect = GenericDialect {};
    let tokens = Tokenizer::new(&dialect, sql).tokenize_with_location().map_err(|error| format!("not SQL: {error}"))?;
    check_size(&tokens)?;
    let words = words(&tokens);
    let is_natural = words.contains("natural");

    let mut statements = Parser::new(&dialect)
        .with_recursion_limit(8 * MAX_NESTING)
        .with_tokens_with_locations(tokens)
        .parse_statements()
        .map_err(|error| {
            let text = error.to_string();
            let end = if text.ends_with("EOF") { ", the end of the statement" } else { "" };
            format!("not SQL: {}{end}", text.trim_start_matches("sql parser error: "))
        })?;
    let statement = match (statements.pop(), statements.len()) {
        (Some(statement), 0) => statement,
        (None, _) => return Err("there is no statement".into()),
        (Some(_), others) => return Err(format!("there are {} statements; one query is allowed", others + 1)),
    };
    if !matches!(statement, Statement::Query(_)) {
        let text = statement.to_string();
        let verb = text.split_whitespace().next().unwrap_or_default();
        return Err(format!("{verb} is not allowed: only a query (SELECT, WITH, VALUES) is"));
    }

    let mut search = Search {
        source,
        params: BTreeSet::new(),
        tables: BTreeSet::new(),
        with: HashMap::new(),
        with_queries: HashMap::new(),
        weights: vec![0],
        asks_for_all: is_natural,
    };
    if let ControlFlow::Break(reason) = statement.visit(&mut search) {
        return Err(reason);
    }
    let Search { params, tables, asks_for_all, .. } = search;
    let columns = if asks_for_all { Asked::All } else { Asked::Named(words) };
    Ok(Checked { statement, params, tables, columns })
}

/// Every name in the statement, folded to lower case unless quoted, and every keyword.
fn words(tokens: &[TokenWithSpan]) -> BTreeSet<String> {
    let word = |token: &TokenWithSpan| match &token.token {
        Token::Word(Word { value, quote_style: Some(_), .. }) => Some(value.clone()),
        Token::Word(Word { value, .. }) => Some(value.to_lowercase()),
        _ => None,
    };
    tokens.iter().filter_map(word).collect()
}

/// Counts what makes a tree wide and deep.
fn check_size(tokens: &[TokenWithSpan]) -> Result<(), String> {
    let (mut count, mut operators, mut depth) = (0, 0, 0_usize);
    for TokenWithSpan { token, span } in tokens {
        match token {
            Token::Whitespace(_) | Token::EOF => continue,
            Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
            Token::RParen | Token::RBracket | Token::RBrace => depth = depth.saturating_sub(1),
            token if is_operator(token) => operators += 1,
            _ => {}
        }
        count += 1;
        let at = || format!("at line {}, column {}", span.start.line, span.start.column);
        if depth > MAX_NESTING {
            return Err(format!("parentheses nest deeper than {MAX_NESTING} levels {}", at()));
        }
        if operators > MAX_OPERATORS {
            return Err(format!(
                "more than {MAX_OPERATORS} operators {}; hint: a long chain of OR is shorter as IN (...)",
                at()
            ));
        }
        if count > MAX_TOKENS {
            return Err(format!("more than {MAX_TOKENS} tokens {}", at()));
        }
    }
    Ok(())
}

/// Everything that is not a name, a literal or punctuation between them counts, so that nothing is forgotten.
fn is_operator(token: &Token) -> bool {
    use Keyword as K;
    match token {
        Token::Word(Word { quote_style: None, keyword, .. }) => matches!(
            keyword,
            K::AND
                | K::OR
                | K::NOT
                | K::XOR
                | K::IN
                | K::LIKE
                | K::ILIKE
                | K::SIMILAR
                | K::BETWEEN
                | K::IS
                | K::CASE
                | K::WHEN
                | K::JOIN
                | K::UNION
                | K::EXCEPT
                | K::INTERSECT
                | K::OVER
                | K::INTERVAL
                | K::CAST
                | K::DIV
                | K::REGEXP
                | K::RLIKE
                | K::COLLATE
                | K::AT
                | K::SELECT
                | K::EXISTS
                | K::ANY
                | K::ALL
        ),
        Token::Word(_)
        | Token::Number(..)
        | Token::Char(_)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::Comma
        | Token::Period
        | Token::SemiColon
        | Token::RParen
        | Token::LParen
        | Token::Placeholder(_) => false,
        _ => true,
    }
}

/// One walk over the tree: refuses what is not reading, collects parameters and tables, and weighs WITH queries.
struct Search {
    source: Source,
    params: BTreeSet<String>,
    tables: BTreeSet<String>,
    /// Table references behind each WITH name. Planning puts a WITH query in place of each mention, so
    /// `b as (select * from a, a), c as (select * from b, b), ...` doubles at each step.
    with: HashMap<String, usize>,
    /// WITH queries not yet left, by address: their weight goes to their name and not to the query around them.
    with_queries: HashMap<*const Query, String>,
    /// Table references counted so far, one number per query around the current place.
    weights: Vec<usize>,
    /// Columns that have no name in the statement are asked for.
    asks_for_all: bool,
}

impl Search {
    fn weigh(&mut self, weight: usize) -> ControlFlow<String> {
        if let Some(top) = self.weights.last_mut() {
            *top = top.saturating_add(weight);
            if *top > MAX_TABLES {
                return ControlFlow::Break(format!(
                    "more than {MAX_TABLES} table references once WITH queries are put in place of their names"
                ));
            }
        }
        ControlFlow::Continue(())
    }
}

fn refuse(what: impl Into<String>) -> ControlFlow<String> {
    ControlFlow::Break(what.into())
}

impl Visitor for Search {
    type Break = String;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        if let Some(with) = &query.with {
            if with.recursive {
                return refuse("WITH RECURSIVE is not supported");
            }
            for table in &with.cte_tables {
                self.with_queries.insert(&raw const *table.query, folded(&table.alias.name));
            }
        }
        let mut bodies = vec![&*query.body];
        while let Some(body) = bodies.pop() {
            match body {
                SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                    return refuse("INSERT, UPDATE, DELETE and MERGE are not allowed: only a query is");
                }
                SetExpr::SetOperation { left, right, .. } => bodies.extend([&**left, &**right]),
                SetExpr::Table(_) => return refuse("TABLE name is not supported; hint: SELECT * FROM name"),
                SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => {}
            }
        }
        if !query.locks.is_empty()
            || query.settings.is_some()
            || query.format_clause.is_some()
            || query.for_clause.is_some()
        {
            return refuse("FOR UPDATE, FOR XML, SETTINGS and FORMAT are not allowed");
        }
        if !query.pipe_operators.is_empty() {
            return refuse("pipe operators (|>) are not supported");
        }
        self.weights.push(0);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        let weight = self.weights.pop().unwrap_or_default();
        match self.with_queries.remove(&(&raw const *query)) {
            Some(name) => {
                // Names may be reused in separate scopes: the heaviest counts.
                let known = self.with.entry(name).or_default();
                *known = weight.max(*known).max(1);
                ControlFlow::Continue(())
            }
            None => self.weigh(weight),
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<String> {
        if select.into.is_some() {
            return refuse("SELECT INTO is not allowed: only a query is");
        }
        let is_all = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
        self.asks_for_all |= select.projection.iter().any(is_all);
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<String> {
        let name = match relation.0.as_slice() {
            [part] => part.as_ident().map(folded),
            _ => None,
        };
        let Some(name) = name else {
            return refuse(format!("no table {relation}: tables have names of one part"));
        };
        let weight = match self.with.get(&name) {
            Some(weight) => *weight,
            None => {
                self.tables.insert(name);
                1
            }
        };
        self.weigh(weight)
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<String> {
        let function = match factor {
            TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => name.to_string(),
            TableFactor::TableFunction { expr, .. } => expr.to_string(),
            _ => return ControlFlow::Continue(()),
        };
        refuse(format!("table functions are not available: {function}"))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<String> {
        if let (Expr::Cast { data_type, .. }, Source::Client) = (expr, self.source)
            && items(data_type) > MAX_ITEMS
        {
            return refuse(format!("{data_type} has more than {MAX_ITEMS} items, and each null has them all"));
        }
        if let (Expr::Function(function), Source::Client) = (expr, self.source) {
            let name = function.name.to_string().to_lowercase();
            let name = name.trim_matches('"');
            if AMPLIFIERS.contains(&name) {
                return refuse(format!("the function {name} is not available in ad-hoc SQL: its result has no bound"));
            }
            if name.starts_with("arrow_") && function.args.to_string().contains("FixedSize") {
                return refuse(format!("{name} to a type of a fixed size is not available in ad-hoc SQL"));
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<String> {
        if let Value::Placeholder(text) = &value.value {
            match text.strip_prefix('$').filter(|name| name.starts_with(|c: char| c.is_alphabetic() || c == '_')) {
                Some(name) => self.params.insert(name.to_string()),
                None => {
                    return refuse(format!(
                        "parameter {text} at line {}, column {} has no name; hint: write $name",
                        value.span.start.line, value.span.start.column
                    ));
                }
            };
        }
        ControlFlow::Continue(())
    }
}

/// Items of the longest list of a fixed size in a type.
fn items(data_type: &DataType) -> u64 {
    match data_type {
        DataType::Array(ArrayElemTypeDef::SquareBracket(item, size)) => size.unwrap_or_default().max(items(item)),
        DataType::Array(ArrayElemTypeDef::AngleBracket(item) | ArrayElemTypeDef::Parenthesis(item)) => items(item),
        _ => 0,
    }
}

/// A name as DataFusion looks it up: lower case unless quoted.
fn folded(ident: &datafusion::sql::sqlparser::ast::Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(sql: &str) -> String {
        check(sql, Source::Client).expect_err(sql)
    }

    #[test]
    fn parameters_and_tables_are_found_wherever_they_stand() {
        let checked = check(
            "with big as (select * from Orders where amount > $min) select region, (select max(x) from other where y = $y) \
             from big join \"Regions\" using (region) order by 1 limit $n",
            Source::Client,
        )
        .unwrap();
        assert_eq!(checked.params.into_iter().collect::<Vec<_>>(), ["min", "n", "y"]);
        assert_eq!(checked.tables.into_iter().collect::<Vec<_>>(), ["Regions", "orders", "other"]);
    }

    #[test]
    fn the_columns_that_may_be_asked_for_are_known() {
        let columns = |sql: &str| check(sql, Source::Manifest).unwrap().columns;
        let named = columns("select Region, count(*) as n from t join \"U\" using (id) where \"Price\" > $min");
        for (column, asked) in [("region", true), ("id", true), ("Price", true), ("price", false), ("other", false)] {
            assert_eq!(named.has(column), asked, "{column}");
        }
        for sql in [
            "select * from t",
            "select a from (select t.* from t) u",
            "select a from t natural join u",
            "select * except (a) from t",
        ] {
            assert_eq!(columns(sql), Asked::All, "{sql}");
        }
    }

    #[test]
    fn only_one_query_is_allowed() {
        for (sql, expected) in [
            ("", "no statement"),
            ("select 1; select 2", "2 statements"),
            ("drop table t", "DROP is not allowed"),
            ("set a = 1", "SET is not allowed"),
            ("explain analyze select 1", "EXPLAIN is not allowed"),
            ("show tables", "SHOW is not allowed"),
            ("copy t to 'x.csv'", "COPY is not allowed"),
            ("create external table t stored as csv location '/etc/passwd'", ""),
            ("insert into t values (1)", "INSERT is not allowed"),
            ("with a as (insert into t values (1) returning 1) select 1", ""),
            ("select * into u from t", "SELECT INTO"),
            ("select * from t for update", "FOR UPDATE"),
            ("select * from read_csv('/etc/passwd')", "table functions"),
            ("select * from generate_series(1, 1000000000)", "table functions"),
            ("select * from information_schema.tables", "one part"),
            ("select repeat('a', 1000000000)", "repeat is not available"),
            ("select cast(null as int[1000000000])", "more than 1024 items"),
            ("select null::int[2][1000000000][]", "more than 1024 items"),
            ("select arrow_cast(null, 'FixedSizeList(1000000000, Int64)')", "arrow_cast to a type of a fixed size"),
            ("with recursive a as (select 1 union all select * from a) select * from a", "RECURSIVE"),
            ("select * from t where a = $1", "hint: write $name"),
            ("select * from t where a = ?", "hint: write $name"),
            ("select a +* from t", "Line: 1"),
        ] {
            assert!(reason(sql).contains(expected), "{sql}: {}", reason(sql));
        }
    }

    #[test]
    fn size_and_depth_are_bounded_before_anything_recurses() {
        assert!(reason(&format!("select {}", "1".repeat(MAX_BYTES))).contains("bytes"));
        assert!(reason(&format!("select 1{}", "+1".repeat(2000))).contains("operators"));
        assert!(reason(&format!("select {}1", "- ".repeat(2000))).contains("operators"));
        assert!(reason(&format!("select {} true", "not ".repeat(2000))).contains("operators"));
        assert!(reason(&format!("select 1{}", "::int".repeat(2000))).contains("operators"));
        assert!(reason(&format!("select 1{}", " union all select 1".repeat(2000))).contains("operators"));
        assert!(reason(&format!("select {}1{}", "(".repeat(2000), ")".repeat(2000))).contains("nest"));
        assert!(reason(&format!("select {}1{}", "abs(".repeat(2000), ")".repeat(2000))).contains("nest"));
        assert!(reason(&format!("select {}1", "1,".repeat(20_000))).contains("tokens"));
        assert!(reason(&format!("select 1 from t{}", ",t".repeat(200))).contains("table references"));
    }

    #[test]
    fn with_queries_that_double_are_refused_by_weight() {
        let mut sql = String::from("with a0 as (select 1 as x)");
        for step in 1..30 {
            sql += &format!(", a{step} as (select l.x from a{0} l, a{0} r)", step - 1);
        }
        assert!(reason(&(sql + " select * from a29")).contains("table references"));
    }
}
