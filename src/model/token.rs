//! The consistency token: what a client has seen, to be shown to any replica.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use xxhash_rust::xxh3::xxh3_64;

use super::OriginTime;

/// The identity of the origin: a hash that distinguishes it from all others. Tokens of
/// another origin are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OriginId(pub u64);

/// Two times. Reads use only `seen`, watches only `fresh_to`; a write's token
/// has its own time as both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The origin whose times these are.
    pub origin: OriginId,
    /// What the answer has seen.
    pub seen: OriginTime,
    /// What the answer is fresh to.
    pub fresh_to: OriginTime,
}

/// Why a text is not a token of this origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenProblem {
    /// Not a token at all, or cut, or changed.
    Malformed,
    /// A token of a version that this release does not know.
    Version,
}

const VERSION: u8 = 1;
/// Version, origin, `seen`, `fresh_to`, checksum.
const LEN: usize = 1 + 8 + 8 + 8 + 8;

impl Token {
    /// The token of a write, or of anything that stands at one time.
    #[must_use]
    pub const fn at(origin: OriginId, time: OriginTime) -> Self {
        Self {
            origin,
            seen: time,
            fresh_to: time,
        }
    }

    /// The text that clients keep: 44 characters of base64url.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut raw = [0; LEN];
        raw[0] = VERSION;
        raw[1..9].copy_from_slice(&self.origin.0.to_be_bytes());
        raw[9..17].copy_from_slice(&self.seen.0.to_be_bytes());
        raw[17..25].copy_from_slice(&self.fresh_to.0.to_be_bytes());
        let sum = xxh3_64(&raw[..25]);
        raw[25..].copy_from_slice(&sum.to_be_bytes());
        URL_SAFE_NO_PAD.encode(raw)
    }

    /// Reads what `encode` wrote.
    ///
    /// # Errors
    /// If the text is not a valid token.
    pub fn decode(text: &str) -> Result<Self, TokenProblem> {
        let mut raw = [0; LEN];
        let n = URL_SAFE_NO_PAD
            .decode_slice(text, &mut raw)
            .map_err(|_| TokenProblem::Malformed)?;
        let word = |at: usize| -> u64 {
            raw[at..at + 8]
                .iter()
                .fold(0, |n, b| n << 8 | u64::from(*b))
        };
        if n != LEN || xxh3_64(&raw[..25]) != word(25) {
            return Err(TokenProblem::Malformed);
        }
        if raw[0] != VERSION {
            return Err(TokenProblem::Version);
        }
        Ok(Self {
            origin: OriginId(word(1)),
            seen: OriginTime(word(9)),
            fresh_to: OriginTime(word(17)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The client libraries read version, origin and `seen` of a token (ADR 71), and
    /// have the same texts in their tests.
    #[test]
    fn the_text_of_version_1_stays() {
        let text = |origin, seen, fresh_to| {
            Token {
                origin: OriginId(origin),
                seen: OriginTime(seen),
                fresh_to: OriginTime(fresh_to),
            }
            .encode()
        };
        assert_eq!(
            text(7, 10, 10),
            "AQAAAAAAAAAHAAAAAAAAAAoAAAAAAAAACpj2nQaRC2sD"
        );
        assert_eq!(
            text(7, 11, 9),
            "AQAAAAAAAAAHAAAAAAAAAAsAAAAAAAAACejjLmA6UENV"
        );
        assert_eq!(
            text(8, 1, 1),
            "AQAAAAAAAAAIAAAAAAAAAAEAAAAAAAAAAZ6Ahy7aI_GU"
        );
    }

    #[test]
    fn every_cut_and_every_flip_is_seen() {
        let token = Token {
            origin: OriginId(7),
            seen: OriginTime(u64::MAX - 3),
            fresh_to: OriginTime(5),
        };
        let text = token.encode();
        assert_eq!(Token::decode(&text), Ok(token));
        for cut in 0..text.len() {
            assert!(Token::decode(&text[..cut]).is_err());
        }
        for at in 0..text.len() {
            for with in "AZaz09-_= .".chars() {
                let changed = format!("{}{with}{}", &text[..at], &text[at + 1..]);
                assert!(
                    changed == text || Token::decode(&changed).is_err(),
                    "{changed}"
                );
            }
        }
    }
}
