//! Pages: names in order, by segments of the order that are read one after the
//! other at one snapshot. A segment has what sorts as dates, then what has no
//! date, then what has a value of a wrong type; or one priority after the
//! other. So every document of the list is in exactly one place.

use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf, doc};
use tokio::time::Instant;

use super::{
    Inner, TODOS, codes::is_stale_snapshot_code, document::PRIORITIES, document::state_name,
    read::At,
};
use crate::{
    model::{
        Condition, ListName, Op, Order, OriginTime, Page, PagePosition, PageQuery, SortKey,
        TodoName,
    },
    origin::OriginError,
    pb::todo::State,
};

/// One segment of an order.
struct Segment {
    filter: Document,
    sort: Document,
    /// What its positions have; dates have their own each.
    key: Option<SortKey>,
}

impl Inner {
    /// The page at one snapshot. The server may forget a snapshot between two
    /// segments: then all of it is read again, by one command.
    pub(super) async fn load_page(
        &self,
        query: &PageQuery,
        at: At,
        limit: Duration,
    ) -> Result<(OriginTime, Page), OriginError> {
        let ends = Instant::now() + limit;
        match self.read_segments(query, at, limit).await {
            Err(OriginError::Unavailable(cause))
                if is_stale_snapshot_code(cause.code()) && matches!(at, At::After(_)) =>
            {
                let left = ends.saturating_duration_since(Instant::now());
                self.read_at_once(query, at, left).await
            }
            page => page,
        }
    }

    /// The page by one command, which no time passes within. It reads all
    /// segments up to the page's size, and so costs more where the first one
    /// is enough.
    async fn read_at_once(
        &self,
        query: &PageQuery,
        at: At,
        limit: Duration,
    ) -> Result<(OriginTime, Page), OriginError> {
        let wanted = usize::try_from(query.size).unwrap_or(usize::MAX);
        let most = i32::try_from(wanted.saturating_add(1)).unwrap_or(i32::MAX);
        let segments = segments(query);
        let stages = |number: usize, segment: &Segment| {
            let number = i32::try_from(number).unwrap_or(i32::MAX);
            vec![
                doc! { "$match": { "$and": [of_list(&query.list), conditions(query), segment.filter.clone()] } },
                doc! { "$sort": segment.sort.clone() },
                doc! { "$limit": most },
                doc! { "$project": { "_id": 1, field(query.order): 1, "segment": { "$literal": number } } },
            ]
        };
        let mut pipeline = Vec::new();
        for (number, segment) in segments.iter().enumerate() {
            let stages = stages(number, segment);
            if number == 0 {
                pipeline = stages;
            } else {
                pipeline.push(doc! { "$unionWith": { "coll": TODOS, "pipeline": stages } });
            }
        }
        pipeline.push(doc! { "$limit": most });
        let aggregate = doc! {
            "aggregate": TODOS,
            "pipeline": pipeline,
            "cursor": { "batchSize": most.saturating_add(1) },
        };
        let (time, documents) = self.find(aggregate, at, limit).await?;
        let documents = documents.unwrap_or_default();
        let found = documents.iter().filter_map(|document| {
            let number = usize::try_from(document.get_i32("segment").ok()?).ok()?;
            position(query.order, segments.get(number)?.key, document)
        });
        Ok((time, page_of(found.collect(), wanted)))
    }

    async fn read_segments(
        &self,
        query: &PageQuery,
        mut at: At,
        limit: Duration,
    ) -> Result<(OriginTime, Page), OriginError> {
        let wanted = usize::try_from(query.size).unwrap_or(usize::MAX);
        let mut found: Vec<PagePosition> = Vec::new();
        for segment in segments(query) {
            let rest = wanted + 1 - found.len();
            let find = doc! {
                "find": TODOS,
                "filter": { "$and": [of_list(&query.list), conditions(query), segment.filter] },
                "sort": segment.sort,
                "projection": { "_id": 1, field(query.order): 1 },
                "limit": i32::try_from(rest).unwrap_or(i32::MAX),
                "batchSize": i32::try_from(rest + 1).unwrap_or(i32::MAX),
            };
            let (time, documents) = self.find(find, at, limit).await?;
            at = At::Exactly(time);
            let Some(documents) = documents else { break };
            found.extend(
                documents
                    .iter()
                    .filter_map(|document| position(query.order, segment.key, document)),
            );
            if found.len() > wanted {
                break;
            }
        }
        let At::Exactly(time) = at else {
            return Err(OriginError::unavailable("the order has no segments"));
        };
        Ok((time, page_of(found, wanted)))
    }
}

/// The page of what was found, one more than wanted if there is more.
fn page_of(mut found: Vec<PagePosition>, wanted: usize) -> Page {
    let more = found.len() > wanted;
    found.truncate(wanted);
    let next = if more { found.last().cloned() } else { None };
    Page {
        names: found.into_iter().map(|position| position.name).collect(),
        next,
    }
}

const fn field(order: Order) -> &'static str {
    match order {
        Order::CreateTimeDesc | Order::CreateTime => "create_time",
        Order::DueTime => "due_time",
        Order::PriorityDesc => "priority",
    }
}

fn position(order: Order, key: Option<SortKey>, document: &RawDocumentBuf) -> Option<PagePosition> {
    let name = TodoName::parse(document.get_str("_id").ok()?)?;
    let date = || {
        document
            .get_datetime(field(order))
            .ok()
            .map(|date| SortKey::Time(date.timestamp_millis()))
    };
    Some(PagePosition {
        key: key.or_else(date)?,
        name,
    })
}

/// Only real names of this list, with this list as their parent.
pub(super) fn of_list(list: &ListName) -> Document {
    let prefix = list.todo_prefix().replace('.', "\\.");
    let names = format!("^{prefix}[A-Za-z0-9][A-Za-z0-9._~-]{{0,62}}\\z");
    doc! { "parent": list.as_str(), "_id": { "$regex": names } }
}

fn conditions(query: &PageQuery) -> Document {
    let all: Vec<Document> = query.filter.0.iter().map(condition).collect();
    if all.is_empty() {
        Document::new()
    } else {
        doc! { "$and": all }
    }
}

fn condition(condition: &Condition) -> Document {
    match condition {
        Condition::State(op, state) => {
            let wanted = |other: &State| op.holds(other, state);
            let names = [State::Active, State::Completed]
                .into_iter()
                .filter(wanted)
                .map(state_name);
            one_of("state", names, "ACTIVE")
        }
        Condition::Priority(op, priority) => {
            let rank = *priority as i32;
            let wanted = PRIORITIES
                .into_iter()
                .zip(1..)
                .filter(|(_, other)| op.holds(other, &rank));
            one_of("priority", wanted.map(|(name, _)| name), "NORMAL")
        }
        Condition::Label(label) => doc! { "labels": label },
        Condition::Due(op, due) => {
            let (date, op) = (bson::DateTime::from_millis(due.0), operator(*op));
            doc! { "due_time": { "$type": "date", op: date } }
        }
    }
}

/// A field that is missing has its default.
fn one_of<'a>(field: &str, names: impl Iterator<Item = &'a str>, default: &str) -> Document {
    let mut wanted = Vec::new();
    for name in names {
        wanted.push(Bson::from(name));
        if name == default {
            wanted.push(Bson::Null);
        }
    }
    doc! { field: { "$in": wanted } }
}

const fn operator(op: Op) -> &'static str {
    match op {
        Op::Eq => "$eq",
        Op::Ne => "$ne",
        Op::Lt => "$lt",
        Op::Le => "$lte",
        Op::Gt => "$gt",
        Op::Ge => "$gte",
    }
}

/// The segments of the order from where the page begins.
fn segments(query: &PageQuery) -> Vec<Segment> {
    match query.order {
        Order::PriorityDesc => by_priority(query.after.as_ref()),
        Order::CreateTimeDesc => by_time("create_time", -1, query.after.as_ref()),
        Order::CreateTime => by_time("create_time", 1, query.after.as_ref()),
        Order::DueTime => by_time("due_time", 1, query.after.as_ref()),
    }
}

/// An array is of a wrong type, though comparisons look into it.
pub(super) fn no_array(field: &str) -> Document {
    doc! { field: { "$not": { "$type": "array" } } }
}

fn after_name(name: Option<&PagePosition>) -> Document {
    name.map_or_else(
        Document::new,
        |position| doc! { "_id": { "$gt": position.name.as_str() } },
    )
}

fn by_time(field: &str, direction: i32, after: Option<&PagePosition>) -> Vec<Segment> {
    let named = |filter: Document, key: SortKey, after: Option<&PagePosition>| Segment {
        filter: doc! { "$and": [filter, after_name(after)] },
        sort: doc! { "_id": 1 },
        key: Some(key),
    };
    let dates = |after: Document| Segment {
        filter: doc! { "$and": [{ field: { "$type": "date" } }, no_array(field), after] },
        sort: doc! { field: direction, "_id": 1 },
        key: None,
    };
    let missing = |after| {
        named(
            doc! { "$and": [{ field: (Bson::Null) }, no_array(field)] },
            SortKey::Missing,
            after,
        )
    };
    let wrong = |after| {
        let other = doc! { field: { "$exists": true, "$not": { "$type": ["date", "null"] } } };
        named(
            doc! { "$or": [{ field: { "$type": "array" } }, other] },
            SortKey::Wrong,
            after,
        )
    };
    match after.map(|position| (position.key, position)) {
        None => vec![dates(Document::new()), missing(None), wrong(None)],
        Some((SortKey::Missing, position)) => vec![missing(Some(position)), wrong(None)],
        Some((SortKey::Time(ms), position)) => {
            let date = bson::DateTime::from_millis(ms);
            let beyond = if direction < 0 { "$lt" } else { "$gt" };
            let tie = doc! { field: date, "_id": { "$gt": position.name.as_str() } };
            vec![
                dates(doc! { "$or": [{ field: { beyond: date } }, tie] }),
                missing(None),
                wrong(None),
            ]
        }
        Some((_, position)) => vec![wrong(Some(position))],
    }
}

fn by_priority(after: Option<&PagePosition>) -> Vec<Segment> {
    let segment = |filter: Document, key: SortKey, after: Option<&PagePosition>| Segment {
        filter: doc! { "$and": [filter, after_name(after)] },
        sort: doc! { "_id": 1 },
        key: Some(key),
    };
    let mut segments = Vec::new();
    let from = match after.map(|position| position.key) {
        None => 4,
        Some(SortKey::Priority(rank)) => rank.min(4),
        Some(_) => 0,
    };
    for rank in (1..=from).rev() {
        let name = PRIORITIES[usize::from(rank) - 1];
        let filter = doc! { "$and": [one_of("priority", [name].into_iter(), "NORMAL"), no_array("priority")] };
        let here = after.filter(|position| position.key == SortKey::Priority(rank));
        segments.push(segment(filter, SortKey::Priority(rank), here));
    }
    let mut known: Vec<Bson> = PRIORITIES.into_iter().map(Bson::from).collect();
    known.push(Bson::Null);
    let wrong =
        doc! { "$or": [{ "priority": { "$type": "array" } }, { "priority": { "$nin": known } }] };
    let here = after.filter(|position| !matches!(position.key, SortKey::Priority(_)));
    segments.push(segment(wrong, SortKey::Wrong, here));
    segments
}
