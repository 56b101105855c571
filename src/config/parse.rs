//! The kinds of values that settings have. Each parser's error is the end of a
//! sentence that begins with the setting and its value.

use std::{net::SocketAddr, time::Duration};

use super::{AllowedOrigins, UiMode};
use crate::{budget, telemetry::LogFormat};

pub(super) fn address(value: &str) -> Result<SocketAddr, String> {
    value.parse().map_err(|_| {
        "is not an address and port such as 127.0.0.1:50051, 0.0.0.0:50051 or [::1]:50051".into()
    })
}

pub(super) fn ui_mode(value: &str) -> Result<UiMode, String> {
    match value {
        "auto" => Ok(UiMode::Auto),
        "on" => Ok(UiMode::On),
        "off" => Ok(UiMode::Off),
        _ => Err("is not one of auto, on and off".into()),
    }
}

/// Origins as browsers send them: scheme, host and port, nothing more.
pub(super) fn origins(value: &str) -> Result<AllowedOrigins, String> {
    if value == "*" {
        return Ok(AllowedOrigins::Any);
    }
    let is_origin = |origin: &str| {
        let host = origin
            .strip_prefix("https://")
            .or_else(|| origin.strip_prefix("http://"));
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
        host.is_some_and(|host| !host.is_empty() && host.bytes().all(allowed))
    };
    let origins: Vec<_> = value
        .split(',')
        .map(|origin| origin.trim().to_ascii_lowercase())
        .collect();
    if origins.iter().all(|origin| is_origin(origin)) {
        return Ok(AllowedOrigins::These(origins));
    }
    Err(
        "is neither a list of origins such as https://todos.example,http://localhost:5173, nor `*`"
            .into(),
    )
}

pub(super) fn duration(value: &str) -> Result<Duration, String> {
    if value == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(value)
        .map_err(|_| "is not a duration such as 200ms, 15s or 10m".into())
}

pub(super) fn number<T: std::str::FromStr>(value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|_| "is not a whole number of 0 or more".into())
}

pub(super) fn bytes(value: &str) -> Result<u64, String> {
    value
        .parse::<bytesize::ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_| "is not a size such as 256MiB".into())
}

/// `auto`, `off` or a size.
pub(super) fn memory_limit(value: &str) -> Result<Option<u64>, String> {
    match value {
        "auto" => Ok(budget::limit::of_this_process()),
        "off" => Ok(None),
        value => bytes(value)
            .map(Some)
            .map_err(|problem| format!("{problem}; `auto` and `off` are allowed too")),
    }
}

pub(super) fn log_format(value: &str) -> Result<LogFormat, String> {
    match value.to_ascii_lowercase().as_str() {
        "auto" => Ok(LogFormat::Auto),
        "json" => Ok(LogFormat::Json),
        "text" => Ok(LogFormat::Text),
        _ => Err("is not one of auto, json and text".into()),
    }
}

pub(super) fn off_or<T>(
    parse: impl Fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<Option<T>, String> {
    move |value| match value {
        "off" => Ok(None),
        value => parse(value)
            .map(Some)
            .map_err(|problem| format!("{problem}; `off` disables it")),
    }
}
