//! `tidemark import`: what it reads, reports and refuses.

use std::{fs, io::Write as _, process::Stdio};

use mongodb::bson::doc;

use super::{binary, done, run, stderr, stdout};
use crate::{
    client::*,
    support::{Tidemark, folder, mongo},
};

#[test]
fn an_import_tells_bad_lines_and_ends_with_1() {
    let dir = folder("import");
    let file = dir.join("todos.jsonl");
    let text = "{\"id\": \"1\", \"name\": \"Buy milk\"}\n\
        {\"id\": \"2\"}\n\
        nonsense\n\
        {\"name\": \"lists/home/todos/3\", \"title\": \"Buy bread\"}\n";
    fs::write(&file, text).expect("written");
    let data = dir.join("data").display().to_string();
    let args = ["import", &file.display().to_string(), "--data-dir", &data];
    let out = run(&args);
    let told = stderr(&out);
    assert_eq!(out.status.code(), Some(1), "{told}");
    assert!(
        told.contains("line 2 title") && told.contains("line 3 is not JSON"),
        "{told}"
    );
    assert!(
        told.contains("2 imported, 0 were there already, 2 bad lines left out"),
        "{told}"
    );
    let again = stderr(&run(&args));
    assert!(
        again.contains("0 imported, 2 were there already, 2 bad lines left out"),
        "{again}"
    );
    fs::write(&file, text.lines().next().expect("a line")).expect("written");
    let well = run(&args);
    assert_eq!(well.status.code(), Some(0), "{}", stderr(&well));
}

#[test]
fn an_import_shows_how_far_it_is() {
    let dir = folder("import");
    let file = dir.join("todos.jsonl");
    let todos = run(&["generate", "20000"]);
    fs::File::create(&file)
        .and_then(|mut file| file.write_all(&todos.stdout))
        .expect("written");
    // util-linux' script gives the command a terminal.
    let command = format!(
        "{} import {} --data-dir {}",
        env!("CARGO_BIN_EXE_tidemark"),
        file.display(),
        dir.join("data").display()
    );
    let out = std::process::Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .expect("script of util-linux is there");
    let shown = stdout(&out);
    assert_eq!(out.status.code(), Some(0), "{shown}");
    for word in ["% ", " todos, ", " a second", " left", "20000 imported"] {
        assert!(shown.contains(word), "{word:?} is not in {shown}");
    }
}

#[tokio::test]
async fn a_todo_that_the_database_refuses_does_not_keep_the_others_out() {
    const TODOS: usize = 3000;
    let client = mongodb::Client::with_uri_str(mongo().uri("refused_import"))
        .await
        .expect("a client");
    let database = client.database("refused_import");
    let rule = doc! {"title": {"$not": {"$regex": "^forbidden"}}};
    database
        .create_collection("todos")
        .validator(rule)
        .await
        .expect("created");
    let file = folder("import").join("todos.jsonl");
    let lines: Vec<_> = (1..=TODOS)
        .map(|n| {
            let title = if n == 1234 { "forbidden" } else { "allowed" };
            format!("{{\"id\": \"{n}\", \"name\": \"{title}\"}}\n")
        })
        .collect();
    fs::write(&file, lines.concat()).expect("written");
    let uri = mongo().uri("refused_import");
    let args = [
        "import",
        file.to_str().expect("a path"),
        "--mongodb-uri",
        &uri,
    ];
    let out = run(&args);
    let said = stderr(&out);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(
        said.contains("line 1234 lists/seed/todos/1234 is refused")
            && said.contains("2999 imported, 0 were there already, 1 bad lines left out"),
        "{said}"
    );
    assert!(said.len() < 2000, "{said}");
}

/// What people do first: the service runs, and the import is typed beside it.
#[tokio::test]
async fn an_import_into_a_store_in_use_says_how_to_import_through_the_service() {
    let dir = folder("data").display().to_string();
    let (_service, _client) = ready(Tidemark::start(&["--data-dir", &dir])).await;
    let file = folder("import").join("todos.jsonl");
    fs::write(&file, "{\"id\": \"1\", \"name\": \"x\"}\n").expect("written");
    let out = run(&["import", file.to_str().expect("a path"), "--data-dir", &dir]);
    let said = stderr(&out);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("use --server 127.0.0.1:50051"), "{said}");
}

#[test]
fn enums_are_taken_as_people_write_them_or_the_names_are_listed() {
    let dir = folder("import");
    let file = dir.join("todos.jsonl");
    let lines = [
        r#"{"name": "lists/home/todos/1", "title": "x", "state": "done"}"#,
        r#"{"name": "lists/home/todos/2", "title": "x", "priority": "top"}"#,
        r#"{"name": "lists/home/todos/3", "title": "x", "state": "Completed", "priority": "high"}"#,
        r#"{"name": "lists/home/todos/4", "title": "x", "state": 2, "priority": "PRIORITY_UNSPECIFIED"}"#,
    ];
    fs::write(&file, lines.join("\n")).expect("written");
    let data = dir.join("data").display().to_string();
    let out = run(&[
        "import",
        file.to_str().expect("a path"),
        "--data-dir",
        &data,
    ]);
    let said = stderr(&out);
    assert_eq!(out.status.code(), Some(1), "{said}");
    for word in [
        "line 1 state \"done\" is not a state: use active or completed",
        "line 2 priority \"top\" is not a priority: use low, normal, high or urgent",
        "2 imported, 0 were there already, 2 bad lines left out",
    ] {
        assert!(said.contains(word), "{said}");
    }
}

#[tokio::test]
async fn arrays_and_the_form_of_mongodb_are_read() {
    let (service, mut client) = embedded().await;
    let file = folder("import").join("todos.json");
    fs::write(
        &file,
        r#"[
  {"_id": "lists/home/todos/42", "parent": "lists/home", "title": "By hand", "state": "ACTIVE",
   "priority": "HIGH", "labels": [], "due_time": {"$date": "2026-12-01T00:00:00Z"}},
  {"name": "lists/home/todos/43", "title": "By the API", "state": "STATE_COMPLETED"},
  {"id": "44", "name": "Seed"},
  {"title": "nameless"}
]"#,
    )
    .expect("written");
    let out = run(&[
        "import",
        file.to_str().expect("a path"),
        "--server",
        &service.address,
    ]);
    let said = stderr(&out);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(
        said.contains("3 imported, 0 were there already, 1 bad lines left out")
            && said.contains("line 6 name"),
        "{said}"
    );
    let todo = get(&mut client, "lists/home/todos/42", strong())
        .await
        .expect("there")
        .todo
        .expect("a todo");
    assert_eq!(todo.title, "By hand");
    assert_eq!(todo.priority().as_str_name(), "PRIORITY_HIGH");
    assert!(todo.due_time.is_some());
}

#[tokio::test]
async fn what_list_prints_can_be_imported_and_replaced_through_a_service() {
    let (service, mut client) = embedded().await;
    for id in ["milk", "bread", "eggs"] {
        create(&mut client, id, "before").await;
    }
    let page = done(
        &service,
        &[
            "list",
            "lists/home",
            "--all",
            "--page-size",
            "2",
            "-o",
            "json",
            "--consistency",
            "fully_consistent",
        ],
    );
    let file = folder("import").join("pages.json");
    fs::write(&file, page.replace("before", "after")).expect("written");
    let path = file.to_str().expect("a path");
    let imported = |args: &[&str]| {
        let out = run(&[&["import", path, "--server", &service.address], args].concat());
        assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
        stderr(&out)
    };
    let said = imported(&[]);
    assert!(said.contains("0 imported, 3 were there already"), "{said}");
    let name = "lists/home/todos/milk";
    assert_eq!(title(&mut client, name, strong()).await, "before");
    let said = imported(&["--replace"]);
    assert!(said.contains("3 replaced"), "{said}");
    assert_eq!(title(&mut client, name, strong()).await, "after");
}

#[test]
fn replaced_in_the_store_and_duplicates_named() {
    let dir = folder("import");
    let file = dir.join("todos.jsonl");
    let data = dir.join("data").display().to_string();
    let import = |text: &str, more: &[&str]| {
        fs::write(&file, text).expect("written");
        let args = [
            "import",
            file.to_str().expect("a path"),
            "--data-dir",
            &data,
        ];
        let out = run(&[&args, more].concat());
        assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
        stderr(&out)
    };
    let said = import(
        "{\"id\": \"1\", \"name\": \"one\"}\n{\"id\": \"2\", \"name\": \"two\"}\n{\"id\": \"1\", \"name\": \"other\"}\n",
        &[],
    );
    assert!(
        said.contains("line 3 lists/seed/todos/1 is in line 1 already")
            && said
                .contains("2 imported, 0 were there already, 0 bad lines left out, 1 duplicates"),
        "{said}"
    );
    let said = import("{\"id\": \"1\", \"name\": \"new\"}\n", &["--replace"]);
    assert!(said.contains("1 replaced"), "{said}");
}

#[test]
fn what_is_said_of_bad_lines_is_bounded() {
    let dir = folder("import");
    let data = dir.join("data").display().to_string();
    let mut import = binary()
        .args(["import", "-", "--data-dir", &data])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut stdin = import.stdin.take().expect("stdin");
    let line = format!("{{\"name\": \"{}\"}}\n", "\u{1b}x".repeat(2000));
    for _ in 0..2000 {
        stdin.write_all(line.as_bytes()).expect("written");
    }
    drop(stdin);
    let out = import.wait_with_output().expect("ended");
    let said = stderr(&out);
    assert_eq!(out.status.code(), Some(1));
    assert!(
        said.len() < 60_000 && said.contains("2000 bad lines left out") && !said.contains('\u{1b}'),
        "{} bytes: {}",
        said.len(),
        said.chars().take(500).collect::<String>()
    );
}
