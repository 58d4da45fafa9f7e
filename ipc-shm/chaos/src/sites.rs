//! Every failpoint there is, read out of the source: so one that no run ever passes is noticed, and each has a number.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

const MOMENTS: [&str; 3] = ["before", "halfway", "after"];
/// What a word's stores are called (`molt_ipc_shm::word`).
const STORES: [&str; 5] = ["store", "swap", "compare_exchange", "fetch_or", "fetch_add"];
/// What a mapping's copies are called (`molt_ipc_shm::mapping`).
const COPIES: [&str; 3] = ["write", "zero", "copy_within"];

/// A place and a moment at which a process can be killed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Failpoint {
    file: String,
    line: usize,
    column: usize,
    moment: usize,
    function: String,
}

impl Failpoint {
    /// Its file and the function that it stands in.
    pub fn place(&self) -> (&str, &str) {
        (&self.file, &self.function)
    }
}

impl fmt::Display for Failpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}:{}/{}", self.file, self.line, self.column, MOMENTS[self.moment])
    }
}

/// This program's own stores through a pointer.
const OWN: &str = "roles/blocks.rs";

/// All failpoints of the transport and of this program's own stores, in order: the number is the place in it, from one.
///
/// # Errors
/// The source is not where this program was built.
pub fn all() -> Result<Vec<Failpoint>, String> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (root, own) = (own.join("../src"), own.join("src"));
    let mut texts = Vec::new();
    for file in sources(&root)?.into_iter().chain([own.join(OWN)]) {
        let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let label =
            file.strip_prefix(&root).or(file.strip_prefix(&own)).unwrap_or(&file).to_string_lossy().into_owned();
        texts.push((label, text));
    }
    in_sources(&texts)
}

fn sources(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let cannot = |error| format!("{}: {error}; hint: run it where it was built", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(cannot)?.flatten() {
        let path = entry.path();
        // The words and the failpoints themselves: their stores are the callers'. Tools do not store.
        let skipped = ["word.rs", "word", "mapping.rs", "mapping", "failpoint.rs", "failpoint", "bin"];
        match path.file_name().and_then(|name| name.to_str()) {
            Some(name) if skipped.contains(&name) => {}
            _ if path.is_dir() => files.extend(sources(&path)?),
            _ if path.extension().is_some_and(|ending| ending == "rs") => files.push(path),
            _ => {}
        }
    }
    Ok(files)
}

fn in_sources(texts: &[(String, String)]) -> Result<Vec<Failpoint>, String> {
    let parsed = texts.iter().map(|(label, text)| {
        syn::parse_file(text).map(|source| (label, source)).map_err(|error| format!("{label}: {error}"))
    });
    let parsed = parsed.collect::<Result<Vec<_>, _>>()?;
    let mut private = Private::default();
    parsed.iter().for_each(|(_, source)| private.visit_file(source));
    let mut found = Vec::new();
    for (label, source) in &parsed {
        let mut scan =
            Scan { file: (*label).clone(), function: String::new(), private: &private.names, found: Vec::new() };
        scan.visit_file(source);
        found.extend(scan.found);
    }
    found.sort();
    Ok(found)
}

/// Names of atomics that only this process has: std's, not words of the mapping.
#[derive(Default)]
struct Private {
    names: HashSet<String>,
}

fn is_atomic(of: &syn::Type) -> bool {
    match of {
        syn::Type::Path(path) => {
            path.path.segments.last().is_some_and(|last| last.ident.to_string().starts_with("Atomic"))
        }
        syn::Type::Reference(reference) => is_atomic(&reference.elem),
        _ => false,
    }
}

impl<'a> Visit<'a> for Private {
    fn visit_field(&mut self, field: &'a syn::Field) {
        if let (true, Some(name)) = (is_atomic(&field.ty), &field.ident) {
            self.names.insert(name.to_string());
        }
    }

    fn visit_signature(&mut self, signature: &'a syn::Signature) {
        if matches!(&signature.output, syn::ReturnType::Type(_, of) if is_atomic(of)) {
            self.names.insert(signature.ident.to_string());
        }
    }

    fn visit_item_static(&mut self, item: &'a syn::ItemStatic) {
        if is_atomic(&item.ty) {
            self.names.insert(item.ident.to_string());
        }
    }
}

struct Scan<'s> {
    file: String,
    /// The one that is being read.
    function: String,
    private: &'s HashSet<String>,
    found: Vec<Failpoint>,
}

impl Scan<'_> {
    fn add(&mut self, span: proc_macro2::Span, moments: &[usize]) {
        let at = span.start();
        self.found.extend(moments.iter().map(|moment| Failpoint {
            file: self.file.clone(),
            line: at.line,
            column: at.column + 1,
            moment: *moment,
            function: self.function.clone(),
        }));
    }

    fn within(&mut self, function: &syn::Ident, visit: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.function, function.to_string());
        visit(self);
        self.function = outer;
    }
}

/// The last name of what a method is called on.
fn name_of(receiver: &syn::Expr) -> String {
    match receiver {
        syn::Expr::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default(),
        syn::Expr::Field(field) => match &field.member {
            syn::Member::Named(name) => name.to_string(),
            syn::Member::Unnamed(_) => String::new(),
        },
        syn::Expr::MethodCall(call) => call.method.to_string(),
        syn::Expr::Call(call) => name_of(&call.func),
        syn::Expr::Paren(inner) => name_of(&inner.expr),
        syn::Expr::Reference(inner) => name_of(&inner.expr),
        syn::Expr::Unary(inner) => name_of(&inner.expr),
        _ => String::new(),
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Ident>().is_ok_and(|ident| ident == "test")
    })
}

impl<'a> Visit<'a> for Scan<'_> {
    fn visit_item_mod(&mut self, module: &'a syn::ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.within(&item.sig.ident, |scan| visit::visit_item_fn(scan, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.within(&item.sig.ident, |scan| visit::visit_impl_item_fn(scan, item));
    }

    fn visit_expr_method_call(&mut self, call: &'a syn::ExprMethodCall) {
        visit::visit_expr_method_call(self, call);
        let (method, on) = (call.method.to_string(), name_of(&call.receiver));
        let ordered = call.args.iter().any(|argument| {
            matches!(argument, syn::Expr::Path(path) if path.path.segments.iter().any(|part| part.ident == "Ordering"))
        });
        if STORES.contains(&method.as_str()) && ordered && !self.private.contains(&on) {
            self.add(call.method.span(), &[0, 2]);
        }
        let mapped = on == "map" || on == "mapping";
        if COPIES.contains(&method.as_str()) && mapped {
            self.add(call.method.span(), &[0, 1, 2]);
        }
        if method == "writable" && mapped {
            self.add(call.method.span(), &[0]);
        }
    }

    fn visit_expr_call(&mut self, call: &'a syn::ExprCall) {
        visit::visit_expr_call(self, call);
        match name_of(&call.func).as_str() {
            "around" => self.add(call.func.span(), &[0, 2]),
            "pass" => {
                let moment = call.args.first().map(name_of).unwrap_or_default().to_lowercase();
                let known = MOMENTS.iter().position(|known| *known == moment);
                self.add(call.func.span(), known.as_slice());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_to_shared_words_are_found_and_private_ones_are_not() {
        let elsewhere = ("b.rs".to_owned(), "struct Own { gone: AtomicBool }".to_owned());
        let text = "
static COUNT: AtomicU64 = AtomicU64::new(0);
fn run(own: &Own, map: &Mapping) {
    own.gone.store(true, Ordering::Release);
    COUNT.fetch_add(1, Ordering::Relaxed);
    map.u64(8).store(1, Ordering::Release);
    map.write(0, &[1]);
    around(|| rename(a, b));
    pass(Moment::Halfway);
    file.write(1, 2);
}
#[cfg(test)]
mod tests { fn run() { word.store(1, Ordering::Relaxed); } }
";
        let all = in_sources(&[("a.rs".to_owned(), text.to_owned()), elsewhere]).expect("source");
        assert!(all.iter().all(|failpoint| failpoint.place() == ("a.rs", "run")), "{all:?}");
        let found: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "a.rs:6:16/before",
                "a.rs:6:16/after",
                "a.rs:7:9/before",
                "a.rs:7:9/halfway",
                "a.rs:7:9/after",
                "a.rs:8:5/before",
                "a.rs:8:5/after",
                "a.rs:9:5/halfway",
            ]
        );
    }

    #[test]
    fn every_source_of_the_transport_is_read() {
        let all = all().expect("the source");
        let files: HashSet<&str> = all.iter().map(|failpoint| failpoint.file.as_str()).collect();
        for file in
            ["arena.rs", "ring.rs", "cell.rs", "lease.rs", "doorbell.rs", "segment/owned.rs", "worker/sessions.rs"]
        {
            assert!(files.contains(file), "{file} in {files:?}");
        }
        assert!(all.len() > 100 && all.windows(2).all(|pair| pair[0] < pair[1]), "{} places", all.len());
    }
}
