//! The caller's deadline, from the `grpc-timeout` header.

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;

/// The server gives up a fiftieth of the time before the deadline, within these
/// bounds, or a tenth of it if that is less. The reply, which says what was being
/// waited for, then reaches the caller in time, also when both are busy. (The
/// framework, at the deadline itself, would only say CANCELLED.)
const MIN_MARGIN: Duration = Duration::from_millis(10);
const MAX_MARGIN: Duration = Duration::from_millis(200);

/// When the caller stops waiting; `None`: never.
#[must_use]
pub fn of(metadata: &MetadataMap) -> Option<Instant> {
    let timeout = parse(metadata.get("grpc-timeout")?.to_str().ok()?)?;
    let margin = (timeout / 50)
        .clamp(MIN_MARGIN, MAX_MARGIN)
        .min(timeout / 10);
    let timeout = timeout.saturating_sub(margin);
    Instant::now().checked_add(timeout)
}

/// `TimeoutValue TimeoutUnit` of the gRPC over HTTP/2 specification: at most 8
/// digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_specification_allows() {
        assert_eq!(parse("5S"), Some(Duration::from_secs(5)));
        assert_eq!(
            parse("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3600))
        );
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        for wrong in ["", "S", "5", "-5S", "123456789S", "5s", "5.0S", "ö", "5ö"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
