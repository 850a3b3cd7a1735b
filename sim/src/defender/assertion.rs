//! Client assertions: signed tokens of an issuer that the identity provider trusts, in place of a client secret.
//!
//! RS256 only, which is what service accounts' tokens are signed with. The time is an argument.

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde_json::Value;

/// By how much the issuer's clock may be ahead, seconds.
const LEEWAY: i64 = 300;

/// A federated identity credential: whose assertions are accepted, and the keys that sign them.
#[derive(Debug, Clone)]
pub(super) struct Trust {
    issuer: String,
    subject: String,
    audience: String,
    keys: Vec<Key>,
}

#[derive(Debug, Clone)]
struct Key {
    id: Option<String>,
    modulus: Vec<u8>,
    exponent: Vec<u8>,
}

/// What is wrong with an assertion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is no signed token, or the signature is not one of a trusted key.
    Form(&'static str),
    Issuer(String),
    Subject(String),
    Audience(String),
    /// It has expired, or is not valid yet.
    Time,
}

impl Trust {
    /// Trusts the keys of a JWK set.
    ///
    /// # Errors
    /// When it is no set of RSA keys.
    pub(super) fn new(issuer: &str, jwks: &str, subject: &str, audience: &str) -> Result<Self> {
        let set: Value = serde_json::from_str(jwks).context("the keys are not JSON")?;
        let keys = set.get("keys").and_then(Value::as_array).context("the keys are no JWK set")?;
        let keys = keys.iter().map(Key::read).collect::<Result<Vec<_>>>()?;
        ensure!(!keys.is_empty(), "the JWK set is empty");
        let owned = str::to_owned;
        Ok(Self { issuer: owned(issuer), subject: owned(subject), audience: owned(audience), keys })
    }

    /// The same from one JSON object.
    pub(super) fn read(json: &str) -> Result<Self> {
        let object: Value = serde_json::from_str(json).context("the body is not JSON")?;
        let text = |name: &str| {
            object.get(name).and_then(Value::as_str).with_context(|| format!("`{name}` is missing"))
        };
        let jwks = object.get("jwks").context("`jwks` is missing")?.to_string();
        Self::new(text("issuer")?, &jwks, text("subject")?, text("audience")?)
    }
}

impl Key {
    fn read(json: &Value) -> Result<Self> {
        let text = |name: &str| json.get(name).and_then(Value::as_str);
        ensure!(text("kty") == Some("RSA"), "a key of the JWK set is not an RSA key");
        let number = |name: &str| {
            let digits = text(name).with_context(|| format!("a key lacks `{name}`"))?;
            BASE64_URL_SAFE_NO_PAD.decode(digits).with_context(|| format!("`{name}` of a key"))
        };
        let id = text("kid").map(str::to_owned);
        Ok(Self { id, modulus: number("n")?, exponent: number("e")? })
    }

    fn signed(&self, message: &str, signature: &[u8]) -> bool {
        let key = RsaPublicKeyComponents { n: &self.modulus, e: &self.exponent };
        key.verify(&RSA_PKCS1_2048_8192_SHA256, message.as_bytes(), signature).is_ok()
    }
}

/// Verifies an assertion at this time, in seconds since 1970.
pub(super) fn verify(assertion: &str, trust: &[Trust], at: i64) -> Result<(), Wrong> {
    let (message, signature) = assertion.rsplit_once('.').ok_or(Wrong::Form("It has no parts."))?;
    let (header, claims) = message.split_once('.').ok_or(Wrong::Form("It has two parts."))?;
    let json = |part: &str| {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).ok();
        let json = bytes.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        json.filter(Value::is_object).ok_or(Wrong::Form("A part of it is no JSON object."))
    };
    let (header, claims) = (json(header)?, json(claims)?);
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature);
    let signature = signature.map_err(|_digits| Wrong::Form("The signature is not base64url."))?;
    if header.get("alg").and_then(Value::as_str) != Some("RS256") {
        return Err(Wrong::Form("The algorithm is not RS256."));
    }
    let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let of_issuer: Vec<&Trust> = trust.iter().filter(|trust| trust.issuer == text("iss")).collect();
    if of_issuer.is_empty() {
        return Err(Wrong::Issuer(text("iss")));
    }
    let named = header.get("kid").and_then(Value::as_str);
    let mut keys = of_issuer.iter().flat_map(|trust| &trust.keys);
    let signed = keys.any(|key| {
        let is_meant = named.is_none() || key.id.is_none() || key.id.as_deref() == named;
        is_meant && key.signed(message, &signature)
    });
    if !signed {
        return Err(Wrong::Form("The signature is not one of a key of the issuer."));
    }
    let second = |name: &str| claims.get(name).and_then(Value::as_f64);
    #[expect(clippy::cast_precision_loss, reason = "seconds of this age are exact")]
    let (at, latest) = (at as f64, (at + LEEWAY) as f64);
    let expired = second("exp").is_none_or(|end| end <= at);
    if expired || second("nbf").is_some_and(|begin| begin > latest) {
        return Err(Wrong::Time);
    }
    let of_subject: Vec<&&Trust> =
        of_issuer.iter().filter(|trust| trust.subject == text("sub")).collect();
    if of_subject.is_empty() {
        return Err(Wrong::Subject(text("sub")));
    }
    let audiences: Vec<String> = match claims.get("aud") {
        Some(Value::Array(list)) => {
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        _ => vec![text("aud")],
    };
    if of_subject.iter().any(|trust| audiences.contains(&trust.audience)) {
        Ok(())
    } else {
        Err(Wrong::Audience(audiences.join(", ")))
    }
}
