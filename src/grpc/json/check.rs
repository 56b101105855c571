//! A first pass over the JSON of a request: fields that the message does not
//! have, fields given twice, and how much there is to decode.
//!
//! The parser of the messages finds unknown fields too, but not where they are;
//! and of a field given twice it takes the last, where other parsers take the
//! first: a proxy that looks into requests could see another request than the
//! service.

use std::{borrow::Cow, collections::HashSet, fmt};

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::error::{FieldProblem, shorten};

/// Fields of a message that an error names.
const MAX_NAMED_FIELDS: usize = 20;

/// Most values of a request. The largest valid one is a batch of a thousand names. A value
/// takes two bytes of JSON and a third of a microsecond, so that 256 KiB of them would
/// take 30 ms.
pub const MAX_VALUES: usize = 4096;

/// What the pass found.
#[derive(Default)]
pub struct Findings {
    /// Values in the JSON: objects, elements and scalars.
    pub values: usize,
    /// What is wrong with it.
    pub problem: Option<FieldProblem>,
    /// Names of the fields around the current one.
    path: Vec<String>,
}

impl Findings {
    /// Counts more values.
    fn count<E: serde::de::Error>(&mut self, values: usize) -> Result<(), E> {
        self.values += values;
        if self.values <= MAX_VALUES {
            return Ok(());
        }
        let field = match self.path.join(".") {
            path if path.is_empty() => "request".to_owned(),
            path => path,
        };
        let problem = format!("has too many values: a request has at most {MAX_VALUES}");
        self.problem = Some(FieldProblem::new(field, "", problem));
        Err(E::custom("too many values"))
    }

    fn path_of(&self, field: &str) -> String {
        let mut path = self.path.join(".");
        if !path.is_empty() {
            path.push('.');
        }
        path + &shorten(field)
    }
}

/// Checks a value that should be this message; `None`: any value.
pub struct Check<'a> {
    /// The message.
    pub message: Option<MessageDescriptor>,
    /// Whether it is a field mask: a text of paths.
    pub is_mask: bool,
    /// Where findings go.
    pub findings: &'a mut Findings,
}

impl<'de> DeserializeSeed<'de> for Check<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.findings.count(1)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        if self.is_mask {
            self.findings.count(text.matches(',').count())?;
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let check = || self.message.clone();
        while elements
            .next_element_seed(Check {
                message: check(),
                is_mask: false,
                findings: &mut *self.findings,
            })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let Self {
            message, findings, ..
        } = self;
        let mut seen = HashSet::new();
        while let Some(key) = fields.next_key::<Cow<'_, str>>()? {
            let field = message.as_ref().and_then(|message| field(message, &key));
            if let Some(message) = &message
                && field.is_none()
            {
                let problem = FieldProblem::new(findings.path_of(&key), "", unknown(message));
                findings.problem = Some(problem);
                return Err(A::Error::custom("unknown field"));
            }
            // `dueTime` and `due_time` are the same field.
            let name = field
                .as_ref()
                .map_or_else(|| key.to_string(), |field| field.name().to_owned());
            if !seen.insert(name) {
                let problem = FieldProblem::new(findings.path_of(&key), "", "is there twice");
                findings.problem = Some(problem);
                return Err(A::Error::custom("field given twice"));
            }
            findings.path.push(key.into_owned());
            fields.next_value_seed(Check {
                message: field.as_ref().and_then(message_of),
                is_mask: field.as_ref().is_some_and(is_mask),
                findings: &mut *findings,
            })?;
            findings.path.pop();
        }
        Ok(())
    }
}

/// The field with this name in JSON or in the proto.
pub fn field(message: &MessageDescriptor, key: &str) -> Option<FieldDescriptor> {
    let by_json_name = message.get_field_by_json_name(key);
    by_json_name.or_else(|| message.get_field_by_name(key))
}

/// The message in a field that is an object in JSON with fields.
fn message_of(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(message)
            if !field.is_map() && !message.full_name().starts_with("google.protobuf.") =>
        {
            Some(message)
        }
        _ => None,
    }
}

fn is_mask(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), Kind::Message(message) if message.full_name() == "google.protobuf.FieldMask")
}

fn unknown(message: &MessageDescriptor) -> String {
    let mut names: Vec<_> = message
        .fields()
        .take(MAX_NAMED_FIELDS)
        .map(|field| field.json_name().to_owned())
        .collect();
    if message.fields().len() > MAX_NAMED_FIELDS {
        names.push("...".into());
    }
    format!(
        "is not a field of {}: expected one of {}",
        message.full_name(),
        names.join(", ")
    )
}
