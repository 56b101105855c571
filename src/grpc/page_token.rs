//! Page tokens: opaque, with a checksum, tied to list, filter and order.
//!
//! `version | query | fresh_to | sort key | name | checksum`, base64.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    error::{Error, shorten},
    model::{ListName, ListsQuery, OriginTime, PagePosition, PageQuery, SortKey, TodoName},
};

const VERSION: u8 = 1;
/// Version, query and `fresh_to`.
const HEAD: usize = 1 + 8 + 8;
/// Tag and value of the sort key.
const SORT_KEY: usize = 1 + 8;
const CHECKSUM: usize = 8;
/// Longest page token in characters: one with the longest name has 231.
const MAX_CHARS: usize = 256;

/// What identifies the run through all pages: all of the query but where the
/// page begins and how long it is.
fn run_of(query: &PageQuery) -> u64 {
    let whole = PageQuery {
        size: 0,
        after: None,
        ..query.clone()
    };
    xxh3_64(whole.to_string().as_bytes())
}

/// The token for the page after `next`; `fresh_to` is the least of the pages
/// so far.
#[must_use]
pub fn encode(query: &PageQuery, next: &PagePosition, fresh_to: OriginTime) -> String {
    let (tag, value) = match next.key {
        SortKey::Time(ms) => (0, ms.cast_unsigned()),
        SortKey::Priority(rank) => (1, u64::from(rank)),
        SortKey::Missing => (2, 0),
        SortKey::Wrong => (3, 0),
    };
    let mut raw = vec![VERSION];
    raw.extend_from_slice(&run_of(query).to_be_bytes());
    raw.extend_from_slice(&fresh_to.0.to_be_bytes());
    raw.push(tag);
    raw.extend_from_slice(&value.to_be_bytes());
    raw.extend_from_slice(next.name.as_str().as_bytes());
    let sum = xxh3_64(&raw);
    raw.extend_from_slice(&sum.to_be_bytes());
    URL_SAFE_NO_PAD.encode(raw)
}

/// Where the page begins, and the least `fresh_to` of the pages before.
///
/// # Errors
/// `PageTokenInvalid`: not a token, or one of another query.
pub fn decode(query: &PageQuery, token: &str) -> Result<(PagePosition, OriginTime), Error> {
    let (invalid, malformed) = (|problem| invalid(token, problem), || malformed(token));
    let content = checked_content(token, VERSION).ok_or_else(malformed)?;
    if content.len() < HEAD + SORT_KEY {
        return Err(malformed());
    }
    if word(&content, 1) != run_of(query) {
        return Err(invalid(
            "belongs to another parent, filter or order_by; begin again without a page_token",
        ));
    }
    let value = word(&content, HEAD + 1);
    let key = match content[HEAD] {
        0 => SortKey::Time(value.cast_signed()),
        1 => SortKey::Priority(u8::try_from(value).map_err(|_| malformed())?),
        2 if value == 0 => SortKey::Missing,
        3 if value == 0 => SortKey::Wrong,
        _ => return Err(malformed()),
    };
    let name = std::str::from_utf8(&content[HEAD + SORT_KEY..])
        .ok()
        .and_then(TodoName::parse);
    Ok((
        PagePosition {
            key,
            name: name.ok_or_else(malformed)?,
        },
        OriginTime(word(&content, 9)),
    ))
}

/// Version of the tokens of pages of lists: one is not taken for the other.
const LISTS_VERSION: u8 = 2;

/// The token for the page of lists after `after`.
#[must_use]
pub fn encode_lists(query: &ListsQuery, after: &ListName, fresh_to: OriginTime) -> String {
    let mut raw = vec![LISTS_VERSION];
    raw.extend_from_slice(&run_of_lists(query).to_be_bytes());
    raw.extend_from_slice(&fresh_to.0.to_be_bytes());
    raw.extend_from_slice(after.as_str().as_bytes());
    let sum = xxh3_64(&raw);
    raw.extend_from_slice(&sum.to_be_bytes());
    URL_SAFE_NO_PAD.encode(raw)
}

/// Where the page of lists begins, and the least `fresh_to` of the pages before.
///
/// # Errors
/// `PageTokenInvalid`: not a token, or one of another caller.
pub fn decode_lists(query: &ListsQuery, token: &str) -> Result<(ListName, OriginTime), Error> {
    let (invalid, malformed) = (|problem| invalid(token, problem), || malformed(token));
    let content = checked_content(token, LISTS_VERSION).ok_or_else(malformed)?;
    if word(&content, 1) != run_of_lists(query) {
        return Err(invalid(
            "belongs to another caller; begin again without a page_token",
        ));
    }
    let name = std::str::from_utf8(&content[HEAD..]).ok();
    let name = name.and_then(ListName::parse).ok_or_else(malformed)?;
    Ok((name, OriginTime(word(&content, 9))))
}

fn run_of_lists(query: &ListsQuery) -> u64 {
    let whole = ListsQuery {
        size: 0,
        after: None,
        ..query.clone()
    };
    xxh3_64(whole.to_string().as_bytes())
}

fn invalid(token: &str, problem: &str) -> Error {
    Error::PageTokenInvalid {
        value: shorten(token),
        problem: problem.into(),
    }
}

fn malformed(token: &str) -> Error {
    let problem = "is not one that this service gave; pass next_page_token on as it is";
    invalid(token, problem)
}

/// The bytes of a token without its checksum, if it is one of this version.
fn checked_content(token: &str, version: u8) -> Option<Vec<u8>> {
    if token.len() > MAX_CHARS {
        return None;
    }
    let mut raw = URL_SAFE_NO_PAD.decode(token).ok()?;
    let sum = raw.split_off(raw.len().checked_sub(CHECKSUM)?);
    let is_valid = raw.len() >= HEAD && xxh3_64(&raw).to_be_bytes() == *sum && raw[0] == version;
    is_valid.then_some(raw)
}

fn word(content: &[u8], at: usize) -> u64 {
    let bytes = content[at..at + 8].iter();
    bytes.fold(0, |n, b| n << 8 | u64::from(*b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Filter, ListName, Order};

    fn query(list: &str, size: u32) -> PageQuery {
        let list = ListName::parse(list).expect("a name");
        PageQuery {
            list,
            filter: Filter::default(),
            order: Order::DueTime,
            size,
            after: None,
        }
    }

    fn position(key: SortKey) -> PagePosition {
        PagePosition {
            key,
            name: TodoName::parse("lists/home/todos/1").expect("a name"),
        }
    }

    #[test]
    fn comes_back_for_the_same_run_only() {
        for key in [
            SortKey::Time(-7),
            SortKey::Priority(3),
            SortKey::Missing,
            SortKey::Wrong,
        ] {
            let token = encode(&query("lists/home", 10), &position(key), OriginTime(9));
            let again = decode(&query("lists/home", 99), &token).expect("another size is fine");
            assert_eq!(again, (position(key), OriginTime(9)));
            assert!(decode(&query("lists/work", 10), &token).is_err());
        }
    }

    /// One text for one place: whoever can make a right checksum may not give
    /// a key a value that it does not have.
    #[test]
    fn a_key_without_a_value_has_none() {
        for key in [SortKey::Missing, SortKey::Wrong] {
            let token = encode(&query("lists/home", 10), &position(key), OriginTime(9));
            let mut raw = URL_SAFE_NO_PAD.decode(token).expect("base64");
            raw[HEAD + 8] = 1;
            let content = raw.len() - CHECKSUM;
            let sum = xxh3_64(&raw[..content]).to_be_bytes();
            raw[content..].copy_from_slice(&sum);
            assert!(decode(&query("lists/home", 10), &URL_SAFE_NO_PAD.encode(raw)).is_err());
        }
    }

    #[test]
    fn cut_or_flipped_anywhere_is_refused() {
        let token = encode(
            &query("lists/home", 10),
            &position(SortKey::Time(5)),
            OriginTime(9),
        );
        for at in 0..token.len() {
            assert!(
                decode(&query("lists/home", 10), &token[..at]).is_err(),
                "cut at {at}"
            );
            let mut flipped = token.clone().into_bytes();
            flipped[at] = if flipped[at] == b'A' { b'B' } else { b'A' };
            let flipped = String::from_utf8(flipped).expect("ascii");
            assert!(
                decode(&query("lists/home", 10), &flipped).is_err(),
                "flipped at {at}"
            );
        }
    }
}
