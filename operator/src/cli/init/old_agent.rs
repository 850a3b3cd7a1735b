//! What an old start line of the vendor's agent says: `java -jar mcas-siemagent-*.jar [--logsDirectory DIRNAME]
//! [--proxy ADDRESS[:PORT]] --token TOKEN`, alone, in a unit file, or in rc.local. Pure.
//!
//! No error repeats any of the text, because the token is in it.

/// What the line says.
#[derive(Default, PartialEq, Eq)]
pub(super) struct OldAgent {
    /// The token; nothing prints it.
    pub(super) token: Option<String>,
    pub(super) proxy: Option<String>,
    pub(super) has_logs_directory: bool,
}

/// Finds the start line in a text.
///
/// # Errors
/// When there is none, or more than one, or an option without its value.
pub(super) fn read(text: &str) -> Result<OldAgent, String> {
    // A backslash at a line's end goes on with the next, in a shell as in a unit file.
    let text = text.replace("\\\r\n", " ").replace("\\\n", " ");
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(words) = start_words(line, 0)
            && let Some(agent) = of_words(&words)?
            && !found.contains(&agent)
        {
            found.push(agent);
        }
    }
    match (found.pop(), found.is_empty()) {
        (Some(agent), true) => Ok(agent),
        (Some(_), false) => Err("the text starts several agents: give one at a time".to_owned()),
        (None, _) => Err("there is no `java -jar mcas-siemagent-….jar` in the text".to_owned()),
    }
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

fn of_words(words: &[String]) -> Result<Option<OldAgent>, String> {
    let mut words = words.iter().skip_while(|word| *word != "-jar").skip(1);
    let is_agent = words.next().is_some_and(|jar| jar.to_ascii_lowercase().contains("siemagent"));
    if !is_agent {
        return Ok(None);
    }
    let mut agent = OldAgent::default();
    while let Some(word) = words.next() {
        let (option, attached) = match word.split_once('=') {
            Some((option, value)) => (option, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let mut value = || {
            let value = attached.clone().or_else(|| words.next().cloned());
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
            "&" | ";" | "&&" | "||" | "|" | ">" | ">>" => break,
            _ => {}
        }
    }
    Ok(Some(agent))
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
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_being_shown() {
        for text in [
            "",
            "java -jar other.jar --token PLANTED",
            "java -jar mcas-siemagent.jar --token PLANTED --proxy",
            "java -jar mcas-siemagent.jar --token PLANTED1\njava -jar mcas-siemagent.jar --token PLANTED2",
        ] {
            let error = told(text).unwrap_err();
            assert!(!error.contains("PLANTED"), "{error}");
        }
    }
}
