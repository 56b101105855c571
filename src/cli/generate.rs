//! `tidemark generate`: realistic todos as JSON lines, the same every time.

use std::io::{BufWriter, ErrorKind, Write};

use clap::Args;
use serde_json::{Map, Value, json};

use super::error::CommandError;

/// Todos of one list, on average.
const LIST_SIZE: u64 = 100;
/// 2026-01-01T00:00:00Z, in seconds since 1970.
const EPOCH: i64 = 1_767_225_600;

const VERBS: [&str; 24] = [
    "Buy", "Call", "Write", "Fix", "Plan", "Clean", "Book", "Review", "Pay", "Order", "Return",
    "Prepare", "Send", "Read", "Repair", "Check", "Renew", "Pick up", "Water", "Measure", "Sort",
    "Paint", "Update", "Cancel",
];
const THINGS: [&str; 40] = [
    "the milk",
    "two loaves of bread",
    "the dentist",
    "a letter to Anna",
    "the back door",
    "the summer trip",
    "the garage",
    "train tickets to Basel",
    "the quarterly report",
    "the electricity bill",
    "new tyres",
    "library books",
    "the slides for Monday",
    "the invoice",
    "that article about bees",
    "the kitchen tap",
    "the smoke detectors",
    "the passport",
    "the parcel",
    "tomatoes on the balcony",
    "the shelf",
    "old photographs",
    "the fence",
    "the insurance",
    "a birthday card",
    "the bicycle",
    "the boiler",
    "the guest list",
    "the tax form",
    "the garden chairs",
    "the spare key",
    "the vet",
    "the piano tuner",
    "the heating",
    "the backup disk",
    "the recipe for grandma's cake",
    "the concert",
    "the moving boxes",
    "the contract",
    "the school form",
];
const NOTES: [&str; 16] = [
    "Ask for the discount that was promised last time.",
    "The shop closes at six on Saturdays.",
    "Number is on the fridge.",
    "Needs a second pair of hands.",
    "Wait for the weather to get better.",
    "Must be done before the guests arrive.",
    "Take the old one along to compare.",
    "Cheaper online, but slower.",
    "See the mail from last week.",
    "Half of it is done already.",
    "Nobody has looked at this since spring.",
    "Bring cash.",
    "Talk to Marta first.",
    "There is a form for this on the web page.",
    "It took two hours the last time.",
    "If it rains, the week after.",
];
const LABELS: [&str; 12] = [
    "home", "work", "garden", "money", "errand", "phone", "family", "someday", "health", "travel",
    "car", "school",
];

/// The arguments of `generate`.
#[derive(Args)]
#[command(after_help = "Example:\n  tidemark generate 200000 > todos.jsonl")]
pub struct Generate {
    /// How many todos
    count: u64,
    /// Another number gives other todos
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// `SplitMix64` (Steele, Lea and Flood, 2014): small, and the same everywhere.
struct Random(u64);

impl Random {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    const fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[usize::try_from(self.below(all.len() as u64)).unwrap_or(0)]
    }
}

/// Writes the todos to stdout. A reader who has enough ends it; a full disk is an error.
pub fn run(args: &Generate) -> Result<(), CommandError> {
    match write(args, BufWriter::new(std::io::stdout().lock())) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(CommandError::Other(format!("stdout: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn write(args: &Generate, mut out: impl Write) -> std::io::Result<()> {
    let mut random = Random(args.seed);
    let lists = args.count.div_ceil(LIST_SIZE).max(1);
    for number in 0..args.count {
        let line = Value::Object(todo(number, lists, &mut random));
        writeln!(out, "{line}")?;
    }
    out.flush()
}

fn todo(number: u64, lists: u64, random: &mut Random) -> Map<String, Value> {
    let mut todo = Map::new();
    let mut set = |field: &str, value: Value| drop(todo.insert(field.into(), value));
    set(
        "name",
        json!(format!("lists/list-{}/todos/{number}", random.below(lists))),
    );
    set(
        "title",
        json!(format!(
            "{} {}",
            random.one_of(&VERBS),
            random.one_of(&THINGS)
        )),
    );
    let sentences = random.below(6);
    if sentences > 0 {
        let notes: Vec<_> = (0..sentences).map(|_| random.one_of(&NOTES)).collect();
        set("notes", json!(notes.join(" ")));
    }
    if random.below(3) == 0 {
        set("state", json!("STATE_COMPLETED"));
    }
    let priority = [
        "PRIORITY_LOW",
        "PRIORITY_NORMAL",
        "PRIORITY_NORMAL",
        "PRIORITY_HIGH",
        "PRIORITY_URGENT",
    ];
    set("priority", json!(random.one_of(&priority)));
    let mut labels: Vec<_> = (0..random.below(4))
        .map(|_| random.one_of(&LABELS))
        .collect();
    labels.sort_unstable();
    labels.dedup();
    if !labels.is_empty() {
        set("labels", json!(labels));
    }
    if random.below(2) == 0 {
        let hours = i64::try_from(random.below(365 * 24)).unwrap_or(0);
        let due = prost_types::Timestamp {
            seconds: EPOCH + hours * 3600,
            nanos: 0,
        };
        set("dueTime", json!(due.to_string()));
    }
    todo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_todos() {
        let list = crate::model::ListName::parse("lists/x").expect("a name");
        let one = |line: &str| {
            let mut todos = crate::cli::import::parse(line, &list, 0).expect("a valid todo");
            todos.remove(0)
        };
        let some = |seed| {
            let mut random = Random(seed);
            (0..200)
                .map(|n| Value::Object(todo(n, 3, &mut random)).to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(some(1), some(1));
        assert_ne!(some(1), some(2));
        // Pinned: another version must give the same data set.
        assert_eq!(
            xxhash_rust::xxh3::xxh3_64(some(1).join("\n").as_bytes()),
            PINNED
        );
        for line in some(1) {
            let todo = one(&line);
            assert!(!todo.title.is_empty(), "{line}");
        }
    }

    const PINNED: u64 = 757_885_836_568_783_362;
}
