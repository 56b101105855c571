//! Runs a model and says what came of it.

use std::{collections::BTreeSet, env, fmt::Debug, hash::Hash, time::Instant};

use stateright::{Checker, HasDiscoveries, Model};

use crate::mutations::Mutation;

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
    /// Names of `sometimes` properties that were met.
    reached: Vec<&'static str>,
}

fn explore<M>(model: M, until: HasDiscoveries, below_steps: Option<usize>) -> Found
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let properties = model.properties();
    let mut checker = model.checker().finish_when(until);
    if let Some(steps) = below_steps {
        // It counts states, and leaves out those at the bound.
        checker = checker.target_max_depth(steps + 1);
    }
    let checker = checker.spawn_bfs().join();
    let mut found = Found {
        states: checker.unique_state_count(),
        broken: Vec::new(),
        reached: Vec::new(),
    };
    for property in properties {
        let Some(path) = checker.discovery(property.name) else {
            continue;
        };
        if property.expectation.discovery_is_failure() {
            let steps = path
                .into_actions()
                .iter()
                .map(|action| format!("{action:?}"))
                .collect();
            found.broken.push((property.name, steps));
        } else {
            found.reached.push(property.name);
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
    let mut unmet = BTreeSet::new();
    let mut reached = BTreeSet::new();
    for bounds in bounds {
        let (begun, model) = (Instant::now(), model(*bounds));
        let is_to_be_met =
            |property: &stateright::Property<M>| !property.expectation.discovery_is_failure();
        unmet.extend(
            model
                .properties()
                .iter()
                .filter(|p| is_to_be_met(p))
                .map(|p| p.name),
        );
        let found = explore(model, HasDiscoveries::AllFailures, None);
        println!(
            "model {name}: {} states in {:.1} s ({bounds:?})",
            found.states,
            begun.elapsed().as_secs_f64()
        );
        assert!(found.states > 1000, "{name}: only {} states", found.states);
        for (property, steps) in &found.broken {
            println!(
                "{property} is broken after {} steps:\n  {}",
                steps.len(),
                steps.join("\n  ")
            );
        }
        assert!(
            found.broken.is_empty(),
            "{name}: the protocol or its code is wrong, see above"
        );
        reached.extend(found.reached);
    }
    unmet.retain(|property| !reached.contains(property));
    assert!(unmet.is_empty(), "{name} never gets to {unmet:?}");
}

/// The shortest way to break the property that a mutation is known to break.
fn shortest<M>(model: impl Fn() -> M, breaks: &str) -> (Found, Option<(&'static str, Vec<String>)>)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let names = model()
        .properties()
        .into_iter()
        .filter(|p| p.expectation.discovery_is_failure());
    let names: BTreeSet<_> = names
        .map(|p| p.name)
        .filter(|name| name.starts_with(breaks))
        .collect();
    assert!(!names.is_empty(), "no property {breaks}");
    let until = HasDiscoveries::AnyOf(names.clone());
    let first = explore(model(), until.clone(), None);
    let of_these = |found: &Found| {
        let mut broken: Vec<_> = found
            .broken
            .iter()
            .filter(|(name, _)| names.contains(name))
            .cloned()
            .collect();
        broken.sort_by_key(|(_, steps)| steps.len());
        broken.into_iter().next()
    };
    let mut least = of_these(&first);
    // The checker tells the last way that it found in a block of states: so
    // ask for a shorter one until there is none.
    while let Some((_, steps)) = &least {
        let Some(shorter) = of_these(&explore(model(), until.clone(), Some(steps.len()))) else {
            break;
        };
        least = Some(shorter);
    }
    (first, least)
}

/// Each of these mutations is caught by the property that is named with it.
pub fn catches<M, B: Copy>(
    name: &str,
    mutations: &[(Mutation, &str, B)],
    model: impl Fn(Mutation, B) -> M,
) where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let show = env::var_os("TIDEMARK_MODEL_TRACES").is_some();
    let mut missed = Vec::new();
    for &(mutation, breaks, bounds) in mutations {
        let begun = Instant::now();
        let (found, least) = shortest(|| model(mutation, bounds), breaks);
        let text = mutation.text();
        let Some((property, steps)) = least else {
            println!(
                "model {name}: {text}: NOT CAUGHT in {} states",
                found.states
            );
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
    }
    assert!(
        missed.is_empty(),
        "{name}: nothing catches {missed:?}: a property is missing"
    );
}
