//! The form of the code: which module may depend on which, how long functions and
//! files may be, and that texts name what there is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use tidemark::config::SETTINGS;

/// Lines of a function that fit on a screen.
const MAX_FUNCTION_LINES: usize = 70;
/// Lines of `src/cache/read.rs`, its documentation included.
const MAX_READ_PATH_LINES: usize = 300;

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The code of a file without its tests.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("readable");
    text.split("#[cfg(test)]")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// The code of a file without comments and tests.
fn statements(file: &Path) -> String {
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    code(file)
        .lines()
        .filter(is_code)
        .collect::<Vec<_>>()
        .join("\n")
}

/// The module of a file: the first part of its path below `src`.
fn module_of(file: &Path) -> String {
    let path = file.strip_prefix(root().join("src")).expect("in src");
    let first = path.components().next().expect("a name").as_os_str();
    first.to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// The modules that a text names after `crate::`, in braces too.
fn modules_named(text: &str) -> BTreeSet<String> {
    let ident = |text: &str| -> String {
        let end = text.find(|c: char| !(c.is_ascii_lowercase() || c == '_'));
        text[..end.unwrap_or(text.len())].to_owned()
    };
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(ident(rest));
            continue;
        };
        let (mut depth, mut expects_name) = (1, true);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => expects_name = true,
                _ if depth == 1 && expects_name && c.is_ascii_lowercase() => {
                    found.insert(ident(&group[at..]));
                    expects_name = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found.remove("");
    found
}

/// Which module names which, as the code has it.
fn real_edges() -> BTreeMap<String, BTreeSet<String>> {
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files(&root().join("src")) {
        let module = module_of(&file);
        // The crate's root names its modules, and the fuzzer's entry points any.
        if ["lib", "main", "fuzzing"].contains(&module.as_str()) {
            continue;
        }
        let mut named = modules_named(&statements(&file));
        named.remove(&module);
        edges.entry(module).or_default().extend(named);
    }
    edges.retain(|_, named| !named.is_empty());
    edges
}

/// Which module may name which, as ARCHITECTURE.md has it: lines such as
/// "- `a` -> `b`, `c`".
fn listed_edges() -> BTreeMap<String, BTreeSet<String>> {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let lines = page
        .lines()
        .filter_map(|line| line.strip_prefix("- `")?.split_once("` -> "));
    lines
        .filter(|(module, _)| *module != "main")
        .map(|(module, named)| {
            let named = named
                .split(", ")
                .map(|name| name.trim_matches('`').to_owned());
            (module.to_owned(), named.collect())
        })
        .collect()
}

#[test]
fn modules_depend_on_each_other_as_architecture_lists() {
    let (real, listed) = (real_edges(), listed_edges());
    assert!(real.len() > 10, "{real:?}");
    for (module, named) in &real {
        let allowed = listed.get(module).cloned().unwrap_or_default();
        let not_listed: Vec<_> = named.difference(&allowed).collect();
        assert!(
            not_listed.is_empty(),
            "{module} -> {not_listed:?} is not in ARCHITECTURE.md"
        );
    }
    for (module, allowed) in &listed {
        let named = real.get(module).cloned().unwrap_or_default();
        let unused: Vec<_> = allowed.difference(&named).collect();
        assert!(
            unused.is_empty(),
            "{module} -> {unused:?} is in ARCHITECTURE.md only"
        );
    }
}

#[test]
fn modules_have_no_cycles() {
    let mut edges = real_edges();
    // Modules that depend on nothing that is left are taken away until none is.
    loop {
        let left: BTreeSet<String> = edges.keys().cloned().collect();
        let before = edges.len();
        edges.retain(|_, named| named.iter().any(|name| left.contains(name)));
        if edges.len() == before {
            break;
        }
    }
    assert!(edges.is_empty(), "these depend on each other: {edges:?}");
}

/// Nobody in this folder says any of these words.
fn never_says(place: &str, words: &[&str]) {
    let files = files(&root().join("src").join(place));
    assert!(!files.is_empty());
    for file in files {
        let text = statements(&file);
        for word in words {
            assert!(
                !text.contains(word),
                "{}: {word:?} does not belong here",
                file.display()
            );
        }
    }
}

#[test]
fn libraries_stay_behind_their_modules() {
    never_says(
        "coherence",
        &[
            "tokio",
            "fred",
            "mongodb",
            "tonic",
            "redb",
            "std::time::Instant",
            "SystemTime",
            "rand",
            "async",
            "std::fs",
            "std::net",
            "tracing",
        ],
    );
    for place in ["cache", "loader", "tracker", "watch"] {
        never_says(place, &["tonic", "mongodb", "fred::", "redb"]);
    }
    never_says("grpc", &["mongodb", "fred::", "redb"]);
}

#[test]
fn files_are_short() {
    for file in files(&root().join("src")) {
        let lines = statements(&file);
        let lines = lines.lines().filter(|line| !line.trim().is_empty()).count();
        assert!(
            lines <= 600,
            "{} has {lines} lines of code without its tests",
            file.display()
        );
    }
}

/// The read path is one file that can be read in a few minutes.
#[test]
fn the_read_path_is_one_short_file() {
    let file = root().join("src/cache/read.rs");
    let lines = fs::read_to_string(&file).expect("readable").lines().count();
    assert!(
        lines < MAX_READ_PATH_LINES,
        "{} has {lines} lines",
        file.display()
    );
}

#[test]
fn functions_are_short() {
    let mut long = Vec::new();
    for file in files(&root().join("src")) {
        let path = file
            .strip_prefix(root())
            .expect("in the root")
            .to_string_lossy()
            .into_owned();
        let text = code(&file);
        let lines: Vec<_> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let words = line.trim_start().trim_start_matches("pub ");
            let words = words
                .trim_start_matches("pub(super) ")
                .trim_start_matches("pub(crate) ");
            let words = words
                .trim_start_matches("const ")
                .trim_start_matches("async ");
            // A declaration in a trait ends with a semicolon.
            let head = lines[at..]
                .iter()
                .find(|line| line.ends_with('{') || line.ends_with(';'));
            if !words.starts_with("fn ") || !head.is_some_and(|line| line.ends_with('{')) {
                continue;
            }
            // rustfmt closes a function at its own indentation.
            let close = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
            let length = lines[at..]
                .iter()
                .position(|line| **line == close)
                .unwrap_or(0)
                + 1;
            if length > MAX_FUNCTION_LINES {
                long.push(format!("{path}:{}: {length} lines", at + 1));
            }
        }
    }
    assert!(
        long.is_empty(),
        "over {MAX_FUNCTION_LINES} lines:\n{}",
        long.join("\n")
    );
}

/// Every file of the repository that a text may name.
fn tracked_files() -> Vec<String> {
    let listed = std::process::Command::new("git")
        .args(["ls-files"])
        .current_dir(root())
        .output()
        .expect("git");
    let listed = String::from_utf8(listed.stdout).expect("UTF-8");
    listed.lines().map(ToOwned::to_owned).collect()
}

/// A merge that went wrong leaves its marks.
#[test]
fn no_file_has_marks_of_a_conflict() {
    let marks = ["<<<<<<< ", ">>>>>>> "];
    let marked: Vec<_> = tracked_files()
        .into_iter()
        .filter(|file| {
            let text = fs::read_to_string(root().join(file)).unwrap_or_default();
            let starts = |line: &str| marks.iter().any(|mark| line.starts_with(mark));
            text.lines().any(starts)
        })
        .collect();
    assert!(marked.is_empty(), "{marked:?}");
}

/// The index of decisions has each of them once, in their order.
#[test]
fn every_decision_is_in_the_index() {
    let folder = root().join("docs/adr");
    let entries = fs::read_dir(&folder).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.into_string().expect("UTF-8"));
    let pages: BTreeSet<_> = names.filter(|name| name.starts_with('0')).collect();
    let index = fs::read_to_string(folder.join("README.md")).expect("readable");
    let rows = index.lines().filter(|line| line.starts_with("| ["));
    let listed = rows.filter_map(|row| row.split(['(', ')']).nth(1));
    let listed: Vec<_> = listed.map(ToOwned::to_owned).collect();
    assert_eq!(listed, pages.into_iter().collect::<Vec<_>>());
}

/// A text that names a page or a source file names one that is here.
#[test]
fn texts_name_only_files_that_are_in_the_repository() {
    let tracked = tracked_files();
    if tracked.is_empty() {
        eprintln!("not in a git checkout: nothing to compare with");
        return;
    }
    let exists = |from: &str, name: &str| {
        let folder = from.rsplit_once('/').map_or("", |(folder, _)| folder);
        let name = name.trim_start_matches("./");
        let mut beside = format!("{folder}/{name}")
            .trim_start_matches('/')
            .to_owned();
        while let Some((before, after)) = beside.split_once("/../") {
            let before = before.rsplit_once('/').map_or("", |(before, _)| before);
            beside = format!("{before}/{after}")
                .trim_start_matches('/')
                .to_owned();
        }
        tracked
            .iter()
            .any(|file| *file == name || *file == beside || file.ends_with(&format!("/{name}")))
    };
    let mut missing = Vec::new();
    let is_text = |file: &&String| {
        [".md", ".rs", ".proto", ".toml", ".yaml"]
            .iter()
            .any(|end| file.ends_with(end))
            && !file.contains("/gen/")
    };
    for file in tracked.iter().filter(is_text) {
        let Ok(text) = fs::read_to_string(root().join(file)) else {
            continue;
        };
        let part = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        for word in text.split(|c| !part(c)) {
            let word = word.trim_end_matches('.');
            let is_named = word.ends_with(".md") || word.ends_with(".rs");
            let plain = word.len() > 3 && !word.starts_with('.') && !word.starts_with('/');
            if is_named && plain && !word.contains("//") && !exists(file, word) {
                missing.push(format!("{file} names {word}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn every_setting_is_in_the_readme() {
    let readme = fs::read_to_string(root().join("README.md")).expect("a README");
    for setting in &SETTINGS {
        let row = format!(
            "| `--{}` | {}",
            setting.name,
            if setting.default.is_empty() {
                String::new()
            } else {
                format!("`{}`", setting.default)
            }
        );
        assert!(readme.contains(row.trim_end()), "README.md lacks {row}");
    }
}

#[test]
fn every_metric_is_in_the_docs() {
    let docs = fs::read_to_string(root().join("docs/operations.md")).expect("docs/operations.md");
    let source = fs::read_to_string(root().join("src/telemetry.rs")).expect("readable");
    // `field: Type = "name";` and, with a unit, `= "name", Unit::Seconds;`
    let names: Vec<_> = source
        .lines()
        .filter_map(|line| {
            let (_, name) = line.split_once(" = \"")?;
            let (name, rest) = name.split_once('"')?;
            let unit = rest
                .strip_prefix(", Unit::")
                .map(|unit| format!("_{}", unit.trim_end_matches(';').to_lowercase()));
            Some(format!("tidemark_{name}{}", unit.unwrap_or_default()))
        })
        .collect();
    assert!(names.len() > 20);
    for name in names {
        assert!(
            docs.contains(&format!("`{name}`")),
            "docs/operations.md lacks {name}"
        );
    }
}

/// The arguments of each call of a macro of `tracing`, such as `warn!(...)`, in a text.
fn calls_of<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let begin = format!("{name}!(");
    let calls = text.match_indices(&begin).map(|(at, _)| {
        let rest = &text[at + begin.len()..];
        let (mut depth, mut in_text, mut is_escaped) = (1, false, false);
        for (end, c) in rest.char_indices() {
            match c {
                _ if is_escaped => is_escaped = false,
                '\\' if in_text => is_escaped = true,
                '"' => in_text = !in_text,
                '(' if !in_text => depth += 1,
                ')' if !in_text => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return &rest[..end];
            }
        }
        rest
    });
    calls.collect()
}

/// The message of a call: its last string, up to the first value in it.
fn message_of(arguments: &str) -> String {
    let text = arguments.trim_end().trim_end_matches(',');
    let text = text.strip_suffix('"').expect("the message comes last");
    let (_, message) = text.rsplit_once('"').expect("a string");
    let lines: Vec<_> = message.split("\\\n").map(str::trim_start).collect();
    let message = lines.concat();
    message.split('{').next().unwrap_or_default().to_owned()
}

#[test]
fn every_line_of_the_log_is_in_the_docs() {
    let docs = fs::read_to_string(root().join("docs/operations.md")).expect("docs/operations.md");
    let (mut found, mut missing) = (BTreeSet::new(), Vec::new());
    for file in files(&root().join("src")) {
        for level in ["info", "warn", "error"] {
            let text = statements(&file);
            for message in calls_of(&text, &format!("tracing::{level}"))
                .into_iter()
                .map(message_of)
                .filter(|message| !message.is_empty())
            {
                let row = format!("| {} | `{message}", level.to_uppercase());
                if !docs.contains(&row) {
                    missing.push(format!("{}: {row}", file.display()));
                }
                found.insert(row);
            }
        }
    }
    assert!(found.len() > 30, "{found:?}");
    assert!(
        missing.is_empty(),
        "docs/operations.md lacks:\n{}",
        missing.join("\n")
    );
    let gone: Vec<_> = docs
        .lines()
        .filter(|line| {
            ["| INFO |", "| WARN |", "| ERROR |"]
                .iter()
                .any(|level| line.starts_with(level))
        })
        // Texts that are put together elsewhere end in dots.
        .filter(|line| !line.contains(" ...` |") && !found.iter().any(|row| line.starts_with(row)))
        .collect();
    assert!(gone.is_empty(), "no code logs:\n{}", gone.join("\n"));
}

#[test]
fn the_architecture_page_stays_short() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    assert!(page.lines().count() < 200);
}
