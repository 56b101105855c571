//! A keyed hash over each entry, so that only replicas with the same key can
//! write entries that are accepted.
//!
//! The hash covers the key and the value. It does not stop somebody who can write
//! to Redis from putting an old entry back: readers check the stamp for that.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};

/// Shortest key file, in bytes: as much as the key derived from it.
const MIN_KEY_BYTES: usize = 32;
/// Longest key file: it is a key, not a data set.
const MAX_KEY_BYTES: usize = 4096;
/// Length of the hash at the end of each entry.
const TAG_BYTES: usize = blake3::OUT_LEN;
/// Keeps this use of a key file apart from any other.
const CONTEXT: &str = "tidemark 2026 keyed hash of shared entries v1";

/// The key of the keyed hash.
#[derive(Clone)]
pub struct MacKey([u8; blake3::KEY_LEN]);

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
    pub fn read(path: &Path) -> Result<Self, MacKeyError> {
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
    pub(super) fn seal(&self, key: &str, value: &[u8]) -> Bytes {
        let mut sealed = BytesMut::with_capacity(value.len() + TAG_BYTES);
        sealed.extend_from_slice(value);
        sealed.extend_from_slice(self.tag(key, value).as_bytes());
        sealed.freeze()
    }

    /// The value without its hash, if the hash is right.
    pub(super) fn open(&self, key: &str, sealed: &Bytes) -> Option<Bytes> {
        let end = sealed.len().checked_sub(TAG_BYTES)?;
        let tag: [u8; TAG_BYTES] = sealed[end..].try_into().ok()?;
        // Compared in constant time.
        (self.tag(key, &sealed[..end]) == blake3::Hash::from_bytes(tag))
            .then(|| sealed.slice(..end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(bytes: &[u8]) -> Result<MacKey, MacKeyError> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("key");
        std::fs::write(&path, bytes).expect("written");
        MacKey::read(&path)
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
