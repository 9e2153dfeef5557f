//! `metrics.jsonl`: one event a line. A run that is resumed writes the same lines as one that was
//! never interrupted, apart from the clock, which stands in the key `time`.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::append::AppendFile;
use crate::event::Line;
use crate::{Error, Event, Sink};

/// How old an event may be before the file shows it, if events come fast.
const INTERVAL: Duration = Duration::from_millis(200);

/// Writes one event a line.
#[derive(Debug)]
pub struct JsonlSink {
    file: AppendFile,
    position: Position,
}

/// Length of a metrics file at its last flush, readable while the sink that writes it is owned by
/// others, as in a [`Fanout`](crate::Fanout).
#[derive(Clone, Debug, Default)]
pub struct Position(Arc<AtomicU64>);

impl Position {
    /// Length of the file at the last [`Sink::flush`]. Unit: bytes.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl JsonlSink {
    /// Creates the file of a new run.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file exists or cannot be created.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let file = AppendFile::create(path, INTERVAL)?;
        Ok(Self { file, position: Position::default() })
    }

    /// Continues the file of a run from a checkpoint that was made when the file had `position`
    /// bytes. Events after it are cut off, because the resumed run makes them again.
    ///
    /// # Errors
    ///
    /// [`Error::MetricsTooShort`] if events from before the checkpoint are missing,
    /// [`Error::MetricsChanged`] if `position` is not the end of a line, [`Error::Io`].
    pub fn resume(path: &Path, position: u64) -> Result<Self, Error> {
        let mut file =
            OpenOptions::new().read(true).append(true).create(position == 0).open(path).map_err(
                |e| match e.kind() {
                    std::io::ErrorKind::NotFound if position > 0 => {
                        Error::MetricsTooShort { path: path.to_path_buf(), size: 0, position }
                    }
                    _ => Error::io("open", path, e),
                },
            )?;
        let size = file.metadata().map_err(|e| Error::io("read", path, e))?.len();
        if size < position {
            return Err(Error::MetricsTooShort { path: path.to_path_buf(), size, position });
        }
        if position > 0 {
            let mut last = [0];
            file.seek(SeekFrom::Start(position - 1))
                .and_then(|_| file.read_exact(&mut last))
                .map_err(|e| Error::io("read", path, e))?;
            if last != *b"\n" {
                return Err(Error::MetricsChanged { path: path.to_path_buf(), position });
            }
        }
        if size > position {
            file.set_len(position).map_err(|e| Error::io("shorten", path, e))?;
        }
        let shared = Position::default();
        shared.0.store(position, Ordering::Relaxed);
        Ok(Self { file: AppendFile::new(path, file, position, INTERVAL), position: shared })
    }

    /// The length of the file at the last [`Sink::flush`]: a checkpoint stores it, and
    /// [`JsonlSink::resume`] takes it. The returned value follows later flushes.
    pub fn position(&self) -> Position {
        self.position.clone()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }
}

impl Sink for JsonlSink {
    fn record(&mut self, event: &Event) -> Result<(), Error> {
        self.file.append(|buffer| {
            serde_json::to_writer(&mut *buffer, &Line(event))
                .map_err(|reason| Error::Json { reason })?;
            buffer.push(b'\n');
            Ok(())
        })
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.file.flush()?;
        self.position.0.store(self.file.written(), Ordering::Relaxed);
        Ok(())
    }
}

/// The metrics and evaluations of a metrics file, without the clock: two runs are the same if
/// these are equal. A last line that was torn when its process was killed is skipped.
///
/// # Errors
///
/// [`Error::Io`] if the file cannot be read, [`Error::MalformedLine`] if another line is not an
/// event.
pub fn read_deterministic(path: &Path) -> Result<Vec<Value>, Error> {
    let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    let mut events = Vec::new();
    for (index, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let malformed = |reason: String| Error::MalformedLine {
            path: path.to_path_buf(),
            line: index + 1,
            reason,
        };
        let mut event: Value = match serde_json::from_slice(line) {
            Ok(event) => event,
            // Only the last line can lack its end.
            Err(_) if !line.ends_with(b"\n") => continue,
            Err(reason) => return Err(malformed(reason.to_string())),
        };
        let Some(kind) = event.get("event").and_then(Value::as_str) else {
            return Err(malformed("it has no key `event`".to_owned()));
        };
        if kind == "metrics" || kind == "evaluation" {
            if let Some(object) = event.as_object_mut() {
                object.remove("time");
            }
            events.push(event);
        }
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn metrics(iteration: u64) -> Event {
        let value = (iteration as f64).sqrt() / 3.0;
        let values = vec![("time/seconds", 0.5), ("rollout/episode_return", value)];
        Event::Metrics { step: iteration * 100, iteration, values }
    }

    /// `{"event":"metrics","step":100,"iteration":1,"rollout/episode_return":0.3333333333333333,"time":{"time/seconds":0.5}}`
    /// and the line's end.
    const FIRST_LINE: u64 = 117;

    #[test]
    fn a_resumed_run_writes_what_an_uninterrupted_one_writes() {
        let folder = tempfile::tempdir().unwrap();
        let (whole, resumed) = (folder.path().join("whole"), folder.path().join("resumed"));
        let mut sink = JsonlSink::create(&whole).unwrap();
        for iteration in 1..=6 {
            sink.record(&metrics(iteration)).unwrap();
        }
        drop(sink);

        let mut sink = JsonlSink::create(&resumed).unwrap();
        let position = sink.position();
        sink.record(&metrics(1)).unwrap();
        sink.record(&metrics(2)).unwrap();
        assert_eq!(position.bytes(), 0, "nothing was flushed yet");
        sink.flush().unwrap();
        let checkpoint = position.bytes();
        assert_eq!(checkpoint, fs::metadata(&resumed).unwrap().len());
        // Two more iterations, then the process is killed in the middle of a line.
        sink.record(&metrics(3)).unwrap();
        sink.record(&metrics(4)).unwrap();
        drop(sink);
        let mut bytes = fs::read(&resumed).unwrap();
        bytes.extend_from_slice(b"{\"event\":\"metr");
        fs::write(&resumed, bytes).unwrap();

        let mut sink = JsonlSink::resume(&resumed, checkpoint).unwrap();
        assert_eq!(sink.position().bytes(), checkpoint);
        sink.record(&Event::Resume { step: 200, path: "c".into() }).unwrap();
        for iteration in 3..=6 {
            sink.record(&metrics(iteration)).unwrap();
        }
        drop(sink);
        let events = read_deterministic(&whole).unwrap();
        assert_eq!(events.len(), 6);
        assert_eq!(read_deterministic(&resumed).unwrap(), events);
    }

    #[test]
    fn a_reader_sees_metrics_and_evaluations_without_the_clock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut sink = JsonlSink::create(&path).unwrap();
        sink.record(&Event::Warning { step: 0, message: "m".into() }).unwrap();
        sink.record(&metrics(1)).unwrap();
        sink.record(&Event::Evaluation {
            step: 100,
            episodes: 2,
            mean_return: 1.0,
            std_return: 0.0,
            mean_length: 9.0,
            deterministic: true,
        })
        .unwrap();
        sink.flush().unwrap();
        let events = read_deterministic(&path).unwrap();
        let expected = [
            r#"{"event":"metrics","step":100,"iteration":1,"rollout/episode_return":0.3333333333333333}"#,
            r#"{"event":"evaluation","step":100,"episodes":2,"mean_return":1.0,"std_return":0.0,"mean_length":9.0,"deterministic":true}"#,
        ]
        .map(|text| serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(events, expected);
    }

    #[test]
    fn only_a_torn_last_line_is_forgiven() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        let whole = "{\"event\":\"metrics\",\"step\":1}\n";
        fs::write(&path, format!("{whole}{{\"event\":\"metrics\",\"st")).unwrap();
        assert_eq!(read_deterministic(&path).unwrap().len(), 1);
        // Whole but for its line end: nothing is lost.
        fs::write(&path, format!("{whole}{}", whole.trim_end())).unwrap();
        assert_eq!(read_deterministic(&path).unwrap().len(), 2);

        fs::write(&path, format!("{whole}{{\"event\":\n{whole}")).unwrap();
        assert_eq!(
            read_deterministic(&path).unwrap_err().to_string(),
            format!(
                "{} is damaged: line 2 is not an event (EOF while parsing a value at line 2 column 0); \
                 delete that line to read the rest",
                path.display()
            )
        );
        fs::write(&path, "{\"step\":1}\n").unwrap();
        assert_eq!(
            read_deterministic(&path).unwrap_err().to_string(),
            format!(
                "{} is damaged: line 1 is not an event (it has no key `event`); delete that line to \
                 read the rest",
                path.display()
            )
        );
    }

    #[test]
    fn a_file_that_does_not_fit_the_checkpoint_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        let error = JsonlSink::resume(&path, 5).unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "{} has 0 bytes, but the checkpoint was made when it had 5: put the whole file back, \
                 or resume from an older checkpoint",
                path.display()
            )
        );
        assert!(!path.exists(), "a refused file must not be created");

        let mut sink = JsonlSink::create(&path).unwrap();
        sink.record(&metrics(1)).unwrap();
        sink.flush().unwrap();
        assert_eq!(sink.position().bytes(), FIRST_LINE);
        drop(sink);
        let error = JsonlSink::resume(&path, FIRST_LINE + 1).unwrap_err();
        assert!(
            matches!(error, Error::MetricsTooShort { size: FIRST_LINE, position: 118, .. }),
            "{error}"
        );
        assert_eq!(
            JsonlSink::resume(&path, 50).unwrap_err().to_string(),
            format!(
                "{} was changed after the checkpoint: byte 50 is not the end of a line; put the \
                 original file back, or resume from an older checkpoint",
                path.display()
            )
        );
        // Refusing leaves the file as it was.
        assert_eq!(fs::metadata(&path).unwrap().len(), FIRST_LINE);
        // A run whose checkpoint knows of no event starts the file again.
        JsonlSink::resume(&path, 0).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        // A new run never writes over an old one.
        assert!(matches!(JsonlSink::create(&path), Err(Error::Io { action: "create", .. })));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_reported_with_the_path() {
        let mut sink = JsonlSink::resume(Path::new("/dev/full"), 0).unwrap();
        let error = sink.record(&metrics(1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the disk is full: cannot write /dev/full: free some space, then continue with \
             `cordada resume`; the last whole checkpoint is kept"
        );
        assert!(matches!(sink.flush(), Err(Error::DiskFull { .. })));
        assert_eq!(sink.position().bytes(), 0);
    }
}
