//! Lists and their members on the command line.

use super::*;

#[tokio::test]
async fn a_list_is_created_shared_and_deleted() {
    let (service, _client) = embedded().await;
    let ask = |args: &[&str]| run(&[args, &["--server", &service.address]].concat());
    let made = done(&service, &["list", "create", "home", "--title", "At home"]);
    assert!(
        made.contains("lists/home") && made.contains("At home"),
        "{made}"
    );
    done(&service, &["share", "home", "user:bob", "--role", "WRITER"]);
    let shared = done(&service, &["share", "lists/home", "group:family"]);
    assert!(shared.contains("writer  user:bob"), "{shared}");
    assert!(shared.contains("reader  group:family"), "{shared}");
    let left = done(&service, &["unshare", "home", "user:bob"]);
    assert!(
        !left.contains("user:bob") && left.contains("group:family"),
        "{left}"
    );
    assert_eq!(done(&service, &["list", "show", "home"]), left);
    let unknown = ask(&["unshare", "home", "user:bob"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        stderr(&unknown).contains("not a member"),
        "{}",
        stderr(&unknown)
    );
    let role = ask(&["share", "home", "user:bob", "--role", "boss"]);
    assert_eq!(role.status.code(), Some(2));
    assert!(stderr(&role).contains("reader, writer or owner"));

    // A list that is called like a command is reached by its full name.
    done(&service, &["list", "create", "show"]);
    done(&service, &["add", "lists/show", "Sing"]);
    assert!(done(&service, &["list", "lists/show"]).contains("Sing"));
    let names = done(
        &service,
        &["lists", "--page-size", "1", "--all", "-o", "name"],
    );
    assert_eq!(names, "lists/home\nlists/show\n");
    assert!(done(&service, &["lists"]).contains("lists/show"));

    done(&service, &["list", "delete", "home"]);
    let full = ask(&["list", "delete", "lists/show"]);
    assert!(
        stderr(&full).contains("LIST_NOT_EMPTY"),
        "{}",
        stderr(&full)
    );
    done(&service, &["list", "delete", "lists/show", "--force"]);
    assert_eq!(done(&service, &["lists", "-o", "name"]), "");
    assert_eq!(ask(&["list"]).status.code(), Some(2));
}
