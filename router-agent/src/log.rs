//! Log lines on stderr with klog's header, which log shippers parse: severity, date, time (UTC) in microseconds,
//! process id, file and line, then the message and the fields.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, SubscriberExt as _};

/// The target of lines in GoBGP's form.
pub(crate) const GOBGP: &str = "gobgp";

/// Logs from here on, as much as `verbosity` says.
pub(crate) fn start(verbosity: i64) {
    let subscriber = tracing_subscriber::registry().with(Klog.with_filter(targets(verbosity)));
    // A second call would find a subscriber in place: there is one `main`.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Ours by degrees; libraries only warn, until nothing else is left to say.
fn targets(verbosity: i64) -> Targets {
    let ours = match verbosity {
        ..=0 => LevelFilter::INFO,
        1..=2 => LevelFilter::DEBUG,
        3.. => LevelFilter::TRACE,
    };
    // The watcher's own warnings come back as Problems, once each.
    let theirs = if verbosity < 5 { LevelFilter::ERROR } else { LevelFilter::DEBUG };
    // So does every request that failed, of which the client says an error beside returning it.
    let client = if verbosity < 5 { LevelFilter::OFF } else { LevelFilter::DEBUG };
    Targets::new()
        .with_default(theirs)
        .with_target("kube_client::client::builder", client)
        .with_target("kube_router", ours)
        .with_target(GOBGP, LevelFilter::INFO)
        .with_target("router_core", ours)
}

struct Klog;

impl<S: Subscriber> Layer<S> for Klog {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == GOBGP {
            let mut fields = Logrus::default();
            event.record(&mut fields);
            let line = fields.line(Timestamp::now(), *event.metadata().level());
            let _ = std::io::stderr().lock().write_all(line.as_bytes());
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let meta = event.metadata();
        let place = Place { level: *meta.level(), file: meta.file(), line: meta.line() };
        let line = format_line(Timestamp::now(), std::process::id(), &place, &text);
        // Nowhere is left to say that stderr is gone.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }
}

/// Where an event comes from.
struct Place<'a> {
    level: Level,
    file: Option<&'a str>,
    line: Option<u32>,
}

/// An event's message, and its other fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            // A String takes whatever is written to it.
            let _ = write!(self.fields, " {}={value:?}", field.name());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}

/// Lines that users grep for in the form that GoBGP's library logs them (logrus text: keys sorted, after the time, the
/// level and the message; quoted where they need it).
#[derive(Default)]
struct Logrus {
    message: String,
    fields: BTreeMap<&'static str, String>,
}

impl Visit for Logrus {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.fields.insert(field.name(), text);
        }
    }
}

impl Logrus {
    fn line(&self, time: Timestamp, level: Level) -> String {
        let level = match level {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            _ => "debug",
        };
        let time = time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%SZ");
        let mut line = format!("time=\"{time}\" level={level} msg={}", quoted(&self.message));
        for (name, value) in &self.fields {
            // A String takes whatever is written to it.
            let _ = write!(line, " {name}={}", quoted(value));
        }
        line + "\n"
    }
}

fn quoted(text: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-._/@^+".contains(letter);
    if text.chars().all(plain) && !text.is_empty() { text.to_owned() } else { format!("{text:?}") }
}

fn format_line(time: Timestamp, process: u32, place: &Place<'_>, text: &Text) -> String {
    let severity = match place.level {
        Level::ERROR => 'E',
        Level::WARN => 'W',
        _ => 'I',
    };
    let time = time.to_zoned(TimeZone::UTC).strftime("%m%d %H:%M:%S%.6f").to_string();
    let file = place.file.map_or("???", |path| path.rsplit('/').next().unwrap_or(path));
    let line = place.line.unwrap_or(1);
    // One event is one line, whatever is in it.
    let message = text.message.replace('\n', "\\n");
    format!("{severity}{time} {process:7} {file}:{line}] {message}{}\n", text.fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: Level, message: &str, fields: &str) -> String {
        let time: Timestamp = "2026-09-17T16:47:14.123456Z".parse().unwrap();
        let place = Place { level, file: Some("router-agent/src/routes.rs"), line: Some(42) };
        format_line(time, 1, &place, &Text { message: message.into(), fields: fields.into() })
    }

    #[test]
    fn the_header_is_klogs() {
        assert_eq!(
            line(Level::INFO, "up", ""),
            "I0917 16:47:14.123456       1 routes.go:42] up\n".replace(".go", ".rs")
        );
        assert!(line(Level::WARN, "", "").starts_with("W0917 "));
        assert!(line(Level::ERROR, "", "").starts_with("E0917 "));
        assert!(line(Level::DEBUG, "", "").starts_with("I0917 "));
    }

    #[test]
    fn a_session_that_is_up_is_said_as_gobgp_says_it() {
        let time: Timestamp = "2018-09-17T16:47:14.5Z".parse().unwrap();
        let fields = [("Topic", "Peer"), ("Key", "192.168.186.6"), ("State", "BGP_FSM_OPENCONFIRM")];
        let fields = fields.map(|(name, value)| (name, value.to_owned())).into();
        let line = Logrus { message: "Peer Up".into(), fields }.line(time, Level::INFO);
        let expected = "time=\"2018-09-17T16:47:14Z\" level=info msg=\"Peer Up\" Key=192.168.186.6 \
             State=BGP_FSM_OPENCONFIRM Topic=Peer\n";
        assert_eq!(line, expected);
        assert_eq!((quoted("2001:db8::1"), quoted("a b")), ("\"2001:db8::1\"".into(), "\"a b\"".into()));
    }

    #[test]
    fn an_event_is_one_line() {
        assert!(line(Level::INFO, "a\nb", " c=1").ends_with("] a\\nb c=1\n"));
    }

    #[test]
    fn verbosity_is_by_degrees_and_libraries_are_quiet() {
        let shown = |verbosity, target, level| targets(verbosity).would_enable(target, &level);
        assert!(shown(0, "kube_router::app", Level::INFO) && !shown(0, "kube_router::app", Level::DEBUG));
        assert!(shown(2, "kube_router::app", Level::DEBUG) && !shown(2, "kube_router::app", Level::TRACE));
        assert!(shown(3, "kube_router::app", Level::TRACE));
        let requests = "kube_client::client::builder";
        assert!(!shown(3, requests, Level::ERROR) && shown(5, requests, Level::DEBUG));
        assert!(
            !shown(3, "kube_client::client", Level::INFO) && shown(5, "kube_client::client", Level::DEBUG)
        );
    }
}
