//! An opened recording: its tensors as numbers. What they mean is known to its readers.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use crate::error::Error;

/// An opened recording.
pub(super) struct Recording<'a> {
    pub(super) path: &'a Path,
    pub(super) tensors: SafeTensors<'a>,
}

impl Recording<'_> {
    /// Whether there is a tensor `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.tensor(name).is_ok()
    }

    /// The tensor `name` as numbers, of `len` elements if given.
    pub(super) fn tensor(&self, name: &str, len: Option<usize>) -> Result<Vec<f64>, Error> {
        let (path, tensor) = (|| self.path.to_path_buf(), || name.to_string());
        let Ok(view) = self.tensors.tensor(name) else {
            return Err(Error::Tensor { path: path(), tensor: tensor() });
        };
        let Some(values) = widen(view.dtype(), view.data()) else {
            let dtype = format!("{:?}", view.dtype());
            return Err(Error::TensorType { path: path(), tensor: tensor(), dtype });
        };
        match len {
            Some(expected) if expected != values.len() => {
                let found = values.len();
                Err(Error::TensorLength { path: path(), tensor: tensor(), expected, found })
            }
            _ => Ok(values),
        }
    }

    /// The tensor `name`, if there is one.
    pub(super) fn optional(&self, name: &str, len: usize) -> Result<Option<Vec<f64>>, Error> {
        if self.has(name) { self.tensor(name, Some(len)).map(Some) } else { Ok(None) }
    }
}

/// Little-endian numbers as `f64`, exact for all that recordings hold; none for other types.
fn widen(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f64>> {
    fn each<const N: usize>(bytes: &[u8], from: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        bytes.as_chunks().0.iter().map(|&b| from(b)).collect()
    }
    Some(match dtype {
        Dtype::F64 => each(bytes, f64::from_le_bytes),
        Dtype::F32 => each(bytes, |b| f64::from(f32::from_le_bytes(b))),
        Dtype::I64 => each(bytes, |b| i64::from_le_bytes(b) as f64),
        Dtype::I32 => each(bytes, |b| f64::from(i32::from_le_bytes(b))),
        Dtype::U8 | Dtype::BOOL => each(bytes, |[b]| f64::from(b)),
        _ => return None,
    })
}
