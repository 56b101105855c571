//! Lists as resources, while authentication is off, on both origins.

use mongodb::bson::doc;
use tidemark::pb::{self, Role, TodoList};
use tonic::Code;

use crate::{client::*, support::mongo};

fn list(title: &str, members: &[(&str, Role)]) -> TodoList {
    let members = members.iter().copied();
    TodoList {
        title: title.into(),
        members: members
            .map(|(member, role)| (member.into(), role.into()))
            .collect(),
        ..TodoList::default()
    }
}

async fn create_list(
    client: &mut Client,
    id: &str,
    list: TodoList,
) -> Result<pb::CreateTodoListResponse, tonic::Status> {
    let request = pb::CreateTodoListRequest {
        todo_list: Some(list),
        todo_list_id: id.into(),
        request_id: String::new(),
    };
    let reply = client.create_todo_list(request).await;
    reply.map(tonic::Response::into_inner)
}

async fn get_list(
    client: &mut Client,
    name: &str,
    consistency: Option<pb::Consistency>,
) -> Result<pb::GetTodoListResponse, tonic::Status> {
    let request = pb::GetTodoListRequest {
        name: name.into(),
        consistency,
    };
    let reply = client.get_todo_list(request).await;
    reply.map(tonic::Response::into_inner)
}

async fn lists(
    client: &mut Client,
    size: i32,
    token: &str,
    consistency: Option<pb::Consistency>,
) -> pb::ListTodoListsResponse {
    let request = pb::ListTodoListsRequest {
        page_size: size,
        page_token: token.into(),
        consistency,
    };
    let reply = client.list_todo_lists(request).await;
    reply.expect("a page").into_inner()
}

fn names(page: &pb::ListTodoListsResponse) -> Vec<&str> {
    page.todo_lists
        .iter()
        .map(|list| list.name.as_str())
        .collect()
}

async fn delete(
    client: &mut Client,
    name: &str,
    etag: &str,
    force: bool,
) -> Result<pb::DeleteTodoListResponse, tonic::Status> {
    let request = pb::DeleteTodoListRequest {
        name: name.into(),
        etag: etag.into(),
        force,
    };
    let reply = client.delete_todo_list(request).await;
    reply.map(tonic::Response::into_inner)
}

async fn every_call(mut client: Client) {
    let members = [("user:ada", Role::Owner), ("group:family", Role::Reader)];
    let created = create_list(&mut client, "home", list("At home", &members)).await;
    let created = created.expect("created");
    let home = created.todo_list.expect("a list");
    assert_eq!(
        (home.name.as_str(), home.title.as_str()),
        ("lists/home", "At home")
    );
    assert!(!home.etag.is_empty() && home.create_time.is_some() && home.members.len() == 2);
    let read = get_list(&mut client, "lists/home", with_token(&created.token)).await;
    let read = read.expect("found");
    assert_eq!(read.todo_list.as_ref(), Some(&home), "to the last field");
    assert!(!read.read.expect("a ReadInfo").token.is_empty());
    let near = get_list(&mut client, "lists/home", None)
        .await
        .expect("found");
    assert_eq!(near.read.expect("a ReadInfo").source(), pb::Source::Near);

    let again = create_list(&mut client, "home", list("", &[])).await;
    let (code, reason, _) = refused(again);
    assert_eq!(
        (code, &*reason),
        (Code::AlreadyExists, "LIST_ALREADY_EXISTS")
    );
    let (code, reason, _) = refused(get_list(&mut client, "lists/none", None).await);
    assert_eq!((code, &*reason), (Code::NotFound, "LIST_NOT_FOUND"));

    let change = |etag: &str, paths: &[&str]| pb::UpdateTodoListRequest {
        todo_list: Some(TodoList {
            name: "lists/home".into(),
            etag: etag.into(),
            ..list("Our home", &[("user:bob", Role::Writer)])
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: paths.iter().map(ToString::to_string).collect(),
        }),
    };
    let updated = client
        .update_todo_list(change(&home.etag, &["title"]))
        .await;
    let updated = updated.expect("updated").into_inner();
    let now = updated.todo_list.expect("a list");
    assert_eq!((now.title.as_str(), now.members.len()), ("Our home", 2));
    let stale = client
        .update_todo_list(change(&home.etag, &["members"]))
        .await;
    let (code, reason, metadata) = refused(stale);
    assert_eq!((code, &*reason), (Code::Aborted, "ETAG_MISMATCH"));
    assert!(metadata.contains_key("token"));
    let shared = client.update_todo_list(change("", &["members"])).await;
    let shared = shared.expect("updated").into_inner();
    let members = shared.todo_list.expect("a list").members;
    assert_eq!(
        members.into_iter().collect::<Vec<_>>(),
        [("user:bob".into(), 2)]
    );

    // A list that only contains todos is one without authentication.
    let todo = create_in(&mut client, "lists/alone", "x", titled("x")).await;
    let token = todo.expect("created").token;
    let alone = get_list(&mut client, "lists/alone", with_token(&token)).await;
    let alone = alone.expect("found").todo_list.expect("a list");
    assert_eq!(
        (alone.name.as_str(), alone.etag.as_str()),
        ("lists/alone", "")
    );
    let page = lists(&mut client, 0, "", with_token(&token)).await;
    assert_eq!(names(&page), ["lists/alone", "lists/home"]);

    create(&mut client, "milk", "Buy milk").await;
    let (code, reason, _) = refused(delete(&mut client, "lists/home", "", false).await);
    assert_eq!(
        (code, &*reason),
        (Code::FailedPrecondition, "LIST_NOT_EMPTY")
    );
    let gone = delete(&mut client, "lists/home", "", true)
        .await
        .expect("deleted");
    let (code, ..) = refused(get_list(&mut client, "lists/home", with_token(&gone.token)).await);
    assert_eq!(code, Code::NotFound);
    let milk = get(
        &mut client,
        "lists/home/todos/milk",
        with_token(&gone.token),
    )
    .await;
    assert_eq!(refused(milk).0, Code::NotFound);
    let page = lists(&mut client, 0, "", with_token(&gone.token)).await;
    assert_eq!(names(&page), ["lists/alone"]);
}

#[tokio::test]
async fn every_call_embedded() {
    let (_service, client) = embedded().await;
    every_call(client).await;
}

#[tokio::test]
async fn every_call_mongodb() {
    let (_service, client) = real("lists_calls").await;
    every_call(client).await;
}

#[tokio::test]
async fn pages_show_every_list_once() {
    let (_service, mut client) = real("lists_pages").await;
    let mut token = String::new();
    for id in 0..25 {
        // Every fifth only contains a todo.
        let id = format!("l{id:02}");
        token = if id.ends_with('5') {
            let parent = format!("lists/{id}");
            let todo = create_in(&mut client, &parent, "x", titled("x")).await;
            todo.expect("created").token
        } else {
            let made = create_list(&mut client, &id, list(&id, &[])).await;
            made.expect("created").token
        };
    }
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = lists(&mut client, 7, &page_token, with_token(&token)).await;
        seen.extend(page.todo_lists.into_iter().map(|list| list.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let all: Vec<_> = (0..25).map(|id| format!("lists/l{id:02}")).collect();
    assert_eq!(seen, all);
}

#[tokio::test]
async fn wrong_requests_name_the_field() {
    let (_service, mut client) = embedded().await;
    let long = "x".repeat(257);
    for (id, list, field) in [
        ("a/b", list("", &[]), "todo_list_id"),
        ("a", list(&long, &[]), "todo_list.title"),
        ("a", list("", &[("", Role::Reader)]), "todo_list.members"),
        ("a", list("", &[(&long, Role::Reader)]), "todo_list.members"),
        (
            "a",
            list("", &[("ada", Role::Unspecified)]),
            "todo_list.members",
        ),
    ] {
        let (code, reason, metadata) = refused(create_list(&mut client, id, list).await);
        assert_eq!((code, &*reason), (Code::InvalidArgument, "FIELD_INVALID"));
        assert!(metadata["field"].starts_with(field), "{metadata:?}");
    }
    let (_, reason, _) = refused(get_list(&mut client, "lists/-", None).await);
    assert_eq!(reason, "FIELD_INVALID");
    let request = pb::ListTodoListsRequest {
        page_token: "x".into(),
        ..Default::default()
    };
    let (_, reason, _) = refused(client.list_todo_lists(request).await);
    assert_eq!(reason, "PAGE_TOKEN_INVALID");
}

/// What people edit in the database is seen like any change, and what cannot be read
/// is named.
#[tokio::test]
async fn a_document_edited_by_hand_is_seen() {
    let (_service, mut client) = real("lists_by_hand").await;
    let created = create_list(&mut client, "home", list("At home", &[])).await;
    created.expect("created");
    let lists_by_hand = mongo().client().await.database("lists_by_hand");
    let documents = lists_by_hand.collection::<mongodb::bson::Document>("lists");
    let home = doc! { "_id": "lists/home" };
    let edit = doc! { "$set": { "title": "By hand" } };
    documents
        .update_one(home.clone(), edit)
        .await
        .expect("edited");
    let read = get_list(&mut client, "lists/home", strong())
        .await
        .expect("found");
    assert_eq!(read.todo_list.expect("a list").title, "By hand");
    let wrong = doc! { "$set": { "members": "everybody" } };
    documents.update_one(home, wrong).await.expect("edited");
    let (code, reason, metadata) = refused(get_list(&mut client, "lists/home", strong()).await);
    assert_eq!((code, &*reason), (Code::DataLoss, "LIST_UNREADABLE"));
    assert_eq!(metadata["field"], "members");
    let page = lists(&mut client, 0, "", strong()).await;
    assert_eq!(
        (names(&page).len(), &page.unreadable),
        (0, &vec!["lists/home".to_owned()])
    );
}
