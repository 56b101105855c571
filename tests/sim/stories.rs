//! Small worlds in which one thing happens: what a seed found once, told
//! alone, so that it stays found.

use std::{sync::Arc, time::Duration};

use tidemark::{
    cache::{Consistency, ReadOptions},
    error::Error,
};
use tokio::time::sleep;

use crate::{
    faults::spoil,
    fleet::Fleet,
    world::{Config, World},
};

/// A story in a world in which nothing goes wrong by itself.
pub fn in_calm<T, F: Future<Output = T>>(
    replicas: usize,
    story: impl FnOnce(Arc<World>, Arc<Fleet>) -> F,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime").block_on(async {
        let (config, rng) = Config::calm(replicas);
        let world = World::new(config, rng);
        let fleet = Fleet::new(&world);
        // All know the origin's time.
        sleep(Duration::from_secs(1)).await;
        let told = story(Arc::clone(&world), fleet).await;
        let (report, _) = world.results();
        assert!(report.violations.is_empty(), "{:?}", report.violations);
        told
    })
}

/// Found by seed 5 on 2026-11-25: it came unmarked and without its bound.
#[test]
fn a_stale_answer_is_marked_also_when_its_document_is_unreadable() {
    in_calm(1, async |world, fleet| {
        let name = world.config.names[0].clone();
        spoil(&world, &name);
        let (replica, want) = (
            fleet.replica(0),
            ReadOptions {
                identity: None,
                consistency: Consistency::MinimizeLatency,
                deadline: None,
                caller: None,
            },
        );
        let fresh = replica.cache.get(&name, &want).await;
        assert!(matches!(fresh, Err(Error::Unreadable { read: Some(read), .. }) if !read.stale));
        world.active_faults().origin_refuses = 1;
        sleep(world.config.settings.staleness_limit * 2).await;
        let Err(Error::Unreadable {
            read: Some(read), ..
        }) = replica.cache.get(&name, &want).await
        else {
            panic!("near has it");
        };
        assert!(
            read.stale && read.staleness_bound > world.config.settings.staleness_limit,
            "{read:?}"
        );
    });
}
