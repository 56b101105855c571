//! How commands print: data on stdout, everything about it on stderr.

use std::io::{IsTerminal as _, Write as _};

use clap::ValueEnum;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use unicode_width::UnicodeWidthStr as _;

use super::{error::CommandError, names::short_name, yaml::to_yaml};
use crate::{
    pb::{
        self,
        todo::{Priority, State},
    },
    text::escape,
};

/// Narrowest column to which a title is cut to fit the terminal.
const MIN_TITLE_COLUMNS: usize = 20;

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table for people
    #[default]
    Table,
    /// The reply as JSON, one line each
    Json,
    /// The reply as YAML
    Yaml,
    /// The names of the todos, one a line
    Name,
}

/// The messages of the contract, for their JSON form.
pub static MESSAGES: std::sync::LazyLock<DescriptorPool> =
    std::sync::LazyLock::new(|| DescriptorPool::decode(pb::DESCRIPTORS).unwrap_or_default());

/// Prints a line on stdout. `false`: its reader has gone.
///
/// # Errors
/// What else keeps it from being written, such as a full disk.
pub fn try_print(text: &str) -> Result<bool, CommandError> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(CommandError::Other(format!("stdout: {error}"))),
    }
}

/// Prints a line on stdout. The process ends if the reader has gone, as in
/// `tidemark list home | head -1`, and fails if it cannot be written.
pub fn print(text: &str) {
    match try_print(text) {
        Ok(true) => {}
        Ok(false) => std::process::exit(0),
        Err(error) => {
            note(&format!("error: {error}"));
            std::process::exit(1);
        }
    }
}

/// Prints a line on stderr, where it does not mix with data.
pub fn note(text: &str) {
    // A closed stderr must not fail the command.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints a reply in one of the formats for programs. `false`: the format is
/// the table, and nothing was printed.
///
/// # Errors
/// A reply that has no JSON form.
pub fn print_reply(
    output: Output,
    name: &str,
    reply: &impl Message,
    names: &[&str],
) -> Result<bool, CommandError> {
    match output {
        Output::Table => return Ok(false),
        Output::Json => print(&json(name, reply)?),
        Output::Yaml => {
            let value = serde_json::from_str(&json(name, reply)?)
                .map_err(|e| CommandError::Other(format!("{name} is not JSON: {e}")))?;
            print(&format!("---\n{}", to_yaml(&value).trim_end()));
        }
        Output::Name => names.iter().for_each(|name| print(&escape(name))),
    }
    Ok(true)
}

/// The JSON form of a message.
///
/// # Errors
/// A message that is not in the contract.
pub fn json(name: &str, message: &impl Message) -> Result<String, CommandError> {
    let failed = |e: &dyn std::fmt::Display| {
        CommandError::Other(format!("{name} cannot be written as JSON: {e}"))
    };
    let descriptor = MESSAGES
        .get_message_by_name(name)
        .ok_or_else(|| failed(&"it is not in the contract"))?;
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .map_err(|e| failed(&e))?;
    let mut raw = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut raw);
    dynamic
        .serialize_with_options(
            &mut serializer,
            &SerializeOptions::new().skip_default_fields(true),
        )
        .map_err(|e| failed(&e))?;
    String::from_utf8(raw).map_err(|e| failed(&e))
}

/// Colours of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    Red,
    Green,
    Yellow,
    Dim,
    Bold,
}

/// Whether stdout gets colours: only a terminal, and not if `NO_COLOR` is set
/// (<https://no-color.org>).
#[must_use]
pub fn colours() -> bool {
    std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// The text in a colour, if stdout gets colours.
#[must_use]
pub fn paint(text: &str, colour: Colour) -> String {
    if !colours() {
        return text.to_owned();
    }
    let code = match colour {
        Colour::Red => 31,
        Colour::Green => 32,
        Colour::Yellow => 33,
        Colour::Dim => 2,
        Colour::Bold => 1,
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// A text of a table, and its colour.
pub type Cell = (String, Option<Colour>);

/// A table with a header. All columns but the last are as wide as their widest
/// text; the last is cut to the width of the terminal, if stdout is one. Texts
/// are escaped.
#[must_use]
pub fn table(header: &[&str], rows: &[Vec<Cell>]) -> String {
    let escaped: Vec<Vec<Cell>> = rows
        .iter()
        .map(|row| {
            row.iter()
                .map(|(text, colour)| (escape(text), *colour))
                .collect()
        })
        .collect();
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            let texts = escaped.iter().map(|row| row[column].0.width());
            texts.chain([header[column].width()]).max().unwrap_or(0)
        })
        .collect();
    let last = header.len().saturating_sub(1);
    let used: usize = widths[..last].iter().map(|width| width + 2).sum();
    let room =
        terminal_columns().map(|columns| columns.saturating_sub(used).max(MIN_TITLE_COLUMNS));
    let line = |cells: Vec<(&str, Option<Colour>)>| {
        let mut line = String::new();
        for (column, (text, colour)) in cells.into_iter().enumerate() {
            let shown = match room {
                Some(room) if column == last => cut(text, room),
                _ => text.to_owned(),
            };
            let padding = if column == last {
                0
            } else {
                widths[column] + 2 - shown.width()
            };
            line += &match colour {
                Some(colour) => paint(&shown, colour),
                None => shown,
            };
            line += &" ".repeat(padding);
        }
        line.trim_end().to_owned()
    };
    let header = line(
        header
            .iter()
            .map(|text| (*text, Some(Colour::Bold)))
            .collect(),
    );
    let rows = escaped.iter().map(|row| {
        line(
            row.iter()
                .map(|(text, colour)| (text.as_str(), *colour))
                .collect(),
        )
    });
    std::iter::once(header)
        .chain(rows)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Columns of the terminal; `None`: stdout is not one.
fn terminal_columns() -> Option<usize> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    terminal_size::terminal_size().map(|(width, _)| usize::from(width.0))
}

/// The text, cut to so many columns.
fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let (mut kept, mut used) = (String::new(), 1);
    for c in text.chars() {
        used += unicode_width::UnicodeWidthChar::width(c).unwrap_or(0);
        if used > columns {
            break;
        }
        kept.push(c);
    }
    kept + "…"
}

const HEADER: [&str; 6] = ["NAME", "STATE", "PRIORITY", "DUE", "LABELS", "TITLE"];

fn row(todo: &pb::Todo) -> Vec<Cell> {
    let state = match todo.state() {
        State::Completed => ("completed".to_owned(), Some(Colour::Green)),
        State::Active | State::Unspecified => ("active".to_owned(), None),
    };
    let priority = match todo.priority() {
        Priority::Urgent => Some(Colour::Red),
        Priority::High => Some(Colour::Yellow),
        _ => None,
    };
    vec![
        (short_name(&todo.name), None),
        state,
        (priority_name(todo), priority),
        (
            todo.due_time.map(|due| due.to_string()).unwrap_or_default(),
            None,
        ),
        (todo.labels.join(","), None),
        (todo.title.clone(), None),
    ]
}

fn priority_name(todo: &pb::Todo) -> String {
    match todo.priority() {
        Priority::Unspecified => "normal".into(),
        priority => priority
            .as_str_name()
            .trim_start_matches("PRIORITY_")
            .to_lowercase(),
    }
}

/// Prints todos as a table. A todo that cannot be read has a row that says so.
pub fn print_todos(todos: &[pb::Todo], unreadable: &[String]) {
    let mut rows: Vec<_> = todos.iter().map(row).collect();
    rows.extend(unreadable.iter().map(|name| {
        let mut row = vec![(String::new(), None); HEADER.len()];
        row[0].0 = short_name(name);
        row[1] = ("unreadable".into(), Some(Colour::Red));
        row[HEADER.len() - 1] = ("(cannot be read as a todo)".into(), Some(Colour::Dim));
        row
    }));
    print(&table(&HEADER, &rows));
}

/// Prints all fields of a todo, one a line.
pub fn print_details(todo: &pb::Todo) {
    let time = |time: Option<prost_types::Timestamp>| time.map(|t| t.to_string());
    let fields = [
        ("Name", Some(todo.name.clone())),
        ("Title", Some(todo.title.clone())),
        ("State", Some(row(todo)[1].0.clone())),
        ("Priority", Some(priority_name(todo))),
        ("Labels", Some(todo.labels.join(", "))),
        ("Due", time(todo.due_time)),
        ("Created", time(todo.create_time)),
        ("Updated", time(todo.update_time)),
        ("Completed", time(todo.complete_time)),
        ("Etag", Some(todo.etag.clone())),
    ];
    for (name, value) in fields {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            let label = paint(&format!("{name}:"), Colour::Bold);
            let padding = " ".repeat(10 - name.len());
            print(&format!("{label}{padding}{}", escape(&value)));
        }
    }
    if !todo.notes.is_empty() {
        print(&paint("Notes:", Colour::Bold));
        todo.notes
            .split('\n')
            .for_each(|line| print(&format!("  {}", escape(line))));
    }
}

/// One line about a todo.
#[must_use]
pub fn summary(todo: &pb::Todo) -> String {
    let mut text = format!(
        "[{}, {}] {}",
        row(todo)[1].0,
        priority_name(todo),
        escape(&todo.title)
    );
    if let Some(due) = todo.due_time {
        text += &format!("  due {due}");
    }
    if !todo.labels.is_empty() {
        text += &format!("  labels {}", escape(&todo.labels.join(",")));
    }
    text
}

/// Says on stderr how fresh a reply is.
pub fn note_freshness(read: Option<&pb::ReadInfo>) {
    let Some(read) = read else {
        return;
    };
    let source = read
        .source()
        .as_str_name()
        .trim_start_matches("SOURCE_")
        .to_lowercase();
    let bound = read
        .staleness_bound
        .map(|bound| bound.to_string())
        .unwrap_or_default();
    let stale = if read.stale { ", STALE" } else { "" };
    note(&format!(
        "from {source}, at most {bound} old{stale}, token {}",
        read.token
    ));
}

/// Prints the result of a write. `names` for `-o name`.
///
/// # Errors
/// A reply that has no JSON form.
pub fn print_written(
    output: Output,
    message: &str,
    reply: &impl Message,
    todo: Option<&pb::Todo>,
    token: &str,
) -> Result<(), CommandError> {
    let names: Vec<_> = todo.iter().map(|todo| todo.name.as_str()).collect();
    if print_reply(output, message, reply, &names)? {
        return Ok(());
    }
    if let Some(todo) = todo {
        print_todos(std::slice::from_ref(todo), &[]);
    }
    note(&format!("token {token}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_even_columns_and_no_control_characters() {
        let rows = [
            vec![
                ("home/milk".into(), None),
                ("Milk\n\u{1b}[2Jx".into(), None),
            ],
            vec![("买/1".into(), None), ("b".into(), None)],
        ];
        assert_eq!(
            table(&["NAME", "TITLE"], &rows),
            "NAME       TITLE\nhome/milk  Milk\\n\\u{1b}[2Jx\n买/1       b"
        );
    }

    #[test]
    fn texts_are_cut_by_columns() {
        assert_eq!(cut("Buy milk", 8), "Buy milk");
        assert_eq!(cut("Buy milk", 5), "Buy …");
        assert_eq!(cut("买牛奶买牛奶", 6), "买牛…");
    }
}
