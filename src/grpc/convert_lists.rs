//! Parses the requests of lists as resources, as `convert` does those of todos.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    convert::{ID, check_paths, etag, list_name, page_size, request_id},
    page_token,
};
use crate::{
    auth::Caller,
    error::{Error, FieldProblem},
    model::{
        ListName, ListPatch, ListsQuery, OriginTime, RequestId, Write, timestamp_from_ms,
        validate_list,
    },
    pb::{self, Role, TodoList},
};

/// Fields of a mask. Output-only ones are ignored like those in the list.
const KNOWN: [&str; 6] = [
    "title",
    "members",
    "name",
    "create_time",
    "update_time",
    "etag",
];

/// The page that is asked for, and the least `fresh_to` of the pages before. The caller
/// sees the lists that it is a member of; all if there is no caller, or an
/// administrator.
///
/// # Errors
/// `FieldInvalid`, `PageTokenInvalid`.
pub fn lists_query(
    request: &pb::ListTodoListsRequest,
    caller: Option<&Caller>,
) -> Result<(ListsQuery, Option<OriginTime>), Error> {
    let caller = caller.filter(|caller| !caller.is_admin());
    let query = ListsQuery {
        members: caller.map(|caller| Arc::clone(caller.members())),
        size: page_size(request.page_size)?,
        after: None,
    };
    if request.page_token.is_empty() {
        return Ok((query, None));
    }
    let (after, carried) = page_token::decode_lists(&query, &request.page_token)?;
    let after = Some(after);
    Ok((ListsQuery { after, ..query }, Some(carried)))
}

/// The list that is to be created. The caller becomes an owner.
///
/// # Errors
/// `FieldInvalid` with all that is wrong.
pub fn create_list(
    mut request: pb::CreateTodoListRequest,
    now_ms: i64,
    caller: Option<&Caller>,
) -> Result<(Write, Option<RequestId>), Error> {
    let id = std::mem::take(&mut request.request_id);
    let mut problems = Vec::new();
    let mut keep = |problem: FieldProblem| problems.push(problem);
    let request_id = request_id("create_list", &id, &request).map_err(&mut keep);
    let id = if request.todo_list_id.is_empty() {
        Uuid::now_v7().to_string()
    } else {
        request.todo_list_id
    };
    let name = ListName::parse(&format!("lists/{id}"));
    if name.is_none() {
        keep(FieldProblem::new("todo_list_id", &id, ID));
    }
    let given = request.todo_list.unwrap_or_default();
    let mut list = TodoList {
        title: given.title,
        members: given.members,
        create_time: Some(timestamp_from_ms(now_ms)),
        update_time: Some(timestamp_from_ms(now_ms)),
        ..TodoList::default()
    };
    if let Some(caller) = caller {
        let owner = caller.principal().to_string();
        list.members.insert(owner, Role::Owner.into());
    }
    problems.extend(validate_list(&list));
    match (name, request_id) {
        (Some(name), Ok(request_id)) if problems.is_empty() => {
            list.name = name.to_string();
            Ok((Write::CreateList { name, list }, request_id))
        }
        _ => Err(Error::FieldInvalid(problems)),
    }
}

/// What of a list is to be changed.
///
/// # Errors
/// `FieldInvalid` with all that is wrong.
pub fn update_list(request: pb::UpdateTodoListRequest) -> Result<Write, Error> {
    let list = request.todo_list.unwrap_or_default();
    let name = list_name("todo_list.name", &list.name)?;
    let mask = request.update_mask.unwrap_or_default().paths;
    check_paths(&mask, &KNOWN, "title, members")?;
    let wanted = |field: &str, is_set: bool| match mask.as_slice() {
        [] => is_set,
        paths => paths.iter().any(|path| path == field || path == "*"),
    };
    let (title, members) = (
        wanted("title", !list.title.is_empty()),
        wanted("members", !list.members.is_empty()),
    );
    let concerns = |problem: &FieldProblem| match problem.field.as_str() {
        "todo_list.title" => title,
        _ => members,
    };
    let problems = validate_list(&list);
    let problems: Vec<_> = problems.into_iter().filter(concerns).collect();
    if !problems.is_empty() {
        return Err(Error::FieldInvalid(problems));
    }
    let role = |role: i32| Role::try_from(role).unwrap_or_default();
    let all = list.members.into_iter();
    let all = all.map(|(member, of)| (member, role(of))).collect();
    Ok(Write::UpdateList {
        name,
        patch: ListPatch {
            title: title.then_some(list.title),
            members: members.then_some(all),
        },
        etag: etag("todo_list.etag", list.etag)?,
    })
}

/// The list that is to be deleted.
///
/// # Errors
/// `FieldInvalid`.
pub fn delete_list(request: pb::DeleteTodoListRequest) -> Result<Write, Error> {
    let name = list_name("name", &request.name)?;
    let etag = etag("etag", request.etag)?;
    let force = request.force;
    Ok(Write::DeleteList { name, etag, force })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Method;

    fn ada() -> Caller {
        Caller::new("ada", vec!["ops".into()], Method::Key, None).expect("valid")
    }

    fn list(members: &[(&str, i32)]) -> TodoList {
        TodoList {
            name: "lists/home".into(),
            members: members.iter().map(|(m, r)| ((*m).into(), *r)).collect(),
            ..TodoList::default()
        }
    }

    #[test]
    fn the_creator_becomes_an_owner() {
        let request = || pb::CreateTodoListRequest {
            todo_list: Some(list(&[("bob", 1), ("ada", 1)])),
            todo_list_id: "home".into(),
            ..Default::default()
        };
        let members = |caller: Option<&Caller>| match create_list(request(), 5, caller) {
            Ok((Write::CreateList { list, .. }, None)) => list.members,
            other => panic!("{other:?}"),
        };
        assert_eq!(members(Some(&ada()))["ada"], Role::Owner as i32);
        assert_eq!(members(None)["ada"], Role::Reader as i32);
    }

    #[test]
    fn an_update_sets_what_the_mask_names() {
        let patch = |paths: &[&str], list: TodoList| {
            let mask = (!paths.is_empty()).then(|| prost_types::FieldMask {
                paths: paths.iter().map(ToString::to_string).collect(),
            });
            let request = pb::UpdateTodoListRequest {
                todo_list: Some(list),
                update_mask: mask,
            };
            match update_list(request) {
                Ok(Write::UpdateList { patch, .. }) => Ok(patch),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error.to_string()),
            }
        };
        let set = patch(&[], list(&[("ada", 3)])).expect("valid");
        assert_eq!((set.title, set.members.map(|m| m.len())), (None, Some(1)));
        let cleared = patch(&["members"], list(&[])).expect("valid");
        assert_eq!(cleared.members, Some(vec![]));
        let all = patch(&["*"], list(&[])).expect("valid");
        assert_eq!(
            (all.title, all.members),
            (Some(String::new()), Some(vec![]))
        );
        assert!(patch(&["titel"], list(&[])).is_err());
        let error = patch(&["members"], list(&[("ada", 7)])).expect_err("no role");
        assert!(error.contains("ROLE_READER"), "{error}");
        assert!(patch(&["title"], list(&[("ada", 7)])).is_ok());
    }

    #[test]
    fn pages_belong_to_their_caller() {
        let request = |token: &str| pb::ListTodoListsRequest {
            page_token: token.into(),
            ..Default::default()
        };
        let (query, _) = lists_query(&request(""), Some(&ada())).expect("valid");
        assert_eq!(
            (query.size, query.members.as_ref().map(|m| m.len())),
            (50, Some(3))
        );
        let after = ListName::parse("lists/home").expect("a name");
        let token = page_token::encode_lists(&query, &after, OriginTime(7));
        let (next, carried) = lists_query(&request(&token), Some(&ada())).expect("valid");
        assert_eq!((next.after, carried), (Some(after), Some(OriginTime(7))));
        assert!(
            lists_query(&request(&token), None).is_err(),
            "another caller's"
        );
    }
}
