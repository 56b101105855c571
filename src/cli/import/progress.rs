//! What `import` says on stderr while it runs. Bounded, however long the input.

use std::{
    cell::Cell,
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Counts;
use crate::text::escape;

/// Problems that are reported one by one; the others are only counted.
const MAX_REPORTED: u64 = 100;
/// Longest report of one problem, in characters.
const MAX_REPORT_CHARS: usize = 300;
/// How often progress is printed where there is no terminal.
const PRINT_INTERVAL: Duration = Duration::from_secs(5);

pub(super) struct Progress {
    bar: ProgressBar,
    began: Instant,
    printed: Cell<Instant>,
    reported: Cell<u64>,
}

impl Progress {
    pub(super) fn new(size: Option<u64>) -> Self {
        let bar = match size {
            Some(size) => ProgressBar::new(size),
            None => ProgressBar::new_spinner(),
        };
        if !io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = if size.is_some() {
            "{bar:30} {percent}%  {msg}  {eta} left"
        } else {
            "{spinner} {msg}"
        };
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self {
            bar,
            began: Instant::now(),
            printed: Instant::now().into(),
            reported: Cell::new(0),
        }
    }

    /// Shows how far the import is.
    pub(super) fn show(&self, counts: &Counts, bytes: u64) {
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = counts.sent as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        let text = format!("{} todos, {rate:.0} a second", counts.sent);
        self.bar.set_position(bytes);
        if self.bar.is_hidden() && self.printed.get().elapsed() >= PRINT_INTERVAL {
            self.printed.set(Instant::now());
            eprintln!("{text}");
        }
        self.bar.set_message(text);
    }

    /// Reports what is wrong with a line.
    pub(super) fn report(&self, line: u64, problem: &str) {
        let reported = self.reported.get() + 1;
        self.reported.set(reported);
        if reported <= MAX_REPORTED {
            let problem: String = escape(problem).chars().take(MAX_REPORT_CHARS).collect();
            self.bar.suspend(|| eprintln!("line {line} {problem}"));
        }
        if reported == MAX_REPORTED {
            self.bar
                .suspend(|| eprintln!("further lines are only counted"));
        }
    }

    /// Removes the bar.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
