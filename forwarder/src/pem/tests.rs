//! Each form in which people store certificates and keys: read, or refused with its words and its mend.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::*;

struct Made {
    certificates: [String; 2],
    ders: [Vec<u8>; 2],
    key: String,
    key_der: Vec<u8>,
}

fn made() -> Made {
    let certificate = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.self_signed(&key).unwrap()
    };
    let both = [certificate("one.example.com"), certificate("two.example.com")];
    let key = rcgen::KeyPair::generate().unwrap();
    Made {
        certificates: both.each_ref().map(rcgen::Certificate::pem),
        ders: both.each_ref().map(|certificate| certificate.der().to_vec()),
        key: key.serialize_pem(),
        key_der: key.serialize_der(),
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<String> =
        text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn bundle(bytes: impl AsRef<[u8]>) -> Result<Vec<Vec<u8>>, Refusal> {
    let read = certificates("ca.crt", bytes.as_ref(), Wanted::Bundle)?;
    Ok(read.into_iter().map(|certificate| certificate.to_vec()).collect())
}

/// The refusal's trouble; its words name every block, its mend this command, and neither shows anything of the file.
#[track_caller]
fn refused(
    what: &str,
    outcome: Result<impl Sized, Refusal>,
    bytes: &[u8],
    trouble: Trouble,
    mend: &str,
) {
    let Err(refusal) = outcome else { panic!("{what} is read") };
    assert_eq!(refusal.trouble, trouble, "{what}");
    let text = refusal.to_string();
    assert!(text.contains(mend), "{what}: `{mend}` is not in: {text}");
    for line in String::from_utf8_lossy(bytes)
        .lines()
        .filter(|line| line.len() >= 20 && !line.starts_with("--"))
    {
        assert!(!text.contains(line), "{what}: {text}");
    }
}

#[test]
fn whatever_is_whole_is_read() {
    let Made { certificates: [one, two], ders: [a, b], .. } = made();
    let both = vec![a.clone(), b];
    let crlf = |text: &str| text.replace('\n', "\r\n");
    let aux = pem("TRUSTED CERTIFICATE", &[a.as_slice(), &[0x30, 0x02, 0x0c, 0x00]].concat());
    let joined = format!("{}{two}", one.trim_end());
    assert!(joined.contains("-----END CERTIFICATE----------BEGIN CERTIFICATE-----"));
    for (what, text) in [
        ("as it is", format!("{one}{two}")),
        ("a byte-order mark", format!("\u{feff}{one}{two}")),
        ("a byte-order mark before each", format!("\u{feff}{one}\u{feff}{two}")),
        ("CRLF", crlf(&format!("{one}{two}"))),
        ("CR", format!("{one}{two}").replace('\n', "\r")),
        ("blanks before lines", format!("{one}{two}").replace('\n', "\n    ")),
        ("blanks after lines", format!("{one}{two}").replace('\n', " \t\n")),
        ("empty lines", format!("{one}{two}").replace('\n', "\n\n")),
        (
            "comments between",
            format!("# The root\n\nsubject=CN = one\n{one}\n=====\n{two}trailing words\n"),
        ),
        ("no line end at the end", format!("{one}{}", two.trim_end())),
        ("one line between", joined),
        ("one line altogether", format!("{one}{two}").replace('\n', " ")),
        ("other labels", format!("{aux}{}", two.replace("CERTIFICATE", "X509 CERTIFICATE"))),
        ("six hyphens", one.replace("-----BEGIN", "------BEGIN") + &two),
    ] {
        assert_eq!(
            bundle(&text).unwrap_or_else(|refusal| panic!("{what}: {refusal}")),
            both,
            "{what}"
        );
    }
}

#[test]
fn no_block_is_passed_over() {
    let Made { certificates: [one, two], ders: [a, _], key, .. } = made();
    let lines: Vec<&str> = one.lines().collect();
    let without = |n_line: usize| {
        let kept = lines.iter().enumerate().filter(|(index, _)| *index != n_line);
        kept.map(|(_, line)| format!("{line}\n")).collect::<String>()
    };
    let last = lines.len() - 1;
    let half = format!("{}\n", lines[..4].join("\n"));
    let cut = Trouble::Cut { block: 2 };
    for (what, text, trouble, mend) in [
        ("a line is missing", format!("{two}{}", without(3)), cut, "copy ca.crt again"),
        (
            "half and no end",
            format!("{two}{half}"),
            Trouble::Unended { block: 2 },
            "copy ca.crt again",
        ),
        (
            "half and the next",
            format!("{half}{two}"),
            Trouble::Unended { block: 1 },
            "copy ca.crt again",
        ),
        (
            "no BEGIN",
            format!("{two}{}", without(0)),
            Trouble::Stray { before_block: 2 },
            "copy ca.crt again",
        ),
        (
            "no END",
            format!("{two}{}", without(last)),
            Trouble::Unended { block: 2 },
            "copy ca.crt again",
        ),
        (
            "END alone",
            format!("{two}-----END CERTIFICATE-----\n"),
            Trouble::Marker { before_block: 2 },
            "five hyphens",
        ),
        (
            "four hyphens",
            format!("{two}{}", one.replace("-----", "----")),
            Trouble::Marker { before_block: 2 },
            "five hyphens",
        ),
        (
            "dashes",
            format!("{two}{}", one.replace("-----", "—")),
            Trouble::Marker { before_block: 2 },
            "five hyphens",
        ),
        (
            "lower case",
            two.to_lowercase() + &one,
            Trouble::Marker { before_block: 1 },
            "-----BEGIN CERTIFICATE-----",
        ),
        (
            "half a BEGIN",
            format!("{two}-----BEGIN CERTIFICATE\n{}", without(0)),
            Trouble::Marker { before_block: 2 },
            "five hyphens",
        ),
        (
            "another END",
            one.replace("END CERTIFICATE", "END X509 CRL"),
            Trouble::OtherEnd { block: 1 },
            "copy ca.crt again",
        ),
        (
            "nothing in it",
            format!("{one}{}", pem("CERTIFICATE", b"")),
            Trouble::EmptyBlock { block: 2 },
            "copy ca.crt again",
        ),
        (
            "no base64",
            two.clone() + &one.replace(lines[2], "MIIB*$$,"),
            Trouble::NotBase64 { block: 2 },
            "copy ca.crt again",
        ),
        (
            "a comment inside",
            one.replace(lines[2], &format!("# a word\n{}", lines[2])),
            Trouble::NotBase64 { block: 1 },
            "copy",
        ),
        (
            "a zero-width space",
            one.replace(lines[2], &format!("\u{200b}{}", lines[2])),
            Trouble::NotBase64 { block: 1 },
            "copy",
        ),
        (
            "two in one",
            pem("CERTIFICATE", &[a.as_slice(), &a].concat()),
            Trouble::Overlong { block: 1 },
            "copy",
        ),
        (
            "no certificate",
            pem("CERTIFICATE", &[0x30, 0x03, 0x02, 0x01, 0x09]),
            Trouble::Unreadable { block: 1, is: Block::Certificate },
            "copy",
        ),
        (
            r"literal \n",
            one.replace('\n', r"\n"),
            Trouble::Escaped { block: 1 },
            r#"awk '{gsub(/(\\r)?\\n/,"\n")}1' ca.crt"#,
        ),
        (
            r"literal \r\n",
            two.clone() + &one.replace('\n', r"\r\n"),
            Trouble::Escaped { block: 2 },
            "awk",
        ),
        (
            r"half of it with literal \n",
            half.replace('\n', r"\n"),
            Trouble::Escaped { block: 1 },
            "awk",
        ),
        (
            "a key between",
            format!("{one}{key}{two}"),
            Trouble::Block { block: 2, is: Block::Key },
            "remove it",
        ),
        (
            "a CRL between",
            format!("{one}{}{two}", pem("X509 CRL", &a)),
            Trouble::Block { block: 2, is: Block::RevocationList },
            "remove it",
        ),
        (
            "a request",
            pem("CERTIFICATE REQUEST", &a),
            Trouble::Block { block: 1, is: Block::Request },
            "has to be signed",
        ),
        (
            "PKCS#7",
            pem("PKCS7", &a),
            Trouble::Block { block: 1, is: Block::Pkcs7 },
            "openssl pkcs7 -in ca.crt -print_certs",
        ),
        (
            "a public key",
            one.clone() + &pem("PUBLIC KEY", &a),
            Trouble::Block { block: 2, is: Block::PublicKey },
            "remove it",
        ),
        (
            "another kind",
            one.clone() + &pem("SOMETHING", &a),
            Trouble::Block { block: 2, is: Block::Unknown },
            "authority",
        ),
    ] {
        refused(what, bundle(&text), text.as_bytes(), trouble, mend);
    }
}

#[test]
fn what_is_no_pem_is_named_with_the_command_that_converts_it() {
    let Made { certificates: [one, _], ders: [der, _], key_der, .. } = made();
    let utf16 = |mark: &[u8], order: fn(u16) -> [u8; 2]| {
        [mark.to_vec(), one.encode_utf16().flat_map(order).collect()].concat()
    };
    let pkcs12 = [
        0x30, 0x14, 2, 1, 3, 0x30, 0x0f, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1, 0xa0,
        2, 4, 0,
    ];
    let pkcs7 = [0x30, 0x0f, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2, 0xa0, 2, 4, 0];
    let twice = BASE64_STANDARD.encode(&one);
    let encoded = BASE64_STANDARD.encode(&der);
    let cases: Vec<(&str, Vec<u8>, Trouble, &str)> = vec![
        ("empty", Vec::new(), Trouble::Empty, "put certificates in PEM into ca.crt"),
        ("blank", b" \n\n".to_vec(), Trouble::Empty, "put certificates"),
        (
            "UTF-16, little",
            utf16(&[0xff, 0xfe], u16::to_le_bytes),
            Trouble::Utf16,
            "iconv -f utf-16 -t utf-8 ca.crt",
        ),
        ("UTF-16, big", utf16(&[0xfe, 0xff], u16::to_be_bytes), Trouble::Utf16, "iconv"),
        ("UTF-16 without its mark", utf16(&[], u16::to_le_bytes), Trouble::Utf16, "iconv"),
        (
            "DER",
            der.clone(),
            Trouble::Der { is: Block::Certificate },
            "openssl x509 -inform der -in ca.crt",
        ),
        ("a key in DER", key_der, Trouble::Der { is: Block::Key }, "authority"),
        (
            "PKCS#12",
            pkcs12.to_vec(),
            Trouble::Der { is: Block::Pkcs12 },
            "openssl pkcs12 -in ca.crt -nokeys -nodes",
        ),
        (
            "PKCS#12 without lengths",
            vec![0x30, 0x80, 2, 1, 3, 0x30, 0x80],
            Trouble::Der { is: Block::Pkcs12 },
            "openssl pkcs12",
        ),
        (
            "PKCS#7",
            pkcs7.to_vec(),
            Trouble::Der { is: Block::Pkcs7 },
            "openssl pkcs7 -inform der -in ca.crt -print_certs",
        ),
        (
            "Java",
            vec![0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2],
            Trouble::Keystore,
            "keytool -importkeystore",
        ),
        ("encoded twice", twice.clone().into_bytes(), Trouble::Base64OfPem, "base64 -d ca.crt"),
        (
            "encoded thrice",
            BASE64_STANDARD.encode(&twice).into_bytes(),
            Trouble::Base64OfPem,
            "base64 -d ca.crt",
        ),
        (
            "twice, in lines",
            twice.as_bytes().chunks(76).collect::<Vec<_>>().join(&b"\n"[..]),
            Trouble::Base64OfPem,
            "stringData",
        ),
        (
            "base64 of DER",
            encoded.into_bytes(),
            Trouble::Base64OfDer { is: Block::Certificate },
            "openssl x509 -inform der",
        ),
        ("a path", b"/etc/ssl/certs/ca.pem\n".to_vec(), Trouble::Path, "--from-file=ca.crt=PATH"),
        ("a path of Windows", br"C:\certs\ca.cer".to_vec(), Trouble::Path, "--from-file"),
        ("a name", b"ca.pem".to_vec(), Trouble::Path, "--from-file"),
        (
            "a page",
            b"<!DOCTYPE html><html>not found</html>".to_vec(),
            Trouble::Markup,
            "-----BEGIN CERTIFICATE-----",
        ),
        (
            "JSON",
            br#"{"ca.crt": "none"}"#.to_vec(),
            Trouble::NoBlock,
            "-----BEGIN CERTIFICATE-----",
        ),
        ("SSH", b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJqfs".to_vec(), Trouble::Ssh, "authority"),
        ("noise", vec![0x00, 0x9f, 0x92, 0x96], Trouble::Binary, "-----BEGIN CERTIFICATE-----"),
    ];
    for (what, bytes, trouble, mend) in cases {
        refused(what, bundle(&bytes), &bytes, trouble, mend);
    }
}

/// The SEC1 key within a PKCS#8 one on P-256: version 1, and 32 bytes.
fn sec1(pkcs8: &[u8]) -> Vec<u8> {
    let at = find(pkcs8, &[2, 1, 1, 4, 32]).unwrap() - 2;
    pkcs8[at..][..2 + usize::from(pkcs8[at + 1])].to_vec()
}

#[test]
fn a_key_is_read_or_refused_with_its_words() {
    let Made { certificates: [one, _], key, key_der, .. } = made();
    let read = |text: &str| private_key("tls.key", text.as_bytes());
    let pkcs1 = [0x30, 0x06, 2, 1, 0, 2, 1, 5];
    let curve = pem("EC PARAMETERS", &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]);
    let with_curve = format!("{curve}{}", pem("EC PRIVATE KEY", &sec1(&key_der)));
    assert!(matches!(read(&key), Ok(PrivateKeyDer::Pkcs8(_))));
    assert!(matches!(
        read(&format!("\u{feff}{}", key.replace('\n', "\r\n"))),
        Ok(PrivateKeyDer::Pkcs8(_))
    ));
    assert!(matches!(read(&pem("RSA PRIVATE KEY", &pkcs1)), Ok(PrivateKeyDer::Pkcs1(_))));
    assert!(
        matches!(read(&pem("RSA PRIVATE KEY", &key_der)), Ok(PrivateKeyDer::Pkcs8(_))),
        "by content"
    );
    assert!(
        matches!(read(&with_curve), Ok(PrivateKeyDer::Sec1(_))),
        "as openssl ecparam writes it"
    );
    let old = key.replace(
        "-----BEGIN PRIVATE KEY-----\n",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,0011\n\n",
    );
    let old = old.replace("END PRIVATE", "END RSA PRIVATE");
    let block = |is| Trouble::Block { block: 1, is };
    for (what, text, trouble, mend) in [
        ("literal line ends", key.replace('\n', r"\n"), Trouble::Escaped { block: 1 }, "awk"),
        (
            "a passphrase",
            pem("ENCRYPTED PRIVATE KEY", &key_der),
            block(Block::EncryptedKey),
            "openssl pkey -in tls.key",
        ),
        ("a passphrase of old", old, block(Block::EncryptedKey), "openssl pkey -in tls.key"),
        ("OpenSSH", pem("OPENSSH PRIVATE KEY", &key_der), block(Block::SshKey), "ssh-keygen -p"),
        ("DSA", pem("DSA PRIVATE KEY", &key_der), block(Block::DsaKey), "tls.crt"),
        ("a public key", pem("PUBLIC KEY", &key_der), block(Block::PublicKey), "private key"),
        ("a certificate", one.clone(), block(Block::Certificate), "exchange the two files"),
        (
            "a certificate behind it",
            format!("{key}{one}"),
            Trouble::Block { block: 2, is: Block::Certificate },
            "openssl pkey",
        ),
        ("parameters alone", curve, block(Block::Parameters), "put the key itself there"),
        ("two keys", format!("{key}{key}"), Trouble::SecondKey { block: 2 }, "keep only"),
        (
            "a certificate labelled as key",
            pem("PRIVATE KEY", &made().ders[0]),
            Trouble::Mislabelled { block: 1, is: Block::Certificate },
            "tls.crt",
        ),
        (
            "half",
            key.lines().take(2).collect::<Vec<_>>().join("\n"),
            Trouble::Unended { block: 1 },
            "copy",
        ),
    ] {
        refused(what, read(&text), text.as_bytes(), trouble, mend);
    }
    let der = key_der;
    refused(
        "DER",
        private_key("tls.key", &der),
        &der,
        Trouble::Der { is: Block::Key },
        "openssl pkey -inform der -in tls.key",
    );
    let swapped = certificates("tls.crt", key.as_bytes(), Wanted::Chain);
    refused(
        "a key as a certificate",
        swapped,
        key.as_bytes(),
        block(Block::Key),
        "exchange the two files",
    );
}

proptest::proptest! {
    /// Nothing makes it panic, and no refusal repeats what it was given.
    #[test]
    fn no_refusal_shows_anything_of_the_file(
        before in "(?s).{0,40}", secret in "[A-Za-z0-9+/]{24,80}", after in "(?s).{0,40}",
        label in "(CERTIFICATE|PRIVATE KEY|[A-Z ]{0,20})", lines in "(\n|\r\n|\\\\n| |)",
    ) {
        for text in [
            format!("{before}{secret}{after}"),
            format!("-----BEGIN {label}-----{lines}{secret}{lines}-----END {label}-----{after}"),
            format!("{before}-----BEGIN {secret}-----{lines}{after}"),
            format!("-----BEGIN {label}-----{lines}{before}{lines}-----END {secret}-----"),
        ] {
            for refusal in [bundle(&text).err(), private_key("tls.key", text.as_bytes()).err()].into_iter().flatten() {
                let told = format!("{refusal} {refusal:?}");
                proptest::prop_assert!(!told.contains(&secret), "{}", told);
            }
        }
    }
}
