//! Files that are read again while the service runs.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

/// Largest file of keys, in bytes: 4096 lines of 256 bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What is wrong with a file. None of the texts quotes the file.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is larger than `MAX_FILE_BYTES`.
    #[error("is larger than 1 MiB")]
    TooLarge,
    /// It is not UTF-8.
    #[error("is not UTF-8 text")]
    NotText,
    /// Nothing is in it.
    #[error("is empty: write at least a comment if nobody is to have a key")]
    Empty,
    /// A line of it is wrong.
    #[error("line {number} {problem}")]
    Line {
        /// From 1.
        number: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// It is not a JSON Web Key Set.
    #[error("is not a JSON Web Key Set, {{\"keys\": [...]}}: line {line}, column {column}")]
    NotKeySet {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// Two of its keys cannot be told from each other.
    #[error("has two keys for one algorithm with the same `kid`")]
    SameKey,
    /// It has more keys than are accepted.
    #[error("has more than 64 keys")]
    TooManyKeys,
    /// None of its keys can check a signature.
    #[error(
        "has no key that can check RS256 (2048 bits or more), ES256 or EdDSA (Ed25519) signatures"
    )]
    NoUsableKey,
}

/// Makes of a file's bytes what is used.
type Parse<T> = dyn Fn(&[u8]) -> Result<T, FileProblem> + Send + Sync;

/// A file, and the newest of its contents that could be used.
///
/// The contents are compared, not the times of the file: right however the
/// file is replaced.
pub struct Followed<T> {
    path: PathBuf,
    parse: Box<Parse<T>>,
    /// What was tried last; `None`: it could not be read.
    tried: RwLock<Option<blake3::Hash>>,
    current: RwLock<Arc<T>>,
}

impl<T> Followed<T> {
    /// Reads the file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(
        path: &Path,
        parse: impl Fn(&[u8]) -> Result<T, FileProblem> + Send + Sync + 'static,
    ) -> Result<Self, FileProblem> {
        let bytes = read(path)?;
        Ok(Self {
            path: path.to_owned(),
            current: RwLock::new(Arc::new(parse(&bytes)?)),
            tried: RwLock::new(Some(blake3::hash(&bytes))),
            parse: Box::new(parse),
        })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in force.
    pub fn current(&self) -> Arc<T> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }

    /// Reads the file again; `None` if it has not changed. Contents that cannot
    /// be used leave those before in force, and are reported once. Blocks.
    pub fn reload(&self) -> Option<Result<(), FileProblem>> {
        let bytes = read(&self.path);
        let hash = bytes.as_ref().ok().map(|bytes| blake3::hash(bytes));
        let mut tried = self.tried.write().unwrap_or_else(PoisonError::into_inner);
        if *tried == hash {
            return None;
        }
        *tried = hash;
        let parsed = bytes.and_then(|bytes| (self.parse)(&bytes));
        Some(parsed.map(|parsed| {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            *current = Arc::new(parsed);
        }))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, FileProblem> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(FileProblem::TooLarge);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn digits(bytes: &[u8]) -> Result<u32, FileProblem> {
        let text = str::from_utf8(bytes).map_err(|_| FileProblem::NotText)?;
        text.parse().map_err(|_| FileProblem::Empty)
    }

    #[test]
    fn contents_that_cannot_be_used_leave_those_before_in_force() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        fs::write(&path, "1").expect("written");
        let file = Followed::load(&path, digits).expect("a number");
        assert!(file.reload().is_none());
        fs::write(&path, "x").expect("written");
        assert!(matches!(file.reload(), Some(Err(FileProblem::Empty))));
        assert!(file.reload().is_none(), "reported once");
        assert_eq!(*file.current(), 1);
        fs::remove_file(&path).expect("removed");
        assert!(matches!(file.reload(), Some(Err(FileProblem::Io(_)))));
        assert!(file.reload().is_none(), "reported once");
        fs::write(&path, "2").expect("written");
        assert!(matches!(file.reload(), Some(Ok(()))));
        assert_eq!(*file.current(), 2);
        fs::write(&path, vec![b'1'; 2 << 20]).expect("written");
        assert!(matches!(file.reload(), Some(Err(FileProblem::TooLarge))));
        assert_eq!(*file.current(), 2);
    }
}
