//! An issuer of signed tokens, as a cluster is for its service accounts: what the simulated identity provider can trust.
//!
//! Its key is a part of the sources: it signs nothing but what tests hand to a simulator, and the tokens of the control
//! planes that tests start, which listen to this machine alone.

use anyhow::{Context as _, Result, anyhow};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};

/// The name of the key in a token and in the JWK set.
const KEY_ID: &str = "of-the-tests";
pub(crate) const KEY: &str = include_str!("issuer/key.pem");

/// An issuer and its key.
#[derive(Debug)]
pub struct Issuer {
    key: RsaKeyPair,
}

impl Issuer {
    /// The issuer with the tests' own key.
    ///
    /// # Errors
    /// When the key cannot be read.
    pub fn new() -> Result<Self> {
        Self::with_key(KEY)
    }

    /// An issuer with a key of its own, an RSA key as PKCS #8 in PEM.
    ///
    /// # Errors
    /// When the key cannot be read.
    pub fn with_key(pem: &str) -> Result<Self> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).context("read the PEM")?;
        let key = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der());
        Ok(Self { key: key.map_err(|wrong| anyhow!("read the RSA key: {wrong}"))? })
    }

    /// The public key, as the issuer's discovery document leads to it.
    pub fn jwks(&self) -> String {
        let public: PublicKeyComponents<Vec<u8>> = PublicKeyComponents::from(self.key.public());
        let number = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let key = json!({
            "kty": "RSA", "alg": "RS256", "use": "sig", "kid": KEY_ID,
            "n": number(&public.n), "e": number(&public.e),
        });
        json!({"keys": [key]}).to_string()
    }

    /// A signed token with these claims.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn token(&self, claims: &Value) -> Result<String> {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({"alg": "RS256", "kid": KEY_ID, "typ": "JWT"});
        let message = format!("{}.{}", part(&header), part(claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)
            .map_err(|_nothing| anyhow!("the token cannot be signed"))?;
        Ok(format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }
}
