//! Names as people write them: `home/milk` is short for
//! `lists/home/todos/milk`, and `home` for `lists/home`.

/// The full name of a todo. A text that is not a short name is sent as it is, and the
/// service reports the problem.
pub fn todo_name(text: &str) -> String {
    match text.split_once('/') {
        Some((list, id)) if list != "lists" && !list.is_empty() && !id.contains('/') => {
            format!("lists/{list}/todos/{id}")
        }
        _ => text.to_owned(),
    }
}

/// The full name of a list.
pub fn list_name(text: &str) -> String {
    if text.contains('/') || text.is_empty() {
        text.to_owned()
    } else {
        format!("lists/{text}")
    }
}

/// The short name of a list, unless it reads like a command of `tidemark list`.
pub fn short_list_name(name: &str) -> String {
    const COMMANDS: [&str; 4] = ["create", "show", "delete", "help"];
    match name.strip_prefix("lists/") {
        Some(short) if !COMMANDS.contains(&short) => short.to_owned(),
        _ => name.to_owned(),
    }
}

/// The short name of a todo.
pub fn short_name(name: &str) -> String {
    let short = name
        .strip_prefix("lists/")
        .and_then(|rest| rest.split_once("/todos/"))
        .map(|(list, id)| format!("{list}/{id}"));
    short.unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_become_full_ones_and_back() {
        assert_eq!(todo_name("home/milk"), "lists/home/todos/milk");
        assert_eq!(short_name("lists/home/todos/milk"), "home/milk");
        assert_eq!(list_name("home"), "lists/home");
        assert_eq!(list_name("-"), "lists/-");
        for kept in ["lists/home/todos/milk", "lists/home", "home", "a/b/c", ""] {
            assert_eq!(todo_name(kept), kept);
        }
        assert_eq!(short_name("odd"), "odd");
    }
}
