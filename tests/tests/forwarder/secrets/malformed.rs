//! Every parser that is fed a secret is fed it in every form that people spoil one in; nothing of it is seen anywhere.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use siem_agent_sim::defender::Defender;
use siem_agent_sim::forwarder::program;
use siem_agent_sim::pki::Authority;
use siem_agent_tests::program::to_its_end;
use siem_agent_tests::receiver::{Framing, Receiver, Tls};

use super::place::Place;
use super::search::{CLIENT_SECRET, PASSWORD, TOKEN, USERNAME};
use super::tenant;

/// What is done to a secret on its way into a Secret.
fn spoiled(secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let half = secret.len() / 2;
    let utf16 = |mark: &[u8]| -> Vec<u8> {
        [mark.to_vec(), secret.encode_utf16().flat_map(u16::to_le_bytes).collect()].concat()
    };
    let text: Vec<(&'static str, String)> = vec![
        ("literal line ends", secret.replace('\n', r"\n") + r"\n"),
        ("literal line ends of Windows", secret.replace('\n', r"\r\n") + r"\r\n"),
        ("CRLF", secret.replace('\n', "\r\n") + "\r\n"),
        ("one line", secret.replace('\n', "")),
        ("one line with blanks", secret.replace('\n', " ")),
        ("a byte-order mark", format!("\u{feff}{secret}")),
        ("a zero-width space", format!("{}\u{200b}{}", &secret[..half], &secret[half..])),
        ("a blank inside", format!("{} {}", &secret[..half], &secret[half..])),
        ("a line break inside", format!("{}\n{}", &secret[..half], &secret[half..])),
        ("a zero inside", format!("{}\0{}", &secret[..half], &secret[half..])),
        ("letters of Latin-1", format!("{}é{}", &secret[..half], &secret[half..])),
        ("quotes", format!("\"{secret}\"")),
        ("twice", format!("{secret}{secret}")),
        ("base64", BASE64_STANDARD.encode(secret)),
        (
            "base64 in lines",
            BASE64_STANDARD
                .encode(secret)
                .as_bytes()
                .chunks(40)
                .map(|line| format!("{}\n", String::from_utf8_lossy(line)))
                .collect(),
        ),
        ("the first half", secret[..half].to_owned()),
        ("the second half", secret[half..].to_owned()),
        (
            "without its first line",
            secret.split_once('\n').map_or(secret, |(_, rest)| rest).to_owned(),
        ),
        ("YAML", format!("value: {secret}")),
        ("JSON", serde_json::json!({"value": secret}).to_string()),
        ("as a label", format!("-----BEGIN {secret}-----\n-----END {secret}-----\n")),
        (
            "labelled as a key",
            format!("-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n"),
        ),
        (
            "labelled and literal",
            format!(r"-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n"),
        ),
        (
            "with a header",
            format!(
                "-----BEGIN RSA PRIVATE KEY-----\nDEK-Info: {secret}\n\n{secret}\n-----END RSA PRIVATE KEY-----\n"
            ),
        ),
        (
            "labelled as a certificate",
            format!("-----BEGIN CERTIFICATE-----\n{secret}\n-----END CERTIFICATE-----\n"),
        ),
    ];
    let mut all: Vec<(&'static str, Vec<u8>)> =
        text.into_iter().map(|(what, text)| (what, text.into_bytes())).collect();
    all.push(("UTF-16", utf16(&[0xff, 0xfe])));
    all.push(("UTF-16 without its mark", utf16(&[])));
    all.push(("no text", [secret.as_bytes(), &[0xff, 0xfe, 0x80]].concat()));
    let base64: String = secret.lines().filter(|line| !line.starts_with("-----")).collect();
    if let Ok(der) = BASE64_STANDARD.decode(&base64) {
        all.push(("a cut DER", der[..der.len() / 2].to_vec()));
        all.push(("DER", der));
    }
    all
}

/// A portal and a receiver that let everybody in whose files are good, and the manifest's words for them.
struct Stage {
    _defender: Defender,
    _receiver: Receiver,
    place: Place,
    key: String,
    by_token: String,
    by_application: String,
    syslog: String,
}

async fn stage() -> Result<Stage> {
    let authority = Authority::new("right")?;
    let client = authority.client("forwarder")?;
    let defender = Defender::start(tenant(TOKEN)).await?;
    let tls =
        Tls { identity: authority.loopback_server()?, clients: Some(authority.certificate()) };
    let receiver = Receiver::start(Framing::Newline, Some(tls)).await?;
    let place = Place::new(&client.key)?;
    place.mount("mine", "tls.crt", &client.certificate)?;
    place.mount("ca", "ca.crt", authority.certificate())?;
    let url = defender.url();
    let syslog = format!(
        "{{host: localhost, port: {}, protocol: TLS, tls: {{caBundleRef: {{name: ca}}, clientCertificateSecretRef: {{name: mine}}}}}}",
        receiver.port()
    );
    let by_token = format!(
        "cloudApps: {{url: '{url}'}}, caBundleRef: {{name: ca}}, auth: {{tokenSecretRef: {{name: defender}}}}"
    );
    let by_application = format!(
        "cloudApps: {{url: '{url}'}}, proxy: {{url: 'http://127.0.0.1:9', credentialsSecretRef: {{name: proxy}}}}, \
         auth: {{clientCredentials: {{tenantId: contoso.com, clientId: 11111111-2222-3333-4444-555555555555, \
         clientSecretRef: {{name: defender}}, authorityUrl: '{url}'}}}}"
    );
    let key = client.key.clone();
    Ok(Stage {
        _defender: defender,
        _receiver: receiver,
        place,
        key,
        by_token,
        by_application,
        syslog,
    })
}

#[tokio::test]
async fn a_spoiled_secret_is_seen_nowhere_when_it_is_checked() -> Result<()> {
    let Stage { _defender, _receiver, place, key, by_token, by_application, syslog } =
        stage().await?;
    let certificate = std::fs::read_to_string(place.secrets.path().join("mine/tls.crt"))?;
    let bundle = std::fs::read_to_string(place.secrets.path().join("ca/ca.crt"))?;
    let secrets = place.secrets.path().display().to_string();
    let mut n_refused = 0;
    // Where the receiver is not what is asked about, nothing waits for it.
    let datagrams = "{host: 127.0.0.1, port: 9, protocol: UDP}".to_owned();
    for (name, file, good, planted, source) in [
        ("defender", "token", TOKEN, TOKEN, &by_token),
        ("defender", "clientSecret", CLIENT_SECRET, CLIENT_SECRET, &by_application),
        ("proxy", "username", USERNAME, PASSWORD, &by_application),
        ("proxy", "password", PASSWORD, PASSWORD, &by_application),
        ("mine", "tls.key", &key, &key, &by_token),
        ("mine", "tls.crt", &certificate, &key, &by_token),
        ("ca", "ca.crt", &bundle, &key, &by_token),
    ] {
        let receiver = if name == "mine" { &syslog } else { &datagrams };
        let manifest = place.manifest(source, receiver)?;
        for (what, content) in spoiled(planted) {
            place.mount(name, file, &content)?;
            let code =
                place.command(&["check", "--manifest", &manifest, "--secrets", &secrets]).await?;
            ensure!(code.is_some_and(|code| code <= 2), "{name}/{file}, {what}: {code:?}");
            n_refused += usize::from(code == Some(2));
        }
        place.mount(name, file, good)?;
    }
    ensure!(n_refused > 90, "only {n_refused} are refused");

    // In the manifest itself.
    for source in [
        by_token.replace("{name: defender}", TOKEN),
        by_token.replace("{name: defender}", &format!("{{name: '{TOKEN}'}}")),
        by_token.replace("auth: {", &format!("auth: {{token: '{TOKEN}', ")),
        by_application
            .replace("http://127.0.0.1:9", &format!("http://{USERNAME}:{PASSWORD}@127.0.0.1:9")),
        by_application.replace("{name: proxy}", &format!("'{PASSWORD}'")),
    ] {
        let manifest = place.manifest(&source, &syslog)?;
        let code =
            place.command(&["check", "--manifest", &manifest, "--secrets", &secrets]).await?;
        ensure!(code == Some(2), "{source}: {code:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_spoiled_secret_is_seen_nowhere_while_it_runs() -> Result<()> {
    let Stage { _defender, _receiver, mut place, key, by_token, syslog, .. } = stage().await?;
    // The good ones first: they are asked with, so that everything there is to log is logged.
    let good = ("good", TOKEN.as_bytes().to_vec(), key.as_bytes().to_vec());
    let both = spoiled(TOKEN).into_iter().zip(spoiled(&key));
    let both = both.map(|((what, token), (_, key))| (what, token, key));
    for (what, token, key) in std::iter::once(good).chain(both) {
        place.mount("defender", "token", &token)?;
        place.mount("mine", "tls.key", &key)?;
        place.start_by_config(&by_token, &syslog)?;
        let told = |status: &serde_json::Value| {
            let target = status["target"]["state"] != "Connecting";
            target
                && (status["token"]["state"] != "Unknown" || status["source"]["state"] != "Unknown")
        };
        place.look_until(what, told).await?;
        place.end().await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_old_agents_start_line_is_seen_nowhere_however_it_is_spoiled() -> Result<()> {
    let place = Place::new("")?;
    let line = format!(
        "java -jar mcas-siemagent-0.111.126-signed.jar --proxy {USERNAME}:{PASSWORD}@proxy:8080 --token {TOKEN}"
    );
    let mut lines = spoiled(&line);
    for line in [
        format!("java -jar mcas-siemagent.jar --token={TOKEN} --proxy"),
        format!("java -jar mcas-siemagent.jar --token '{TOKEN}"),
        format!("java -jar mcas-siemagent.jar --tokn {TOKEN}"),
        format!("java -jar mcas-siemagent.jar {TOKEN}"),
        format!("java -jar other.jar --token {TOKEN}"),
        format!(
            "java -jar mcas-siemagent.jar --proxy http://{USERNAME}:{PASSWORD}@proxy:8080 --token {TOKEN}"
        ),
        format!("{TOKEN} java -jar"),
        format!(
            "java -jar mcas-siemagent.jar --token {TOKEN}\njava -jar mcas-siemagent.jar --token x{TOKEN}"
        ),
        format!("<Arguments>-jar mcas-siemagent.jar --token {TOKEN}"),
        format!("Environment=TOKEN={TOKEN}\nExecStart=java -jar mcas-siemagent.jar --token $TOKEN"),
    ] {
        lines.push(("another form", line.into_bytes()));
    }
    for (what, line) in &lines {
        let mut command = Command::new(program("siem-operator")?);
        command.args(["init", "--from-jar", "-"]);
        let code = place.seen(to_its_end(command, line).await?)?;
        ensure!(code.is_some_and(|code| code <= 2), "{what}: {code:?}");
    }
    // The line where the name of its file belongs, and other mistakes at the prompt.
    for arguments in [
        vec!["init", "--from-jar", &line],
        vec!["init", "--token", TOKEN],
        vec!["init", &format!("--token={TOKEN}")],
        vec![
            "init",
            "--name",
            "soc",
            "--url",
            "https://contoso.example.com",
            "--syslog-host",
            "siem",
            "--proxy",
            &format!("{USERNAME}:{PASSWORD}@proxy"),
        ],
        vec![
            "init",
            "--name",
            "soc",
            "--url",
            &format!("https://{USERNAME}:{PASSWORD}@contoso.example.com"),
            "--syslog-host",
            "siem",
        ],
    ] {
        let mut command = Command::new(program("siem-operator")?);
        command.args(&arguments);
        ensure!(place.seen(to_its_end(command, b"").await?)? == Some(2));
    }
    Ok(())
}

#[tokio::test]
async fn a_spoiled_kubeconfig_is_seen_nowhere() -> Result<()> {
    let authority = Authority::new("cluster")?;
    let client = authority.client("operator")?;
    let place = Place::new(&client.key)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("config");
    let config = |user: &str| {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:9', certificate-authority-data: {}}}}}]\n\
             users: [{{name: u, user: {user}}}]\n",
            BASE64_STANDARD.encode(authority.certificate())
        )
    };
    let mut users: Vec<(&str, String)> = vec![
        ("a token in the place of a user", format!("'{TOKEN}'")),
        ("a list", format!("[{TOKEN}]")),
        ("a key that is not base64", format!("{{client-key-data: '{PASSWORD} {TOKEN}'}}")),
        ("a token with a line break", format!("{{token: \"{TOKEN}\\n{TOKEN}\"}}")),
        ("a broken text", format!("{{token: \"{TOKEN}")),
        (
            "a plugin that prints and fails",
            format!(
                "{{exec: {{apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: sh, args: ['-c', 'echo {TOKEN}; exit 1']}}}}"
            ),
        ),
        (
            "a plugin that prints no JSON",
            format!(
                "{{exec: {{apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: echo, args: ['{TOKEN}']}}}}"
            ),
        ),
    ];
    let certificate = BASE64_STANDARD.encode(&client.certificate);
    for (what, key) in spoiled(&client.key) {
        let key = BASE64_STANDARD.encode(key);
        users.push((
            what,
            format!("{{client-certificate-data: {certificate}, client-key-data: {key}}}"),
        ));
    }
    for (what, user) in users {
        std::fs::write(&path, config(&user))?;
        let mut command = Command::new(program("siem-operator")?);
        command.arg("check").env("KUBECONFIG", &path);
        let ended =
            tokio::time::timeout(Duration::from_secs(60), to_its_end(command, b"")).await??;
        let code = place.seen(ended)?;
        ensure!(code == Some(1) || code == Some(2), "{what}: {code:?}");
    }
    Ok(())
}
