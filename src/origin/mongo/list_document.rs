//! Lists as documents, and documents as lists. A list gives rights, so a document
//! that is not exactly a list is unreadable and gives none.

use std::{collections::BTreeMap, sync::Arc};

use bson::{Bson, Document, RawArray, RawBsonRef, RawDocument, doc};

use super::document::{date, etag, text, time, unreadable, wrong_type};
use crate::{
    error::shorten,
    model::{
        ListName, ListPatch, MAX_LIST_TITLE, MAX_MEMBERS, Unreadable, Value, member_problem,
        timestamp_from_ms,
    },
    pb::{Role, TodoList},
};

/// The field of the members: an array of `{principal, role}`, since a principal may
/// contain what the name of a field must not, and so that one index finds the lists
/// of a member.
pub(super) const MEMBERS: &str = "members";
/// The roles as documents name them.
const ROLES: [(Role, &str); 3] = [
    (Role::Reader, "READER"),
    (Role::Writer, "WRITER"),
    (Role::Owner, "OWNER"),
];

/// The value that a stored document is.
pub(super) fn value(name: &ListName, raw: &RawDocument) -> Value {
    match list(name, raw) {
        Ok(list) => Value::List(Arc::new(list)),
        Err(unreadable) => Value::Unreadable(Arc::new(unreadable)),
    }
}

/// The list in a stored document, etag included. Missing fields are empty.
pub(super) fn list(name: &ListName, raw: &RawDocument) -> Result<TodoList, Unreadable> {
    let mut list = TodoList {
        name: name.to_string(),
        etag: etag(raw),
        ..TodoList::default()
    };
    let mut has_members = false;
    for element in raw {
        let (key, value) = element.map_err(|e| damaged("document", &e))?;
        match key.as_str() {
            "title" => list.title = title(value)?,
            MEMBERS if has_members => return Err(unreadable(MEMBERS, "is there twice")),
            MEMBERS => {
                list.members = members(value)?;
                has_members = true;
            }
            "create_time" => list.create_time = time("create_time", value)?,
            "update_time" => list.update_time = time("update_time", value)?,
            _ => {}
        }
    }
    Ok(list)
}

fn damaged(field: &str, error: &impl ToString) -> Unreadable {
    let problem = format!("is damaged: {}", shorten(&error.to_string()));
    unreadable(field, problem)
}

fn title(value: RawBsonRef<'_>) -> Result<String, Unreadable> {
    let title = text("title", value)?;
    let count = title.chars().count();
    if count > MAX_LIST_TITLE {
        let problem = format!("has {count} characters; at most {MAX_LIST_TITLE} are allowed");
        return Err(unreadable("title", problem));
    }
    Ok(title)
}

/// The members: an array of pairs, as this service writes it, or a document of
/// principals and roles, as it may be written by hand.
fn members(value: RawBsonRef<'_>) -> Result<BTreeMap<String, i32>, Unreadable> {
    let mut members = Members::default();
    match value {
        RawBsonRef::Array(pairs) => members.add_pairs(pairs)?,
        RawBsonRef::Document(map) => {
            for element in map {
                let (principal, role) = element.map_err(|e| damaged(MEMBERS, &e))?;
                let field = format!("{MEMBERS}[{:?}]", shorten(principal.as_str()));
                members.add(&field, principal.as_str(), role)?;
            }
        }
        other => {
            return Err(wrong_type(
                MEMBERS,
                other,
                "an array of principals and roles",
            ));
        }
    }
    Ok(members.0)
}

#[derive(Default)]
struct Members(BTreeMap<String, i32>);

impl Members {
    fn add_pairs(&mut self, pairs: &RawArray) -> Result<(), Unreadable> {
        for (at, pair) in pairs.into_iter().enumerate() {
            let field = format!("{MEMBERS}[{at}]");
            let pair = pair.map_err(|e| damaged(&field, &e))?;
            let wanted = "a document {principal, role}";
            let pair = pair
                .as_document()
                .ok_or_else(|| wrong_type(&field, pair, wanted))?;
            let (mut principal, mut role) = (None, None);
            for element in pair {
                let (key, value) = element.map_err(|e| damaged(&field, &e))?;
                let place = match key.as_str() {
                    "principal" => &mut principal,
                    "role" => &mut role,
                    _ => continue,
                };
                if place.replace(value).is_some() {
                    return Err(unreadable(&format!("{field}.{key}"), "is there twice"));
                }
            }
            let missing = |part| unreadable(&format!("{field}.{part}"), "is missing");
            let principal_field = format!("{field}.principal");
            let principal = text(
                &principal_field,
                principal.ok_or_else(|| missing("principal"))?,
            )?;
            let role = role.ok_or_else(|| missing("role"))?;
            self.add(&field, &principal, role)?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        field: &str,
        principal: &str,
        role: RawBsonRef<'_>,
    ) -> Result<(), Unreadable> {
        if let Some(problem) = member_problem(principal) {
            let problem = format!("{:?} {problem}", shorten(principal));
            return Err(unreadable(field, problem));
        }
        let name = text(&format!("{field}.role"), role)?;
        let known = ROLES.iter().find(|(_, known)| *known == name);
        let Some((role, _)) = known else {
            let problem = format!(
                "has the role {:?}; it must be READER, WRITER or OWNER",
                shorten(&name)
            );
            return Err(unreadable(field, problem));
        };
        let role = i32::from(*role);
        match self.0.insert(principal.to_owned(), role) {
            Some(other) if other != role => {
                let problem = format!("{:?} has two roles", shorten(principal));
                Err(unreadable(field, problem))
            }
            _ if self.0.len() > MAX_MEMBERS => {
                let problem = format!("holds more than {MAX_MEMBERS} members");
                Err(unreadable(MEMBERS, problem))
            }
            _ => Ok(()),
        }
    }
}

/// The members as they are written.
fn pairs(members: &BTreeMap<String, i32>) -> Bson {
    let pair = |(principal, role): (&String, &i32)| {
        let role = ROLES.iter().find(|(known, _)| *known as i32 == *role)?.1;
        Some(Bson::from(doc! { "principal": principal, "role": role }))
    };
    members.iter().filter_map(pair).collect::<Vec<_>>().into()
}

/// The document of a new list, created at this time.
pub(super) fn document(name: &ListName, list: &TodoList, now_ms: i64) -> Document {
    let now = date(&timestamp_from_ms(now_ms));
    doc! {
        "_id": name.as_str(),
        "title": &list.title,
        MEMBERS: pairs(&list.members),
        "create_time": now.clone(),
        "update_time": now,
    }
}

/// The update that makes a stored document the new list, by the fields of the patch
/// alone. Members that were written as a map become an array, so that the index finds
/// them.
pub(super) fn update(patch: &ListPatch, new: &TodoList, stored: &RawDocument) -> Document {
    let mut set = Document::new();
    if patch.title.is_some() {
        set.insert("title", &new.title);
    }
    if patch.members.is_some() || stored.get_document(MEMBERS).is_ok() {
        set.insert(MEMBERS, pairs(&new.members));
    }
    if let Some(time) = &new.update_time {
        set.insert("update_time", date(time));
    }
    doc! { "$set": set }
}

#[cfg(test)]
mod tests {
    use bson::RawDocumentBuf;

    use super::*;

    fn name() -> ListName {
        ListName::parse("lists/home").expect("a name")
    }

    fn read(document: &Document) -> Result<TodoList, Unreadable> {
        list(&name(), &RawDocumentBuf::try_from(document).expect("raw"))
    }

    fn pair(principal: &str, role: &str) -> Bson {
        doc! { "principal": principal, "role": role }.into()
    }

    #[test]
    fn comes_back_as_it_was_stored() {
        let stored = TodoList {
            name: name().to_string(),
            title: "Home".into(),
            members: [("user:a.b$c".into(), 2), ("*".into(), 1)].into(),
            ..TodoList::default()
        };
        let mut back = read(&document(&name(), &stored, 5)).expect("readable");
        assert_eq!(back.etag.len(), 32);
        assert_eq!(back.create_time, Some(timestamp_from_ms(5)));
        assert_eq!(back.update_time, back.create_time);
        (back.etag, back.create_time, back.update_time) = (String::new(), None, None);
        assert_eq!(back, stored);
    }

    #[test]
    fn both_forms_of_members_give_the_same_rights() {
        let map = doc! { "members": { "user:ada": "WRITER", "a.b": "OWNER" } };
        let array = doc! { "members": [pair("user:ada", "WRITER"), pair("a.b", "OWNER")] };
        let expected = [("user:ada".into(), 2), ("a.b".into(), 3)].into();
        assert_eq!(read(&map).expect("readable").members, expected);
        assert_eq!(read(&array).expect("readable").members, expected);
        assert_eq!(read(&doc! {}).expect("readable").members, BTreeMap::new());
        let twice = doc! { "members": [pair("ada", "OWNER"), pair("ada", "OWNER")] };
        assert_eq!(read(&twice).expect("readable").members.len(), 1);
    }

    /// Whatever is not exactly a list gives no rights.
    #[test]
    fn each_wrong_field_is_named() {
        let many = |count: usize| -> Bson {
            let member = |n| pair(&format!("user:{n}"), "READER");
            (0..count).map(member).collect::<Vec<_>>().into()
        };
        assert!(read(&doc! { "members": many(256) }).is_ok());
        let long = "x".repeat(257);
        let wrong: Vec<(&str, &str, Bson)> = vec![
            ("title", "title", 5.into()),
            ("title", "title", long.as_str().into()),
            ("create_time", "create_time", 5_i64.into()),
            ("update_time", "update_time", "now".into()),
            ("members", "members", Bson::Null),
            ("members", "members", "ada".into()),
            ("members", "members", many(257)),
            ("members", "members[0]", vec!["ada"].into()),
            (
                "members",
                "members[0].role",
                vec![doc! { "principal": "ada" }].into(),
            ),
            (
                "members",
                "members[0].principal",
                vec![doc! { "role": "OWNER" }].into(),
            ),
            (
                "members",
                "members[0].principal",
                vec![doc! { "principal": 5, "role": "OWNER" }].into(),
            ),
            (
                "members",
                "members[0].role",
                vec![doc! { "principal": "ada", "role": 3 }].into(),
            ),
            ("members", "members[0]", vec![pair("ada", "writer")].into()),
            (
                "members",
                "members[0]",
                vec![pair("ada", "ROLE_WRITER")].into(),
            ),
            ("members", "members[0]", vec![pair("", "OWNER")].into()),
            ("members", "members[0]", vec![pair(&long, "OWNER")].into()),
            (
                "members",
                "members[1]",
                vec![pair("ada", "READER"), pair("ada", "OWNER")].into(),
            ),
            (
                "members",
                "members[\"ada\"]",
                doc! { "ada": "ADMIN" }.into(),
            ),
            (
                "members",
                "members[\"ada\"].role",
                doc! { "ada": true }.into(),
            ),
        ];
        for (field, named, value) in wrong {
            let problem = read(&doc! { field: value.clone() }).expect_err(&value.to_string());
            assert_eq!(problem.field, named, "{value}");
        }
    }

    #[test]
    fn an_update_sets_what_the_patch_has_and_turns_a_map_into_an_array() {
        let stored = |document: Document| RawDocumentBuf::try_from(&document).expect("raw");
        let array = stored(doc! { "members": [pair("ada", "OWNER")] });
        let map = stored(doc! { "members": { "ada": "OWNER" } });
        let patch = ListPatch {
            title: Some("New".into()),
            members: None,
        };
        for (raw, has_members) in [(array, false), (map, true)] {
            let new = patch.apply(list(&name(), &raw).expect("readable"), 7);
            let update = update(&patch, &new, &raw);
            let set = update.get_document("$set").expect("a document");
            assert_eq!(set.get_str("title").ok(), Some("New"));
            assert!(set.contains_key("update_time"));
            assert_eq!(set.get_array(MEMBERS).is_ok(), has_members);
        }
    }
}
