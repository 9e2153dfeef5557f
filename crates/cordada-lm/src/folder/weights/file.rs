//! One `.safetensors` file: 8 bytes with the header's length, the header in JSON, the numbers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::super::{StoredAs, file_error, io_error, temporary};
use crate::Error;

/// Longest header that the format allows.
const MAX_HEADER: u64 = 100_000_000;
/// Numbers that are converted at a time.
const CHUNK: usize = 1 << 16;

/// A file that is open for reading.
pub(crate) struct Source {
    path: PathBuf,
    file: BufReader<File>,
    /// Where the numbers begin.
    start: u64,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Source {
    /// Opens a file and checks that it is whole.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let io = |e| io_error(path, e);
        let mut file = BufReader::new(File::open(path).map_err(io)?);
        let length = file.get_ref().metadata().map_err(io)?.len();
        let mut head = [0; 8];
        if length < 8 {
            let problem = format!(
                "the file has {length} bytes and is no .safetensors file; download it again"
            );
            return Err(file_error(path, problem));
        }
        file.read_exact(&mut head).map_err(io)?;
        if head == *b"version " {
            return Err(file_error(
                path,
                "this is a pointer of Git LFS, not the file itself; run `git lfs pull`",
            ));
        }
        let header = u64::from_le_bytes(head);
        if header > MAX_HEADER {
            return Err(file_error(path, "this is no .safetensors file: its header is too long"));
        }
        let start = 8 + header;
        if start > length {
            return Err(cut_off(path, length, start, "its header"));
        }
        let mut text = vec![0; header as usize];
        file.read_exact(&mut text).map_err(io)?;
        let metadata: Metadata = serde_json::from_slice(&text)
            .map_err(|e| file_error(path, format!("the header of this file is damaged: {e}")))?;
        let tensors: BTreeMap<String, TensorInfo> =
            metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        let source = Self { path: path.to_path_buf(), file, start, tensors };
        source.check_length(length)?;
        Ok(source)
    }

    fn check_length(&self, length: u64) -> Result<(), Error> {
        let place = |info: &TensorInfo| self.start + info.data_offsets.1 as u64;
        let needed = self.tensors.values().map(place).max().unwrap_or(self.start);
        if length > needed {
            let problem = format!("the file has {length} bytes, its header speaks of {needed}");
            return Err(file_error(&self.path, problem));
        }
        let lost = self.tensors.iter().filter(|(_, info)| place(info) > length);
        match lost.min_by_key(|(_, info)| info.data_offsets) {
            None => Ok(()),
            Some((name, _)) => Err(cut_off(&self.path, length, needed, &format!("tensor {name}"))),
        }
    }

    /// Names of all tensors, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    /// Reads a tensor, which must have the shape given.
    pub(crate) fn read(
        &mut self,
        name: &str,
        shape: &[usize],
        out: &mut [f32],
    ) -> Result<(), Error> {
        let Some(info) = self.tensors.get(name) else {
            return Err(file_error(&self.path, format!("tensor {name} is missing")));
        };
        if info.shape != shape {
            let problem = format!(
                "tensor {name} has the shape {:?}, the config asks for {shape:?}",
                info.shape
            );
            return Err(file_error(&self.path, problem));
        }
        let place = SeekFrom::Start(self.start + info.data_offsets.0 as u64);
        let result = self.file.seek(place).and_then(|_| match info.dtype {
            Dtype::F32 => fill(&mut self.file, out, f32::from_le_bytes).map(|()| true),
            Dtype::BF16 => {
                fill(&mut self.file, out, |b| bf16::from_le_bytes(b).to_f32()).map(|()| true)
            }
            Dtype::F16 => {
                fill(&mut self.file, out, |b| f16::from_le_bytes(b).to_f32()).map(|()| true)
            }
            _ => Ok(false),
        });
        match result {
            Ok(true) => Ok(()),
            Ok(false) => {
                let problem = format!(
                    "tensor {name} is stored as {:?}; supported are F32, BF16 and F16",
                    info.dtype
                );
                Err(file_error(&self.path, problem))
            }
            Err(e) => Err(io_error(&self.path, e)),
        }
    }
}

fn cut_off(path: &Path, length: u64, needed: u64, what: &str) -> Error {
    let problem = format!(
        "the file is cut off within {what}: it has {length} of at least {needed} bytes; \
         download or copy it again"
    );
    file_error(path, problem)
}

/// Reads and widens numbers of `N` bytes each.
fn fill<const N: usize>(
    file: &mut impl Read,
    out: &mut [f32],
    convert: impl Fn([u8; N]) -> f32,
) -> std::io::Result<()> {
    let mut bytes = vec![0; N * CHUNK.min(out.len())];
    for part in out.chunks_mut(CHUNK) {
        let bytes = &mut bytes[..N * part.len()];
        file.read_exact(bytes)?;
        for (x, &b) in part.iter_mut().zip(bytes.as_chunks::<N>().0) {
            *x = convert(b);
        }
    }
    Ok(())
}

/// Writes numbers as bytes of the type.
pub(crate) fn f32_bytes(
    values: &[f32],
    stored_as: StoredAs,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(4 * CHUNK.min(values.len()));
    for part in values.chunks(CHUNK) {
        bytes.clear();
        match stored_as {
            StoredAs::F32 => bytes.extend(part.iter().flat_map(|x| x.to_le_bytes())),
            StoredAs::Bf16 => {
                bytes.extend(part.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()));
            }
        }
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// Writes a file of tensors under a temporary name and renames it.
///
/// `data` writes the numbers of tensor number i; tensors lie in the order given.
pub(crate) fn write_tensors(
    path: &Path,
    shapes: &[(String, Vec<usize>)],
    stored_as: StoredAs,
    mut data: impl FnMut(usize, &mut dyn Write) -> std::io::Result<()>,
) -> Result<(), Error> {
    let (dtype, width) = match stored_as {
        StoredAs::F32 => (Dtype::F32, 4),
        StoredAs::Bf16 => (Dtype::BF16, 2),
    };
    let mut offset = 0;
    let infos = shapes.iter().map(|(name, shape)| {
        let start = offset;
        offset += width * shape.iter().product::<usize>();
        let info = TensorInfo { dtype, shape: shape.clone(), data_offsets: (start, offset) };
        (name.clone(), info)
    });
    // transformers refuses a file without this entry.
    let format = [("format".to_string(), "pt".to_string())].into();
    let metadata = Metadata::new(Some(format), infos.collect())
        .map_err(|e| file_error(path, format!("the tensors make no file: {e}")))?;
    let mut header = serde_json::to_vec(&metadata)
        .map_err(|e| file_error(path, format!("the header cannot be written: {e}")))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let unfinished = temporary(path);
    let mut write = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(&unfinished)?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for i in 0..shapes.len() {
            data(i, &mut file)?;
        }
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(&unfinished, path)
    };
    write().map_err(|e| {
        // What is left of a full disk must not stay there.
        let _ = std::fs::remove_file(&unfinished);
        io_error(path, e)
    })
}
