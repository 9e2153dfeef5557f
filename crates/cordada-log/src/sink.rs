//! The trait of everything that takes events, and the sinks that need no file: several at once,
//! none at all, and memory for tests.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{Error, Event};

/// Takes the events of a run.
pub trait Sink {
    /// Takes one event.
    ///
    /// # Errors
    ///
    /// [`Error::DiskFull`] or [`Error::Io`] if the sink stores events and cannot.
    fn record(&mut self, event: &Event) -> Result<(), Error>;

    /// Makes everything recorded so far durable. Called before a checkpoint and at the end.
    ///
    /// # Errors
    ///
    /// [`Error::DiskFull`] or [`Error::Io`] if the sink stores events and cannot.
    fn flush(&mut self) -> Result<(), Error>;
}

/// Hands every event to several sinks, in order.
#[derive(Default)]
pub struct Fanout(Vec<Box<dyn Sink + Send>>);

impl Fanout {
    /// Feeds these sinks.
    pub fn new(sinks: Vec<Box<dyn Sink + Send>>) -> Self {
        Self(sinks)
    }

    /// Adds a sink at the end.
    pub fn push(&mut self, sink: impl Sink + Send + 'static) {
        self.0.push(Box::new(sink));
    }

    /// Calls every sink, even after one failed: a full disk must not silence the terminal.
    fn each(
        &mut self,
        mut call: impl FnMut(&mut (dyn Sink + Send)) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut first = Ok(());
        for sink in &mut self.0 {
            let result = call(sink.as_mut());
            if first.is_ok() {
                first = result;
            }
        }
        first
    }
}

impl std::fmt::Debug for Fanout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fanout({} sinks)", self.0.len())
    }
}

impl Sink for Fanout {
    /// Hands the event to every sink; the error is the first one.
    fn record(&mut self, event: &Event) -> Result<(), Error> {
        self.each(|sink| sink.record(event))
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.each(|sink| sink.flush())
    }
}

/// Ignores every event.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullSink;

impl Sink for NullSink {
    fn record(&mut self, _event: &Event) -> Result<(), Error> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// Keeps every event in memory. Clones share what they keep, so that a test can hand one clone to
/// the code under test and read the other.
#[derive(Clone, Debug, Default)]
pub struct MemorySink(Arc<Mutex<Vec<Event>>>);

impl MemorySink {
    /// A sink that holds no event yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The events recorded so far.
    pub fn events(&self) -> Vec<Event> {
        // A panic while the lock was held cannot leave half an event behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Sink for MemorySink {
    fn record(&mut self, event: &Event) -> Result<(), Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event.clone());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Failing(&'static str);

    impl Sink for Failing {
        fn record(&mut self, _event: &Event) -> Result<(), Error> {
            Err(Error::DiskFull { action: "write", path: self.0.into() })
        }

        fn flush(&mut self) -> Result<(), Error> {
            Err(Error::NotEmpty { path: self.0.into() })
        }
    }

    #[test]
    fn a_failing_sink_does_not_silence_the_others() {
        let memory = MemorySink::new();
        let mut sinks = Fanout::new(vec![Box::new(Failing("first")), Box::new(Failing("second"))]);
        sinks.push(memory.clone());
        sinks.push(NullSink);
        let event = Event::Checkpoint { step: 1, path: "c".into() };
        let error = sinks.record(&event).unwrap_err();
        assert!(matches!(error, Error::DiskFull { path, .. } if path.as_os_str() == "first"));
        let error = sinks.flush().unwrap_err();
        assert!(matches!(error, Error::NotEmpty { path } if path.as_os_str() == "first"));
        assert_eq!(memory.events(), [event]);
        assert_eq!(format!("{sinks:?}"), "Fanout(4 sinks)");
    }
}
