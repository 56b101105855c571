//! Writes the log to stderr from its own thread.
//!
//! If stderr is not read, its pipe is full after 64 KiB, and a write blocks. On a worker
//! of the runtime that would stop the calls, and after some lines the whole process. So
//! lines wait in a queue with a bound in bytes; what does not fit is dropped and counted.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

/// Bytes of lines that wait to be written: some 3,000 lines.
const QUEUE_BYTES: usize = 1 << 20;
/// Longest line in bytes; the rest of it is cut off. The longest ones have the text of a
/// driver's error, some kilobytes.
const MAX_LINE_BYTES: usize = 64 << 10;
/// Most bytes written at once.
const BATCH_BYTES: usize = 64 << 10;
/// Longest wait at the exit for lines that are not written yet.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The one that writes to stderr.
static STDERR: OnceLock<LogWriter> = OnceLock::new();

/// Takes lines and never blocks.
#[derive(Clone)]
pub(super) struct LogWriter {
    lines: Sender<Vec<u8>>,
    queue: Arc<Queue>,
}

/// What waits, and what was lost.
#[derive(Default)]
struct Queue {
    bytes: AtomicUsize,
    dropped: AtomicU64,
}

impl LogWriter {
    /// The writer to stderr; the first call starts its thread.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn stderr() -> io::Result<Self> {
        if let Some(writer) = STDERR.get() {
            return Ok(writer.clone());
        }
        let writer = Self::start(io::stderr())?;
        Ok(STDERR.get_or_init(|| writer).clone())
    }

    fn start(sink: impl io::Write + Send + 'static) -> io::Result<Self> {
        let (lines, waiting) = mpsc::channel();
        let queue = Arc::new(Queue::default());
        let writer = Self {
            lines,
            queue: Arc::clone(&queue),
        };
        let thread = thread::Builder::new().name("log".into());
        thread.spawn(move || run(sink, &waiting, &queue))?;
        Ok(writer)
    }

    fn send(&self, line: &[u8]) {
        let mut line = line[..line.len().min(MAX_LINE_BYTES)].to_vec();
        if line.len() == MAX_LINE_BYTES {
            line[MAX_LINE_BYTES - 1] = b'\n';
        }
        let bytes = line.len();
        if self.queue.bytes.fetch_add(bytes, Relaxed) + bytes > QUEUE_BYTES {
            self.queue.bytes.fetch_sub(bytes, Relaxed);
            self.queue.dropped.fetch_add(1, Relaxed);
            return;
        }
        // The thread ends with the last sender only.
        let _ = self.lines.send(line);
    }

    /// Waits until all lines are written, for a second at most.
    fn flush(&self) {
        let began = Instant::now();
        while self.queue.bytes.load(Relaxed) > 0 && began.elapsed() < FLUSH_TIMEOUT {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// One event is one write.
impl io::Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.send(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn run(mut sink: impl io::Write, waiting: &Receiver<Vec<u8>>, queue: &Queue) {
    let mut reported = 0;
    while let Ok(mut batch) = waiting.recv() {
        let mut lines = 1;
        while batch.len() < BATCH_BYTES
            && let Ok(more) = waiting.try_recv()
        {
            batch.extend(more);
            lines += 1;
        }
        if sink.write_all(&batch).is_err() {
            // Nobody reads it any more.
            queue.dropped.fetch_add(lines, Relaxed);
        }
        queue.bytes.fetch_sub(batch.len(), Relaxed);
        let dropped = queue.dropped.load(Relaxed);
        if dropped > reported {
            tracing::warn!(
                lines = dropped - reported,
                "lines of the log were dropped: stderr was not read in time"
            );
            reported = dropped;
        }
    }
}

/// Lines that were dropped so far.
pub(super) fn dropped() -> u64 {
    STDERR
        .get()
        .map_or(0, |writer| writer.queue.dropped.load(Relaxed))
}

/// Writes a line to stderr, after those of the log and without blocking. Before
/// [`super::init`] nothing is written.
pub fn print_line(text: &str) {
    if let Some(writer) = STDERR.get() {
        writer.send(format!("{text}\n").as_bytes());
    }
}

/// Waits until the log is written, for a second at most.
pub fn flush() {
    if let Some(writer) = STDERR.get() {
        writer.flush();
    }
}

/// Ends the process at once, with the log written.
pub fn exit(code: i32) -> ! {
    flush();
    std::process::exit(code)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, pipe};

    use super::*;

    #[test]
    fn a_log_that_nobody_reads_blocks_nobody() {
        let (mut reader, sink) = pipe().expect("a pipe");
        let writer = LogWriter::start(sink).expect("started");
        let line = [b"x".repeat(999), b"\n".to_vec()].concat();
        // More than the pipe and the queue hold: if it blocked, it would never return.
        for _ in 0..5000 {
            writer.send(&line);
        }
        let dropped = writer.queue.dropped.load(Relaxed);
        assert!((3700..4000).contains(&dropped), "{dropped}");
        assert!(writer.queue.bytes.load(Relaxed) <= QUEUE_BYTES);
        // What was queued comes when it is read.
        let lines = 5000 - usize::try_from(dropped).expect("few");
        let mut text = vec![0; lines * line.len()];
        reader.read_exact(&mut text).expect("read");
        assert!(text.chunks(line.len()).all(|one| one == line));
        // A flush waits for a second at most, which is little on a busy machine.
        for _ in 0..60 {
            writer.flush();
        }
        assert_eq!(writer.queue.bytes.load(Relaxed), 0);
        // There is room again.
        writer.send(&line);
        writer.flush();
        assert_eq!(writer.queue.dropped.load(Relaxed), dropped);
    }

    #[test]
    fn a_long_line_is_cut() {
        let (mut reader, sink) = pipe().expect("a pipe");
        let writer = LogWriter::start(sink).expect("started");
        writer.send(&b"x".repeat(2 * MAX_LINE_BYTES));
        let mut text = vec![0; MAX_LINE_BYTES];
        reader.read_exact(&mut text).expect("read");
        assert_eq!(text.last(), Some(&b'\n'));
    }
}
