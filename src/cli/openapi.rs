//! `tidemark openapi`: the calls in JSON as an OpenAPI document, from the
//! descriptors of the contract.

use std::collections::BTreeMap;

use prost_reflect::{
    Cardinality, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor,
    MethodDescriptor,
};
use serde_json::{Map, Value, json};

use super::{
    error::CommandError,
    output::{MESSAGES, print},
};

/// The package of the contract.
const PACKAGE: &str = "todo.v1";
/// Codes of the Connect protocol, with their HTTP status.
const CODES: [(&str, u16); 16] = [
    ("canceled", 499),
    ("unknown", 500),
    ("invalid_argument", 400),
    ("deadline_exceeded", 504),
    ("not_found", 404),
    ("already_exists", 409),
    ("permission_denied", 403),
    ("resource_exhausted", 429),
    ("failed_precondition", 400),
    ("aborted", 409),
    ("out_of_range", 400),
    ("unimplemented", 501),
    ("internal", 500),
    ("unavailable", 503),
    ("data_loss", 500),
    ("unauthenticated", 401),
];
const ABOUT: &str = "Unary calls in JSON, by the Connect protocol: POST with the request as \
    JSON, on the port and the paths of gRPC. Messages have the JSON mapping of protobuf: \
    fields in lowerCamelCase, fields with their default value left out, 64-bit integers as \
    strings, bytes in base64. A field that the request does not have is refused. Watches \
    need gRPC or grpc-web. A request has at most 256 KiB, a reply 4 MiB.";

/// Prints the document.
pub fn run() -> Result<(), CommandError> {
    let text = serde_json::to_string_pretty(&document());
    print(&text.map_err(|e| CommandError::Other(e.to_string()))?);
    Ok(())
}

/// The document.
fn document() -> Value {
    let mut schemas = Schemas::default();
    let mut paths = Map::new();
    let services = MESSAGES
        .services()
        .filter(|service| service.package_name() == PACKAGE);
    for method in services.flat_map(|service| service.methods().collect::<Vec<_>>()) {
        if method.is_client_streaming() || method.is_server_streaming() {
            continue;
        }
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        paths.insert(path, json!({"post": operation(&method, &mut schemas)}));
    }
    paths.insert("/healthz".into(), probe("The process works"));
    paths.insert("/readyz".into(), probe("The replica answers calls"));
    schemas.named.insert("Error".into(), error());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tidemark",
            "version": PACKAGE.rsplit('.').next(),
            "description": ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "http://127.0.0.1:50051"}],
        "security": [{}, {"key": []}],
        "paths": paths,
        "components": {
            "schemas": schemas.named,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn operation(method: &MethodDescriptor, schemas: &mut Schemas) -> Value {
    let description = comment(&method.parent_file(), method.path());
    let content = |schema: Value| json!({"application/json": {"schema": schema}});
    json!({
        "operationId": method.name(),
        "tags": [method.parent_service().name()],
        "summary": first_sentence(&description),
        "description": description,
        "parameters": [
            {
                "name": "Connect-Protocol-Version",
                "in": "header",
                "description": "Optional.",
                "schema": {"const": "1"},
            },
            {
                "name": "Connect-Timeout-Ms",
                "in": "header",
                "description": "How long the caller waits, in milliseconds.",
                "schema": {"type": "string", "pattern": "^[0-9]{1,10}$"},
            },
        ],
        "requestBody": {
            "required": true,
            "content": content(schemas.message(&method.input())),
        },
        "responses": {
            "200": {
                "description": "The reply.",
                "content": content(schemas.message(&method.output())),
            },
            "default": {
                "description": "The call failed.",
                "content": content(json!({"$ref": "#/components/schemas/Error"})),
            },
        },
    })
}

fn probe(summary: &str) -> Value {
    let state = |description: &str| {
        json!({
            "description": description,
            "content": {"application/json": {"schema": {
                "type": "object",
                "properties": {
                    "status": {"enum": ["SERVING", "NOT_SERVING"]},
                    "reason": {"type": "string"},
                },
                "required": ["status"],
            }}},
        })
    };
    json!({"get": {
        "summary": summary,
        "tags": ["Probes"],
        "security": [{}],
        "responses": {"200": state("Yes."), "503": state("No, with the reason.")},
    }})
}

fn error() -> Value {
    let codes: Vec<_> = CODES.iter().map(|(code, _)| code).collect();
    let table: Vec<_> = CODES
        .iter()
        .map(|(code, status)| format!("{code}: {status}"))
        .collect();
    json!({
        "type": "object",
        "description": format!(
            "Why a call failed. The HTTP status follows from the code: {}. The detail \
             google.rpc.ErrorInfo has the reason, one of todo.v1.ErrorReason.",
            table.join(", ")
        ),
        "properties": {
            "code": {"enum": codes},
            "message": {"type": "string", "description": "For people."},
            "details": {"type": "array", "items": {
                "type": "object",
                "properties": {
                    "type": {"type": "string", "description": "Name of a protobuf message."},
                    "value": {
                        "type": "string",
                        "contentEncoding": "base64",
                        "description": "The message, without padding.",
                    },
                    "debug": {"description": "The message as JSON."},
                },
                "required": ["type", "value"],
            }},
        },
        "required": ["code"],
    })
}

/// The messages and enums that are referred to, by name.
#[derive(Default)]
struct Schemas {
    named: BTreeMap<String, Value>,
}

impl Schemas {
    /// A reference to a message, which is added if it is new, or the form of a
    /// well-known type.
    fn message(&mut self, message: &MessageDescriptor) -> Value {
        if let Some(schema) = well_known(message.full_name()) {
            return schema;
        }
        let name = message.full_name().to_owned();
        if !self.named.contains_key(&name) {
            // A message may contain itself.
            self.named.insert(name.clone(), Value::Null);
            let schema = self.object(message);
            self.named.insert(name.clone(), schema);
        }
        reference(&name)
    }

    fn object(&mut self, message: &MessageDescriptor) -> Value {
        let mut properties = Map::new();
        for field in message.fields() {
            properties.insert(field.json_name().to_owned(), self.field(&field));
        }
        let mut description = comment(&message.parent_file(), message.path());
        for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            let fields: Vec<_> = oneof
                .fields()
                .map(|field| field.json_name().to_owned())
                .collect();
            if fields.len() > 1 {
                description += &format!(" At most one of {}.", fields.join(", "));
            }
        }
        json!({"type": "object", "description": description, "properties": properties})
    }

    fn field(&mut self, field: &FieldDescriptor) -> Value {
        let kind = field.kind();
        let schema = if let (true, Some(entry)) = (field.is_map(), kind.as_message()) {
            let value = self.value(&entry.map_entry_value_field().kind());
            json!({"type": "object", "additionalProperties": value})
        } else if field.cardinality() == Cardinality::Repeated {
            json!({"type": "array", "items": self.value(&kind)})
        } else {
            self.value(&kind)
        };
        let description = comment(&field.parent_message().parent_file(), field.path());
        match schema {
            Value::Object(mut schema) if !description.is_empty() => {
                schema.insert("description".into(), description.into());
                schema.into()
            }
            schema => schema,
        }
    }

    fn value(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Message(message) => self.message(message),
            Kind::Enum(kind) => self.enumeration(kind),
            Kind::String => json!({"type": "string"}),
            Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
            Kind::Bool => json!({"type": "boolean"}),
            Kind::Double | Kind::Float => json!({"type": "number"}),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                json!({"type": "integer", "format": "int32"})
            }
            Kind::Uint32 | Kind::Fixed32 => {
                json!({"type": "integer", "format": "int64", "minimum": 0})
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                json!({"type": "string", "format": "int64"})
            }
            Kind::Uint64 | Kind::Fixed64 => json!({"type": "string", "format": "uint64"}),
        }
    }

    fn enumeration(&mut self, kind: &EnumDescriptor) -> Value {
        let name = kind.full_name().to_owned();
        let values: Vec<_> = kind.values().map(|value| value.name().to_owned()).collect();
        let description = comment(&kind.parent_file(), kind.path());
        let schema = json!({"type": "string", "description": description, "enum": values});
        self.named.insert(name.clone(), schema);
        reference(&name)
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// Messages with a JSON form other than an object.
fn well_known(name: &str) -> Option<Value> {
    Some(match name {
        "google.protobuf.Timestamp" => json!({"type": "string", "format": "date-time"}),
        "google.protobuf.Duration" => {
            json!({"type": "string", "pattern": r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$"})
        }
        "google.protobuf.FieldMask" => {
            json!({"type": "string", "examples": ["title,dueTime"]})
        }
        "google.protobuf.Empty" => json!({"type": "object"}),
        _ => return None,
    })
}

/// The comment before an element of the contract, on one line.
fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let file = file.file_descriptor_proto();
    let locations = file.source_code_info.iter().flat_map(|info| &info.location);
    let comment = locations
        .filter(|location| location.path == path)
        .find_map(|location| location.leading_comments.as_deref());
    let words = comment.unwrap_or_default().split_whitespace();
    words.collect::<Vec<_>>().join(" ")
}

fn first_sentence(text: &str) -> &str {
    text.split_once(". ")
        .map_or(text, |(first, _)| first)
        .trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_committed_is_what_the_contract_has() {
        let committed = include_str!("../../docs/openapi.json");
        let committed: Value = serde_json::from_str(committed).expect("JSON");
        assert!(
            committed == document(),
            "docs/openapi.json is not up to date: cargo run -- openapi > docs/openapi.json"
        );
    }

    #[test]
    fn every_reference_and_unary_method_is_there() {
        let document = document();
        let text = document.to_string();
        let schemas = document["components"]["schemas"]
            .as_object()
            .expect("schemas");
        for name in text.split("#/components/schemas/").skip(1) {
            let name = name.split('"').next().expect("a name");
            assert!(schemas.get(name).is_some_and(Value::is_object), "{name}");
        }
        let unary = MESSAGES
            .services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .filter(|method| !method.is_server_streaming());
        for method in unary {
            let path = format!("/todo.v1.TodoService/{}", method.name());
            let operation = &document["paths"][path]["post"];
            let summary = operation["summary"].as_str().expect("a summary");
            assert!(!summary.is_empty(), "{}", method.name());
        }
        let due = &schemas["todo.v1.Todo"]["properties"]["dueTime"];
        assert_eq!(due["format"], "date-time");
        assert!(!due["description"].as_str().expect("text").is_empty());
        assert_eq!(
            schemas["todo.v1.ListTodosRequest"]["properties"]["pageSize"]["format"],
            "int32"
        );
    }
}
