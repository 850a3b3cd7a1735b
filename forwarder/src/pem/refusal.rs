//! Why a PEM file is refused: what each block is, the words for it, and the command that mends it. Pure.

use std::fmt;

use super::Found;
use super::der::Shape;

/// What a file should hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Certificates to trust.
    Bundle,
    /// Our own certificate and those between it and its root.
    Chain,
    /// The private key of our own certificate.
    Key,
}

/// What a block or a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    /// An X.509 certificate.
    Certificate,
    /// A request for one.
    Request,
    /// A list of revoked ones.
    RevocationList,
    /// A private key.
    Key,
    /// A private key with a passphrase.
    EncryptedKey,
    /// A private key in the form of OpenSSH or SSH2.
    SshKey,
    /// A private key of DSA.
    DsaKey,
    /// A public key.
    PublicKey,
    /// Parameters of a curve or of Diffie-Hellman.
    Parameters,
    /// PKCS#7, also called CMS or .p7b.
    Pkcs7,
    /// PKCS#12, also called .p12 or .pfx.
    Pkcs12,
    /// PGP.
    Pgp,
    /// A label that is not known here.
    Unknown,
}

/// What is wrong. Blocks are counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each has its words below, and its fields one meaning")]
pub enum Trouble {
    Empty,
    Utf16,
    Keystore,
    Binary,
    Path,
    Ssh,
    Markup,
    NoBlock,
    Base64OfPem,
    Base64OfDer { is: Block },
    Der { is: Block },
    Marker { before_block: usize },
    Stray { before_block: usize },
    Escaped { block: usize },
    Unended { block: usize },
    OtherEnd { block: usize },
    EmptyBlock { block: usize },
    NotBase64 { block: usize },
    Cut { block: usize },
    Overlong { block: usize },
    Unreadable { block: usize, is: Block },
    Mislabelled { block: usize, is: Block },
    Block { block: usize, is: Block },
    SecondKey { block: usize },
}

/// A file that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}; {}", self.words(), self.mend())]
pub struct Refusal {
    file: String,
    wanted: Wanted,
    /// What is wrong.
    pub trouble: Trouble,
}

impl Block {
    pub(super) fn of_label(found: &Found<'_>) -> Self {
        match found.label {
            "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" => Self::Certificate,
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Self::Request,
            "X509 CRL" | "CRL" => Self::RevocationList,
            "ENCRYPTED PRIVATE KEY" => Self::EncryptedKey,
            "OPENSSH PRIVATE KEY" | "SSH2 ENCRYPTED PRIVATE KEY" | "SSH2 PUBLIC KEY" => {
                Self::SshKey
            }
            "DSA PRIVATE KEY" => Self::DsaKey,
            "PUBLIC KEY" | "RSA PUBLIC KEY" | "EC PUBLIC KEY" => Self::PublicKey,
            "PKCS7" | "PKCS #7 SIGNED DATA" | "CMS" => Self::Pkcs7,
            "PKCS12" => Self::Pkcs12,
            label if label.starts_with("PGP ") => Self::Pgp,
            label if label.ends_with("PARAMETERS") => Self::Parameters,
            label if label.ends_with("PRIVATE KEY") => Self::Key,
            _ => Self::Unknown,
        }
    }

    pub(super) fn of_shape(shape: Shape) -> Self {
        match shape {
            Shape::Certificate => Self::Certificate,
            Shape::Request => Self::Request,
            Shape::RevocationList => Self::RevocationList,
            Shape::Pkcs12 => Self::Pkcs12,
            Shape::Pkcs7 => Self::Pkcs7,
            Shape::Pkcs8 | Shape::Pkcs1 | Shape::Sec1 => Self::Key,
            Shape::EncryptedKey => Self::EncryptedKey,
            Shape::PublicKey => Self::PublicKey,
            Shape::Other => Self::Unknown,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Certificate => "a certificate",
            Self::Request => "a certificate request (CSR)",
            Self::RevocationList => "a revocation list (CRL)",
            Self::Key => "a private key",
            Self::EncryptedKey => "a private key with a passphrase",
            Self::SshKey => "a key in the format of SSH",
            Self::DsaKey => "a DSA key, which TLS no longer uses",
            Self::PublicKey => "a public key",
            Self::Parameters => "the parameters of a curve or of Diffie-Hellman",
            Self::Pkcs7 => "a PKCS#7 collection (.p7b)",
            Self::Pkcs12 => "a PKCS#12 store (.p12, .pfx)",
            Self::Pgp => "a PGP block",
            Self::Unknown => "of a kind that is not known here",
        }
    }
}

impl Wanted {
    fn name(self) -> &'static str {
        match self {
            Self::Bundle | Self::Chain => "certificates",
            Self::Key => "a private key",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => formatter.write_str("the file is empty"),
            Self::Utf16 => formatter.write_str("the file is UTF-16, not plain text"),
            Self::Keystore => formatter.write_str("the file is a Java keystore, not PEM"),
            Self::Binary => formatter
                .write_str("the file is binary, not PEM, and of no kind that is known here"),
            Self::Path => {
                formatter.write_str("the file holds the path of a file instead of its content")
            }
            Self::Ssh => formatter.write_str("the file holds a key of SSH, not PEM"),
            Self::Markup => formatter.write_str("the file is HTML or XML, not PEM"),
            Self::NoBlock => formatter.write_str("the file holds no PEM block"),
            Self::Base64OfPem => {
                formatter.write_str("the file is base64 of a PEM: it was encoded twice")
            }
            Self::Base64OfDer { is } => {
                write!(
                    formatter,
                    "the file is {} in base64 without its BEGIN and END lines",
                    is.name()
                )
            }
            Self::Der { is: is @ (Block::Pkcs12 | Block::Pkcs7) } => {
                write!(formatter, "the file is {}, not PEM", is.name())
            }
            Self::Der { is } => write!(formatter, "the file is {} in DER, not PEM", is.name()),
            Self::Marker { before_block } => {
                write!(formatter, "block {before_block} has a broken BEGIN or END line")
            }
            Self::Stray { before_block } => {
                write!(
                    formatter,
                    "base64 stands outside of every block, where block {before_block} should begin"
                )
            }
            Self::Escaped { block } => {
                write!(
                    formatter,
                    r"block {block} has the two characters \n where its lines should end"
                )
            }
            Self::Unended { block } => {
                write!(formatter, "block {block} is cut off: its END line is missing")
            }
            Self::OtherEnd { block } => {
                write!(formatter, "block {block} does not end with the label that it begins with")
            }
            Self::EmptyBlock { block } => write!(formatter, "block {block} is empty"),
            Self::NotBase64 { block } => {
                write!(formatter, "block {block} holds what is not base64")
            }
            Self::Cut { block } => {
                write!(formatter, "block {block} is cut: some of its content is missing")
            }
            Self::Overlong { block } => {
                write!(formatter, "block {block} has more than one object in it")
            }
            Self::Unreadable { block, is } => {
                write!(
                    formatter,
                    "block {block} is labelled as {}, and its content is not",
                    is.name()
                )
            }
            Self::Mislabelled { block, is } => {
                write!(formatter, "block {block} has the wrong label: it is {}", is.name())
            }
            Self::Block { block, is } => write!(formatter, "block {block} is {}", is.name()),
            Self::SecondKey { block } => write!(formatter, "block {block} is a second private key"),
        }
    }
}

impl Refusal {
    pub(super) fn new(file: &str, wanted: Wanted, trouble: Trouble) -> Self {
        Self { file: file.to_owned(), wanted, trouble }
    }

    /// What is wrong.
    pub fn words(&self) -> String {
        let wanted = self.wanted.name();
        match self.trouble {
            Trouble::Block { is: Block::EncryptedKey, .. } if self.wanted == Wanted::Key => {
                self.trouble.to_string()
            }
            Trouble::Block { .. } | Trouble::Mislabelled { .. } | Trouble::NoBlock => {
                format!("{}, where only {wanted} can stand", self.trouble)
            }
            _ => self.trouble.to_string(),
        }
    }

    /// What to do about it.
    pub fn mend(&self) -> String {
        let file = &self.file;
        let again = || format!("copy {file} again from where it was made, whole");
        match self.trouble {
            Trouble::Empty => format!("put {} in PEM into {file}", self.wanted.name()),
            Trouble::Utf16 => format!("convert it: iconv -f utf-16 -t utf-8 {file} > {file}.new"),
            Trouble::Keystore => format!(
                "convert it: keytool -importkeystore -srckeystore {file} -destkeystore {file}.p12 -deststoretype PKCS12, then {}",
                self.of_pkcs12(&format!("{file}.p12"))
            ),
            Trouble::Path => format!(
                "store the content of that file: kubectl create secret generic NAME --from-file={file}=PATH"
            ),
            Trouble::Ssh => self.convert(Block::SshKey, ""),
            Trouble::Binary | Trouble::Markup | Trouble::NoBlock => format!(
                "a PEM file holds lines from -----BEGIN {0}----- to -----END {0}-----; put such a file there",
                self.label()
            ),
            Trouble::Base64OfPem => format!(
                "decode it once: base64 -d {file} > {file}.new; the data of a Secret is base64 already, its stringData is not"
            ),
            Trouble::Base64OfDer { is } => {
                format!(
                    "decode it: base64 -d {file} > {file}.der, then {}",
                    self.convert(is, "-inform der ")
                )
            }
            Trouble::Der { is } => self.convert(is, "-inform der "),
            Trouble::Marker { .. } => format!(
                "write five hyphens on each side, such as -----BEGIN {0}----- and -----END {0}-----, or {1}",
                self.label(),
                again()
            ),
            Trouble::Escaped { .. } => {
                format!(
                    r"write real line ends: awk '{{gsub(/(\\r)?\\n/,{:?})}}1' {file} > {file}.new",
                    "\n"
                )
            }
            Trouble::Stray { .. }
            | Trouble::Unended { .. }
            | Trouble::OtherEnd { .. }
            | Trouble::EmptyBlock { .. }
            | Trouble::NotBase64 { .. }
            | Trouble::Cut { .. }
            | Trouble::Overlong { .. }
            | Trouble::Unreadable { .. } => again(),
            Trouble::Mislabelled { is, .. } | Trouble::Block { is, .. } => self.instead(is),
            Trouble::SecondKey { .. } => {
                "keep only the key that belongs to the first certificate of tls.crt".to_owned()
            }
        }
    }

    fn label(&self) -> &'static str {
        match self.wanted {
            Wanted::Bundle | Wanted::Chain => "CERTIFICATE",
            Wanted::Key => "PRIVATE KEY",
        }
    }

    /// What to do about a block that is something else than what is wanted.
    fn instead(&self, is: Block) -> String {
        let file = &self.file;
        match (self.wanted, is) {
            (Wanted::Chain, Block::Key | Block::EncryptedKey) => {
                format!(
                    "{file} takes certificates and tls.key the key: remove the key here, or exchange the two files"
                )
            }
            (Wanted::Bundle, Block::Key | Block::EncryptedKey) => {
                format!(
                    "remove it, since whoever reads {file} could read the key: openssl x509 -in {file} prints a certificate alone"
                )
            }
            (Wanted::Key, Block::Certificate) => format!(
                "{file} takes the key and tls.crt the certificates: remove the certificate (openssl pkey -in {file} prints the key alone), or exchange the two files"
            ),
            (_, Block::Request) => {
                "a request has to be signed first: ask the authority for the certificate".to_owned()
            }
            (
                Wanted::Bundle | Wanted::Chain,
                Block::RevocationList | Block::Parameters | Block::PublicKey,
            ) => "remove it: it is not used here".to_owned(),
            (Wanted::Key, Block::Parameters) => format!(
                "put the key itself there: openssl ecparam -name prime256v1 -genkey -noout -out {file} makes one"
            ),
            (_, is) => self.convert(is, ""),
        }
    }

    /// The command that makes what is wanted of what is there.
    fn convert(&self, is: Block, form: &str) -> String {
        let Self { file, wanted, .. } = self;
        match (is, wanted) {
            (Block::Pkcs12, _) => self.of_pkcs12(file),
            (Block::Pkcs7, Wanted::Bundle | Wanted::Chain) => {
                format!(
                    "take the certificates out of it: openssl pkcs7 {form}-in {file} -print_certs -out {file}.new"
                )
            }
            (Block::Certificate, Wanted::Bundle | Wanted::Chain) => {
                format!("convert it: openssl x509 {form}-in {file} -out {file}.new")
            }
            (Block::EncryptedKey, Wanted::Key) => {
                format!(
                    "remove the passphrase, which nobody can type here: openssl pkey {form}-in {file} -out {file}.new"
                )
            }
            (Block::Key, Wanted::Key) => {
                format!("convert it: openssl pkey {form}-in {file} -out {file}.new")
            }
            (Block::SshKey, Wanted::Key) => {
                format!("convert a copy of it: ssh-keygen -p -N '' -m PKCS8 -f {file}.copy")
            }
            (_, Wanted::Key) => {
                "put the private key of the certificate in tls.crt there".to_owned()
            }
            (_, Wanted::Bundle) => "put the certificate of the authority there".to_owned(),
            (_, Wanted::Chain) => "put the certificate there, and the key into tls.key".to_owned(),
        }
    }

    fn of_pkcs12(&self, file: &str) -> String {
        let out = &self.file;
        match self.wanted {
            Wanted::Bundle => format!(
                "take the certificates out of it: openssl pkcs12 -in {file} -nokeys -nodes -out {out}.new"
            ),
            Wanted::Chain => format!(
                "take the certificates out of it: openssl pkcs12 -in {file} -nokeys -nodes -out {out}.new, and the key with -nocerts -nodes"
            ),
            Wanted::Key => format!(
                "take the key out of it: openssl pkcs12 -in {file} -nocerts -nodes -out {out}.new"
            ),
        }
    }
}
