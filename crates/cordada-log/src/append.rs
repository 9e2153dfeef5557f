//! A file that only grows, one whole record at a time, behind a buffer. The JSONL and TensorBoard
//! sinks share it; it knows nothing of what the records mean.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Error;

/// Buffered bytes are handed to the operating system beyond this size.
const MAX_BUFFER: usize = 64 * 1024;

/// An append-only file that is written at most once in an interval.
#[derive(Debug)]
pub(crate) struct AppendFile {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    /// Bytes of whole records that the operating system has.
    written: u64,
    interval: Duration,
    last_write: Option<Instant>,
}

impl AppendFile {
    /// Creates a file that must not exist yet.
    pub(crate) fn create(path: &Path, interval: Duration) -> Result<Self, Error> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(path)
            .map_err(|e| Error::io("create", path, e))?;
        Ok(Self::new(path, file, 0, interval))
    }

    /// Takes an open file whose first `written` bytes are whole records and that ends there.
    pub(crate) fn new(path: &Path, file: File, written: u64, interval: Duration) -> Self {
        let path = path.to_path_buf();
        Self { path, file, buffer: Vec::new(), written, interval, last_write: None }
    }

    /// Adds one record, which `write` appends to the buffer.
    ///
    /// Bytes reach the operating system once the last write is an interval ago, so a slow stream
    /// is written at once and a fast one in blocks.
    pub(crate) fn append(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let before = self.buffer.len();
        if let Err(error) = write(&mut self.buffer) {
            self.buffer.truncate(before);
            return Err(error);
        }
        let now = Instant::now();
        let due = self.last_write.is_none_or(|last| now.duration_since(last) >= self.interval);
        if due || self.buffer.len() >= MAX_BUFFER {
            self.write_out()?;
            self.last_write = Some(now);
        }
        Ok(())
    }

    /// Hands the buffer to the operating system.
    fn write_out(&mut self) -> Result<(), Error> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        if let Err(reason) = self.file.write_all(&self.buffer) {
            // A part of the buffer may be in the file. Cutting it off keeps every record whole, and
            // the buffer is kept, so that a later attempt continues the file correctly. If cutting
            // fails too, readers skip the torn last record.
            let _ = self.file.set_len(self.written);
            return Err(Error::io("write", &self.path, reason));
        }
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes everything to the disk itself, so that it survives a power cut.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        self.write_out()?;
        self.last_write = Some(Instant::now());
        self.file.sync_data().map_err(|e| Error::io("write", &self.path, e))
    }

    /// Length of the file without what is still buffered. Unit: bytes.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AppendFile {
    fn drop(&mut self) {
        // Nobody is left to tell of a failure; who needs to know calls `flush` first.
        let _ = self.write_out();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn add(file: &mut AppendFile, text: &str) -> Result<(), Error> {
        file.append(|buffer| {
            buffer.extend_from_slice(text.as_bytes());
            Ok(())
        })
    }

    #[test]
    fn a_fast_stream_is_written_in_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let read = || fs::read_to_string(&path).unwrap();
        let mut file = AppendFile::create(&path, Duration::from_secs(3600)).unwrap();
        add(&mut file, "a").unwrap();
        assert_eq!(read(), "a", "the first record is written at once");
        add(&mut file, "b").unwrap();
        assert_eq!((read().as_str(), file.written()), ("a", 1));
        file.flush().unwrap();
        assert_eq!((read().as_str(), file.written()), ("ab", 2));
        let block = "c".repeat(MAX_BUFFER);
        add(&mut file, &block).unwrap();
        assert_eq!(read().len(), MAX_BUFFER + 2);
        add(&mut file, "d").unwrap();
        drop(file);
        assert_eq!(read().len(), MAX_BUFFER + 3);

        let path = folder.path().join("g");
        let mut file = AppendFile::create(&path, Duration::ZERO).unwrap();
        add(&mut file, "a").unwrap();
        add(&mut file, "b").unwrap();
        assert_eq!(file.written(), 2);
    }

    #[test]
    fn a_failed_write_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let mut file = AppendFile::create(&path, Duration::ZERO).unwrap();
        add(&mut file, "a").unwrap();
        // A file that is open for reading only refuses to be written.
        let writable = std::mem::replace(&mut file.file, File::open(&path).unwrap());
        assert!(matches!(add(&mut file, "b"), Err(Error::Io { action: "write", .. })));
        file.file = writable;
        // A record that cannot be made leaves nothing of itself behind.
        let failed = file.append(|buffer| {
            buffer.push(b'x');
            Err(Error::NotEmpty { path: "p".into() })
        });
        assert!(matches!(failed, Err(Error::NotEmpty { .. })));
        add(&mut file, "c").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "abc");
    }
}
