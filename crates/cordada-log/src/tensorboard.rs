//! TensorBoard event files, with scalars only.
//!
//! An event file is a sequence of records; each holds a protocol buffer message `Event`:
//!
//! ```text
//! record  = length: u64 LE, masked CRC of it: u32 LE, bytes, masked CRC of them: u32 LE
//! masked  = rotate_right(CRC-32C, 15) + 0xa282ead8  (mod 2³²)
//!
//! Event      { 1 wall_time: double  2 step: int64  3 file_version: string
//!              5 summary: Summary  7 session_log: SessionLog }
//! Summary    { 1 value: repeated { 1 tag: string  2 simple_value: float  9 metadata } }
//! metadata   { 1 plugin_data { 1 plugin_name: string }  3 summary_description: string }
//! SessionLog { 1 status: enum (1 = START) }
//! ```
//!
//! The encoding is written here, because the one crate for it (tensorboard-rs 0.5) brings an image
//! library, an old protobuf runtime and generated code for a dozen lines of format.
//!
//! # Source
//!
//! TensorFlow's `core/util/event.proto`, `core/framework/summary.proto` and
//! `core/lib/io/record_writer.cc`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::append::AppendFile;
use crate::{Error, Event, Sink, find_metric};

/// How old an event may be before the file shows it, if events come fast.
const INTERVAL: Duration = Duration::from_secs(2);

/// Writes metrics and evaluations as TensorBoard scalars.
#[derive(Debug)]
pub struct TensorBoardSink {
    file: AppendFile,
    /// Tags whose metadata this file has already.
    described: BTreeSet<String>,
}

impl TensorBoardSink {
    /// Starts the event file of a new run in `folder`, which is created if need be.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::DiskFull`].
    pub fn create(folder: &Path) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(|e| Error::io("create the folder", folder, e))?;
        let path = next_path(folder)?;
        let mut sink =
            Self { file: AppendFile::create(&path, INTERVAL)?, described: BTreeSet::new() };
        sink.write(0, |event| event.string(3, "brain.Event:2"))?;
        Ok(sink)
    }

    /// Starts a further event file for a run that continues from a checkpoint at `step`, and tells
    /// TensorBoard to drop the points after it, which the resumed run makes again.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::DiskFull`].
    pub fn resume(folder: &Path, step: u64) -> Result<Self, Error> {
        let mut sink = Self::create(folder)?;
        // TensorBoard drops the points at the step of a START as well as those after it. The points
        // at `step` were made before the checkpoint and are not made again, so START comes next.
        sink.write(step + 1, |event| event.message(7, |log| log.integer(1, 1)))?;
        Ok(sink)
    }

    /// The event file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Writes one event with the given step and the fields that `fill` adds.
    fn write(&mut self, step: u64, fill: impl FnOnce(&mut Message)) -> Result<(), Error> {
        let mut event = Message::default();
        event.double(1, since_epoch().as_secs_f64());
        event.integer(2, step);
        fill(&mut event);
        self.file.append(|buffer| {
            write_record(buffer, &event.0);
            Ok(())
        })
    }

    fn write_scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<(), Error> {
        let mut summary = Message::default();
        for &(tag, number) in values {
            let first = !self.described.contains(tag);
            if first {
                self.described.insert(tag.to_owned());
            }
            summary.message(1, |value| {
                value.string(1, tag);
                value.float(2, number as f32);
                if first {
                    value.message(9, |metadata| describe(metadata, tag));
                }
            });
        }
        self.write(step, |event| event.bytes(5, &summary.0))
    }
}

impl Sink for TensorBoardSink {
    fn record(&mut self, event: &Event) -> Result<(), Error> {
        match event {
            Event::Metrics { step, values, .. } => self.write_scalars(*step, values),
            Event::Evaluation { step, mean_return, std_return, mean_length, .. } => self
                .write_scalars(
                    *step,
                    &[
                        ("eval/mean_return", *mean_return),
                        ("eval/std_return", *std_return),
                        ("eval/mean_length", *mean_length),
                    ],
                ),
            _ => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.file.flush()
    }
}

/// TensorBoard shows the description when one points at a chart's title.
fn describe(metadata: &mut Message, tag: &str) {
    metadata.message(1, |plugin| plugin.string(1, "scalars"));
    if let Some(metric) = find_metric(tag) {
        let text = format!("{} Unit: {}. Trouble: {}", metric.summary, metric.unit, metric.trouble);
        metadata.string(3, &text);
    }
}

fn since_epoch() -> Duration {
    // A clock before 1970 is wrong, but no reason to lose a run.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The name for a new event file: `events.out.tfevents.SECONDS.HOST.PID.N`.
///
/// TensorBoard reads the files of a folder in the order of their names, and a resumed run must be
/// read after what it resumes. So the seconds are past those of every file that is there.
fn next_path(folder: &Path) -> Result<PathBuf, Error> {
    let mut seconds = since_epoch().as_secs();
    for entry in fs::read_dir(folder).map_err(|e| Error::io("read the folder", folder, e))? {
        let name = entry.map_err(|e| Error::io("read the folder", folder, e))?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix("events.out.tfevents."))
            .and_then(|rest| rest.split('.').next())
            .and_then(|number| number.parse::<u64>().ok());
        if let Some(number) = number {
            seconds = seconds.max(number + 1);
        }
    }
    let (host, pid) = (host_name(), std::process::id());
    Ok(folder.join(format!("events.out.tfevents.{seconds:010}.{host}.{pid}.0")))
}

/// The machine's name, as far as it can be had without a system call of our own.
fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .or_else(|| std::env::var("COMPUTERNAME").ok())
        .unwrap_or_default();
    let plain: String = name
        .trim()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '-' })
        .collect();
    if plain.is_empty() { "localhost".to_owned() } else { plain }
}

fn write_record(buffer: &mut Vec<u8>, bytes: &[u8]) {
    let length = (bytes.len() as u64).to_le_bytes();
    buffer.extend_from_slice(&length);
    buffer.extend_from_slice(&masked_crc(&length).to_le_bytes());
    buffer.extend_from_slice(bytes);
    buffer.extend_from_slice(&masked_crc(bytes).to_le_bytes());
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A protocol buffer message under construction: fields are a key, `number · 8 + wire type`, and a
/// value.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn integer(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.varint(field << 3 | 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn string(&mut self, field: u64, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    fn message(&mut self, field: u64, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_wire_form() {
        // Field 2, wire type 0: key 2·8 = 16. 300 = 0b10_0101100: low seven bits first.
        let mut message = Message::default();
        message.integer(2, 300);
        assert_eq!(message.0, [16, 0b1010_1100, 0b10]);
        // Field 9 as a message that holds field 3, a string: keys 9·8 + 2 and 3·8 + 2.
        let mut message = Message::default();
        message.message(9, |inner| inner.string(3, "ab"));
        assert_eq!(message.0, [74, 4, 26, 2, b'a', b'b']);
        // Wire type 1 is eight bytes, wire type 5 four: 1.0 is 0x3ff0… and 0x3f800000.
        let mut message = Message::default();
        message.double(1, 1.0);
        message.float(2, 1.0);
        assert_eq!(message.0, [9, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 21, 0, 0, 0x80, 0x3f]);
    }

    #[test]
    fn checksums_are_masked() {
        // CRC-32C of "123456789" is 0xe3069283 (RFC 3720). Rotated right by 15 bits it is
        // 0x2507c60d, and 0x2507c60d + 0xa282ead8 = 0xc78ab0e5.
        assert_eq!(masked_crc(b"123456789"), 0xc78a_b0e5);
    }

    #[test]
    fn a_later_file_sorts_after_every_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let far = since_epoch().as_secs() + 1_000;
        let earlier = format!("events.out.tfevents.{far}.zzz.99999.9");
        fs::write(folder.path().join(&earlier), "").unwrap();
        let path = next_path(folder.path()).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name > earlier.as_str(), "{name}");
        assert!(name.starts_with(&format!("events.out.tfevents.{}.", far + 1)), "{name}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_reported() {
        let path = Path::new("/dev/full");
        let file = fs::OpenOptions::new().append(true).open(path).unwrap();
        let mut sink = TensorBoardSink {
            file: AppendFile::new(path, file, 0, INTERVAL),
            described: BTreeSet::new(),
        };
        let event = Event::Metrics { step: 1, iteration: 1, values: vec![("train/std", 1.0)] };
        assert!(matches!(sink.record(&event), Err(Error::DiskFull { .. })));
    }
}
