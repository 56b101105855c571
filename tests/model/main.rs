//! The coherence protocol as models that call the very code of
//! `src/coherence/`: every way that their steps can interleave within small
//! bounds, with the invariants I1 to I8 as properties; and mutation tests: for each
//! known mistake a model that makes it, which must be caught.
//!
//! `TIDEMARK_MODEL=large` explores larger bounds, `TIDEMARK_MODEL_TRACES=1`
//! prints the steps that show each mistake.

mod ages;
mod fence;
mod joins;
mod lists;
mod mutations;
mod parts;
mod rights;
mod run;
mod sessions;
mod watch;

use mutations::Mutation;
use run::{Size, catches, holds};

#[test]
fn fence_holds() {
    let bounds = Size::asked().pick(fence::SMALL, fence::LARGE);
    holds("fence", bounds, |bounds| fence::Fence::new(None, bounds));
}

#[test]
fn fence_catches_its_mutations() {
    catches("fence", fence::MUTATIONS, |mutation, bounds| {
        fence::Fence::new(Some(mutation), bounds)
    });
}

#[test]
fn sessions_hold() {
    let bounds = Size::asked().pick(sessions::SMALL, sessions::LARGE);
    holds("sessions", bounds, |bounds| {
        sessions::Sessions::new(None, bounds)
    });
}

#[test]
fn sessions_catches_its_mutations() {
    catches("sessions", sessions::MUTATIONS, |mutation, bounds| {
        sessions::Sessions::new(Some(mutation), bounds)
    });
}

#[test]
fn joins_hold() {
    let bounds = Size::asked().pick(joins::SMALL, joins::LARGE);
    holds("joins", bounds, |bounds| joins::Joins::new(None, bounds));
}

#[test]
fn joins_catches_its_mutations() {
    catches("joins", joins::MUTATIONS, |mutation, bounds| {
        joins::Joins::new(Some(mutation), bounds)
    });
}

#[test]
fn lists_hold() {
    let bounds = Size::asked().pick(lists::SMALL, lists::LARGE);
    holds("lists", bounds, |bounds| lists::Lists::new(None, bounds));
}

#[test]
fn lists_catches_its_mutations() {
    catches("lists", lists::MUTATIONS, |mutation, bounds| {
        lists::Lists::new(Some(mutation), bounds)
    });
}

#[test]
fn watch_holds() {
    let bounds = Size::asked().pick(watch::SMALL, watch::LARGE);
    holds("watch", bounds, |bounds| watch::Watch::new(None, bounds));
}

#[test]
fn watch_catches_its_mutations() {
    catches("watch", watch::MUTATIONS, |mutation, bounds| {
        watch::Watch::new(Some(mutation), bounds)
    });
}

#[test]
fn ages_hold() {
    let bounds = Size::asked().pick(ages::SMALL, ages::LARGE);
    holds("ages", bounds, |bounds| ages::Ages::new(None, bounds));
}

#[test]
fn ages_catches_its_mutations() {
    catches("ages", ages::MUTATIONS, |mutation, bounds| {
        ages::Ages::new(Some(mutation), bounds)
    });
}

#[test]
fn rights_hold() {
    let bounds = Size::asked().pick(rights::SMALL, rights::LARGE);
    holds("rights", bounds, |bounds| rights::Rights::new(None, bounds));
}

#[test]
fn rights_catches_its_mutations() {
    catches("rights", rights::MUTATIONS, |mutation, bounds| {
        rights::Rights::new(Some(mutation), bounds)
    });
}

/// Each mutation has its place in a model.
#[test]
fn every_mutation_has_a_model() {
    let taken: Vec<Mutation> = [
        fence::MUTATIONS
            .iter()
            .map(|mutation| mutation.0)
            .collect::<Vec<_>>(),
        sessions::MUTATIONS
            .iter()
            .map(|mutation| mutation.0)
            .collect(),
        joins::MUTATIONS.iter().map(|mutation| mutation.0).collect(),
        lists::MUTATIONS.iter().map(|mutation| mutation.0).collect(),
        watch::MUTATIONS.iter().map(|mutation| mutation.0).collect(),
        ages::MUTATIONS.iter().map(|mutation| mutation.0).collect(),
        rights::MUTATIONS
            .iter()
            .map(|mutation| mutation.0)
            .collect(),
    ]
    .concat();
    for mutation in Mutation::ALL {
        assert!(
            taken.contains(mutation),
            "no model takes this mutation: {}",
            mutation.text()
        );
    }
}
