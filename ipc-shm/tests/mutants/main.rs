//! Shows that the proofs of `tests/loom` rest on what they claim to rest on: takes out one step of the product's code after
//! the other and demands that the scenario which is said to prove that step fails.
//!
//! ```sh
//! cargo test --release -p molt-ipc-shm --test mutants            # all of them
//! cargo test --release -p molt-ipc-shm --test mutants -- lease   # those whose names or scenarios say so
//! ```
//! A mutant is a text that is found exactly once in a file, and what stands there instead. Each is built in a copy of this
//! crate. One that survives, does not compile, or is not found any more fails the run; so does a scenario without a mutant.

mod list;
mod tree;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use list::{MUTANTS, Mutant};
use tree::{Ran, Tree};

/// No scenario takes this long, with or without a step.
const LONGEST: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |mutant: &&Mutant| {
        wanted.is_empty() || wanted.iter().any(|word| mutant.name.contains(word) || mutant.scenario.contains(word))
    };
    let mutants: Vec<&Mutant> = MUTANTS.iter().filter(is_wanted).collect();
    let started = Instant::now();
    match run(&mutants) {
        Ok(0) => {
            println!("\n{} mutants, each found by its scenario, in {:.0?}", mutants.len(), started.elapsed());
            ExitCode::SUCCESS
        }
        Ok(wrong) => {
            println!("\n{wrong} of {} mutants were not found: the proofs do not show what they claim", mutants.len());
            ExitCode::FAILURE
        }
        Err(what) => {
            eprintln!("\nmutants: {what}");
            ExitCode::FAILURE
        }
    }
}

/// How many mutants were not found.
fn run(mutants: &[&Mutant]) -> Result<usize, String> {
    let tree = Tree::copy().map_err(|error| format!("no copy of the crate: {error}"))?;
    println!("the unchanged code, every scenario that a mutant names:");
    let built = tree.build()?;
    let scenarios = built.scenarios().map_err(|error| format!("no list of the scenarios: {error}"))?;
    if let Some(mutant) = MUTANTS.iter().find(|mutant| !scenarios.iter().any(|known| known == mutant.scenario)) {
        return Err(format!("{} names the scenario {}, which does not exist", mutant.name, mutant.scenario));
    }
    if let Some(scenario) = scenarios.iter().find(|known| !MUTANTS.iter().any(|mutant| mutant.scenario == **known)) {
        return Err(format!("no mutant names the scenario {scenario}: nothing shows that it can fail"));
    }
    let mut named: Vec<&str> = mutants.iter().map(|mutant| mutant.scenario).collect();
    named.sort_unstable();
    named.dedup();
    for scenario in named {
        match built.run(scenario, LONGEST) {
            Ran::Passed(took) => println!("  {:>5.1} s  {scenario}", took.as_secs_f32()),
            other => return Err(format!("{scenario} does not hold for the unchanged code: {}", other.text())),
        }
    }
    println!("what is taken out, and what the scenario says then:");
    let mut wrong = 0;
    for (index, mutant) in mutants.iter().enumerate() {
        let verdict = tree.with(mutant.edits, |tree| Ok(tree.build()?.run(mutant.scenario, LONGEST)));
        let (found, text) = match verdict {
            Ok(Ran::Failed(what)) => (true, what),
            Ok(other) => (false, format!("NOT FOUND: {}", other.text())),
            Err(what) => (false, format!("NOT TRIED: {what}")),
        };
        wrong += usize::from(!found);
        println!("  {:>2}/{}  {:<42} {:<62} {text}", index + 1, mutants.len(), mutant.name, mutant.scenario);
    }
    Ok(wrong)
}
