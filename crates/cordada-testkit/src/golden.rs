//! Reader of the golden data: `golden/data` (recorded trajectories), `golden/math` (numbers of
//! formulas) and `golden/llm` (language models and their losses). Another folder of the same layout
//! is read instead if `CORDADA_GOLDEN` names it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// The folder of golden data: the variable `CORDADA_GOLDEN`, else the workspace's `golden`.
pub fn root() -> PathBuf {
    match std::env::var_os("CORDADA_GOLDEN") {
        Some(path) => {
            let path = PathBuf::from(path);
            // Tests run in their crate's folder; a relative path is meant from the workspace.
            if path.is_absolute() { path } else { workspace().join(path) }
        }
        None => workspace().join("golden"),
    }
}

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// An array of numbers of any stored type, widened to `f64` (exact for all but large `i64`).
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Length of each axis; empty for a scalar.
    pub shape: Vec<usize>,
    /// Values in row-major order.
    pub data: Vec<f64>,
}

impl Tensor {
    /// The value of a tensor with one element.
    ///
    /// # Panics
    ///
    /// If it has another number of elements.
    pub fn scalar(&self) -> f64 {
        assert_eq!(self.data.len(), 1, "not a scalar: shape {:?}", self.shape);
        self.data[0]
    }

    /// Values rounded to `f32`.
    pub fn f32(&self) -> Vec<f32> {
        self.data.iter().map(|&x| x as f32).collect()
    }

    /// Values as indices.
    pub fn indices(&self) -> Vec<usize> {
        self.data.iter().map(|&x| x as usize).collect()
    }

    /// Values as flags: true where not 0.
    pub fn flags(&self) -> Vec<bool> {
        self.data.iter().map(|&x| x != 0.0).collect()
    }
}

/// One `.safetensors` file: its metadata and its tensors by name.
#[derive(Clone, Debug)]
pub struct File {
    /// String metadata of the header.
    pub metadata: BTreeMap<String, String>,
    /// Tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
}

/// Reads a `.safetensors` file.
///
/// # Panics
///
/// If the file is missing or damaged; the message names it.
pub fn read(path: &Path) -> File {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (_, header) =
        SafeTensors::read_metadata(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    let file =
        SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let tensors = file
        .iter()
        .map(|(name, view)| {
            let tensor =
                Tensor { shape: view.shape().to_vec(), data: widen(view.dtype(), view.data()) };
            (name.to_string(), tensor)
        })
        .collect();
    File { metadata, tensors }
}

fn widen(dtype: Dtype, bytes: &[u8]) -> Vec<f64> {
    fn each<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        bytes.as_chunks::<N>().0.iter().map(|&b| f(b)).collect()
    }
    match dtype {
        Dtype::F64 => each(bytes, f64::from_le_bytes),
        Dtype::F32 => each(bytes, |b| f64::from(f32::from_le_bytes(b))),
        Dtype::I64 => each(bytes, |b| i64::from_le_bytes(b) as f64),
        Dtype::U64 => each(bytes, |b| u64::from_le_bytes(b) as f64),
        Dtype::I32 => each(bytes, |b| f64::from(i32::from_le_bytes(b))),
        Dtype::U8 | Dtype::BOOL => bytes.iter().map(|&b| f64::from(b)).collect(),
        other => panic!("golden data of type {other:?} is not supported"),
    }
}

/// One case of `golden/math` or `golden/llm`: named inputs, and the outputs and gradients expected for them.
#[derive(Clone, Debug)]
pub struct Case {
    /// Name of the case within its family.
    pub name: String,
    /// Numbers that are not tensors.
    pub params: Value,
    rtol: f64,
    atol: f64,
    tensors: BTreeMap<String, Tensor>,
}

impl Case {
    /// The tensor `input/<name>`, `output/<name>` or `grad/<name>`.
    ///
    /// # Panics
    ///
    /// If the case has no such tensor.
    pub fn tensor(&self, key: &str) -> &Tensor {
        self.tensors.get(key).unwrap_or_else(|| panic!("{}: no tensor {key}", self.name))
    }

    /// Whether the case has the tensor.
    pub fn has(&self, key: &str) -> bool {
        self.tensors.contains_key(key)
    }

    /// The names of the case's tensors: `input/…`, `output/…`, `grad/…`.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The number `name` of the case's parameters.
    ///
    /// # Panics
    ///
    /// If it is missing or not a number.
    pub fn param(&self, name: &str) -> f64 {
        self.opt_param(name).unwrap_or_else(|| panic!("{}: no number {name}", self.name))
    }

    /// The number `name` of the case's parameters, if there is one (`null` counts as none).
    pub fn opt_param(&self, name: &str) -> Option<f64> {
        match &self.params[name] {
            Value::String(s) if s == "inf" => Some(f64::INFINITY),
            other => other.as_f64(),
        }
    }

    /// Asserts `|got − want| ≤ atol + rtol · |want|` elementwise against the tensor `key`; where
    /// `want` is NaN, NaN is the right answer.
    ///
    /// # Panics
    ///
    /// If a value differs by more, naming the case, the tensor and the element.
    pub fn check(&self, key: &str, got: &[f64]) {
        let want = self.tensor(key);
        assert_eq!(got.len(), want.data.len(), "{}: {key} has the wrong length", self.name);
        for (i, (&g, &w)) in got.iter().zip(&want.data).enumerate() {
            let close = if w.is_nan() {
                g.is_nan()
            } else {
                g == w || (g - w).abs() <= self.atol + self.rtol * w.abs()
            };
            assert!(close, "{}: {key}[{i}] is {g:e}, expected {w:e}", self.name);
        }
    }
}

/// All cases of one family of `golden/math`, in the index's order.
///
/// # Panics
///
/// If the folder or the family is missing.
pub fn family(name: &str) -> Vec<Case> {
    cases(&root().join("math"), name)
}

/// All cases of one family of `golden/llm`, in the index's order.
///
/// # Panics
///
/// If the folder or the family is missing.
pub fn llm_family(name: &str) -> Vec<Case> {
    cases(&root().join("llm"), name)
}

fn cases(folder: &Path, name: &str) -> Vec<Case> {
    let path = folder.join("index.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let index: Value =
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = read(&folder.join(format!("{name}.safetensors")));
    let cases: Vec<Case> = index["cases"]
        .as_array()
        .expect("index.json has a list of cases")
        .iter()
        .filter(|case| case["family"] == name)
        .map(|case| {
            let prefix = format!("{}/", case["case"].as_str().expect("a case has a name"));
            let tensors = file.tensors.iter().filter_map(|(key, tensor)| {
                Some((key.strip_prefix(&prefix)?.to_string(), tensor.clone()))
            });
            Case {
                name: prefix.trim_end_matches('/').to_string(),
                params: case["params"].clone(),
                rtol: case["tolerance"]["rtol"].as_f64().expect("a case has a tolerance"),
                atol: case["tolerance"]["atol"].as_f64().expect("a case has a tolerance"),
                tensors: tensors.collect(),
            }
        })
        .collect();
    assert!(!cases.is_empty(), "{} lists no case of the family {name}", path.display());
    cases
}
