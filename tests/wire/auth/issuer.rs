//! Who signs tokens.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    rsa::{KeyPair as RsaKey, PublicKeyComponents},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        RSA_PKCS1_SHA256,
    },
};
use serde_json::{Value, json};

/// A key that signs.
enum Signer {
    Rsa(Box<RsaKey>),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A key with its id.
pub struct Issuer {
    signer: Signer,
    kid: String,
}

pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Seconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_secs()
}

/// Claims of Ada that are right for ten minutes.
pub fn claims() -> Value {
    json!({
        "iss": "https://issuer.example",
        "aud": "tidemark",
        "sub": "user:ada",
        "exp": now() + 600,
        "nbf": now(),
    })
}

/// The same claims with other values; null removes one.
pub fn claims_with(changes: Value) -> Value {
    let mut claims = claims();
    let fields = claims.as_object_mut().expect("an object");
    for (name, value) in changes.as_object().expect("an object") {
        if value.is_null() {
            fields.remove(name);
        } else {
            fields.insert(name.clone(), value.clone());
        }
    }
    claims
}

impl Issuer {
    /// RS256, with the one key that is in the repository: ring makes none.
    pub fn rsa(kid: &str) -> Self {
        let der = include_bytes!("../../support/rsa.der");
        let key = RsaKey::from_pkcs8(der).expect("a key");
        Self {
            signer: Signer::Rsa(Box::new(key)),
            kid: kid.into(),
        }
    }

    /// ES256.
    pub fn p256(kid: &str) -> Self {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let der = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
        let key = EcdsaKeyPair::from_pkcs8(algorithm, der.as_ref(), &random);
        Self {
            signer: Signer::P256(key.expect("a key")),
            kid: kid.into(),
        }
    }

    /// EdDSA.
    pub fn ed25519(kid: &str) -> Self {
        let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        let key = Ed25519KeyPair::from_pkcs8(der.as_ref());
        Self {
            signer: Signer::Ed25519(key.expect("a key")),
            kid: kid.into(),
        }
    }

    pub const fn algorithm(&self) -> &'static str {
        match self.signer {
            Signer::Rsa(_) => "RS256",
            Signer::P256(_) => "ES256",
            Signer::Ed25519(_) => "EdDSA",
        }
    }

    /// The modulus of the RSA key, as a secret for a confused HMAC.
    pub fn modulus(&self) -> Vec<u8> {
        let Signer::Rsa(key) = &self.signer else {
            panic!("not RSA");
        };
        PublicKeyComponents::<Vec<u8>>::from(key.public()).n
    }

    /// The public key.
    pub fn jwk(&self) -> Value {
        let mut jwk = match &self.signer {
            Signer::Rsa(key) => {
                let PublicKeyComponents { n, e } =
                    PublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({"kty": "RSA", "n": base64(n), "e": base64(e)})
            }
            Signer::P256(key) => {
                let point = key.public_key().as_ref();
                let (x, y) = (base64(&point[1..33]), base64(&point[33..]));
                json!({"kty": "EC", "crv": "P-256", "x": x, "y": y})
            }
            Signer::Ed25519(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": base64(key.public_key())})
            }
        };
        jwk["kid"] = self.kid.as_str().into();
        jwk["use"] = "sig".into();
        jwk["alg"] = self.algorithm().into();
        jwk
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.signer {
            Signer::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .expect("signed");
                signature
            }
            Signer::P256(key) => key.sign(&random, message).expect("signed").as_ref().into(),
            Signer::Ed25519(key) => key.sign(message).as_ref().into(),
        }
    }

    /// A token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm(), "kid": self.kid, "typ": "JWT"});
        self.token_with(&header, claims)
    }

    /// The same with another header.
    pub fn token_with(&self, header: &Value, claims: &Value) -> String {
        let message = unsigned(header, claims);
        let signature = self.sign(message.as_bytes());
        format!("{message}.{}", base64(signature))
    }
}

/// A token without its signature.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    let (header, claims) = (header.to_string(), claims.to_string());
    format!("{}.{}", base64(header), base64(claims))
}

/// A file of public keys.
pub fn key_set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}
