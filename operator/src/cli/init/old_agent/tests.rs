//! Start lines as people keep them: each kind of file, each kind of quote, and what must never be shown.

use super::*;

/// Token, proxy and whether there is a folder of logs.
type Told = (Option<String>, Option<String>, bool);

fn told(text: &str) -> Result<Told, String> {
    let proxy = |proxy| match proxy {
        Proxy::Address(address) => address,
        Proxy::Elsewhere => "elsewhere".to_owned(),
    };
    read(text).map(|agent| (agent.token, agent.proxy.map(proxy), agent.has_logs_directory))
}

fn token(token: &str) -> Told {
    (Some(token.to_owned()), None, false)
}

fn full(token: &str, proxy: &str) -> Told {
    (Some(token.to_owned()), Some(proxy.to_owned()), true)
}

#[test]
fn the_old_line_is_found_wherever_it_stood() {
    let unit = "[Unit]\nDescription=old\n[Service]\n# java -jar mcas-siemagent.jar --token NOT\n\
                ExecStart=/usr/bin/java -jar /opt/mcas-siemagent-0.87.20-signed.jar \\\n  --logsDirectory /var/log/siem --proxy 10.0.0.1:3128 --token QUJD==\nRestart=always\n";
    assert_eq!(told(unit), Ok(full("QUJD==", "10.0.0.1:3128")));
    for line in [
        "java -jar mcas-siemagent-0.111.126-signed.jar --token QUJD",
        "#!/bin/sh\ncd /opt\nnohup java -Xmx1g -jar 'mcas-siemagent.jar' --token=QUJD >/dev/null 2>&1 &\nexit 0\n",
        "su - siem -c \"java -jar /opt/mcas-SiemAgent.jar --token QUJD\"",
        "sudo -u siem nohup java -jar /opt/mcas-siemagent.jar \"--token=QUJD\" &",
        "java -jar mcas-siemagent.jar --token QUJD&",
        "java -jar mcas-siemagent.jar --token \"QUJD\" # don't",
        "@reboot siem exec java -jar mcas-siemagent.jar --token 'QUJD'",
        "[program:mcas]\ncommand=/usr/bin/java -jar /opt/mcas-siemagent.jar --token QUJD\nautostart=true",
        "docker run -d --restart always mcas:1 java -jar /mcas-siemagent.jar --token QUJD",
    ] {
        assert_eq!(told(line), Ok(token("QUJD")), "{line}");
    }
    assert_eq!(told("java\0-jar\0/opt/mcas-siemagent.jar\0--token\0QUJD\0"), Ok(token("QUJD")));
}

#[test]
fn the_old_line_is_found_on_windows() {
    let task = "<Exec><Command>java.exe</Command>\n<Arguments>-jar &quot;C:\\Program Files\\mcas-siemagent.jar&quot; \
                --logsDirectory C:\\logs --proxy proxy:8080 --token QUJD</Arguments></Exec>";
    assert_eq!(told(task), Ok(full("QUJD", "proxy:8080")));
    for text in [
        "@echo off\r\nREM java -jar mcas-siemagent.jar --token NOT\r\n\"C:\\Program Files\\Java\\bin\\javaw.exe\" -jar \"C:\\mcas\\mcas-siemagent.jar\" ^\r\n  --token QUJD\r\n",
        "set TOKEN=QUJD\r\njava -jar C:\\mcas\\mcas-siemagent.jar --token %TOKEN%\r\n",
        "set \"TOKEN=QUJD\"\r\nstart \"\" java -jar C:\\mcas\\mcas-siemagent.jar --token \"%TOKEN%\"\r\n",
        "$env:TOKEN = 'QUJD'\njava -jar C:\\mcas\\mcas-siemagent.jar `\n  --token $env:TOKEN",
        "Start-Process java -ArgumentList '-jar','C:\\mcas\\mcas-siemagent.jar','--token','QUJD' -WindowStyle Hidden",
        "Start-Process java -ArgumentList @('-jar', 'C:\\mcas\\mcas-siemagent.jar', '--token', 'QUJD')",
        "nssm install Mcas \"C:\\java\\bin\\java.exe\" \"-jar C:\\mcas\\mcas-siemagent.jar --token QUJD\"",
        "<service>\n<executable>java</executable>\n<env name=\"TOKEN\" value=\"QUJD\"/>\n<arguments>-jar\n  C:\\mcas\\mcas-siemagent.jar\n  --token %TOKEN%</arguments>\n</service>",
        "<service><argument>-jar</argument><argument>C:\\mcas-siemagent.jar</argument><argument>--token</argument><argument>QUJD</argument></service>",
        "<?xml version=\"1.0\"?>\n<plist><dict><key>ProgramArguments</key><array>\n<string>java</string>\n<string>-jar</string>\n<string>/mcas-siemagent.jar</string><string>--token</string><string>QUJD</string></array></dict></plist>",
    ] {
        assert_eq!(told(text), Ok(token("QUJD")), "{text}");
    }
}

#[test]
fn the_old_line_is_found_as_a_list_of_arguments() {
    let dockerfile = "FROM openjdk:8u212-jre-slim\nENV TOKEN=\"\"\nCMD [\"java\", \"-jar\", \"/mcas-siemagent-0.87.20-signed.jar\", \
                      \"--logsDirectory\", \"/logs\", \"--proxy\", \"proxy.example.com\", \"--token\", \"QUJD\"]\n";
    assert_eq!(told(dockerfile), Ok(full("QUJD", "proxy.example.com")));
    let pod = "apiVersion: apps/v1\nkind: Deployment\nspec:\n  template:\n    spec:\n      containers:\n      - name: agent\n        \
               command: [\"java\"]\n        args: [\"-Xms256m\", \"-jar\", \"/app/mcas-siemagent.jar\", \"--logsDirectory\", \"/l\", \"--proxy\", \"proxy.example.com:8080\", \"--token\", \"$(T)\"]\n        env:\n        - {name: T, ";
    let elsewhere = Ok((None, Some("proxy.example.com:8080".to_owned()), true));
    let by_reference = format!("{pod}valueFrom: {{secretKeyRef: {{name: mcas, key: token}}}}}}\n");
    assert_eq!(told(&by_reference), elsewhere);
    assert!(
        read(&by_reference).is_ok_and(|agent| agent.has_token_elsewhere && agent.n_unknown == 0)
    );
    let by_value = format!("{pod}value: QUJD}}\n");
    assert_eq!(told(&by_value), Ok(full("QUJD", "proxy.example.com:8080")));
    let json = r#"{"spec": {"containers": [{"args": ["-jar", "/mcas-siemagent.jar", "--token", "QUJD"]}]}}"#;
    for text in [
        json,
        "ENTRYPOINT [\"java\",\"-jar\",\"/mcas-siemagent.jar\"]\nCMD [\"--token\",\"QUJD\"]",
        "ENTRYPOINT [\"java\", \"-jar\", \\\n  \"/mcas-siemagent.jar\"]\n# the token\nCMD [\"--token\", \"QUJD\"]\n",
        "FROM x\nENV TOKEN QUJD\nCMD java -jar /mcas-siemagent.jar --token $TOKEN",
        "FROM x\nARG TOKEN=QUJD\nENTRYPOINT exec java -jar /mcas-siemagent.jar --token ${TOKEN}",
        "FROM x\nENTRYPOINT [\"sh\", \"-c\", \"java -jar /mcas-siemagent.jar --token QUJD\"]",
        "spec:\n  containers:\n  - command:\n    - java\n    - -jar\n    args:\n    - /mcas-siemagent.jar\n    - --token\n    - QUJD\n",
        "spec:\n  containers:\n  - command: [sh, -c]\n    args:\n    - |\n      set -e\n      exec java -jar /mcas-siemagent.jar \\\n        --token QUJD\n",
        "services:\n  mcas:\n    command: java -jar /mcas-siemagent.jar --token QUJD\n",
        "services:\n  mcas:\n    entrypoint: [java, -jar, /mcas-siemagent.jar]\n    command: --token QUJD\n",
        "services:\n  mcas:\n    environment:\n    - TOKEN=QUJD\n    command: [\"java\", \"-jar\", \"/mcas-siemagent.jar\", \"--token\", \"${TOKEN}\"]\n",
        "services:\n  mcas:\n    environment: {TOKEN: QUJD}\n    command: >-\n      java -jar /mcas-siemagent.jar\n      --token $TOKEN\n",
        "- hosts: siem\n  tasks:\n  - ansible.builtin.command: java -jar /mcas-siemagent.jar --token QUJD\n",
        "containers:\n  {{- if .Values.x }}\n  - command:\n    - java\n    args:\n    - -jar\n    - \"/mcas-siemagent.jar\"\n    - --token\n    - QUJD\n  {{- end }}\n",
        "apiVersion: v1\nkind: ConfigMap\ndata: {TOKEN: QUJD}\n---\napiVersion: v1\nkind: Pod\nspec: {containers: [{command: [java, -jar, mcas-siemagent.jar, --token, $(TOKEN)]}]}\n",
    ] {
        assert_eq!(told(text), Ok(token("QUJD")), "{text}");
    }
}

#[test]
fn a_variable_counts_for_what_the_text_sets_it_to() {
    for text in [
        "[Service]\nEnvironment=\"TOKEN=QUJD\"\nExecStart=/usr/bin/java -jar /mcas-siemagent.jar --token ${TOKEN}",
        "TOKEN=QUJD\nARGS=\"--token $TOKEN\"\njava -jar /mcas-siemagent.jar $ARGS",
        "export TOKEN=QUJD; java -jar /mcas-siemagent.jar --token \"$TOKEN\"",
        "docker run -e TOKEN=QUJD mcas java -jar /mcas-siemagent.jar --token=$TOKEN",
    ] {
        assert_eq!(told(text), Ok(token("QUJD")), "{text}");
    }
    for text in [
        "java -jar mcas-siemagent.jar --token $TOKEN",
        "TOKEN=\njava -jar mcas-siemagent.jar --token $TOKEN",
        "TOKEN=$TOKEN\njava -jar mcas-siemagent.jar --token $TOKEN",
        "java -jar mcas-siemagent.jar --token $(cat /run/secrets/token)",
        "java -jar mcas-siemagent.jar --token `cat /run/secrets/token`",
        "java -jar mcas-siemagent.jar --token %TOKEN%",
        "java -jar mcas-siemagent.jar --token <your-token>",
        "args: [\"-jar\", \"mcas-siemagent.jar\", \"--token\", \"{{ .Values.token }}\"]",
    ] {
        assert_eq!(told(text), Ok((None, None, false)), "{text}");
        assert!(read(text).is_ok_and(|agent| agent.has_token_elsewhere), "{text}");
    }
}

#[test]
fn the_proxy_of_java_is_the_proxy() {
    let proxied = |proxy: &str| Ok((Some("QUJD".to_owned()), Some(proxy.to_owned()), false));
    let end = "-jar mcas-siemagent.jar --token QUJD";
    for (begin, expected) in [
        (
            "java -Dhttps.proxyHost=proxy.example.com -Dhttps.proxyPort=3128",
            "proxy.example.com:3128",
        ),
        ("java -Dhttps.proxyHost=proxy.example.com", "proxy.example.com:443"),
        ("java '-Dhttps.proxyHost=2001:db8::1' -Dhttps.proxyPort=3128", "[2001:db8::1]:3128"),
        ("JAVA_TOOL_OPTIONS='-Dhttps.proxyHost=p -Dhttps.proxyPort=3128' java", "p:3128"),
        ("JAVA_OPTS=-Dhttps.proxyHost=p -Dhttps.proxyPort=3128\njava $JAVA_OPTS", "p:3128"),
        ("set OPTS=-Dhttps.proxyHost=p -Dhttps.proxyPort=3128\r\njava %OPTS%", "p:3128"),
        (
            "[Service]\nEnvironment=\"OPTS=-Dhttps.proxyHost=p -Dhttps.proxyPort=3128\"\nExecStart=java $OPTS",
            "p:3128",
        ),
        (
            "FROM x\nENV JAVA_TOOL_OPTIONS -Dhttps.proxyHost=p -Dhttps.proxyPort=3128\nCMD java",
            "p:3128",
        ),
        ("java -Dhttps.proxyHost=$PROXY", "elsewhere"),
    ] {
        assert_eq!(told(&format!("{begin} {end}")), proxied(expected), "{begin}");
    }
    let pod = "env:\n- {name: JAVA_TOOL_OPTIONS, value: -Dhttps.proxyHost=p -Dhttps.proxyPort=3128}\n\
               command: [java, -jar, mcas-siemagent.jar, --token, QUJD]\n";
    assert_eq!(told(pod), proxied("p:3128"));
    assert_eq!(told(&format!("java -Dhttp.proxyHost=p {end}")), Ok(token("QUJD")));
    let both = format!("java -Dhttps.proxyHost=p {end} --proxy q:1");
    assert_eq!(told(&both), proxied("q:1"));
    assert!(read(&both).is_ok_and(|agent| agent.notes.len() == 1), "the other is told");
}

#[test]
fn hosts_without_a_proxy_are_those_of_java() {
    let no_proxy = |hosts: &str| {
        let text = format!(
            "java -Dhttps.proxyHost=p -Dhttp.nonProxyHosts={hosts} -jar mcas-siemagent.jar"
        );
        read(&text).map(|agent| (agent.no_proxy, agent.notes.len()))
    };
    let entries =
        |entries: &[&str]| entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>();
    for (hosts, expected, n_notes) in [
        (
            "\"localhost|127.*|[::1]|*.example.com|10.*|192.168.*|172.16.5.*\"",
            &[
                "localhost",
                "127.0.0.0/8",
                "::1",
                "*.example.com",
                "10.0.0.0/8",
                "192.168.0.0/16",
                "172.16.5.0/24",
            ][..],
            0,
        ),
        ("localhost|localhost", &["localhost"], 0),
        ("'host*|a.example.com'", &["a.example.com"], 1),
        ("'*'", &["*"], 0),
    ] {
        assert_eq!(no_proxy(hosts), Ok((entries(expected), n_notes)), "{hosts}");
    }
}

#[test]
fn what_java_was_set_up_for_elsewhere_is_noted_and_never_shown() {
    let text = "java -Dhttps.proxyHost=p -Dhttps.proxyUser=PLANTED1 -Dhttps.proxyPassword=PLANTED2 \
                -Djavax.net.ssl.trustStore=/x.jks -Djavax.net.ssl.trustStorePassword=PLANTED3 -DsocksProxyHost=s \
                -jar mcas-siemagent.jar --token QUJD";
    let notes = read(text).map(|agent| agent.notes).unwrap_or_default();
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert!(notes.iter().all(|note| !note.contains("PLANTED")), "{notes:?}");
}

#[test]
fn what_is_not_understood_is_counted() {
    let n_unknown = |text: &str| read(text).map(|agent| agent.n_unknown);
    for (text, expected) in [
        ("java -jar mcas-siemagent.jar --token QUJD </dev/null >>/var/log/x 2>&1 &", 0),
        ("sh -c 'java -jar mcas-siemagent.jar --token QUJD; true'", 0),
        ("java -jar mcas-siemagent.jar $OPTS --token QUJD", 1),
        ("java -jar mcas-siemagent.jar --colour blue --token QUJD", 2),
    ] {
        assert_eq!(n_unknown(text), Ok(expected), "{text}");
    }
    assert_eq!(n_unknown("java -jar $JAR --token X"), Err(BY_VARIABLE.to_owned()));
    assert_eq!(n_unknown("JAR=siemagent.jar\njava -jar $JAR --token X"), Ok(0));
    assert!(n_unknown("\n \n").is_err_and(|error| error.contains("there is no text")));
}

#[test]
fn what_cannot_be_used_is_refused_without_being_shown() {
    for text in [
        "",
        "java -jar other.jar --token PLANTED",
        "java -jar mcas-siemagent.jar --token PLANTED --proxy",
        "java -jar mcas-siemagent.jar --proxy --token PLANTED",
        "java -jar mcas-siemagent.jar --token PLANTED1\njava -jar mcas-siemagent.jar --token PLANTED2",
        "args: [\"-jar\", \"other.jar\", \"--token\", \"PLANTED\"]",
        "CMD [\"java\", \"-jar\", \"mcas-siemagent.jar\", \"--token\", \"PLANTED\", \"--proxy\"]",
        "a: [\"-jar\", \"other.jar\", \"--token\", \"PLANTED\"",
    ] {
        let error = told(text).unwrap_err();
        assert!(!error.contains("PLANTED"), "{error}");
    }
}
