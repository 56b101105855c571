//! The coherence protocol as models that call the very code of
//! `src/coherence/`: every way that their steps can interleave within small
//! bounds, with the invariants I1 to I7 as properties; and teeth: for each
//! known wrong turn a model that takes it, and must be caught.
//!
//! `TIDEMARK_MODEL=large` explores larger bounds, `TIDEMARK_MODEL_TRACES=1`
//! prints the way to each wrong turn.

mod ages;
mod fence;
mod joins;
mod lists;
mod parts;
mod run;
mod sessions;
mod turns;
mod watch;

use run::{Size, catches, holds};
use turns::Turn;

#[test]
fn fence_holds() {
    let bounds = Size::asked().pick(fence::SMALL, fence::LARGE);
    holds("fence", bounds, |bounds| fence::Fence::new(None, bounds));
}

#[test]
fn fence_has_teeth() {
    catches("fence", fence::TURNS, |turn, bounds| {
        fence::Fence::new(Some(turn), bounds)
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
fn sessions_have_teeth() {
    catches("sessions", sessions::TURNS, |turn, bounds| {
        sessions::Sessions::new(Some(turn), bounds)
    });
}

#[test]
fn joins_hold() {
    let bounds = Size::asked().pick(joins::SMALL, joins::LARGE);
    holds("joins", bounds, |bounds| joins::Joins::new(None, bounds));
}

#[test]
fn joins_have_teeth() {
    catches("joins", joins::TURNS, |turn, bounds| {
        joins::Joins::new(Some(turn), bounds)
    });
}

#[test]
fn lists_hold() {
    let bounds = Size::asked().pick(lists::SMALL, lists::LARGE);
    holds("lists", bounds, |bounds| lists::Lists::new(None, bounds));
}

#[test]
fn lists_have_teeth() {
    catches("lists", lists::TURNS, |turn, bounds| {
        lists::Lists::new(Some(turn), bounds)
    });
}

#[test]
fn watch_holds() {
    let bounds = Size::asked().pick(watch::SMALL, watch::LARGE);
    holds("watch", bounds, |bounds| watch::Watch::new(None, bounds));
}

#[test]
fn watch_has_teeth() {
    catches("watch", watch::TURNS, |turn, bounds| {
        watch::Watch::new(Some(turn), bounds)
    });
}

#[test]
fn ages_hold() {
    let bounds = Size::asked().pick(ages::SMALL, ages::LARGE);
    holds("ages", bounds, |bounds| ages::Ages::new(None, bounds));
}

#[test]
fn ages_have_teeth() {
    catches("ages", ages::TURNS, |turn, bounds| {
        ages::Ages::new(Some(turn), bounds)
    });
}

/// Each wrong turn has its place in a model.
#[test]
fn every_wrong_turn_is_taken() {
    let taken: Vec<Turn> = [
        fence::TURNS.iter().map(|turn| turn.0).collect::<Vec<_>>(),
        sessions::TURNS.iter().map(|turn| turn.0).collect(),
        joins::TURNS.iter().map(|turn| turn.0).collect(),
        lists::TURNS.iter().map(|turn| turn.0).collect(),
        watch::TURNS.iter().map(|turn| turn.0).collect(),
        ages::TURNS.iter().map(|turn| turn.0).collect(),
    ]
    .concat();
    for turn in Turn::ALL {
        assert!(
            taken.contains(turn),
            "no model takes this turn: {}",
            turn.text()
        );
    }
}
