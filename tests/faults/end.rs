//! After all faults: nothing is lost, and everybody says the same.

use std::{collections::HashMap, time::Duration};

use futures::TryStreamExt;
use mongodb::bson::{Document, Timestamp, doc};
use tidemark::pb::consistency::Requirement;
use tokio::{sync::watch, task::JoinSet, time::sleep};

use crate::{
    api,
    history::Shown,
    readers::Shift,
    support::eventually,
    watchers::Watcher,
    world::{DATABASE, World},
};

/// Todos of one batch.
const BATCH: usize = 500;
/// Tries to find the origin the same before and after the replicas were asked:
/// a write of unknown fate may still take place.
const TRIES: usize = 10;

pub async fn check(
    world: &World,
    shift: &Shift,
    end: &watch::Sender<Option<u64>>,
    mut watching: JoinSet<Watcher>,
) {
    let mut same = false;
    for _ in 0..TRIES {
        let (before, _) = origin(world).await;
        let differences = differences(world, shift, &before).await;
        if origin(world).await.0 == before {
            for difference in differences {
                shift.history.violation(difference);
            }
            same = true;
            break;
        }
        sleep(Duration::from_secs(3)).await;
    }
    if !same {
        shift
            .history
            .violation("the origin still changes at the end".into());
    }
    let (last, time) = origin(world).await;
    shift.history.check_end(&last);
    end.send_replace(Some(time));
    let (mut resumed, mut resets, mut watchers) = (0, 0, 0);
    while let Some(watcher) = watching.join_next().await {
        let watcher = watcher.expect("no watcher ends by a panic");
        watcher.check(&last);
        (resumed, resets, watchers) = (
            resumed + watcher.resumed,
            resets + watcher.resets,
            watchers + 1,
        );
    }
    println!("{watchers} watchers were resumed {resumed} times and reset {resets} times");
    println!(
        "{} todos in the origin at the end, {} were ever there",
        last.len(),
        shift.history.names().len()
    );
}

/// At the end nobody asks and nobody watches: a replica has no more tasks than with all
/// clients at work. `first`: its memory and tasks then.
pub async fn no_more_tasks(world: &World, first: &[(u64, u64)]) {
    for (replica, (_, first)) in world.replicas.iter().zip(first) {
        let what = format!("a replica with no more than the {first} tasks of all clients");
        eventually(&what, Duration::from_secs(60), async || {
            (replica.tasks() <= *first).then_some(())
        })
        .await;
    }
}

/// All todos with their version, and a time after all that is in them.
async fn origin(world: &World) -> (HashMap<String, u64>, u64) {
    let todos = world
        .plain
        .database(DATABASE)
        .collection::<Document>("todos");
    let mut session = world.plain.start_session().await.expect("a session");
    // A write, so that the time is one that the feed passes.
    let probe = world
        .plain
        .database(DATABASE)
        .collection::<Document>("probe");
    probe
        .insert_one(doc! {})
        .session(&mut session)
        .await
        .expect("inserted");
    let Timestamp { time, increment } = session.operation_time().expect("a time");
    let all: Vec<Document> = todos
        .find(doc! {})
        .await
        .expect("found")
        .try_collect()
        .await
        .expect("all of them");
    let row = |todo: Document| {
        let name = todo.get_str("_id").expect("a name").to_owned();
        let Shown::At(version) = Shown::title(todo.get_str("title").expect("a title")) else {
            unreachable!()
        };
        (name, version)
    };
    (
        all.into_iter().map(row).collect(),
        u64::from(time) << 32 | u64::from(increment),
    )
}

/// Asks again: on a busy machine a strong read may be refused.
async fn patiently<T>(mut ask: impl AsyncFnMut() -> Result<T, api::Failed>) -> Option<T> {
    for _ in 0..TRIES {
        if let Ok(answer) = ask().await {
            return Some(answer);
        }
        sleep(Duration::from_secs(1)).await;
    }
    None
}

/// What the replicas show by strong reads and lists that the origin does not.
async fn differences(world: &World, shift: &Shift, origin: &HashMap<String, u64>) -> Vec<String> {
    let names: Vec<String> = shift
        .history
        .names()
        .iter()
        .map(ToString::to_string)
        .collect();
    let strong = || api::consistency(Requirement::FullyConsistent(true));
    let mut found = Vec::new();
    for (replica, mut client) in world.clients().into_iter().enumerate() {
        for names in names.chunks(BATCH) {
            let Some(rows) =
                patiently(async || Ok(api::batch(&mut client, names.to_vec(), strong()).await?.0))
                    .await
            else {
                found.push(format!("at the end replica {replica} does not answer"));
                continue;
            };
            for (name, shown) in rows {
                let there = origin
                    .get(&name)
                    .map_or(Shown::Absent, |version| Shown::At(*version));
                if shown != there {
                    found.push(format!(
                        "at the end replica {replica} shows {name} as {shown:?}, not {there:?}"
                    ));
                }
            }
        }
        for list in &shift.lists {
            let (mut next, mut listed) = (String::new(), Vec::new());
            loop {
                let page = patiently(async || {
                    api::page(&mut client, list, next.clone(), 100, strong()).await
                })
                .await;
                let Some(page) = page else {
                    found.push(format!("at the end replica {replica} does not list {list}"));
                    break;
                };
                listed.extend(page.rows.into_iter().map(|(name, _)| name));
                next = page.next;
                if next.is_empty() {
                    break;
                }
            }
            let mut there: Vec<_> = origin
                .keys()
                .filter(|name| name.starts_with(&format!("{list}/")))
                .cloned()
                .collect();
            listed.sort();
            there.sort();
            if listed != there {
                found.push(format!(
                    "at the end replica {replica} lists {listed:?} in {list}, not {there:?}"
                ));
            }
        }
    }
    found
}
