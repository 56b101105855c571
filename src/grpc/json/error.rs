//! Errors in the form of the Connect protocol: an HTTP status, and a body with
//! the code, the text and the details that gRPC callers get.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use http::{HeaderValue, Response, StatusCode, header::WWW_AUTHENTICATE};
use prost::Message as _;
use prost_reflect::DynamicMessage;
use prost_types::Any;
use serde::Serialize;
use serde_json::Value;
use tonic::{Code, Status, body::Body};

use super::DESCRIPTORS;

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Detail>,
}

#[derive(Serialize)]
struct Detail {
    #[serde(rename = "type")]
    name: String,
    /// The encoded message in base64, without padding.
    value: String,
    /// The message as JSON, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    debug: Option<Value>,
}

impl Detail {
    fn of(detail: &Any) -> Self {
        let name = detail.type_url.rsplit('/').next().unwrap_or_default();
        let debug = DESCRIPTORS
            .get_message_by_name(name)
            .and_then(|message| DynamicMessage::decode(message, detail.value.as_slice()).ok())
            .and_then(|message| serde_json::to_value(message).ok());
        Self {
            name: name.to_owned(),
            value: STANDARD_NO_PAD.encode(&detail.value),
            debug,
        }
    }
}

/// The response of a call that failed.
pub fn respond(status: &Status) -> Response<Body> {
    let details = tonic_types::pb::Status::decode(status.details()).unwrap_or_default();
    let (code, http_status) = names(status.code());
    let body = ErrorBody {
        code,
        message: status.message(),
        details: details.details.iter().map(Detail::of).collect(),
    };
    // Texts and maps of texts: there is nothing that could fail.
    let json = serde_json::to_vec(&body).unwrap_or_default();
    let mut response = super::response(http_status, json);
    if http_status == StatusCode::UNAUTHORIZED {
        // RFC 9110, 15.5.2, wants a challenge with each 401: API keys and tokens are both
        // sent as bearer tokens. (A client certificate has no scheme that could stand here.)
        let challenge = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

/// The names of a code in Connect, as text and as HTTP status.
const fn names(code: Code) -> (&'static str, StatusCode) {
    match code {
        Code::Cancelled => ("canceled", client_closed()),
        // A reply without an error does not get here.
        Code::Ok | Code::Unknown => ("unknown", StatusCode::INTERNAL_SERVER_ERROR),
        Code::InvalidArgument => ("invalid_argument", StatusCode::BAD_REQUEST),
        Code::DeadlineExceeded => ("deadline_exceeded", StatusCode::GATEWAY_TIMEOUT),
        Code::NotFound => ("not_found", StatusCode::NOT_FOUND),
        Code::AlreadyExists => ("already_exists", StatusCode::CONFLICT),
        Code::PermissionDenied => ("permission_denied", StatusCode::FORBIDDEN),
        Code::ResourceExhausted => ("resource_exhausted", StatusCode::TOO_MANY_REQUESTS),
        Code::FailedPrecondition => ("failed_precondition", StatusCode::BAD_REQUEST),
        Code::Aborted => ("aborted", StatusCode::CONFLICT),
        Code::OutOfRange => ("out_of_range", StatusCode::BAD_REQUEST),
        Code::Unimplemented => ("unimplemented", StatusCode::NOT_IMPLEMENTED),
        Code::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR),
        Code::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE),
        Code::DataLoss => ("data_loss", StatusCode::INTERNAL_SERVER_ERROR),
        Code::Unauthenticated => ("unauthenticated", StatusCode::UNAUTHORIZED),
    }
}

/// 499, which no RFC has.
const fn client_closed() -> StatusCode {
    match StatusCode::from_u16(499) {
        Ok(status) => status,
        Err(_) => StatusCode::BAD_REQUEST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::Error, grpc::json::WholeReply};

    #[test]
    fn each_code_has_its_name_and_http_status() {
        // The table of the protocol.
        let table = [
            (1, "canceled", 499),
            (2, "unknown", 500),
            (3, "invalid_argument", 400),
            (4, "deadline_exceeded", 504),
            (5, "not_found", 404),
            (6, "already_exists", 409),
            (7, "permission_denied", 403),
            (8, "resource_exhausted", 429),
            (9, "failed_precondition", 400),
            (10, "aborted", 409),
            (11, "out_of_range", 400),
            (12, "unimplemented", 501),
            (13, "internal", 500),
            (14, "unavailable", 503),
            (15, "data_loss", 500),
            (16, "unauthenticated", 401),
        ];
        for (code, name, http_status) in table {
            let (found, status) = names(Code::from(code));
            assert_eq!((found, status.as_u16()), (name, http_status));
        }
    }

    #[test]
    fn a_challenge_comes_with_401_alone() {
        for code in (1..=16).map(Code::from) {
            let response = respond(&Status::new(code, "refused"));
            let challenge = response.headers().get(WWW_AUTHENTICATE);
            let wanted = (code == Code::Unauthenticated).then_some("Bearer");
            assert_eq!(challenge.and_then(|c| c.to_str().ok()), wanted, "{code:?}");
        }
    }

    #[test]
    fn details_are_there_encoded_and_as_json() {
        let response = respond(&Status::from(Error::Draining));
        let WholeReply(json) = response.extensions().get::<WholeReply>().expect("a body");
        let body: Value = serde_json::from_slice(json).expect("JSON");
        assert_eq!(body["code"], "unavailable");
        let details = body["details"].as_array().expect("details");
        let detail = details
            .iter()
            .find(|detail| detail["type"] == "google.rpc.ErrorInfo")
            .expect("an ErrorInfo");
        assert_eq!(detail["debug"]["reason"], "DRAINING");
        let value = detail["value"].as_str().expect("text");
        let value = STANDARD_NO_PAD.decode(value).expect("base64");
        let info = tonic_types::pb::ErrorInfo::decode(value.as_slice()).expect("a detail");
        assert_eq!(info.reason, "DRAINING");
    }
}
