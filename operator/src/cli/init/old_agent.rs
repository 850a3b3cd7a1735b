//! What an old start line of the vendor's agent says: `java -jar mcas-siemagent-*.jar [--logsDirectory DIRNAME]
//! [--proxy ADDRESS[:PORT]] --token TOKEN`, alone, in a unit file, in rc.local, in an exported task of Windows, or as
//! `/proc` keeps it. Pure.
//!
//! No error repeats any of the text, because the token is in it.

/// What the line says.
#[derive(Default, PartialEq, Eq)]
pub(super) struct OldAgent {
    /// The token; nothing prints it.
    pub(super) token: Option<String>,
    pub(super) proxy: Option<String>,
    pub(super) has_logs_directory: bool,
    /// Options that are none of the old agent's, or come from a variable.
    pub(super) n_unknown: usize,
}

/// What a text without a start line may have instead.
const BY_VARIABLE: &str = "the text starts a jar by the name of a variable: give the line as it runs, which \
                           `tr '\\0' ' ' < /proc/PID/cmdline` prints";

/// Finds the start line in a text.
///
/// # Errors
/// When there is none, or more than one, or an option without its value.
pub(super) fn read(text: &str) -> Result<OldAgent, String> {
    // A backslash at a line's end goes on with the next, in a shell as in a unit file.
    let text = text.replace("\\\r\n", " ").replace("\\\n", " ").replace('\0', " ");
    if text.trim().is_empty() {
        return Err(
            "there is no text: give the old start line, or the file that it stands in".to_owned()
        );
    }
    let mut found = Vec::new();
    let mut by_variable = false;
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        let Some(words) = start_words(&task_arguments(line), 0) else { continue };
        match of_words(&words)? {
            Started::Agent(agent) if !found.contains(&agent) => found.push(agent),
            Started::Unknown => by_variable = true,
            Started::Agent(_) | Started::Other => {}
        }
    }
    match (found.pop(), found.is_empty()) {
        (Some(agent), true) => Ok(agent),
        (Some(_), false) => Err("the text starts several agents: give one at a time".to_owned()),
        (None, _) if by_variable => Err(BY_VARIABLE.to_owned()),
        (None, _) => Err("there is no `java -jar mcas-siemagent-….jar` in the text".to_owned()),
    }
}

/// The arguments of a line of an exported task; another line as it is.
fn task_arguments(line: &str) -> String {
    let Some((_, rest)) = line.split_once("<Arguments>") else { return line.to_owned() };
    let arguments = rest.split("</Arguments>").next().unwrap_or_default();
    arguments.replace("&quot;", "\"").replace("&apos;", "'").replace("&amp;", "&")
}

/// What a line with `-jar` starts.
enum Started {
    Agent(OldAgent),
    /// Another program.
    Other,
    /// A jar whose name is a variable's.
    Unknown,
}

/// The words of a line with `-jar` among them, also where a shell is started with the line as one word.
fn start_words(line: &str, depth: u8) -> Option<Vec<String>> {
    let words = shlex::split(line).unwrap_or_else(|| {
        line.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned()).collect()
    });
    if words.iter().any(|word| word == "-jar") {
        return Some(words);
    }
    if depth > 2 {
        return None;
    }
    words
        .iter()
        .filter(|word| word.contains("-jar") && word.contains(' '))
        .find_map(|word| start_words(word, depth + 1))
}

fn of_words(words: &[String]) -> Result<Started, String> {
    let mut words = words.iter().skip_while(|word| *word != "-jar").skip(1).peekable();
    let jar = words.next().map(|jar| jar.to_ascii_lowercase()).unwrap_or_default();
    if !jar.contains("siemagent") {
        return Ok(if jar.contains(['$', '%']) { Started::Unknown } else { Started::Other });
    }
    let mut agent = OldAgent::default();
    while let Some(word) = words.next() {
        let (option, attached) = match word.split_once('=') {
            Some((option, value)) => (option, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let mut is_last = false;
        let mut value = || {
            let value =
                attached.clone().or_else(|| words.next_if(|word| !word.starts_with("--")).cloned());
            is_last = value.as_ref().is_some_and(|value| value.ends_with(['&', ';']));
            let value = value.map(|value| value.trim_end_matches(['&', ';']).to_owned());
            value
                .filter(|value| !value.is_empty())
                .ok_or_else(|| format!("{option} has no value in the old line"))
        };
        match option {
            "--token" => {
                // What a variable holds is not in the text.
                agent.token = Some(value()?).filter(|token| !token.contains(['$', '%']));
            }
            "--proxy" => agent.proxy = Some(value()?),
            "--logsDirectory" => {
                value()?;
                agent.has_logs_directory = true;
            }
            _ if ends_the_command(word) => break,
            _ => agent.n_unknown += 1,
        }
        if is_last {
            break;
        }
    }
    Ok(Started::Agent(agent))
}

/// Where the shell takes over again.
fn ends_the_command(word: &str) -> bool {
    let word = word.trim_start_matches(['1', '2']);
    word.starts_with(['&', ';', '|', '>', '<', '#', ')', '"', '\''])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Result<(Option<String>, Option<String>, bool), String> {
        read(text).map(|agent| (agent.token, agent.proxy, agent.has_logs_directory))
    }

    #[test]
    fn the_old_line_is_found_wherever_it_stood() {
        let unit = "[Unit]\nDescription=old\n[Service]\n# java -jar mcas-siemagent.jar --token NOT\n\
                    ExecStart=/usr/bin/java -jar /opt/mcas-siemagent-0.87.20-signed.jar \\\n  --logsDirectory /var/log/siem --proxy 10.0.0.1:3128 --token QUJD==\nRestart=always\n";
        let full = (Some("QUJD==".to_owned()), Some("10.0.0.1:3128".to_owned()), true);
        assert_eq!(told(unit), Ok(full));
        let token = |token: &str| Ok((Some(token.to_owned()), None, false));
        for line in [
            "java -jar mcas-siemagent-0.111.126-signed.jar --token QUJD",
            "#!/bin/sh\ncd /opt\nnohup java -Xmx1g -jar 'mcas-siemagent.jar' --token=QUJD >/dev/null 2>&1 &\nexit 0\n",
            "su - siem -c \"java -jar /opt/mcas-SiemAgent.jar --token QUJD\"",
            "java -jar mcas-siemagent.jar --token QUJD&",
            "java -jar mcas-siemagent.jar --token \"QUJD\" # don't",
        ] {
            assert_eq!(told(line), token("QUJD"), "{line}");
        }
        let variable = "java -jar mcas-siemagent.jar --token $TOKEN";
        assert_eq!(told(variable), Ok((None, None, false)));
        let task = "<Exec><Command>java.exe</Command>\n<Arguments>-jar &quot;C:\\Program Files\\mcas-siemagent.jar&quot; \
                    --logsDirectory C:\\logs --proxy proxy:8080 --token QUJD</Arguments></Exec>";
        let full = (Some("QUJD".to_owned()), Some("proxy:8080".to_owned()), true);
        assert_eq!(told(task), Ok(full));
        assert_eq!(told("java\0-jar\0/opt/mcas-siemagent.jar\0--token\0QUJD\0"), token("QUJD"));
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
        assert_eq!(
            n_unknown("JAR=siemagent.jar\njava -jar $JAR --token X"),
            Err(BY_VARIABLE.to_owned())
        );
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
        ] {
            let error = told(text).unwrap_err();
            assert!(!error.contains("PLANTED"), "{error}");
        }
    }
}
