//! The store's file, and what happens when its disk is full.
//!
//! redb closes a database at the first write that fails, for reads too. So when there
//! is no room, the database is opened again with an overlay: its writes stay in memory,
//! and the file is no longer modified. The file then holds exactly what was committed,
//! reads continue, and the writer refuses writes. Once there is room, the overlay is
//! dropped and the file is opened as usual.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    ops::Bound,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use super::OpenProblem;
use redb::{
    BackendError, Database, DatabaseError, ReadTransaction, ReadableDatabase, StorageBackend,
    WriteTransaction, backends::FileBackend,
};

/// Pages that the store keeps in memory: the upper levels of its trees, for
/// millions of todos. The rest is the near cache's work and the kernel's.
/// (The library's own default is 1 GiB.)
const CACHE_BYTES: usize = 32 << 20;
/// Bytes of one piece of the overlay.
const BLOCK: u64 = 4096;
/// Most bytes in the overlay: opening a database again writes a few hundred
/// kilobytes for each gigabyte of it.
const MAX_OVERLAY_BYTES: usize = 64 << 20;
/// There is room again when a file of so many bytes can be written.
const PROBE_BYTES: usize = 4 << 20;
/// Name of that file in the data directory.
const PROBE_FILE: &str = "space.probe";

/// Whether an error says that there is no room.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
    )
}

/// The store's database, which may be opened again while it is in use.
pub(super) struct Store {
    path: PathBuf,
    /// `None` only while it is opened again.
    database: RwLock<Option<Database>>,
    /// Of the backend in use: a write found no room.
    ran_out: Mutex<Arc<AtomicBool>>,
}

impl Store {
    /// Opens the file; with an overlay, if it has a database and there is no room to open
    /// it. Then `prepare` makes the tables.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub(super) fn open<T>(
        path: &Path,
        prepare: impl Fn(&Database) -> Result<T, OpenProblem>,
    ) -> Result<(Self, T, Mode), OpenProblem> {
        let attempt = |mode| {
            let ran_out = Arc::new(AtomicBool::new(false));
            let opened = open_file(path, mode, &ran_out)
                .map_err(OpenProblem::from)
                .and_then(|database| {
                    let prepared = prepare(&database)?;
                    Ok((database, prepared))
                })
                .map_err(|error| (error, ran_out.load(Ordering::Acquire)));
            opened.map(|(database, prepared)| {
                let store = Self {
                    path: path.to_owned(),
                    database: RwLock::new(Some(database)),
                    ran_out: Mutex::new(ran_out),
                };
                (store, prepared, mode)
            })
        };
        let is_new = fs::metadata(path).map_or(true, |file| file.len() == 0);
        match attempt(Mode::Normal) {
            // An overlay is for a database that can be read. What was begun of a new one has
            // no identity yet, and could not be opened later, when there is room.
            Err((full, true)) if is_new => {
                let _ = fs::remove_file(path);
                Err(full)
            }
            Err((_, true)) => attempt(Mode::Overlay).map_err(|(error, _)| error),
            opened => opened.map_err(|(error, _)| error),
        }
    }

    /// Opens the file again, in this mode. Reads wait meanwhile.
    ///
    /// # Errors
    /// Why it cannot be opened; then no read is answered until it can.
    pub(super) fn reopen(&self, mode: Mode) -> Result<(), DatabaseError> {
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // Closed first: it holds the lock of the file.
        drop(database.take());
        let ran_out = Arc::new(AtomicBool::new(false));
        *database = Some(open_file(&self.path, mode, &ran_out)?);
        *self.ran_out() = ran_out;
        Ok(())
    }

    fn ran_out(&self) -> MutexGuard<'_, Arc<AtomicBool>> {
        self.ran_out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a write found no room, so that the database must be opened
    /// again.
    pub(super) fn has_run_out(&self) -> bool {
        self.ran_out().load(Ordering::Acquire)
    }

    pub(super) fn begin_read(&self) -> Result<ReadTransaction, redb::Error> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or_else(closed)?;
        Ok(database.begin_read()?)
    }

    pub(super) fn begin_write(&self) -> Result<WriteTransaction, redb::Error> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or_else(closed)?;
        Ok(database.begin_write()?)
    }

    /// Whether there is room on the disk again.
    pub(super) fn has_room(&self) -> bool {
        let probe = self.path.with_file_name(PROBE_FILE);
        let written = File::create(&probe).and_then(|mut file| {
            file.write_all(&vec![1; PROBE_BYTES])?;
            file.sync_all()
        });
        let _ = fs::remove_file(&probe);
        written.is_ok()
    }
}

/// It could not be opened again after its disk was full.
fn closed() -> redb::Error {
    io::Error::new(ErrorKind::NotConnected, "the store is closed").into()
}

fn open_file(
    path: &Path,
    mode: Mode,
    ran_out: &Arc<AtomicBool>,
) -> Result<Database, DatabaseError> {
    let io = |error| DatabaseError::Storage(redb::StorageError::Io(error));
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(io)?;
    let disk = Disk {
        length: file.metadata().map_err(io)?.len(),
        inner: FileBackend::new(file)?,
        ran_out: Arc::clone(ran_out),
        overlay: (mode == Mode::Overlay).then(Mutex::default),
    };
    Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(disk)
}

/// How the file is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Writes go to the file.
    Normal,
    /// Writes stay in memory.
    Overlay,
}

/// Writes since the file is no longer modified.
#[derive(Debug, Default)]
struct Overlay {
    blocks: HashMap<u64, Vec<u8>>,
    /// The length, if it was set.
    length: Option<u64>,
    /// How much of the file still counts, if it was cut off.
    valid: Option<u64>,
}

/// The file, or the file below an overlay.
#[derive(Debug)]
struct Disk {
    inner: FileBackend,
    /// Of the file when it was opened.
    length: u64,
    ran_out: Arc<AtomicBool>,
    overlay: Option<Mutex<Overlay>>,
}

impl Disk {
    fn overlay(&self) -> Option<MutexGuard<'_, Overlay>> {
        let overlay = self.overlay.as_ref()?;
        Some(overlay.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note<T>(&self, done: io::Result<T>) -> io::Result<T> {
        if done.as_ref().is_err_and(is_full) {
            self.ran_out.store(true, Ordering::Release);
        }
        done
    }

    /// What the file has at this place; zeros behind its end.
    fn read_file(&self, valid: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(valid.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (from_file, behind) = out.split_at_mut(there.min(out.len()));
        behind.fill(0);
        if from_file.is_empty() {
            return Ok(());
        }
        self.inner.read(offset, from_file)
    }
}

impl Overlay {
    /// The parts of a range, block by block: (block, start in it, range).
    fn parts(
        offset: u64,
        length: usize,
    ) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            (done < length).then(|| {
                let at = offset + done as u64;
                let start = usize::try_from(at % BLOCK).unwrap_or(0);
                let size =
                    (length - done).min(usize::try_from(BLOCK).unwrap_or(usize::MAX) - start);
                let range = done..done + size;
                done += size;
                (at / BLOCK, start, range)
            })
        })
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        match self.overlay() {
            Some(overlay) => Ok(overlay.length.unwrap_or(self.length)),
            None => self.inner.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let Some(overlay) = self.overlay() else {
            return self.inner.read(offset, out);
        };
        self.read_file(overlay.valid.unwrap_or(self.length), offset, out)?;
        for (block, start, range) in Overlay::parts(offset, out.len()) {
            if let Some(bytes) = overlay.blocks.get(&block) {
                let size = range.len();
                out[range].copy_from_slice(&bytes[start..start + size]);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let Some(mut overlay) = self.overlay() else {
            return self.note(self.inner.set_len(len));
        };
        let valid = overlay.valid.unwrap_or(self.length);
        overlay.valid = Some(valid.min(len));
        overlay.length = Some(len);
        overlay.blocks.retain(|block, _| block * BLOCK < len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.overlay {
            Some(_) => Ok(()),
            None => self.note(self.inner.sync_data()),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let Some(mut overlay) = self.overlay() else {
            return self.note(self.inner.write(offset, data));
        };
        let valid = overlay.valid.unwrap_or(self.length);
        for (block, start, range) in Overlay::parts(offset, data.len()) {
            if !overlay.blocks.contains_key(&block) {
                if overlay.blocks.len() * usize::try_from(BLOCK).unwrap_or(usize::MAX)
                    >= MAX_OVERLAY_BYTES
                {
                    return Err(io::Error::other("the overlay is full"));
                }
                let mut bytes = vec![0; usize::try_from(BLOCK).unwrap_or(usize::MAX)];
                self.read_file(valid, block * BLOCK, &mut bytes)?;
                overlay.blocks.insert(block, bytes);
            }
            if let Some(bytes) = overlay.blocks.get_mut(&block) {
                bytes[start..start + range.len()].copy_from_slice(&data[range]);
            }
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use redb::{ReadableTable, TableDefinition};

    use super::*;

    const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("t");

    fn put(store: &Store, key: u64) {
        let txn = store.begin_write().expect("begun");
        txn.open_table(TABLE)
            .expect("a table")
            .insert(key, &[7_u8; 3000][..])
            .expect("inserted");
        txn.commit().expect("committed");
    }

    fn keys(store: &Store) -> Vec<u64> {
        let txn = store.begin_read().expect("begun");
        let table = txn.open_table(TABLE).expect("a table");
        table
            .iter()
            .expect("a range")
            .map(|entry| entry.expect("an entry").0.value())
            .collect()
    }

    /// What is written over the file stays out of it.
    #[test]
    fn an_overlay_leaves_the_file_as_it_is() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("t");
        let (store, (), mode) = Store::open(&path, |_| Ok(())).expect("opened");
        assert_eq!(mode, Mode::Normal);
        for key in 0..50 {
            put(&store, key);
        }
        store.reopen(Mode::Overlay).expect("opened again");
        let before = fs::read(&path).expect("read");
        assert_eq!(keys(&store).len(), 50);
        for key in 50..500 {
            put(&store, key);
        }
        assert_eq!(keys(&store).len(), 500);
        assert_eq!(fs::read(&path).expect("read"), before);
        assert!(store.has_room());
        store.reopen(Mode::Normal).expect("opened again");
        assert_eq!(keys(&store), (0..50).collect::<Vec<_>>());
        put(&store, 50);
        assert!(!store.has_run_out());
    }
}
