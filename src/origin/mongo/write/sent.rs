//! Whether a write has left this process: one that has not had no effect for certain, and
//! its caller may send it again.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use mongodb::event::{EventHandler, cmap::CmapEvent};

tokio::task_local! {
    /// Of the write that runs in this task.
    pub(super) static SENT: Arc<Sent>;
}

/// Whether a command that may have an effect has left this process, for one write.
#[derive(Default)]
pub(in super::super) struct Sent {
    sent: AtomicBool,
    /// What is sent now has no effect.
    reading: AtomicBool,
}

impl Sent {
    pub(in super::super) fn get(&self) -> bool {
        self.sent.load(Ordering::Acquire)
    }

    pub(in super::super) fn set(&self, sent: bool) {
        self.sent.store(sent, Ordering::Release);
    }
}

/// Notes for the write that runs in the current task that it was sent. The driver calls
/// it in that task once it has a connection for a command, right before it sends it.
///
/// A handler of command events would also be given the command. But then the driver
/// makes documents of each command and each reply: 8 % of the CPU of an update (row
/// `builds` of the benchmarks, in turns).
pub(in super::super) fn note_sent() -> EventHandler<CmapEvent> {
    EventHandler::callback(|event| {
        if matches!(event, CmapEvent::ConnectionCheckedOut(_)) {
            // Not set for the look at an outcome, which no write waits for.
            let _ = SENT.try_with(|sent| {
                if !sent.reading.load(Ordering::Relaxed) {
                    sent.set(true);
                }
            });
        }
    })
}

/// Runs commands that have no effect by themselves: reads, and all of a transaction but
/// its commit.
pub(in super::super) async fn without_effect<T>(work: impl Future<Output = T>) -> T {
    let set = |reading| {
        let swapped = SENT.try_with(|sent| sent.reading.swap(reading, Ordering::Relaxed));
        swapped.unwrap_or_default()
    };
    let before = set(true);
    let done = work.await;
    set(before);
    done
}
