//! API keys: a file of hashes, one key a line.
//!
//! A key is 256 random bits, so its hash needs no salt and no slow function:
//! there is nothing to guess. The file does not let its reader call.

use std::{collections::HashSet, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::{
    caller::{Caller, Method},
    follow::FileProblem,
};

/// Begin of every key: what tells a key from a token, and what scanners for
/// leaked secrets look for.
pub const KEY_PREFIX: &str = "tmk_";
/// Random bytes of a key.
const KEY_BYTES: usize = 32;
/// Most keys in a file: each is compared with every key that is presented.
const MAX_KEYS: usize = 4096;

/// The keys of a file.
#[derive(Debug)]
pub struct Keys(Vec<Key>);

#[derive(Debug)]
struct Key {
    /// Its comparison takes the same time whatever differs.
    hash: blake3::Hash,
    caller: Caller,
}

impl Keys {
    /// Parses a file: `principal = hash`, then the groups of the principal,
    /// separated by white space. `#` begins a comment. `admins` are the members
    /// that are administrators.
    ///
    /// An empty file is refused, as it may be half written; one with only a
    /// comment has no keys.
    ///
    /// # Errors
    /// The first line that is wrong, by number: never its text, which may be a key.
    pub fn parse(text: &[u8], admins: &[String]) -> Result<Self, FileProblem> {
        let text = str::from_utf8(text).map_err(|_| FileProblem::NotText)?;
        if text.trim().is_empty() {
            return Err(FileProblem::Empty);
        }
        let (mut keys, mut seen) = (Vec::new(), HashSet::new());
        for (line, number) in text.lines().zip(1..) {
            let wrong = |problem| FileProblem::Line { number, problem };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = Key::parse(line, admins).map_err(wrong)?;
            if !seen.insert(*key.hash.as_bytes()) {
                return Err(wrong("has a hash that stands in an earlier line"));
            }
            if keys.len() == MAX_KEYS {
                return Err(wrong("is one key too many: the most are 4096"));
            }
            keys.push(key);
        }
        Ok(Self(keys))
    }

    /// Who has this key. Takes the same time for every key that is not known.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<&Caller> {
        let hash = blake3::hash(key.as_bytes());
        let mut found = None;
        for known in &self.0 {
            if known.hash == hash {
                found = Some(&known.caller);
            }
        }
        found
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.0.len()
    }
}

impl Key {
    fn parse(line: &str, admins: &[String]) -> Result<Self, &'static str> {
        const FORM: &str = "is not `principal = hash`, and then groups";
        // A principal may contain `=`; hashes and groups do not.
        let (principal, rest) = line.rsplit_once('=').ok_or(FORM)?;
        let mut words = rest
            .split_whitespace()
            .take_while(|word| !word.starts_with('#'));
        let hash = words.next().ok_or(FORM)?;
        if hash.starts_with(KEY_PREFIX) {
            return Err("has the key itself: write its hash, and replace the key");
        }
        let hash = blake3::Hash::from_hex(hash.to_ascii_lowercase())
            .map_err(|_| "has no hash of 64 hexadecimal digits after `=`")?;
        let groups: Vec<Arc<str>> = words.map(Arc::from).collect();
        let caller = Caller::new(principal.trim(), groups, Method::Key, None)?;
        Ok(Self {
            hash,
            caller: caller.with_admins(admins),
        })
    }
}

/// A new key.
///
/// # Errors
/// The system has no random numbers.
pub fn new_key() -> Result<String, ring::error::Unspecified> {
    let mut bytes = [0; KEY_BYTES];
    SystemRandom::new().fill(&mut bytes)?;
    Ok(format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// The line of the file for a key.
#[must_use]
pub fn line(principal: &str, key: &str) -> String {
    format!("{principal} = {}", blake3::hash(key.as_bytes()).to_hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Keys, FileProblem> {
        Keys::parse(text.as_bytes(), &["group:ops".into()])
    }

    #[test]
    fn a_key_is_found_by_its_hash() {
        let (first, second) = (new_key().expect("a key"), new_key().expect("a key"));
        assert!(first != second && first.len() == 47 && first.starts_with(KEY_PREFIX));
        let text = format!(
            "# people\n\n{}\n  {} ops  dev # since May\nuser:ada={}\n",
            line("user:ada", &first),
            line("spiffe://a/?b=c", &second),
            blake3::hash(b"tmk_old").to_hex().to_uppercase(),
        );
        let keys = parse(&text).expect("valid");
        let found = |key: &str| keys.find(key).map(|caller| caller.principal().to_string());
        assert_eq!(found(&first).as_deref(), Some("user:ada"));
        assert_eq!(found("tmk_old").as_deref(), Some("user:ada"));
        let second = keys.find(&second).expect("known");
        assert_eq!(&**second.principal(), "spiffe://a/?b=c");
        assert_eq!(second.groups(), ["ops".into(), "dev".into()]);
        assert!(second.is_admin());
        assert_eq!(found("tmk_other"), None);
    }

    #[test]
    fn a_wrong_line_is_named_by_its_number_alone() {
        let hash = blake3::hash(b"x").to_hex();
        let secret = "tmk_verysecret";
        let twice = format!("a = {hash}\nb = {hash}");
        for (text, number) in [
            (format!("a = {secret}"), 1),
            (format!("# a\na {secret}"), 2),
            (format!("a = {hash}x"), 1),
            ("a = ".into(), 1),
            (format!(" = {hash}"), 1),
            (format!("* = {hash}"), 1),
            (format!("group:ops = {hash}"), 1),
            (twice, 2),
            (
                (0..=MAX_KEYS)
                    .map(|i| line("a", &i.to_string()) + "\n")
                    .collect(),
                4097,
            ),
        ] {
            let problem = parse(&text).expect_err("wrong").to_string();
            assert!(problem.contains(&format!("line {number} ")), "{problem}");
            assert!(!problem.contains("secret"), "{problem}");
        }
    }

    #[test]
    fn a_file_without_any_text_may_be_half_written() {
        assert!(matches!(parse(" \n"), Err(FileProblem::Empty)));
        assert!(parse("# nobody").expect("valid").0.is_empty());
    }
}
