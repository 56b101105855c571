//! Turns of calls.

use super::Call;
use crate::turns::Turn;

/// Calls of one caller at once that need no turns. So few delay others by less than a
/// millisecond, and most callers never have more.
const FREE_CALLS: usize = 16;
/// CPU of a small call, in microseconds.
const CALL_MICROS: usize = 30;
/// Bytes of a request for each microsecond more: a batch of a thousand names has 30 KB
/// and takes a millisecond.
const BYTES_PER_MICRO: usize = 32;

impl Call {
    /// `None`: the work on a request of so many bytes may begin. Else when this completes.
    pub(crate) fn ask_turn(&self, bytes: usize) -> Option<Turn> {
        let caller = self.caller();
        if caller.calls() <= FREE_CALLS || self.exempt.is_some() {
            return None;
        }
        let micros = CALL_MICROS + bytes / BYTES_PER_MICRO;
        self.connection.turns().ask(Some(caller), micros)
    }

    /// Waits for a turn of a small call.
    pub async fn turn(&self) {
        if let Some(turn) = self.ask_turn(0) {
            // It comes as long as the port is served.
            let _ = turn.await;
        }
    }
}
