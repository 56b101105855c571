//! The form of the house: who may know whom, and that what can be set and seen
//! is in the docs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tidemark::config::SETTINGS;

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

/// Nobody in this folder (or file) says any of these words.
fn never_says(place: &str, words: &[&str]) {
    let path = root().join("src").join(place);
    let files = if path.is_dir() {
        files(&path)
    } else {
        vec![path]
    };
    assert!(!files.is_empty());
    for file in files {
        let code = code(&file);
        for (number, line) in code
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            for word in words {
                assert!(
                    !line.contains(word),
                    "{}:{}: {word:?} does not belong here",
                    file.display(),
                    number + 1
                );
            }
        }
    }
}

#[test]
fn calls_go_in_one_direction() {
    never_says(
        "model",
        &[
            "crate::cache",
            "crate::grpc",
            "crate::tier",
            "crate::origin",
            "crate::coherence",
            "crate::cli",
            "crate::server",
        ],
    );
    never_says(
        "tier",
        &[
            "crate::cache",
            "crate::grpc",
            "crate::origin",
            "crate::coherence",
            "crate::cli",
            "crate::server",
        ],
    );
    never_says(
        "origin",
        &[
            "crate::cache",
            "crate::grpc",
            "crate::tier",
            "crate::coherence",
            "crate::cli",
            "crate::server",
        ],
    );
    never_says(
        "cache",
        &[
            "crate::grpc",
            "crate::cli",
            "crate::server",
            "tonic",
            "mongodb",
            "fred",
            "redb",
        ],
    );
    never_says(
        "grpc",
        &[
            "crate::tier",
            "crate::origin",
            "crate::coherence",
            "crate::server",
            "crate::cli",
            "mongodb",
            "fred",
            "redb",
        ],
    );
}

#[test]
fn coherence_is_pure() {
    never_says(
        "coherence",
        &[
            "tokio",
            "fred",
            "mongodb",
            "tonic",
            "redb",
            "crate::cache",
            "crate::grpc",
            "crate::tier",
            "crate::origin",
            "std::time::Instant",
            "SystemTime",
            "rand",
            "async",
            "std::fs",
            "std::net",
            "tracing",
        ],
    );
}

#[test]
fn files_are_short() {
    for file in files(&root().join("src")) {
        let code = code(&file);
        let lines = code
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with("//"));
        let lines = lines.count();
        assert!(
            lines <= 600,
            "{} has {lines} lines of code without its tests",
            file.display()
        );
    }
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

#[test]
fn the_architecture_page_stays_short() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    assert!(page.lines().count() < 200);
}
