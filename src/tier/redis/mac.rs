//! A keyed hash over each entry, so that only replicas with the same key can
//! write entries that are accepted.
//!
//! The hash covers the key and the value. It does not stop an attacker who can write
//! to Redis from putting an old entry back: readers check the stamp for that.
//!
//! The key file is read again while the service runs, so that a key can be replaced
//! without a restart.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

use crate::telemetry::{Kind, Metrics};

/// Shortest key file, in bytes: as much as the key derived from it.
const MIN_KEY_BYTES: usize = 32;
/// Longest key file: it is a key, not a data set.
const MAX_KEY_BYTES: usize = 4096;
/// Length of the hash at the end of each entry.
const TAG_BYTES: usize = blake3::OUT_LEN;
/// Keeps this use of a key file apart from any other.
const CONTEXT: &str = "tidemark 2026 keyed hash of shared entries v1";

/// How often the key file is read. Its contents are compared, not its times: right
/// however the file is replaced.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);
/// How long entries with the hash of the key before are accepted. The kubelet
/// updates mounted files in a minute or two, and then all replicas write with the
/// new key; a key that others know is worth nothing soon after.
const PREVIOUS_KEY_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// The key of the keyed hash.
#[derive(Clone, PartialEq)]
struct MacKey([u8; blake3::KEY_LEN]);

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MacKeyError {
    /// It cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// It is too short or too long.
    #[error(
        "{}: expected {MIN_KEY_BYTES} to {MAX_KEY_BYTES} bytes, such as from `head -c 32 /dev/urandom`",
        path.display()
    )]
    Length {
        /// The file.
        path: PathBuf,
    },
}

impl MacKey {
    /// Reads a key file of 32 to 4096 bytes.
    ///
    /// # Errors
    /// The file cannot be read or has another length.
    fn read(path: &Path) -> Result<Self, MacKeyError> {
        let failed = |error| MacKeyError::Read {
            path: path.to_owned(),
            error,
        };
        let mut key = Vec::new();
        let file = File::open(path).map_err(failed)?;
        file.take(MAX_KEY_BYTES as u64 + 1)
            .read_to_end(&mut key)
            .map_err(failed)?;
        if !(MIN_KEY_BYTES..=MAX_KEY_BYTES).contains(&key.len()) {
            return Err(MacKeyError::Length {
                path: path.to_owned(),
            });
        }
        Ok(Self(blake3::derive_key(CONTEXT, &key)))
    }

    fn tag(&self, key: &str, value: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&(key.len() as u64).to_be_bytes());
        hasher.update(key.as_bytes());
        hasher.update(value);
        hasher.finalize()
    }

    /// The value with its hash at the end.
    fn seal(&self, key: &str, value: &[u8]) -> Bytes {
        let mut sealed = BytesMut::with_capacity(value.len() + TAG_BYTES);
        sealed.extend_from_slice(value);
        sealed.extend_from_slice(self.tag(key, value).as_bytes());
        sealed.freeze()
    }

    /// The value without its hash, if the hash is right.
    fn open(&self, key: &str, sealed: &Bytes) -> Option<Bytes> {
        let end = sealed.len().checked_sub(TAG_BYTES)?;
        let tag: [u8; TAG_BYTES] = sealed[end..].try_into().ok()?;
        // Compared in constant time.
        (self.tag(key, &sealed[..end]) == blake3::Hash::from_bytes(tag))
            .then(|| sealed.slice(..end))
    }
}

/// The keys in force at a time.
#[derive(Clone)]
pub(super) struct MacKeys {
    current: MacKey,
    /// The key before, and when it was replaced.
    previous: Option<(MacKey, Instant)>,
}

impl MacKeys {
    /// The value with the hash of the current key at the end.
    pub(super) fn seal(&self, key: &str, value: &[u8]) -> Bytes {
        self.current.seal(key, value)
    }

    /// The value without its hash, if that is of the current key, or of the one
    /// before and that was replaced a short time ago.
    pub(super) fn open(&self, key: &str, sealed: &Bytes) -> Option<Bytes> {
        self.current.open(key, sealed).or_else(|| {
            let (previous, replaced) = self.previous.as_ref()?;
            if replaced.elapsed() > PREVIOUS_KEY_LIFETIME {
                return None;
            }
            previous.open(key, sealed)
        })
    }
}

/// The key file, and the keys that are in force.
pub(super) struct MacKeyFile {
    path: PathBuf,
    keys: RwLock<Arc<MacKeys>>,
}

impl MacKeyFile {
    /// Reads the file.
    ///
    /// # Errors
    /// The file cannot be read or has another length.
    pub(super) fn load(path: &Path) -> Result<Self, MacKeyError> {
        let keys = MacKeys {
            current: MacKey::read(path)?,
            previous: None,
        };
        Ok(Self {
            path: path.to_owned(),
            keys: RwLock::new(Arc::new(keys)),
        })
    }

    /// The keys in force.
    pub(super) fn keys(&self) -> Arc<MacKeys> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&keys)
    }

    /// Reads the file again and again. A file that cannot be used is logged and
    /// counted once; the keys before stay in force.
    pub(super) async fn follow(self: Arc<Self>, metrics: Arc<Metrics>) {
        let mut failure = None;
        loop {
            sleep(RELOAD_INTERVAL).await;
            let file = Arc::clone(&self);
            let Ok(outcome) = spawn_blocking(move || file.reload()).await else {
                continue;
            };
            let kind = match outcome {
                Ok(changed) => {
                    failure = None;
                    if !changed {
                        continue;
                    }
                    tracing::info!("a changed redis-mac-key-file is in force");
                    "loaded"
                }
                Err(problem) => {
                    let text = problem.to_string();
                    if failure.as_ref() == Some(&text) {
                        continue;
                    }
                    tracing::error!(%problem, "a changed redis-mac-key-file cannot be used; the key before stays in force");
                    failure = Some(text);
                    "failed"
                }
            };
            metrics
                .shared_key_reloads
                .get_or_create(&Kind { kind })
                .inc();
        }
    }

    /// Reads the file again; returns whether its key is another one. Blocks.
    fn reload(&self) -> Result<bool, MacKeyError> {
        let new = MacKey::read(&self.path)?;
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.current == new {
            return Ok(false);
        }
        *keys = Arc::new(MacKeys {
            previous: Some((keys.current.clone(), Instant::now())),
            current: new,
        });
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn key(bytes: &[u8]) -> Result<MacKey, MacKeyError> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("key");
        fs::write(&path, bytes).expect("written");
        MacKey::read(&path)
    }

    #[tokio::test(start_paused = true)]
    async fn the_key_before_is_accepted_for_a_while() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let put = |bytes: &[u8]| fs::write(&path, bytes).expect("written");
        put(&[1; 32]);
        let file = MacKeyFile::load(&path).expect("a key");
        let by_first = file.keys().seal("k", b"value");
        assert!(matches!(file.reload(), Ok(false)));
        put(&[2; 32]);
        assert!(matches!(file.reload(), Ok(true)));
        let by_second = file.keys().seal("k", b"value");
        assert_ne!(by_first, by_second);
        for sealed in [&by_first, &by_second] {
            assert_eq!(
                file.keys().open("k", sealed).as_deref(),
                Some(&b"value"[..])
            );
            assert_eq!(file.keys().open("l", sealed), None);
        }
        // A file that cannot be used changes nothing.
        put(&[3; 31]);
        assert!(matches!(file.reload(), Err(MacKeyError::Length { .. })));
        assert!(file.keys().open("k", &by_first).is_some());
        tokio::time::advance(PREVIOUS_KEY_LIFETIME + Duration::from_secs(1)).await;
        assert_eq!(file.keys().open("k", &by_first), None);
        assert!(file.keys().open("k", &by_second).is_some());
        // Of two changes only the last key before is accepted.
        put(&[3; 32]);
        assert!(matches!(file.reload(), Ok(true)));
        put(&[4; 32]);
        assert!(matches!(file.reload(), Ok(true)));
        assert_eq!(file.keys().open("k", &by_second), None);
    }

    #[test]
    fn only_the_same_key_and_value_are_accepted() {
        let (one, other) = (key(&[1; 32]).expect("a key"), key(&[2; 32]).expect("a key"));
        let sealed = one.seal("k", b"value");
        assert_eq!(one.open("k", &sealed).as_deref(), Some(&b"value"[..]));
        assert_eq!(one.open("l", &sealed), None);
        assert_eq!(other.open("k", &sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.to_vec();
            changed[at] ^= 1;
            assert_eq!(one.open("k", &changed.into()), None, "changed at {at}");
            assert_eq!(one.open("k", &sealed.slice(..at)), None, "cut at {at}");
        }
        assert_eq!(one.open("k", &Bytes::from_static(b"value")), None);
    }

    #[test]
    fn a_key_file_has_a_length_in_bounds() {
        assert!(matches!(key(&[1; 31]), Err(MacKeyError::Length { .. })));
        assert!(matches!(key(&[1; 4097]), Err(MacKeyError::Length { .. })));
        assert!(key(&[1; 4096]).is_ok());
        let missing = MacKey::read(Path::new("/nonexistent/key"));
        assert!(matches!(missing, Err(MacKeyError::Read { .. })));
    }
}
