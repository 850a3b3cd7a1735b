//! Whether a key and a chain of certificates make a client's identity; if not, which block is at fault. Pure.

use rustls::crypto::CryptoProvider;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate::Facts;

/// Why they do not. Blocks are those of the certificates' file, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The key is of a kind that is not supported, or damaged.
    #[error(
        "the private key in {KEY_FILE} cannot be used: it is damaged, or of a kind that is not supported; use a key of \
         RSA from 2048 to 4096 bits, ECDSA P-256 or P-384, or Ed25519: openssl pkey -in {KEY_FILE} -noout -text prints which it is"
    )]
    Key,
    /// The key belongs to none of the certificates.
    #[error(
        "the private key in {KEY_FILE} is that of another certificate; store the two that belong together: openssl x509 -in {CHAIN_FILE} \
         -noout -pubkey and openssl pkey -in {KEY_FILE} -pubout print the same then"
    )]
    OtherKey,
    /// The key belongs to a certificate that is not the first.
    #[error(
        "the certificates in {CHAIN_FILE} are in the wrong order: the private key belongs to block {block}; put that block first, then \
         the one that issued it, and so on"
    )]
    NotFirst {
        /// Whose key it is.
        block: usize,
    },
    /// A certificate's issuer is there, but does not follow it.
    #[error(
        "the certificates in {CHAIN_FILE} are in the wrong order: block {issuer} issued block {block} and has to follow it; put each \
         certificate before the one that issued it"
    )]
    Order {
        /// The certificate.
        block: usize,
        /// Its issuer.
        issuer: usize,
    },
}

const KEY_FILE: &str = "tls.key";
const CHAIN_FILE: &str = "tls.crt";

/// Looks whether they belong together.
///
/// # Errors
/// [`Mismatch`].
pub(super) fn check(
    chain: &[CertificateDer<'_>],
    key: &PrivateKeyDer<'_>,
    provider: &CryptoProvider,
) -> Result<(), Mismatch> {
    let signer = provider
        .key_provider
        .load_private_key(key.clone_key())
        .map_err(|_what_it_quotes| Mismatch::Key)?;
    let facts: Vec<Option<Facts<'_>>> = chain.iter().map(Facts::of).collect();
    if let Some(public) = signer.public_key() {
        let is_its_own = |facts: &Option<Facts<'_>>| {
            facts.as_ref().is_some_and(|facts| facts.raw_key() == public.as_ref())
        };
        match facts.iter().position(is_its_own) {
            Some(0) => {}
            Some(index) => return Err(Mismatch::NotFirst { block: index + 1 }),
            None => return Err(Mismatch::OtherKey),
        }
    }
    order(&facts)
}

fn order(facts: &[Option<Facts<'_>>]) -> Result<(), Mismatch> {
    for (index, pair) in facts.windows(2).enumerate() {
        let [Some(this), Some(next)] = pair else { continue };
        // Two of one name are the same authority, signed by two others.
        let follows =
            next.raw_subject() == this.raw_issuer() || next.raw_subject() == this.raw_subject();
        if follows || this.is_its_own_issuer() {
            continue;
        }
        let is_issuer = |facts: &Option<Facts<'_>>| {
            facts.as_ref().is_some_and(|facts| facts.raw_subject() == this.raw_issuer())
        };
        if let Some(issuer) = facts.iter().position(is_issuer) {
            return Err(Mismatch::Order { block: index + 1, issuer: issuer + 1 });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    use super::*;

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    fn key_of(key: &KeyPair) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(key.serialize_der()).unwrap()
    }

    #[test]
    fn key_and_chain_belong_together_or_the_block_at_fault_is_named() {
        let provider = rustls::crypto::ring::default_provider();
        let root =
            CertifiedIssuer::self_signed(params("root"), KeyPair::generate().unwrap()).unwrap();
        let middle =
            CertifiedIssuer::signed_by(params("middle"), KeyPair::generate().unwrap(), &root)
                .unwrap();
        let keys = KeyPair::generate().unwrap();
        let leaf = params("leaf").signed_by(&keys, &middle).unwrap();
        let (leaf, middle, root) = (leaf.der(), middle.der(), root.der());
        let key = key_of(&keys);
        let other = key_of(&KeyPair::generate().unwrap());
        let outcome = |chain: &[&CertificateDer<'static>], key| {
            let chain: Vec<_> = chain.iter().map(|&certificate| certificate.clone()).collect();
            check(&chain, key, &provider)
        };
        for good in [&[leaf][..], &[leaf, middle], &[leaf, middle, root], &[leaf, root]] {
            assert_eq!(outcome(good, &key), Ok(()));
        }
        assert_eq!(outcome(&[leaf, middle], &other), Err(Mismatch::OtherKey));
        assert_eq!(outcome(&[root, middle, leaf], &key), Err(Mismatch::NotFirst { block: 3 }));
        let swapped = Mismatch::Order { block: 1, issuer: 3 };
        assert_eq!(outcome(&[leaf, root, middle], &key), Err(swapped));
        assert!(swapped.to_string().contains("block 3 issued block 1"));
        let damaged =
            PrivateKeyDer::from(rustls_pki_types::PrivatePkcs8KeyDer::from(vec![0x30, 0]));
        assert_eq!(outcome(&[leaf], &damaged), Err(Mismatch::Key));
    }
}
