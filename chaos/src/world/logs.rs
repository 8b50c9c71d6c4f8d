//! The events of the programs in a watched run: a `tracing` subscriber that keeps their log lines beside the packets, with
//! their fields apart.
//!
//! It only looks. A run with it has the digest of the run without, since it draws nothing, waits for nothing and
//! writes no record of the trace.

use std::fmt;
use std::sync::LazyLock;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

use super::sighting::ProtocolEvent;
use super::sim;

/// Keeps the events of these targets, down to the level `DEBUG`.
pub(crate) struct Logs {
    /// Beginnings of targets, such as a crate's name.
    pub(crate) targets: &'static [&'static str],
}

/// `tracing` keeps, for the whole process, that a line interests nobody, if it was said first on a thread without a
/// subscriber while there was one subscriber at most. Two that nobody uses, and that are interested in some lines of
/// every target, prevent that.
static INTERESTED: LazyLock<[Dispatch; 2]> =
    LazyLock::new(|| std::array::from_fn(|_| Dispatch::new(Logs { targets: &[""] })));

/// Makes what one run's programs say audible for the watchers of others. Each run calls this before it begins.
pub(crate) fn keep_audible() {
    LazyLock::force(&INTERESTED);
}

impl Subscriber for Logs {
    /// Another watcher may want what this one doesn't.
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && *metadata.level() <= Level::DEBUG
            && self.targets.iter().any(|target| metadata.target().starts_with(target))
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        // Spans aren't enabled; the host says whose line it is.
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if !sim::is_running() {
            return;
        }
        let host = sim::place().map(|place| place.host);
        let is_watched = sim::with(|sim| {
            let (now_ns, name) = (sim.now_ns(), event.metadata().name());
            sim.record.reaches(now_ns, |novelties, place| novelties.event(host, name, place));
            sim.record.trace.is_watched()
        });
        // To note what a run reaches, no text is made.
        if !is_watched {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields { name, fields } = fields;
        let event = ProtocolEvent { target: event.metadata().target(), name, fields };
        sim::try_with(|sim| {
            let now_ns = sim.now_ns();
            sim.record.trace.event(now_ns, host, event);
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// An event's message, which is its name, and its fields.
#[derive(Default)]
struct Fields {
    name: String,
    fields: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.name = format!("{value:?}"),
            name => self.fields.push((name, format!("{value:?}"))),
        }
    }
}
