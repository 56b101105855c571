//! Where the values of settings come from: flags, environment, file, defaults.

use std::{
    collections::HashMap,
    ffi::OsString,
    fmt::{self, Write as _},
    fs,
    path::{Path, PathBuf},
};

use super::{
    ConfigErrors, ConfigProblem, SETTINGS, Setting,
    display::display_url,
    settings::{find, nearest, unknown_variables, variable},
};

/// Largest config file, in bytes: a hundred times the size of one that sets
/// everything.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueSource {
    /// A flag.
    Flag,
    /// An environment variable.
    Environment,
    /// The file given with `--config`.
    File(PathBuf),
    /// Not set.
    Default,
}

impl fmt::Display for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment => f.write_str("environment"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

impl ValueSource {
    /// The setting as it is written in this source.
    pub(super) fn of(&self, name: &str) -> String {
        match self {
            Self::Flag => format!("--{name}"),
            Self::Environment => variable(name),
            Self::File(path) => format!("{name} in {}", path.display()),
            Self::Default => name.to_owned(),
        }
    }
}

/// The values in force, as texts, each with its source.
pub struct Values(pub(super) HashMap<&'static str, (String, ValueSource)>);

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.print())
    }
}

/// The variables of this process that begin with `TIDEMARK_`.
///
/// # Errors
/// Those whose value is not UTF-8, by name.
pub fn environment() -> Result<HashMap<String, String>, ConfigErrors> {
    environment_of(std::env::vars_os())
}

fn environment_of(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<HashMap<String, String>, ConfigErrors> {
    let (mut found, mut problems) = (HashMap::new(), ConfigErrors::default());
    for (name, value) in variables {
        let name = name.to_string_lossy().into_owned();
        if !name.starts_with("TIDEMARK_") {
            continue;
        }
        match value.into_string() {
            Ok(value) => drop(found.insert(name, value)),
            Err(_) => problems.push(format!("environment variable {name} is not valid UTF-8")),
        }
    }
    problems.or(found)
}

impl Values {
    /// Gathers the values: flags, then the environment, then the file, then the
    /// defaults. White space around a value is removed.
    ///
    /// # Errors
    /// A file that cannot be read, keys in it and variables in the environment
    /// that are not settings, and values that are set but empty.
    pub fn gather(
        flags: &HashMap<String, String>,
        environment: &HashMap<String, String>,
        file: Option<&Path>,
    ) -> Result<Self, ConfigErrors> {
        let unknown = unknown_variables(environment.keys()).into_iter();
        let mut problems = ConfigErrors(unknown.map(Into::into).collect());
        let in_file = file.map(read_file).transpose();
        let in_file = in_file.unwrap_or_else(|ConfigErrors(more)| {
            problems.0.extend(more);
            None
        });
        let in_file = in_file.unwrap_or_default();
        let mut values = HashMap::new();
        for setting in &SETTINGS {
            let from_file = in_file.get(setting.name).zip(file);
            let (value, source) = if let Some(value) = flags.get(setting.name) {
                (value.trim(), ValueSource::Flag)
            } else if let Some(value) = environment.get(&variable(setting.name)) {
                (value.trim(), ValueSource::Environment)
            } else if let Some((value, path)) = from_file {
                (value.trim(), ValueSource::File(path.to_owned()))
            } else {
                (setting.default, ValueSource::Default)
            };
            if value.is_empty() && source != ValueSource::Default {
                problems.push(empty(setting, &source));
            }
            values.insert(setting.name, (value.to_owned(), source));
        }
        problems.or(Self(values))
    }

    pub(super) fn of(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |(value, _)| value)
    }

    /// The settings in force as a config file (TOML), each with its source in a
    /// comment. Secrets in URLs are not shown: see [`display_url`].
    #[must_use]
    pub fn print(&self) -> String {
        let mut text = String::new();
        for setting in &SETTINGS {
            let Some((value, source)) = self.0.get(setting.name) else {
                continue;
            };
            let (name, line) = (setting.name, &mut text);
            // Writing to a String cannot fail.
            let _ = if value.is_empty() {
                writeln!(line, "# {name} is not set")
            } else if is_secret(name) || is_url_with_user(value) {
                let shown = display_url(value);
                if shown != *value {
                    *line += &format!("# {name}: credentials and options are not shown\n");
                }
                writeln!(line, "{name} = {} # {source}", quoted(&shown))
            } else if setting.default.parse::<u64>().is_ok() && value.parse::<u64>().is_ok() {
                writeln!(line, "{name} = {value} # {source}")
            } else {
                writeln!(line, "{name} = {} # {source}", quoted(value))
            };
        }
        text
    }
}

/// Whether the values of this setting may contain a password.
pub(super) fn is_secret(name: &str) -> bool {
    matches!(name, "mongodb-uri" | "redis-url")
}

/// Whether a value of any setting is a URL with a user, given by mistake.
fn is_url_with_user(value: &str) -> bool {
    value.contains("://") && value.contains('@')
}

/// A TOML string of one line.
fn quoted(value: &str) -> String {
    // JSON's escapes are a subset of those of TOML, but for DEL.
    serde_json::Value::from(value)
        .to_string()
        .replace('\u{7f}', "\\u007f")
}

fn empty(setting: &Setting, source: &ValueSource) -> String {
    let unset = if setting.default.is_empty() {
        "leave it unset to do without".to_owned()
    } else {
        format!("leave it unset for {}", setting.default)
    };
    format!("{} is set but empty: {unset}", source.of(setting.name))
}

fn is_list(name: &str) -> bool {
    find(name).is_some_and(|setting| setting.is_list)
}

fn read_file(path: &Path) -> Result<HashMap<String, String>, ConfigErrors> {
    let wrong =
        |problem: String| ConfigErrors(vec![format!("{}: {problem}", path.display()).into()]);
    let unread = |source| {
        let path = path.to_owned();
        ConfigErrors(vec![ConfigProblem::File { path, source }])
    };
    let size = fs::metadata(path).map_err(unread)?.len();
    if size > MAX_FILE_BYTES {
        return Err(wrong(format!(
            "{size} bytes are too many for a config file; the limit is {MAX_FILE_BYTES}"
        )));
    }
    let text = fs::read_to_string(path).map_err(unread)?;
    // The error's own text quotes the line, which may contain a password.
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().map_or("", |span| &text[..span.start]);
        let line = before.matches('\n').count() + 1;
        wrong(format!("line {line}: {}", error.message()))
    })?;
    let (mut problems, mut values) = (ConfigErrors::default(), HashMap::new());
    for (key, value) in table {
        let name = key.replace('_', "-");
        let value = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            // A repeated flag, in the words of TOML.
            toml::Value::Array(texts) if is_list(&name) && texts.iter().all(|t| t.is_str()) => {
                let texts: Vec<_> = texts.iter().filter_map(|text| text.as_str()).collect();
                texts.join(",")
            }
            toml::Value::Boolean(_)
            | toml::Value::Datetime(_)
            | toml::Value::Array(_)
            | toml::Value::Table(_) => {
                let or_list = if is_list(&name) {
                    ", or an array of strings"
                } else {
                    ""
                };
                problems.push(format!(
                    "{}: {} must be a string or a number{or_list}; it has the type {}",
                    path.display(),
                    crate::text::escape(&key),
                    value.type_str()
                ));
                continue;
            }
        };
        if find(&name).is_none() {
            problems.push(unknown_key(path, &key, &name));
        }
        values.insert(name, value);
    }
    problems.or(values)
}

fn unknown_key(path: &Path, key: &str, name: &str) -> String {
    let hint = match nearest(name, SETTINGS.iter().map(|setting| setting.name)) {
        Some(nearest) => format!("did you mean {nearest}?"),
        None => {
            let names: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
            format!("the settings are {}", names.join(", "))
        }
    };
    format!(
        "{}: {} is not a setting: {hint}",
        path.display(),
        crate::text::escape(key)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(values: &[(&str, &str)]) -> HashMap<String, String> {
        values
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("tidemark.toml");
        fs::write(&path, text).expect("written");
        (dir, path)
    }

    #[test]
    fn flags_beat_the_environment_and_that_the_file() {
        let (_dir, path) =
            file("cache_epoch = 1\nlist-grace = \"1s\"\nstaleness-limit = \"20s\"\n");
        let flags = map(&[("cache-epoch", "3")]);
        let environment = map(&[("TIDEMARK_CACHE_EPOCH", "2"), ("TIDEMARK_LIST_GRACE", "2s")]);
        let values = Values::gather(&flags, &environment, Some(&path)).expect("gathered");
        let config = values.parse().expect("valid");
        assert_eq!((config.cache_epoch, config.list_grace.as_secs()), (3, 2));
        assert_eq!(config.staleness_limit.as_secs(), 20);
        assert_eq!(values.0["cache-epoch"].1, ValueSource::Flag);
        assert_eq!(values.0["staleness-limit"].1, ValueSource::File(path));
    }

    #[test]
    fn values_are_trimmed_and_empty_ones_refused() {
        let environment = map(&[("TIDEMARK_MONGODB_URI", " mongodb://h/todos\n")]);
        let values = Values::gather(&map(&[]), &environment, None).expect("gathered");
        assert_eq!(values.of("mongodb-uri"), "mongodb://h/todos");
        for setting in &SETTINGS {
            for value in ["", " \n"] {
                let flags = map(&[(setting.name, value)]);
                let problems = Values::gather(&flags, &map(&[]), None).expect_err(setting.name);
                assert!(
                    problems.0[0].to_string().contains(setting.name)
                        && problems.0[0].to_string().contains("empty"),
                    "{problems:?}"
                );
            }
        }
    }

    #[test]
    fn unknown_keys_of_the_file_are_named_with_the_nearest() {
        let (_dir, path) = file("stalenes-limit = \"20s\"\n[redis]\nurl = \"redis://:geheim@h\"\n");
        let problems = Values::gather(&map(&[]), &map(&[]), Some(&path)).expect_err("unknown");
        let text = problems.to_string();
        assert!(
            text.contains("stalenes-limit") && text.contains("did you mean staleness-limit?"),
            "{text}"
        );
        assert!(
            text.contains("redis must be") && !text.contains("geheim"),
            "{text}"
        );
    }

    #[test]
    fn a_broken_file_is_named_by_line_without_its_text() {
        let (_dir, path) = file("listen = \"127.0.0.1:0\"\nredis-url = redis://:geheim@h\n");
        let problems = Values::gather(&map(&[]), &map(&[]), Some(&path)).expect_err("no TOML");
        assert!(
            problems.0[0].to_string().contains("line 2")
                && !problems.0[0].to_string().contains("geheim"),
            "{problems:?}"
        );
    }

    #[test]
    fn what_is_printed_is_a_config_file_with_the_same_values() {
        let flags = map(&[
            ("redis-url", "redis-cluster://h:7000"),
            ("data-dir", "a \"quoted\" \\ directory"),
            ("cache-epoch", "7"),
        ]);
        let printed = Values::gather(&flags, &map(&[]), None)
            .expect("gathered")
            .print();
        let (_dir, path) = file(&printed);
        let again = Values::gather(&map(&[]), &map(&[]), Some(&path)).expect("valid TOML");
        for setting in &SETTINGS {
            let wanted = flags
                .get(setting.name)
                .map_or(setting.default, String::as_str);
            assert_eq!(again.of(setting.name), wanted, "{printed}");
        }
    }

    #[test]
    fn passwords_are_not_printed() {
        let flags = map(&[
            (
                "redis-url",
                "redis-sentinel://u:geheim@h?sentinelPassword=geheim",
            ),
            ("mongodb-uri", "mongodb://u:gehe/im@h/todos"),
        ]);
        let values = Values::gather(&flags, &map(&[]), None).expect("gathered");
        let (printed, debugged) = (values.print(), format!("{:?}", values.parse()));
        assert!(
            !printed.contains("geheim") && !printed.contains("im@"),
            "{printed}"
        );
        assert!(printed.contains("\"redis-sentinel://h\""), "{printed}");
        assert!(!debugged.contains("gehe"), "{debugged}");
    }
}
