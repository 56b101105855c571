//! The binary format of a stamped value in the shared tier.
//!
//! `version | scope | as_of | key length | key | kind | body | checksum`, numbers
//! big-endian. The shared tier is not trusted: it may return any bytes under any
//! key, so version, scope, key and checksum are all checked when decoding.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

use prost::Message as _;

use crate::{
    model::{
        ListName, ListsPage, OriginTime, Page, PagePosition, SortKey, Stamped, TodoName,
        Unreadable, Value,
    },
    pb,
};

/// Format version. Records of other versions are misses.
const VERSION: u8 = 1;
const HEAD: usize = 1 + 8 + 8 + 4;
const CHECKSUM: usize = 8;

const TODO: u8 = 1;
const ABSENT: u8 = 2;
const UNREADABLE: u8 = 3;
const PAGE: u8 = 4;
const LIST: u8 = 5;
const LISTS: u8 = 6;

/// Why a record was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// Truncated, or the checksum does not match.
    Damaged,
    /// Written by another version of the format.
    Version,
    /// Another origin, collection incarnation or cache epoch.
    Scope,
    /// The record belongs to another key.
    Key,
}

impl Rejected {
    /// The value of the metric label `kind`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Version => "version",
            Self::Scope => "scope",
            Self::Key => "key",
        }
    }
}

/// Encodes the value of `key`.
#[must_use]
pub fn encode(scope: u64, key: &str, stamped: &Stamped) -> Bytes {
    let mut raw = BytesMut::with_capacity(HEAD + key.len() + 64);
    raw.put_u8(VERSION);
    raw.put_u64(scope);
    raw.put_u64(stamped.as_of.0);
    put_text(&mut raw, key);
    match &stamped.value {
        Value::Todo(todo) => {
            raw.put_u8(TODO);
            raw.put_slice(todo);
        }
        Value::Absent => raw.put_u8(ABSENT),
        Value::Unreadable(unreadable) => {
            raw.put_u8(UNREADABLE);
            put_text(&mut raw, &unreadable.field);
            put_text(&mut raw, &unreadable.problem);
        }
        Value::Page(page) => {
            raw.put_u8(PAGE);
            put_page(&mut raw, page);
        }
        Value::List(list) => {
            raw.put_u8(LIST);
            raw.put_slice(&list.encode_to_vec());
        }
        Value::Lists(page) => {
            raw.put_u8(LISTS);
            raw.put_u8(page.more.into());
            raw.put_u32(u32::try_from(page.names.len()).unwrap_or(u32::MAX));
            for name in &page.names {
                put_text(&mut raw, name.as_str());
            }
        }
    }
    let sum = xxh3_64(&raw);
    raw.put_u64(sum);
    raw.freeze()
}

/// Decodes the record of `key` in `scope`. A todo's body is a slice of `raw`.
///
/// # Errors
/// The first check that failed.
pub fn decode(scope: u64, key: &str, raw: &Bytes) -> Result<Stamped, Rejected> {
    let body_end = raw
        .len()
        .checked_sub(CHECKSUM)
        .filter(|end| *end > HEAD)
        .ok_or(Rejected::Damaged)?;
    let (content, sum) = raw.split_at(body_end);
    if xxh3_64(content).to_be_bytes() != *sum {
        return Err(Rejected::Damaged);
    }
    let mut reader = Reader {
        raw: raw.slice(..body_end),
    };
    if reader.byte() != Some(VERSION) {
        return Err(Rejected::Version);
    }
    if reader.word() != Some(scope) {
        return Err(Rejected::Scope);
    }
    let as_of = OriginTime(reader.word().ok_or(Rejected::Damaged)?);
    if reader.text().ok_or(Rejected::Damaged)? != key.as_bytes() {
        return Err(Rejected::Key);
    }
    let value = reader.value().ok_or(Rejected::Damaged)?;
    Ok(Stamped { as_of, value })
}

fn put_text(raw: &mut BytesMut, text: &str) {
    raw.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    raw.put_slice(text.as_bytes());
}

fn put_page(raw: &mut BytesMut, page: &Page) {
    raw.put_u32(u32::try_from(page.names.len()).unwrap_or(u32::MAX));
    for name in &page.names {
        put_text(raw, name.as_str());
    }
    let Some(next) = &page.next else {
        return raw.put_u8(0);
    };
    match next.key {
        SortKey::Time(ms) => {
            raw.put_u8(1);
            raw.put_i64(ms);
        }
        SortKey::Priority(rank) => {
            raw.put_u8(2);
            raw.put_u8(rank);
        }
        SortKey::Missing => raw.put_u8(3),
        SortKey::Wrong => raw.put_u8(4),
    }
    put_text(raw, next.name.as_str());
}

struct Reader {
    raw: Bytes,
}

impl Reader {
    fn take(&mut self, len: usize) -> Option<Bytes> {
        (len <= self.raw.len()).then(|| self.raw.split_to(len))
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|raw| raw[0])
    }

    fn word(&mut self) -> Option<u64> {
        self.take(8)
            .map(|raw| raw.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
    }

    fn length(&mut self) -> Option<usize> {
        self.take(4)
            .map(|raw| raw.iter().fold(0, |n, b| n << 8 | usize::from(*b)))
    }

    fn text(&mut self) -> Option<Bytes> {
        let len = self.length()?;
        self.take(len)
    }

    fn string(&mut self) -> Option<String> {
        String::from_utf8(self.text()?.to_vec()).ok()
    }

    fn name(&mut self) -> Option<TodoName> {
        TodoName::parse(std::str::from_utf8(&self.text()?).ok()?)
    }

    fn value(&mut self) -> Option<Value> {
        let value = match self.byte()? {
            TODO => Value::Todo(self.take(self.raw.len())?),
            ABSENT => Value::Absent,
            UNREADABLE => Value::Unreadable(Arc::new(Unreadable {
                field: self.string()?,
                problem: self.string()?,
            })),
            PAGE => Value::Page(Arc::new(self.page()?)),
            LIST => {
                let raw = self.take(self.raw.len())?;
                Value::List(Arc::new(pb::TodoList::decode(raw).ok()?))
            }
            LISTS => Value::Lists(Arc::new(self.lists()?)),
            _ => return None,
        };
        self.raw.is_empty().then_some(value)
    }

    fn lists(&mut self) -> Option<ListsPage> {
        let more = self.byte()? == 1;
        let count = self.length()?;
        let mut name = || ListName::parse(std::str::from_utf8(&self.text()?).ok()?);
        let names = (0..count).map(|_| name()).collect::<Option<Vec<_>>>()?;
        Some(ListsPage { names, more })
    }

    fn page(&mut self) -> Option<Page> {
        let count = self.length()?;
        let names = (0..count)
            .map(|_| self.name())
            .collect::<Option<Vec<_>>>()?;
        let key = match self.byte()? {
            0 => return Some(Page { names, next: None }),
            1 => SortKey::Time(self.word()?.cast_signed()),
            2 => SortKey::Priority(self.byte()?),
            3 => SortKey::Missing,
            4 => SortKey::Wrong,
            _ => return None,
        };
        Some(Page {
            names,
            next: Some(PagePosition {
                key,
                name: self.name()?,
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Stamped> {
        let name = |id: &str| TodoName::parse(&format!("lists/home/todos/{id}")).expect("a name");
        let next = |key| {
            Some(PagePosition {
                key,
                name: name("b"),
            })
        };
        let page = |next| {
            Value::Page(Arc::new(Page {
                names: vec![name("a"), name("b")],
                next,
            }))
        };
        let list = pb::TodoList {
            name: "lists/home".into(),
            members: [("ada".to_owned(), pb::Role::Owner.into())].into(),
            ..pb::TodoList::default()
        };
        let unreadable = Unreadable {
            field: "title".into(),
            problem: "is an int".into(),
        };
        [
            Value::Todo(Bytes::from_static(b"\x0a\x03abc")),
            Value::Todo(Bytes::new()),
            Value::Absent,
            Value::Unreadable(Arc::new(unreadable)),
            page(None),
            page(next(SortKey::Time(-5))),
            page(next(SortKey::Priority(3))),
            page(next(SortKey::Missing)),
            page(next(SortKey::Wrong)),
            Value::List(Arc::new(list)),
            Value::Lists(Arc::new(ListsPage {
                names: vec![ListName::parse("lists/home").expect("a name")],
                more: true,
            })),
        ]
        .into_iter()
        .map(|value| Stamped {
            as_of: OriginTime(77),
            value,
        })
        .collect()
    }

    #[test]
    fn decode_returns_what_was_encoded() {
        for stamped in samples() {
            assert_eq!(decode(5, "key", &encode(5, "key", &stamped)), Ok(stamped));
        }
    }

    #[test]
    fn another_key_or_scope_is_rejected() {
        let raw = encode(5, "key", &samples()[0]);
        assert_eq!(decode(6, "key", &raw), Err(Rejected::Scope));
        assert_eq!(decode(5, "kez", &raw), Err(Rejected::Key));
    }

    #[test]
    fn truncation_and_bit_flips_are_rejected() {
        for stamped in samples() {
            let raw = encode(5, "key", &stamped);
            for at in 0..raw.len() {
                assert!(decode(5, "key", &raw.slice(..at)).is_err(), "cut at {at}");
                let mut flipped = raw.to_vec();
                flipped[at] ^= 1 << (at % 8);
                assert!(
                    decode(5, "key", &flipped.into()).is_err(),
                    "flipped at {at}"
                );
            }
        }
    }

    /// A checksum does not stop a forger: decoding must not panic on any input.
    #[test]
    fn forged_records_with_a_valid_checksum_do_not_panic() {
        for stamped in samples() {
            let raw = encode(5, "key", &stamped);
            let content = &raw[..raw.len() - CHECKSUM];
            for at in HEAD + 3..content.len() {
                let mut forged = content[..at].to_vec();
                forged.extend_from_slice(&xxh3_64(&content[..at]).to_be_bytes());
                let decoded = decode(5, "key", &forged.into());
                assert!(
                    decoded.is_err()
                        || matches!(
                            decoded,
                            Ok(Stamped {
                                value: Value::Todo(_) | Value::List(_),
                                ..
                            })
                        )
                );
            }
        }
    }
}
