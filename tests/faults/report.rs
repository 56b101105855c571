//! What was answered, and how fast, in each window.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, RwLock},
    time::{Duration, Instant},
};

/// No fault.
pub const CALM: &str = "calm";

/// A stretch of time with or without a fault.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window {
    pub fault: &'static str,
    pub number: usize,
    /// The replica that is itself the target.
    pub target: Option<usize>,
}

#[derive(Clone, Debug, Default)]
pub struct Cell {
    pub micros: Vec<u32>,
    /// Those that failed, by reason, with how long they took.
    pub failed: BTreeMap<String, Vec<u32>>,
}

impl Cell {
    pub fn failures(&self) -> usize {
        self.failed.values().map(Vec::len).sum()
    }

    fn add(&mut self, other: &Self) {
        self.micros.extend(&other.micros);
        for (reason, took) in &other.failed {
            self.failed.entry(reason.clone()).or_default().extend(took);
        }
    }
}

type Place = (Window, &'static str, bool);

/// All windows.
pub struct Recorder {
    now: RwLock<Arc<Window>>,
    cells: Mutex<BTreeMap<Place, Cell>>,
}

/// Something under way.
pub struct Timer {
    pub began: Instant,
    window: Arc<Window>,
}

impl Recorder {
    pub fn new() -> Self {
        let calm = Window {
            fault: CALM,
            number: 0,
            target: None,
        };
        Self {
            now: RwLock::new(Arc::new(calm)),
            cells: Mutex::default(),
        }
    }

    pub fn now(&self) -> Arc<Window> {
        Arc::clone(&self.now.read().expect("the window"))
    }

    /// A new window begins.
    pub fn enter(&self, fault: &'static str, target: Option<usize>) -> Arc<Window> {
        let mut now = self.now.write().expect("the window");
        *now = Arc::new(Window {
            fault,
            number: now.number + 1,
            target,
        });
        Arc::clone(&now)
    }

    pub fn timer(&self) -> Timer {
        Timer {
            began: Instant::now(),
            window: self.now(),
        }
    }

    /// Notes how a call ended. One that was under way when a fault began
    /// belongs to the fault.
    pub fn note(
        &self,
        timer: &Timer,
        consistency: &'static str,
        replica: Option<usize>,
        failed: Option<String>,
    ) {
        let mut window = Arc::clone(&timer.window);
        if window.fault == CALM {
            window = self.now();
        }
        let at_target = replica.is_some() && window.target == replica;
        let micros = u32::try_from(timer.began.elapsed().as_micros()).unwrap_or(u32::MAX);
        let mut cells = self.cells.lock().expect("the cells");
        let cell = cells
            .entry(((*window).clone(), consistency, at_target))
            .or_default();
        match failed {
            None => cell.micros.push(micros),
            Some(reason) => cell.failed.entry(reason).or_default().push(micros),
        }
    }

    /// What was noted in a window, by consistency level.
    pub fn window(&self, window: &Window, consistency: &str, at_target: bool) -> Cell {
        let cells = self.cells.lock().expect("the cells");
        let mut all = Cell::default();
        for ((_, _, _), cell) in cells
            .iter()
            .filter(|((w, a, t), _)| w == window && *a == consistency && *t == at_target)
        {
            all.add(cell);
        }
        all
    }

    /// What was noted in all windows of a fault, by consistency level, the target left out.
    pub fn fault(&self, fault: &str, consistency: &str) -> Cell {
        let cells = self.cells.lock().expect("the cells");
        let mut all = Cell::default();
        for (_, cell) in cells
            .iter()
            .filter(|((w, a, t), _)| w.fault == fault && *a == consistency && !t)
        {
            all.add(cell);
        }
        all
    }

    /// How many calls there were.
    pub fn calls(&self) -> usize {
        let cells = self.cells.lock().expect("the cells");
        cells
            .values()
            .map(|cell| cell.micros.len() + cell.failures())
            .sum()
    }

    /// The table: a row for each fault and consistency level, all windows of the fault
    /// together.
    pub fn table(&self) -> String {
        let cells = self.cells.lock().expect("the cells");
        let mut rows: BTreeMap<(&str, &str, bool), (usize, Cell)> = BTreeMap::new();
        for ((window, consistency, at_target), cell) in cells.iter() {
            let row = rows
                .entry((window.fault, consistency, *at_target))
                .or_default();
            row.0 += 1;
            row.1.add(cell);
        }
        let mut text =
            "| fault | windows | calls | n | answered % | p50 ms | p99 ms | max ms | not answered |\n\
                        | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
                .to_owned();
        for ((fault, consistency, at_target), (windows, cell)) in rows {
            let (n, failures) = (cell.micros.len() + cell.failures(), cell.failures());
            let share = 100.0 * (n - failures) as f64 / n as f64;
            let mut micros = cell.micros.clone();
            let [p50, p99, max] = percentiles(&mut micros);
            let reasons = cell.failed.iter().map(|(reason, all)| {
                let [p50, p99, _] = percentiles(&mut all.clone());
                format!("{reason} {} (p50 {p50} p99 {p99} ms)", all.len())
            });
            let reasons: Vec<_> = reasons.collect();
            let at = if at_target { " at the target" } else { "" };
            text += &format!(
                "| {fault} | {windows} | {consistency}{at} | {n} | {share:.3} | {p50} | {p99} | {max} | {} |\n",
                reasons.join("; ")
            );
        }
        text
    }
}

/// The middle, the 99th of 100 and the greatest, in milliseconds.
pub fn percentiles(micros: &mut [u32]) -> [f64; 3] {
    micros.sort_unstable();
    let at = |part: usize| {
        let place = (micros.len() * part / 100).min(micros.len().saturating_sub(1));
        micros
            .get(place)
            .map_or(0.0, |us| f64::from(*us / 10) / 100.0)
    };
    [at(50), at(99), at(100)]
}

/// What nine of ten among those that failed took at most, whatever the reason. The slowest
/// say more about other work on the machine.
pub fn p90_of_failures(cell: &Cell) -> Duration {
    let mut all: Vec<u32> = cell.failed.values().flatten().copied().collect();
    all.sort_unstable();
    let place = all.len() * 9 / 10;
    let micros = all.get(place).copied().unwrap_or(0);
    Duration::from_micros(micros.into())
}
