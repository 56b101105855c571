//! Doors for `fuzz/`, and for the test of its seeds, to what reads bytes from
//! outside and is private otherwise. Nobody else goes through them.

use std::io::Cursor;

use bson::RawDocument;
use bytes::Bytes;
use prost_reflect::MessageDescriptor;

use crate::{
    cli::{import, output},
    error::Error,
    grpc::{
        filter,
        json::{DESCRIPTORS, transcode},
        page_token,
    },
    model::{Filter, ListName, Order, OriginTime, PagePosition, PageQuery, TodoName, Value},
    origin::mongo::document,
    pb::Todo,
};

/// A filter's text.
pub fn parse_filter(text: &str) -> Result<Filter, Error> {
    filter::parse_filter(text)
}

/// An order's text.
pub fn parse_order(text: &str) -> Result<Order, Error> {
    filter::parse_order(text)
}

/// A page token's text.
pub fn decode_page_token(
    query: &PageQuery,
    text: &str,
) -> Result<(PagePosition, OriginTime), Error> {
    page_token::decode(query, text)
}

/// The text of a page token.
pub fn encode_page_token(query: &PageQuery, next: &PagePosition, fresh_to: OriginTime) -> String {
    page_token::encode(query, next, fresh_to)
}

/// The value that a stored document is; `None` if the bytes are no document.
pub fn read_document(name: &TodoName, raw: &[u8]) -> Option<Value> {
    RawDocument::from_bytes(raw)
        .ok()
        .map(|raw| document::value(name, raw))
}

/// The stored document of a todo.
pub fn write_document(name: &TodoName, todo: &Todo) -> Vec<u8> {
    bson::serialize_to_vec(&document::document(name, todo)).unwrap_or_default()
}

/// What `tidemark import` reads from an input, record by record.
pub fn import(input: Vec<u8>, list: &ListName, now_ms: i64) -> Vec<Result<Option<Todo>, String>> {
    let mut records = import::Records::of(Box::new(Cursor::new(input)));
    let mut read = Vec::new();
    while let Ok(Some(record)) = records.next() {
        match record
            .text
            .and_then(|text| import::parse(&text, list, now_ms))
        {
            Ok(todos) if todos.is_empty() => read.push(Ok(None)),
            Ok(todos) => read.extend(todos.into_iter().map(|todo| Ok(Some(todo)))),
            Err(problem) => read.push(Err(problem)),
        }
    }
    read
}

/// A todo as a line of JSON, as the API writes it.
pub fn json_line(todo: &Todo) -> Option<String> {
    output::json("todo.v1.Todo", todo).ok()
}

/// A message of the API, such as `CreateTodoRequest`.
fn message(name: &str) -> Option<MessageDescriptor> {
    DESCRIPTORS.get_message_by_name(&format!("todo.v1.{name}"))
}

/// The encoded message of this JSON, behind the five bytes of its head, or what is wrong
/// with it. `None`: no message has this name.
pub fn from_json(name: &str, json: &[u8]) -> Option<Result<Bytes, String>> {
    let decoded = transcode::from_json(json, &message(name)?, None);
    Some(decoded.map_err(|status| status.message().to_owned()))
}

/// The JSON of an encoded message.
pub fn to_json(name: &str, encoded: &Bytes) -> Option<Vec<u8>> {
    transcode::to_json(encoded.clone(), &message(name)?, None).ok()
}
