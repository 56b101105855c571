//! Runs a model and says what came of it.

use std::{env, fmt::Debug, hash::Hash, time::Instant};

use stateright::{Checker, HasDiscoveries, Model};

use crate::turns::Turn;

/// How much of a model is explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Seconds: in every run of the tests.
    Small,
    /// Minutes: `TIDEMARK_MODEL=large`.
    Large,
}

impl Size {
    /// What the environment asks for.
    pub fn asked() -> Self {
        match env::var("TIDEMARK_MODEL").as_deref() {
            Ok("large") => Self::Large,
            Ok("small") | Err(_) => Self::Small,
            Ok(other) => panic!("TIDEMARK_MODEL is small or large, not {other:?}"),
        }
    }

    /// One of two.
    pub fn pick<T>(self, small: T, large: T) -> T {
        match self {
            Self::Small => small,
            Self::Large => large,
        }
    }
}

/// What an exploration found.
pub struct Found {
    /// States that differ.
    states: usize,
    /// For each property that was broken: its name, and the steps of the
    /// shortest way there.
    broken: Vec<(&'static str, Vec<String>)>,
    /// Names of `sometimes` properties that were never met.
    unmet: Vec<&'static str>,
}

fn explore<M>(model: M, whole: bool) -> Found
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let properties = model.properties();
    let until = if whole { HasDiscoveries::All } else { HasDiscoveries::AnyFailures };
    // One thread: only then is the first way that is found a shortest one.
    let checker = model.checker().finish_when(until).threads(1).spawn_bfs().join();
    let mut found = Found { states: checker.unique_state_count(), broken: Vec::new(), unmet: Vec::new() };
    for property in properties {
        let path = checker.discovery(property.name);
        match (property.expectation.discovery_is_failure(), path) {
            (true, Some(path)) => {
                let steps = path.into_actions().iter().map(|action| format!("{action:?}")).collect();
                found.broken.push((property.name, steps));
            }
            (false, None) => found.unmet.push(property.name),
            _ => {}
        }
    }
    found
}

/// The model as it is breaks nothing, and gets where it is interesting.
pub fn holds<M, B: Copy + Debug>(name: &str, bounds: &[B], model: impl Fn(B) -> M)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    for bounds in bounds {
        let begun = Instant::now();
        let found = explore(model(*bounds), true);
        println!(
            "model {name}: {} states in {:.1} s ({bounds:?})",
            found.states,
            begun.elapsed().as_secs_f64()
        );
        assert!(found.states > 1000, "{name}: only {} states", found.states);
        for (property, steps) in &found.broken {
            println!("{property} is broken after {} steps:\n  {}", steps.len(), steps.join("\n  "));
        }
        assert!(found.broken.is_empty(), "{name}: the protocol or its code is wrong, see above");
        assert!(found.unmet.is_empty(), "{name} never gets to {:?}", found.unmet);
    }
}

/// Each of these turns is caught, by the property that is named with it.
pub fn catches<M, B: Copy>(name: &str, turns: &[(Turn, &str, B)], model: impl Fn(Turn, B) -> M)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let show = env::var_os("TIDEMARK_MODEL_TRACES").is_some();
    let mut missed = Vec::new();
    for &(turn, breaks, bounds) in turns {
        let begun = Instant::now();
        let found = explore(model(turn, bounds), false);
        let text = turn.text();
        let Some((property, steps)) = found.broken.first() else {
            println!("model {name}: {text}: NOT CAUGHT in {} states", found.states);
            missed.push(text);
            continue;
        };
        println!(
            "model {name}: {text}: breaks {property} in {} steps ({} states, {:.1} s)",
            steps.len(),
            found.states,
            begun.elapsed().as_secs_f64()
        );
        if show {
            println!("  {}", steps.join("\n  "));
        }
        if !property.starts_with(breaks) {
            missed.push(text);
        }
    }
    assert!(missed.is_empty(), "{name}: not caught, or by another property: {missed:?}");
}
