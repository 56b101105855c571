//! What was written and when, by the tests' own monotonic clock; and the
//! checker: each answer is held against it as soon as it comes.
//!
//! Every todo has one writer, which numbers its writes 1, 2, 3, ... and puts
//! the number into the title. Each write takes place only if the todo is as its
//! writer believes, so a write of unknown fate that takes place late can never
//! undo a later one. Todos are told by name; versions of one todo only rise.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, RwLock},
    time::{Duration, Instant},
};

/// What is known of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// No answer yet.
    Flying,
    /// It took place, not after this time of the origin.
    Acked { at: u64 },
    /// It may or may not have taken place, or yet take place.
    Unknown,
    /// It had no effect: so it was said.
    Refused,
}

#[derive(Debug)]
struct Write {
    delete: bool,
    begun: Instant,
    ended: Option<Instant>,
    fate: Fate,
    seen: bool,
}

/// The state of a todo in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shown {
    Absent,
    At(u64),
}

impl Shown {
    pub fn title(title: &str) -> Self {
        title
            .strip_prefix('v')
            .and_then(|n| n.parse().ok())
            .map_or(Self::At(u64::MAX), Self::At)
    }
}

/// The title of a version: so that titles are ordered as versions are.
pub fn title(version: u64) -> String {
    format!("v{version:08}")
}

/// What an answer claimed to be fresh to, kept for writes whose
/// acknowledgement is still on its way.
const CLAIMS: usize = 128;

#[derive(Debug, Default)]
struct Key {
    /// The write of version n is at n - 1.
    writes: Vec<Write>,
    claims: VecDeque<(u64, Shown)>,
}

impl Key {
    fn write(&self, version: u64) -> Option<&Write> {
        self.writes
            .get(usize::try_from(version.checked_sub(1)?).ok()?)
    }

    /// The newest version among the acknowledged writes that this holds for.
    fn newest(&self, holds: impl Fn(&Write, u64) -> bool) -> u64 {
        let found = self
            .writes
            .iter()
            .rposition(|write| matches!(write.fate, Fate::Acked { at } if holds(write, at)));
        found.map_or(0, |at| at as u64 + 1)
    }

    /// Whether an answer that shows this can be of version `least` or later.
    fn reaches(&self, shown: Shown, least: u64) -> bool {
        match shown {
            Shown::At(version) => version >= least,
            Shown::Absent => least == 0 || self.deletes_from(least).next().is_some(),
        }
    }

    /// Deletes that may have taken place, of this version or later.
    fn deletes_from(&self, least: u64) -> impl Iterator<Item = (u64, &Write)> {
        let all = (1..).zip(&self.writes);
        all.filter(move |(version, write)| {
            *version >= least && write.delete && write.fate != Fate::Refused
        })
    }
}

/// What an answer said, and when it was asked for and came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub what: &'static str,
    pub began: Instant,
    pub ended: Instant,
    /// Every write acknowledged longer before the request than this is in it.
    pub within: Duration,
    pub bound: Duration,
    pub fresh_to: u64,
    pub stale: bool,
    /// Which replica answered.
    pub replica: usize,
}

/// A todo's versions that a reader must not fall below.
pub type Floors = HashMap<Arc<str>, u64>;

type Keys = HashMap<Arc<str>, Arc<Mutex<Key>>>;

/// All todos.
#[derive(Default)]
pub struct History {
    keys: RwLock<Keys>,
    violations: Mutex<Vec<String>>,
    checks: std::sync::atomic::AtomicU64,
}

/// Most violations that are kept with their text.
const MAX_TEXTS: usize = 200;

impl History {
    pub fn violation(&self, text: String) {
        let mut violations = self.violations.lock().expect("violations");
        if violations.len() < MAX_TEXTS {
            eprintln!("VIOLATION {text}");
            violations.push(text);
        }
    }

    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().expect("violations").clone()
    }

    /// How many answers were checked.
    pub fn checks(&self) -> u64 {
        self.checks.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn key(&self, name: &str) -> Arc<Mutex<Key>> {
        if let Some(key) = self.keys.read().expect("keys").get(name) {
            return Arc::clone(key);
        }
        Arc::clone(
            self.keys
                .write()
                .expect("keys")
                .entry(name.into())
                .or_default(),
        )
    }

    /// Every todo that was ever written.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.keys.read().expect("keys").keys().cloned().collect()
    }

    /// Those of a list.
    pub fn names_in(&self, list: &str) -> Vec<Arc<str>> {
        let of = |name: &&Arc<str>| {
            name.strip_prefix(list)
                .is_some_and(|rest| rest.starts_with('/'))
        };
        self.keys
            .read()
            .expect("keys")
            .keys()
            .filter(of)
            .cloned()
            .collect()
    }

    /// A write begins; its version.
    pub fn begin(&self, name: &str, delete: bool) -> u64 {
        let key = self.key(name);
        let mut key = key.lock().expect("a key");
        let write = Write {
            delete,
            begun: Instant::now(),
            ended: None,
            fate: Fate::Flying,
            seen: false,
        };
        key.writes.push(write);
        key.writes.len() as u64
    }

    /// What became of it.
    pub fn end(&self, name: &str, version: u64, fate: Fate) {
        let key = self.key(name);
        let mut key = key.lock().expect("a key");
        let at = usize::try_from(version - 1).expect("a version");
        let write = &mut key.writes[at];
        (write.ended, write.fate) = (Some(Instant::now()), fate);
        if fate == Fate::Refused && write.seen {
            self.violation(format!(
                "{name}: v{version} was refused as without effect, but had been seen"
            ));
        }
        if let Fate::Acked { at } = fate {
            for (fresh_to, shown) in &key.claims {
                if at <= *fresh_to && !key.reaches(*shown, version) {
                    self.violation(format!(
                        "I1 {name}: {shown:?} was said to be fresh to {fresh_to}, but v{version} is of {at}"
                    ));
                }
            }
        }
    }

    /// The newest acknowledged version: what a strong read begun now must show.
    pub fn acked(&self, name: &str) -> u64 {
        self.key(name).lock().expect("a key").newest(|_, _| true)
    }

    /// Checks what an answer shows of one todo. `floor`: the version that a
    /// token or a strong read must reach. What the answer is known to be of at
    /// least.
    pub fn check(&self, name: &str, shown: Shown, asked: &Asked, floor: u64) -> u64 {
        self.checks
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let key = self.key(name);
        let mut key = key.lock().expect("a key");
        let told = |rule: &str, least: u64| {
            self.violation(format!(
                "{rule} {name}: {} at replica {} shows {shown:?}, must be v{least} or later (bound {:?}, took \
                 {:?}, fresh to {}, stale {}); writes around: {:?}",
                asked.what,
                asked.replica,
                asked.bound,
                asked.ended - asked.began,
                asked.fresh_to,
                asked.stale,
                around(&key, least, asked),
            ));
        };
        let before = |age: Duration| {
            let until = asked.began.checked_sub(age);
            key.newest(|write, _| {
                until.is_some_and(|until| write.ended.is_some_and(|ended| ended < until))
            })
        };
        let by_bound = before(asked.bound);
        let by_limit = if asked.stale { 0 } else { before(asked.within) };
        let by_token = key.newest(|_, at| at <= asked.fresh_to);
        let all = [
            ("floor", floor),
            ("I4 bound", by_bound),
            ("I4 limit", by_limit),
            ("I1", by_token),
        ];
        for (rule, least) in all {
            if !key.reaches(shown, least) {
                told(rule, least);
            }
        }
        if let Shown::At(version) = shown {
            match key.write(version) {
                None => told("a version that nobody wrote", 0),
                Some(write) if write.fate == Fate::Refused || write.delete => {
                    told("a version that was refused", 0);
                }
                Some(write) if write.begun > asked.ended => {
                    told("a version before it was written", 0);
                }
                Some(_) => {}
            }
            if let Some(write) = key
                .writes
                .get_mut(usize::try_from(version.saturating_sub(1)).unwrap_or(0))
            {
                write.seen = true;
            }
        }
        if key.claims.len() == CLAIMS {
            key.claims.pop_front();
        }
        key.claims.push_back((asked.fresh_to, shown));
        let known = all.iter().map(|(_, least)| *least).max().unwrap_or(0);
        match shown {
            Shown::At(version) => version,
            // The first delete that this can be.
            Shown::Absent => {
                let first = key
                    .deletes_from(known)
                    .next()
                    .map_or(known, |(version, _)| version);
                if known == 0 { 0 } else { first }
            }
        }
    }

    /// Checks that a run through all pages of a list, begun and ended then,
    /// with all its answers within `age` of their requests, shows each todo
    /// once that was there all along, and none that was gone all along.
    pub fn check_run(
        &self,
        list: &str,
        names: &[String],
        began: Instant,
        ended: Instant,
        age: Duration,
    ) {
        let mut times: HashMap<&str, usize> = HashMap::new();
        for name in names {
            *times.entry(name).or_default() += 1;
        }
        let Some(since) = began.checked_sub(age) else {
            return;
        };
        for name in self.names_in(list) {
            let times = times.get(&*name).copied().unwrap_or(0);
            let key = self.key(&name);
            let key = key.lock().expect("a key");
            let old = key.newest(|write, _| write.ended.is_some_and(|ended| ended < since));
            let later = key.writes.iter().skip(usize::try_from(old).expect("small"));
            let mut later =
                later.filter(|write| write.fate != Fate::Refused && write.begun < ended);
            let (there, text) = match key.write(old) {
                Some(write) if !write.delete => {
                    (later.all(|write| !write.delete), "was there all along")
                }
                _ => (false, ""),
            };
            if there && times != 1 {
                self.violation(format!(
                    "list {list}: {name} {text} and is shown {times} times (age {age:?})"
                ));
            }
            let gone = key.write(old).is_none_or(|write| write.delete)
                && key
                    .writes
                    .iter()
                    .skip(usize::try_from(old).expect("small"))
                    .all(|write| {
                        write.delete || write.fate == Fate::Refused || write.begun >= ended
                    });
            // Writes of unknown fate before the newest acknowledged one cannot
            // be told apart from it.
            if gone && times != 0 {
                self.violation(format!(
                    "list {list}: {name} was gone all along and is shown"
                ));
            }
        }
    }

    /// Checks a watcher's map, whose cursor is `cursor`: nothing acknowledged
    /// up to it is missing. `unsure`: todos that the watcher knows it must read.
    pub fn check_map(
        &self,
        list: &str,
        map: &HashMap<String, u64>,
        unsure: &HashSet<String>,
        cursor: u64,
        who: &str,
    ) {
        for name in self.names_in(list) {
            if unsure.contains(&*name) {
                continue;
            }
            let shown = map
                .get(&*name)
                .map_or(Shown::Absent, |version| Shown::At(*version));
            let key = self.key(&name);
            let key = key.lock().expect("a key");
            let least = key.newest(|_, at| at <= cursor);
            if !key.reaches(shown, least) {
                self.violation(format!(
                    "I6 {who}: the cursor is {cursor}, but {name} is {shown:?} and v{least} was before it"
                ));
            }
        }
    }

    /// Checks what the origin has at the end.
    pub fn check_end(&self, origin: &HashMap<String, u64>) {
        for name in self.names() {
            let shown = origin
                .get(&*name)
                .map_or(Shown::Absent, |version| Shown::At(*version));
            let key = self.key(&name);
            let key = key.lock().expect("a key");
            let least = key.newest(|_, _| true);
            let fits = match shown {
                Shown::At(version) => key
                    .write(version)
                    .is_some_and(|w| w.fate != Fate::Refused && !w.delete),
                Shown::Absent => true,
            };
            if !fits || !key.reaches(shown, least) {
                self.violation(format!(
                    "lost: {name} is {shown:?} in the origin, v{least} was acknowledged"
                ));
            }
        }
    }
}

/// The writes around a version, for people.
fn around(key: &Key, version: u64, asked: &Asked) -> Vec<String> {
    let from = version.saturating_sub(2);
    let ms = |at: Instant| {
        let (sign, by) = if at > asked.began {
            ("+", at - asked.began)
        } else {
            ("-", asked.began - at)
        };
        format!("{sign}{}ms", by.as_millis())
    };
    let text = |(n, w): (u64, &Write)| {
        let ended = w.ended.map_or("...".into(), ms);
        format!(
            "v{n} {} {:?} {}..{ended}",
            if w.delete { "delete" } else { "put" },
            w.fate,
            ms(w.begun)
        )
    };
    (1..)
        .zip(&key.writes)
        .filter(|(n, _)| *n > from && *n < version + 4)
        .map(text)
        .collect()
}
