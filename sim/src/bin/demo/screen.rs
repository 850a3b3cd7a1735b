//! What is shown: lines as they come, and below them, on a terminal, how the agent and delivery stand.

use std::io::{IsTerminal as _, Write as _, stdout};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use crate::count::Count;

/// A bar below the lines on a terminal; elsewhere plain lines.
#[derive(Debug, Clone)]
pub(crate) struct Screen(Option<ProgressBar>);

impl Screen {
    pub(crate) fn new() -> Result<Self> {
        if !stdout().is_terminal() {
            return Ok(Self(None));
        }
        let style =
            ProgressStyle::with_template("{prefix:.yellow.bold}\n{bar:30.green} {msg:.cyan.bold}")?;
        Ok(Self(Some(ProgressBar::new(0).with_style(style))))
    }

    pub(crate) fn say(&self, text: &str) -> Result<()> {
        for line in text.lines() {
            match &self.0 {
                Some(bar) => bar.println(line),
                None => writeln!(stdout(), "{line}")?,
            }
        }
        Ok(())
    }

    /// How the forwarder or the agent is, in a few words, and the count.
    pub(crate) fn show(&self, how: &str, count: &Count) -> Result<()> {
        let Count { n_produced, n_delivered, n_lost, n_repeated, lag } = count;
        let lag = lag.map_or_else(|| "unknown".to_owned(), |lag| format!("{lag:.1} s"));
        let text = format!(
            "produced {n_produced}  delivered {n_delivered}  lost {n_lost}  repeated {n_repeated}  lag {lag}"
        );
        let Some(bar) = &self.0 else { return self.say(format!("{how}  {text}").trim_start()) };
        bar.set_length(u64::try_from(*n_produced)?);
        bar.set_position(u64::try_from(*n_delivered)?);
        bar.set_prefix(how.to_owned());
        bar.set_message(text);
        Ok(())
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.abandon();
        }
    }
}
