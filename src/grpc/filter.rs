//! Reads `filter` and `order_by`. Positions count characters from 0.

use prost_types::Timestamp;

use crate::{
    error::{Error, shorten},
    model::{Condition, DueValue, Filter, LIMITS, Op, Order, timestamp_ms},
    pb::todo::{Priority, State},
};

/// Longest filter in characters: some thirty comparisons.
const MAX_FILTER_CHARS: usize = 2048;
/// Longest order in characters: the longest valid one with room for spaces.
const MAX_ORDER_CHARS: usize = 64;
/// Most comparisons of a filter: more than a person would write.
const MAX_CONDITIONS: usize = 16;

struct Parser {
    chars: Vec<char>,
    at: usize,
}

struct Problem {
    position: usize,
    problem: String,
}

fn problem<T>(position: usize, problem: impl Into<String>) -> Result<T, Problem> {
    Err(Problem {
        position,
        problem: problem.into(),
    })
}

/// The conditions of a filter, sorted and without doubles.
///
/// # Errors
/// `FilterInvalid` with the position of the mistake.
pub fn parse_filter(text: &str) -> Result<Filter, Error> {
    let parsed = if text.chars().nth(MAX_FILTER_CHARS).is_some() {
        problem(
            MAX_FILTER_CHARS,
            format!("it is longer than {MAX_FILTER_CHARS} characters"),
        )
    } else {
        let chars = text.chars().collect();
        Parser { chars, at: 0 }.filter()
    };
    parsed.map_err(|Problem { position, problem }| Error::FilterInvalid {
        field: "filter",
        value: shorten(text),
        position,
        problem,
    })
}

/// The order that `order_by` names.
///
/// # Errors
/// `FilterInvalid` with the position of the mistake.
pub fn parse_order(text: &str) -> Result<Order, Error> {
    let wrong = |position, problem: String| Error::FilterInvalid {
        field: "order_by",
        value: shorten(text),
        position,
        problem,
    };
    if text.chars().nth(MAX_ORDER_CHARS).is_some() {
        let problem = format!("it is longer than {MAX_ORDER_CHARS} characters");
        return Err(wrong(MAX_ORDER_CHARS, problem));
    }
    let words: Vec<_> = text.split_whitespace().collect();
    Ok(match words.as_slice() {
        [] | ["create_time", "desc"] => Order::CreateTimeDesc,
        ["create_time"] => Order::CreateTime,
        ["due_time"] => Order::DueTime,
        ["priority", "desc"] => Order::PriorityDesc,
        words => {
            let right = match words {
                ["create_time" | "priority", "desc", ..] => 2,
                ["create_time" | "due_time" | "priority", _, ..] => 1,
                _ => 0,
            };
            let problem = "use create_time desc, create_time, due_time or priority desc";
            return Err(wrong(char_position(text, right), problem.into()));
        }
    })
}

/// Where the word begins that so many are before.
fn char_position(text: &str, nth: usize) -> usize {
    let mut words = 0;
    let mut in_word = false;
    for (at, c) in text.chars().enumerate() {
        if !c.is_whitespace() && !in_word {
            if words == nth {
                return at;
            }
            words += 1;
        }
        in_word = !c.is_whitespace();
    }
    text.chars().count()
}

impl Parser {
    fn filter(mut self) -> Result<Filter, Problem> {
        let mut conditions = Vec::new();
        self.skip_space();
        if self.chars.len() == self.at {
            return Ok(Filter::default());
        }
        loop {
            let at = self.at;
            conditions.push(self.condition()?);
            if conditions.len() > MAX_CONDITIONS {
                return problem(
                    at,
                    format!("there are more than {MAX_CONDITIONS} comparisons"),
                );
            }
            self.skip_space();
            if self.at == self.chars.len() {
                break;
            }
            let at = self.at;
            if !self.word().eq_ignore_ascii_case("AND") {
                return problem(at, "comparisons are joined by AND");
            }
            self.skip_space();
        }
        conditions.sort();
        conditions.dedup();
        Ok(Filter(conditions))
    }

    fn condition(&mut self) -> Result<Condition, Problem> {
        let field_at = self.at;
        let field = self.word();
        self.skip_space();
        let op_at = self.at;
        let op = self.operator();
        self.skip_space();
        let value_at = self.at;
        match (field.as_str(), op.as_str()) {
            ("state", "=" | "!=") => Ok(Condition::State(
                comparison(&op, op_at)?,
                self.state(value_at)?,
            )),
            ("state", _) => problem(op_at, "state takes = or !="),
            ("priority", ":") => problem(op_at, "priority takes =, !=, <, <=, > or >="),
            ("priority", _) => Ok(Condition::Priority(
                comparison(&op, op_at)?,
                self.priority(value_at)?,
            )),
            ("labels", ":") => self.label(value_at),
            ("labels", _) => problem(
                op_at,
                "labels takes : and a text in quotes, as in labels:\"home\"",
            ),
            ("due_time", ":") => problem(op_at, "due_time takes =, !=, <, <=, > or >="),
            ("due_time", _) => Ok(Condition::Due(
                comparison(&op, op_at)?,
                self.time(value_at)?,
            )),
            _ => problem(
                field_at,
                "only state, priority, labels and due_time can be compared",
            ),
        }
    }

    fn skip_space(&mut self) {
        while self.chars.get(self.at).is_some_and(|c| c.is_whitespace()) {
            self.at += 1;
        }
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let start = self.at;
        while self.chars.get(self.at).is_some_and(|c| wanted(*c)) {
            self.at += 1;
        }
        self.chars[start..self.at].iter().collect()
    }

    fn word(&mut self) -> String {
        self.take_while(|c| c.is_ascii_alphanumeric() || c == '_')
    }

    fn operator(&mut self) -> String {
        self.take_while(|c| "=!<>:".contains(c))
    }

    /// A label that a todo can have.
    fn label(&mut self, at: usize) -> Result<Condition, Problem> {
        let label = self.quoted()?;
        let chars = label.chars().count();
        if chars == 0 || chars > LIMITS.label {
            let max = LIMITS.label;
            return problem(
                at,
                format!("a label has 1 to {max} characters, not {chars}"),
            );
        }
        Ok(Condition::Label(label))
    }

    fn state(&mut self, at: usize) -> Result<State, Problem> {
        match self.word().to_ascii_uppercase().as_str() {
            "ACTIVE" => Ok(State::Active),
            "COMPLETED" => Ok(State::Completed),
            _ => problem(at, "a state is ACTIVE or COMPLETED"),
        }
    }

    fn priority(&mut self, at: usize) -> Result<Priority, Problem> {
        match self.word().to_ascii_uppercase().as_str() {
            "LOW" => Ok(Priority::Low),
            "NORMAL" => Ok(Priority::Normal),
            "HIGH" => Ok(Priority::High),
            "URGENT" => Ok(Priority::Urgent),
            _ => problem(at, "a priority is LOW, NORMAL, HIGH or URGENT"),
        }
    }

    fn time(&mut self, at: usize) -> Result<DueValue, Problem> {
        let text = self.quoted()?;
        let ms = text
            .parse::<Timestamp>()
            .ok()
            .and_then(|time| timestamp_ms(&time));
        match ms {
            Some(ms) if text.contains('T') => Ok(DueValue(ms)),
            _ => problem(at, "a time is written as \"2026-12-01T00:00:00Z\""),
        }
    }

    fn quoted(&mut self) -> Result<String, Problem> {
        let start = self.at;
        if self.chars.get(self.at) != Some(&'"') {
            return problem(start, "a text in double quotes is wanted here");
        }
        self.at += 1;
        let mut text = String::new();
        while let Some(c) = self.chars.get(self.at).copied() {
            self.at += 1;
            match c {
                '"' => return Ok(text),
                '\\' => match self.chars.get(self.at) {
                    Some(escaped @ ('"' | '\\')) => {
                        text.push(*escaped);
                        self.at += 1;
                    }
                    _ => {
                        return problem(
                            self.at - 1,
                            "a backslash stands only before a quote or a backslash",
                        );
                    }
                },
                c => text.push(c),
            }
        }
        problem(start, "the text that begins here has no closing quote")
    }
}

fn comparison(op: &str, at: usize) -> Result<Op, Problem> {
    Ok(match op {
        "=" => Op::Eq,
        "!=" => Op::Ne,
        "<" => Op::Lt,
        "<=" => Op::Le,
        ">" => Op::Gt,
        ">=" => Op::Ge,
        _ => return problem(at, "an operator is =, !=, <, <=, > or >="),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(text: &str) -> usize {
        match parse_filter(text) {
            Err(Error::FilterInvalid { position, .. }) => position,
            other => panic!("{text:?} gave {other:?}"),
        }
    }

    #[test]
    fn reads_what_the_contract_shows() {
        let filter = parse_filter(
            r#"state = COMPLETED AND priority >= HIGH AND labels:"home" AND due_time < "2026-12-01T00:00:00Z""#,
        );
        let wanted = vec![
            Condition::State(Op::Eq, State::Completed),
            Condition::Priority(Op::Ge, Priority::High),
            Condition::Label("home".into()),
            Condition::Due(Op::Lt, DueValue(1_796_083_200_000)),
        ];
        assert_eq!(filter.expect("right").0, wanted);
        assert_eq!(parse_filter("  ").expect("empty"), Filter::default());
    }

    #[test]
    fn equal_filters_are_one() {
        let one = parse_filter("state=ACTIVE AND priority=LOW").expect("right");
        let other =
            parse_filter(" priority = LOW  AND state = ACTIVE AND state = ACTIVE").expect("right");
        assert_eq!(one, other);
    }

    #[test]
    fn says_where_it_is_wrong() {
        assert_eq!(position("title = x"), 0);
        assert_eq!(position("state > ACTIVE"), 6);
        assert_eq!(position("state = DONE"), 8);
        assert_eq!(position("state = ACTIVE OR state = COMPLETED"), 15);
        assert_eq!(position("state = ACTIVE AND"), 18);
        assert_eq!(position("labels:home"), 7);
        assert_eq!(
            position(r#"labels:"hö" AND x"#),
            16,
            "characters, not bytes"
        );
        assert_eq!(position(r#"labels:"home"#), 7);
        assert_eq!(position(r#"due_time < "yesterday""#), 11);
        assert_eq!(position("priority == HIGH"), 9);
        assert_eq!(position(&"x".repeat(3000)), MAX_FILTER_CHARS);
        assert_eq!(position(r#"labels:"""#), 7);
        assert_eq!(position(&format!("labels:\"{}\"", "ö".repeat(65))), 7);
        assert!(parse_filter(&format!("labels:\"{}\"", "ö".repeat(64))).is_ok());
    }

    #[test]
    fn orders() {
        assert_eq!(parse_order("").expect("right"), Order::CreateTimeDesc);
        assert_eq!(
            parse_order("priority desc").expect("right"),
            Order::PriorityDesc
        );
        for (text, wanted) in [
            ("title", 0),
            ("priority", 0),
            ("due_time desc", 9),
            ("create_time desc extra", 17),
            ("  create_time  up", 15),
        ] {
            match parse_order(text) {
                Err(Error::FilterInvalid {
                    position,
                    field: "order_by",
                    ..
                }) => {
                    assert_eq!(position, wanted, "{text}");
                }
                other => panic!("{text:?} gave {other:?}"),
            }
        }
    }
}
