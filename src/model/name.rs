//! Names of todos and lists.

use std::{borrow::Borrow, fmt, sync::Arc};

/// Most characters of an id.
const MAX_ID_CHARS: usize = 63;

/// `lists/{list}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListName(Arc<str>);

/// `lists/{list}/todos/{todo}`: the identity of a todo, its `_id` in MongoDB.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TodoName(Arc<str>);

/// Whether `id` is `[A-Za-z0-9][A-Za-z0-9._~-]{0,62}`.
fn is_id(id: &str) -> bool {
    let bytes = id.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || b"._~-".contains(b);
    bytes.len() <= MAX_ID_CHARS
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(inner)
}

impl ListName {
    /// Reads `lists/{list}`; `None` if it is not of that form.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let id = name.strip_prefix("lists/")?;
        is_id(id).then(|| Self(name.into()))
    }

    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the name of every todo of this list begins with.
    #[must_use]
    pub fn todo_prefix(&self) -> String {
        format!("{}/todos/", self.0)
    }

    /// The name of a todo of this list; `None` if `id` is not a valid id.
    #[must_use]
    pub fn todo(&self, id: &str) -> Option<TodoName> {
        is_id(id).then(|| TodoName(format!("{}/todos/{id}", self.0).into()))
    }
}

impl TodoName {
    /// Reads `lists/{list}/todos/{todo}`; `None` if it is not of that form.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (list, id) = name.strip_prefix("lists/")?.split_once('/')?;
        let id = id.strip_prefix("todos/")?;
        (is_id(list) && is_id(id)).then(|| Self(name.into()))
    }

    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of its list, as text: `lists/{list}`.
    #[must_use]
    pub fn parent(&self) -> &str {
        let after_list = self.0["lists/".len()..].find('/').unwrap_or(0);
        &self.0[..after_list + "lists/".len()]
    }

    /// The name of its list.
    #[must_use]
    pub fn list(&self) -> ListName {
        ListName(self.parent().into())
    }
}

macro_rules! text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl From<$name> for Arc<str> {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

text!(ListName);
text!(TodoName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let todo = TodoName::parse("lists/home/todos/42").expect("a name");
        assert_eq!(todo.parent(), "lists/home");
        assert_eq!(todo.list(), ListName::parse("lists/home").expect("a list"));
        assert_eq!(todo.list().todo("42"), Some(todo));
        let long = "a".repeat(63);
        assert!(ListName::parse(&format!("lists/{long}")).is_some());
        assert!(ListName::parse(&format!("lists/{long}a")).is_none());
        for bad in [
            "",
            "lists/",
            "lists/-",
            "lists/a/",
            "lists/a/todos/b",
            "lists/ä",
            "lists/a\n",
        ] {
            assert!(ListName::parse(bad).is_none(), "{bad}");
        }
        for bad in [
            "lists/a",
            "lists/a/todos/",
            "lists/a/todos/b/c",
            "lists/a/todo/b",
            "lists/-/todos/b",
            "x/a/todos/b",
            "lists/a/todos/.b",
        ] {
            assert!(TodoName::parse(bad).is_none(), "{bad}");
        }
    }
}
