//! What goes wrong, when and for how long; and what is done behind the
//! service's back.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tidemark::model::{ChangeKind, Patch, TodoName, Touched};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    fleet::Fleet,
    history::{Doc, Edit},
    lists,
    world::{ActiveFaults, Bug, Fault, World},
    write,
};

/// Longest time that a drained process is waited for.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// Lets one fault after the other happen; they may overlap.
pub async fn happen(world: Arc<World>, fleet: Arc<Fleet>) {
    if world.config.faults.is_empty() {
        return;
    }
    let often = world.rng().pick(&[300, 1_000, 3_000]);
    let mut under_way = tokio::task::JoinSet::new();
    loop {
        let pause = world.rng().ms(50..often);
        sleep(pause).await;
        if world.over() {
            break;
        }
        let fault = world.rng().pick(&world.config.faults);
        under_way.spawn(one(fault, Arc::clone(&world), Arc::clone(&fleet)));
    }
    while under_way.join_next().await.is_some() {}
}

/// How long a fault lasts: now and then past the staleness limit, never past
/// the end.
fn duration(world: &World) -> Duration {
    let limit = u64::try_from(world.config.settings.staleness_limit.as_millis()).expect("short");
    let mut rng = world.rng();
    let long = rng.weighted(&[(6, 300), (3, 2_500), (1, limit * 2)]);
    let lasts = rng.ms(10..long);
    lasts.min(world.ends.saturating_duration_since(Instant::now()))
}

async fn one(fault: Fault, world: Arc<World>, fleet: Arc<Fleet>) {
    let slot = usize::try_from(world.rng().of(0..world.config.replicas as u64)).expect("small");
    let lasts = duration(&world);
    world.say(format_args!(
        "fault {fault:?} at replica {slot} for {lasts:?}"
    ));
    world.count("faults");
    match fault {
        Fault::LinkStall => {
            spell(&world, lasts, Some(slot), |active_faults| {
                &mut active_faults.links[slot].stalled
            })
            .await;
        }
        Fault::LinkRefuse => {
            spell(&world, lasts, Some(slot), |active_faults| {
                &mut active_faults.links[slot].refusing
            })
            .await;
        }
        Fault::LinkNoise => {
            spell(&world, lasts, Some(slot), |active_faults| {
                &mut active_faults.links[slot].noisy
            })
            .await;
        }
        Fault::FeedLag => {
            spell(&world, lasts, None, |active_faults| {
                &mut active_faults.links[slot].lagging
            })
            .await;
        }
        Fault::OriginRefuse => {
            all(&world, lasts, |active_faults| {
                &mut active_faults.origin_refuses
            })
            .await
        }
        Fault::OriginHang => {
            all(&world, lasts, |active_faults| {
                &mut active_faults.origin_hangs
            })
            .await
        }
        Fault::SharedDown => {
            spell(&world, lasts, None, |active_faults| {
                &mut active_faults.shared_down
            })
            .await
        }
        Fault::SharedSlow => {
            spell(&world, lasts, None, |active_faults| {
                &mut active_faults.shared_slow
            })
            .await
        }
        Fault::SharedLossy => {
            spell(&world, lasts, None, |active_faults| {
                &mut active_faults.shared_lossy
            })
            .await
        }
        Fault::SharedFlush => world.store().flush(),
        Fault::SharedOld => world.store().bring_back(&world, Instant::now()),
        Fault::FeedBreak => change(&world, |active_faults| {
            active_faults.links[slot].broken_upto = active_faults.feeds;
        }),
        Fault::FeedHang => change(&world, |active_faults| {
            active_faults.links[slot].hung_upto = active_faults.feeds;
        }),
        Fault::HistoryLost => lose_history(&world),
        Fault::Crash => restart(&world, &fleet, slot, lasts).await,
        Fault::Drain => drain(&world, &fleet, slot, lasts).await,
        Fault::Drop | Fault::Replace => replace(&world, fault == Fault::Drop),
        Fault::Burst => burst(&world),
    }
    world.say(format_args!("fault {fault:?} at replica {slot} is over"));
}

fn change(world: &World, what: impl FnOnce(&mut ActiveFaults)) {
    what(&mut world.active_faults());
    world.changed.notify_waiters();
}

/// Applies one kind of fault for a while.
async fn spell(
    world: &World,
    lasts: Duration,
    troubles: Option<usize>,
    kind: impl Fn(&mut ActiveFaults) -> &mut u32,
) {
    change(world, |active_faults| *kind(active_faults) += 1);
    sleep(lasts).await;
    change(world, |active_faults| {
        *kind(active_faults) -= 1;
        if let Some(slot) = troubles {
            active_faults.links[slot].last_trouble = Some(Instant::now());
        }
    });
}

async fn all(world: &World, lasts: Duration, kind: impl Fn(&mut ActiveFaults) -> &mut u32) {
    spell(world, lasts, None, kind).await;
    for link in &mut world.active_faults().links {
        link.last_trouble = Some(Instant::now());
    }
}

/// The origin forgets its log, and all feeds are broken.
fn lose_history(world: &World) {
    let len = world.history().events.len();
    world.history().forgotten = len;
    change(world, |active_faults| {
        for link in &mut active_faults.links {
            link.broken_upto = active_faults.feeds;
        }
    });
}

async fn restart(world: &World, fleet: &Arc<Fleet>, slot: usize, after: Duration) {
    if fleet.replica(slot).link.dead.is_cancelled() {
        return;
    }
    fleet.kill(slot);
    sleep(after.min(Duration::from_secs(1))).await;
    fleet.start(slot);
    world.count("restarts");
}

async fn drain(world: &World, fleet: &Arc<Fleet>, slot: usize, after: Duration) {
    let replica = fleet.replica(slot);
    if replica.draining.swap(true, Ordering::Relaxed) {
        return;
    }
    let _ = timeout(DRAIN_LIMIT, replica.cache.drain()).await;
    if !replica.link.dead.is_cancelled() {
        restart(world, fleet, slot, after).await;
    }
}

/// The collection is dropped, or another one takes its place.
fn replace(world: &World, drop: bool) {
    let time = world.commit(|history, at| {
        let wall = history.wall_ms(at);
        let mut docs = Vec::new();
        if !drop {
            for name in &world.config.names {
                let mut rng = world.rng();
                let title = format!("restored {}", history.last);
                let todo = write::fields(&mut rng, &title).create(name.as_str(), wall);
                if rng.chance(50) {
                    docs.push((name.clone(), Doc::new(todo, false)));
                }
            }
        }
        let lists = if world.config.rights && world.rng().chance(50) {
            lists::replaced(world, history, drop)
        } else {
            Vec::new()
        };
        let time = history.reset(at, docs, lists, if drop { "drop" } else { "rename" });
        history.acknowledge(at, time);
        time
    });
    world.say(format_args!("reset {time}"));
}

/// Many commits at once.
fn burst(world: &World) {
    let many = world.rng().of(5..40);
    for n in 0..many {
        behind_the_back(world, &format!("burst {n}"));
    }
}

/// Somebody writes straight to the database: one todo, or several in a
/// transaction.
pub async fn write_by_hand(world: Arc<World>, id: usize) {
    let mut n = 0;
    while !world.over() {
        let pause = world.rng().of(1..world.config.think_ms * 2);
        sleep(Duration::from_millis(pause)).await;
        n += 1;
        behind_the_back(&world, &format!("hand {id} {n}"));
    }
}

/// Makes the document of a todo unreadable.
pub fn spoil(world: &World, name: &TodoName) {
    world.commit(|history, at| {
        let todo = Patch::default().create(name.as_str(), history.wall_ms(at));
        let (doc, touched) = (Some(Doc::new(todo, true)), Touched::All);
        let edit = Edit {
            name: name.clone(),
            doc,
            kind: ChangeKind::Created,
            touched,
        };
        history.commit(at, vec![edit])
    });
}

/// Another title for a todo, straight in the database.
pub fn retitle(world: &World, name: &TodoName, title: &str) {
    world.commit(|history, at| {
        let patch = Patch {
            title: Some(title.to_owned()),
            ..Patch::default()
        };
        let wall = history.wall_ms(at);
        let old = history.doc_at(name, history.last);
        let kind = if old.is_some() {
            ChangeKind::Updated
        } else {
            ChangeKind::Created
        };
        let todo = match old {
            Some(old) => patch.apply(old.todo.clone(), wall),
            None => patch.create(name.as_str(), wall),
        };
        let touched = Touched::Paths(vec!["title".into()]);
        let edit = Edit {
            name: name.clone(),
            doc: Some(Doc::new(todo, false)),
            kind,
            touched,
        };
        let time = history.commit(at, vec![edit]);
        history.acknowledge(at, time);
        time
    });
}

fn behind_the_back(world: &World, title: &str) {
    let time = world.commit(|history, at| {
        let many = world.rng().weighted(&[(7, 1), (2, 2), (1, 4)]);
        let mut names = Vec::new();
        for _ in 0..many {
            let name = world.rng().pick(&world.config.names);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let edits = names
            .into_iter()
            .map(|name| write::by_hand(world, history, name, title))
            .collect();
        let time = history.commit(at, edits);
        history.acknowledge(at, time);
        time
    });
    world.say(format_args!("commit {time} {title}"));
    world.count("writes behind the back");
}

/// Whether only runs with rights can show it.
pub fn needs_rights(bug: Bug) -> bool {
    matches!(bug, Bug::FeedSwallowsList | Bug::UnreadableListIsRead)
}

/// What must be planted before the run, for bugs that need it.
pub fn needs(bug: Bug) -> Vec<Fault> {
    match bug {
        Bug::FeedSwallowsReset => vec![Fault::Drop, Fault::Replace],
        Bug::FeedResumesByTime => vec![Fault::FeedBreak, Fault::Burst],
        _ => Vec::new(),
    }
}
