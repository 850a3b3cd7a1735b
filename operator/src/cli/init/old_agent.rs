//! What an old start line of the vendor's agent says: `java -jar mcas-siemagent-*.jar [--logsDirectory DIRNAME]
//! [--proxy ADDRESS[:PORT]] --token TOKEN`, wherever people keep it. Pure.
//!
//! `document` finds command lines in what is YAML or JSON, `text` in everything else (a shell, a unit file, a Dockerfile,
//! a batch file, an exported task, `/proc/PID/cmdline`), `jvm` reads the proxy off Java's properties. No error repeats
//! any of the text, because the token is in it.

mod document;
mod jvm;
mod text;
mod variables;

use self::jvm::Properties;
use self::variables::Variables;

/// What the line says.
#[derive(Default, PartialEq, Eq)]
pub(super) struct OldAgent {
    /// The token; nothing prints it.
    pub(super) token: Option<String>,
    pub(super) proxy: Option<Proxy>,
    /// In Java's terms: separated by bars.
    pub(super) no_proxy: Vec<String>,
    pub(super) has_logs_directory: bool,
    /// The token is what a variable or a command gives, and the text does not say what that is.
    pub(super) has_token_elsewhere: bool,
    /// What Java was set up for and a SiemAgent has in another place.
    pub(super) notes: Vec<&'static str>,
    /// Options that are none of the old agent's, or come from a variable.
    pub(super) n_unknown: usize,
}

/// The old agent's proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Proxy {
    /// As it is written.
    Address(String),
    /// What a variable or a command gives, and the text does not say what that is.
    Elsewhere,
}

/// What was found in a text.
#[derive(Default)]
struct Found {
    /// Command lines, word by word.
    commands: Vec<Vec<String>>,
    variables: Variables,
}

impl Found {
    fn starts_a_jar(&self) -> bool {
        self.commands.iter().any(|words| words.iter().any(|word| word == "-jar"))
    }
}

/// What a text without a start line may have instead.
const BY_VARIABLE: &str = "the text starts a jar by the name of a variable: give the line as it runs, which \
                           `tr '\\0' ' ' < /proc/PID/cmdline` prints";

/// Finds the start line in a text.
///
/// # Errors
/// When there is none, or more than one, or an option without its value.
pub(super) fn read(text: &str) -> Result<OldAgent, String> {
    if text.trim().is_empty() {
        return Err(
            "there is no text: give the old start line, or the file that it stands in".to_owned()
        );
    }
    let found = document::read(text).filter(Found::starts_a_jar);
    let Found { commands, variables } = found.unwrap_or_else(|| text::read(text));
    let mut agents = Vec::new();
    let mut by_variable = false;
    for words in commands {
        match started(&variables.expanded(words), &variables)? {
            Started::Agent(agent) if !agents.contains(&agent) => agents.push(agent),
            Started::Unknown => by_variable = true,
            Started::Agent(_) | Started::Other => {}
        }
    }
    match (agents.pop(), agents.is_empty()) {
        (Some(agent), true) => Ok(agent),
        (Some(_), false) => Err("the text starts several agents: give one at a time".to_owned()),
        (None, _) if by_variable => Err(BY_VARIABLE.to_owned()),
        (None, _) => Err("there is no `java -jar mcas-siemagent-….jar` in the text".to_owned()),
    }
}

/// What a command line with `-jar` starts.
enum Started {
    Agent(OldAgent),
    /// Another program.
    Other,
    /// A jar whose name is a variable's.
    Unknown,
}

fn started(words: &[String], variables: &Variables) -> Result<Started, String> {
    let Some(at) = words.iter().rposition(|word| word == "-jar") else { return Ok(Started::Other) };
    let (before, after) = words.split_at(at);
    let mut words = after.iter().skip(1).peekable();
    let jar = words.next().map(|jar| jar.to_ascii_lowercase()).unwrap_or_default();
    if !jar.contains("siemagent") {
        return Ok(if jar.contains(['$', '%', '{', '!']) {
            Started::Unknown
        } else {
            Started::Other
        });
    }
    let mut properties = Properties::default();
    for word in variables.java_options().iter().chain(before) {
        properties.read(word);
    }
    let mut agent = OldAgent { notes: properties.notes(), ..OldAgent::default() };
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
                let value = value()?;
                agent.has_token_elsewhere = is_elsewhere(&value);
                agent.token = Some(value).filter(|token| !is_elsewhere(token));
            }
            "--proxy" => {
                let value = value()?;
                let elsewhere = is_elsewhere(&value);
                agent.proxy =
                    Some(if elsewhere { Proxy::Elsewhere } else { Proxy::Address(value) });
            }
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
    let by_java = properties.proxy();
    if agent.proxy.is_some() && by_java.is_some() && agent.proxy != by_java {
        agent.notes.push("Java's properties name another proxy than --proxy, which was taken");
    }
    agent.proxy = agent.proxy.or(by_java);
    if agent.proxy.is_some() {
        agent.no_proxy = properties.no_proxy(&mut agent.notes);
    }
    Ok(Started::Agent(agent))
}

/// A value that stands somewhere else: in a variable, in what a command prints, in a template's values, or nowhere yet.
fn is_elsewhere(value: &str) -> bool {
    value.contains(['$', '%', '`', '{', '}', '<', '>', '!', '(', ')'])
}

/// Where the shell takes over again.
fn ends_the_command(word: &str) -> bool {
    let word = word.trim_start_matches(['1', '2']);
    word.starts_with(['&', ';', '|', '>', '<', '#', ')', '"', '\''])
}

#[cfg(test)]
mod tests;
