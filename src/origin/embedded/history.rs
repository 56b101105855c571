//! Questions about the past, for the online verifier. The store keeps only the
//! present state; its history of changes proves where that is also the state
//! of an earlier time. Where it does not, nothing is said.

use redb::ReadTransaction;

use super::store::{HISTORY, HISTORY_START, META, Reader, decode_change};
use crate::{
    model::{Change, ChangeKind, OriginTime, Page, PageQuery, TodoName, Value},
    origin::OriginError,
};

/// Most changes that one question looks through: a few milliseconds.
const MAX_CHANGES: usize = 10_000;

/// The present state, and all changes after an earlier time.
pub(super) struct History {
    reader: Reader,
    changes: Vec<Change>,
}

impl History {
    /// Both from one snapshot, begun after `published` was read.
    pub(super) fn open(
        txn: &ReadTransaction,
        published: u64,
        at: OriginTime,
    ) -> Result<Self, OriginError> {
        let reader = Reader::new(txn).map_err(OriginError::unavailable)?;
        let last = reader.last_write().map_err(OriginError::unavailable)?;
        if at.0 > published.max(last) {
            return Err(OriginError::Ahead(at));
        }
        let changes = changes_after(txn, at.0).map_err(OriginError::unavailable)?;
        Ok(Self { reader, changes })
    }

    /// The todo as it was: as it is, if it did not change since; and there was
    /// none, if the first thing that happened to it since was that it was made.
    pub(super) fn todo(&self, name: &TodoName) -> Result<Value, String> {
        match self.changes.iter().find(|change| change.name == *name) {
            None => self.reader.value(name),
            Some(first) if first.kind == ChangeKind::Created => Ok(Value::Absent),
            Some(_) => Err("it changed since, and the store keeps no older states".into()),
        }
    }

    /// The page as it was: as it is, if nothing changed in its list since.
    pub(super) fn page(&self, query: &PageQuery) -> Result<Page, String> {
        if self
            .changes
            .iter()
            .any(|change| change.name.parent() == query.list.as_str())
        {
            return Err("its list changed since, and the store keeps no older states".into());
        }
        self.reader.page(query)
    }
}

fn changes_after(txn: &ReadTransaction, at: u64) -> Result<Vec<Change>, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let meta = txn.open_table(META).map_err(|e| text(&e))?;
    let start = meta
        .get(HISTORY_START)
        .map_err(|e| text(&e))?
        .map_or(u64::MAX, |start| start.value());
    if at < start {
        return Err(format!(
            "the store's history begins after {start}, and {at} was asked for"
        ));
    }
    let history = txn.open_table(HISTORY).map_err(|e| text(&e))?;
    let mut changes = Vec::new();
    for entry in history
        .range(at.saturating_add(1)..)
        .map_err(|e| text(&e))?
    {
        let (number, raw) = entry.map_err(|e| text(&e))?;
        if changes.len() == MAX_CHANGES {
            return Err(format!("more than {MAX_CHANGES} changes lie between"));
        }
        let change = decode_change(OriginTime(number.value()), raw.value());
        changes.push(change.ok_or("a change in the history cannot be read")?);
    }
    Ok(changes)
}
