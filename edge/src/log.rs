//! The log's writer: an event is one line, whatever the texts in it hold.

use std::io::{self, Write};

use siem_agent_crds::printable::printable;
use tracing_subscriber::fmt::MakeWriter;

/// Writes each event through [`printable`] before it goes to `M`'s writer.
#[derive(Debug, Clone)]
pub struct OneLine<M>(pub M);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for OneLine<M> {
    type Writer = Line<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(self.0.make_writer())
    }
}

/// The writer of one event, which comes whole, with a line feed at its end.
#[derive(Debug)]
pub struct Line<W>(W);

impl<W: Write> Write for Line<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let body = text.strip_suffix('\n').unwrap_or(&text);
        let mut line = printable(body).into_owned();
        line.push('\n');
        self.0.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const HOSTILE: &str =
        "x\nINFO forged\u{85}y\u{2028}z \u{1B}[2J\u{9B}2J txt.\u{202E}exe \u{200B}";

    fn logged<L>(layer: impl FnOnce(OneLine<Box<dyn Fn() -> Written + Send + Sync>>) -> L) -> String
    where
        L: tracing_subscriber::Layer<tracing_subscriber::Registry> + Send + Sync,
    {
        let written = Written::default();
        let out = written.clone();
        let layer = layer(OneLine(Box::new(move || out.clone())));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!(reason = HOSTILE, shown = %HOSTILE, "the portal says {HOSTILE}");
        });
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn an_event_is_one_line_that_nothing_in_it_forges() {
        let text = logged(|out| fmt::layer().with_writer(out).with_ansi(false));
        let json = logged(|out| fmt::layer().json().flatten_event(true).with_writer(out));
        for line in [&text, &json] {
            let body = line.strip_suffix('\n').unwrap();
            assert_eq!(printable(body), body);
            assert!(body.contains("txt.<U+202E>exe <U+200B>"), "{body}");
        }
        assert!(json.starts_with('{') && json.ends_with("}\n"), "{json}");
    }
}
