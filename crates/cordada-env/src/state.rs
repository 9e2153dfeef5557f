//! Explicit saving of state: a writer and a reader of tagged little-endian values, and the trait
//! [`Persist`]. Files, checksums and versions are the business of whoever stores the bytes.

/// Something whose whole state can be saved and restored.
///
/// After `load`, the object behaves bit for bit as the saved one would have. Shape and options
/// (sizes, limits, coefficients) come from construction: `load` expects an object that was made
/// the same way, and reports a difference where it can see one.
pub trait Persist {
    /// Appends the state.
    fn save(&self, w: &mut StateWriter);

    /// Overwrites the state with one that [`Persist::save`] wrote.
    ///
    /// # Errors
    ///
    /// [`StateError`] if the bytes are not such a state. The object is then in an unspecified,
    /// though valid, state.
    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError>;
}

/// Why a saved state could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Another type of value than the reader asked for.
    #[error(
        "saved state holds {found} at byte {offset} where {expected} belongs: it was saved by \
         another kind of object"
    )]
    Type {
        /// The type asked for.
        expected: &'static str,
        /// The type found.
        found: &'static str,
        /// Position of the value's tag.
        offset: usize,
    },
    /// The bytes end within a value.
    #[error("saved state ends at byte {len} where {expected} belongs: it was cut off")]
    End {
        /// The type asked for.
        expected: &'static str,
        /// Number of bytes there are.
        len: usize,
    },
    /// A slice of another length than the reader asked for.
    #[error(
        "saved state holds {found} numbers at byte {offset} where {expected} belong: it was saved \
         with other sizes"
    )]
    Length {
        /// The length asked for.
        expected: usize,
        /// The length found.
        found: usize,
        /// Position of the slice's tag.
        offset: usize,
    },
    /// A value that its type or its owner does not allow.
    #[error("saved state holds an invalid {what} at byte {offset}")]
    Value {
        /// What the value stands for.
        what: &'static str,
        /// Position of the value's tag.
        offset: usize,
    },
    /// A state of an object that was made differently.
    #[error("saved state was made with {what} {found}, this run has {expected}")]
    Mismatch {
        /// What differs.
        what: &'static str,
        /// Ours.
        expected: String,
        /// The saved one.
        found: String,
    },
    /// Bytes after the last value.
    #[error("saved state has {left} bytes too many after byte {offset}")]
    LeftOver {
        /// Where the reader stopped.
        offset: usize,
        /// How many bytes follow.
        left: usize,
    },
}

/// Reads the name of an environment that was saved in front of its state.
///
/// # Errors
///
/// [`StateError::Mismatch`] if it is another environment's.
pub(crate) fn expect_name(r: &mut StateReader<'_>, name: &str) -> Result<(), StateError> {
    let found = r.str()?;
    if found == name {
        return Ok(());
    }
    let (expected, found) = (name.to_string(), found.to_string());
    Err(StateError::Mismatch { what: "the environment", expected, found })
}

/// The type tag in front of every value, so that a reader out of step notices at once.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Tag {
    U8 = 1,
    U32,
    U64,
    I64,
    F32,
    F64,
    Bool,
    Str,
    F32s,
    F64s,
    U64s,
    Bytes,
}

impl Tag {
    const NAMES: [&'static str; 12] = [
        "a u8",
        "a u32",
        "a u64",
        "an i64",
        "an f32",
        "an f64",
        "a bool",
        "a string",
        "a list of f32",
        "a list of f64",
        "a list of u64",
        "bytes",
    ];

    fn name(self) -> &'static str {
        Self::NAMES[self as usize - 1]
    }
}

/// Appends values to a growing list of bytes.
///
/// # Examples
///
/// ```
/// use cordada_env::{StateReader, StateWriter};
///
/// let mut w = StateWriter::new();
/// w.u32(3);
/// w.f32s(&[0.5, -0.0]);
/// let bytes = w.into_bytes();
///
/// let mut r = StateReader::new(&bytes);
/// assert_eq!(r.u32()?, 3);
/// assert_eq!(r.f32s()?, [0.5, -0.0]);
/// r.finish()?;
/// # Ok::<(), cordada_env::StateError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateWriter {
    bytes: Vec<u8>,
}

/// Writers and readers of the number types, which differ in nothing but the type.
macro_rules! numbers {
    ($($plural:ident $type:ty, $tags:ident;)*) => {
        impl StateWriter {
            $(
                #[doc = concat!("Appends a list of `", stringify!($type), "` with its length.")]
                pub fn $plural(&mut self, values: &[$type]) {
                    self.tag(Tag::$tags);
                    self.bytes.extend_from_slice(&(values.len() as u64).to_le_bytes());
                    self.bytes.reserve(size_of_val(values));
                    for value in values {
                        self.bytes.extend_from_slice(&value.to_le_bytes());
                    }
                }
            )*
        }

        impl StateReader<'_> {
            $(
                #[doc = concat!("Reads a list of `", stringify!($type), "`.")]
                ///
                /// # Errors
                ///
                /// [`StateError`] if there is no such list here.
                pub fn $plural(&mut self) -> Result<Vec<$type>, StateError> {
                    let (_, bytes) = self.list(Tag::$tags, size_of::<$type>())?;
                    let (values, _) = bytes.as_chunks();
                    Ok(values.iter().map(|&b| <$type>::from_le_bytes(b)).collect())
                }
            )*
        }
    };
}

/// Writers and readers of single values.
macro_rules! scalars {
    ($($name:ident $type:ty, $tag:ident;)*) => {
        impl StateWriter {
            $(
                #[doc = concat!("Appends one `", stringify!($type), "`.")]
                pub fn $name(&mut self, value: $type) {
                    self.tag(Tag::$tag);
                    self.bytes.extend_from_slice(&value.to_le_bytes());
                }
            )*
        }

        impl StateReader<'_> {
            $(
                #[doc = concat!("Reads one `", stringify!($type), "`.")]
                ///
                /// # Errors
                ///
                /// [`StateError`] if there is no such value here.
                pub fn $name(&mut self) -> Result<$type, StateError> {
                    let offset = self.offset;
                    self.tag(Tag::$tag)?;
                    let bytes = self.take(size_of::<$type>(), Tag::$tag)?;
                    let bytes = bytes.try_into().map_err(|_| StateError::Value {
                        what: stringify!($type),
                        offset,
                    })?;
                    Ok(<$type>::from_le_bytes(bytes))
                }
            )*
        }
    };
}

scalars! {
    u8 u8, U8;
    u32 u32, U32;
    u64 u64, U64;
    i64 i64, I64;
    f32 f32, F32;
    f64 f64, F64;
}

numbers! {
    f32s f32, F32s;
    f64s f64, F64s;
    u64s u64, U64s;
}

impl StateWriter {
    /// A writer of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one `bool`.
    pub fn bool(&mut self, value: bool) {
        self.tag(Tag::Bool);
        self.bytes.push(u8::from(value));
    }

    /// Appends a string with its length.
    pub fn str(&mut self, value: &str) {
        self.tag(Tag::Str);
        self.bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
    }

    /// Appends bytes with their length.
    pub fn bytes(&mut self, value: &[u8]) {
        self.tag(Tag::Bytes);
        self.bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        self.bytes.extend_from_slice(value);
    }

    /// What has been written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What has been written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn tag(&mut self, tag: Tag) {
        self.bytes.push(tag as u8);
    }
}

/// Reads values in the order in which a [`StateWriter`] wrote them.
#[derive(Clone, Debug)]
pub struct StateReader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> StateReader<'a> {
    /// A reader at the beginning of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// Position of the next value.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Reads one `bool`.
    ///
    /// # Errors
    ///
    /// [`StateError`] if there is no such value here.
    pub fn bool(&mut self) -> Result<bool, StateError> {
        let offset = self.offset;
        self.tag(Tag::Bool)?;
        match self.take(1, Tag::Bool)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(StateError::Value { what: "bool", offset }),
        }
    }

    /// Reads a string.
    ///
    /// # Errors
    ///
    /// [`StateError`] if there is no such value here.
    pub fn str(&mut self) -> Result<&'a str, StateError> {
        let (offset, bytes) = self.list(Tag::Str, 1)?;
        std::str::from_utf8(bytes).map_err(|_| StateError::Value { what: "string", offset })
    }

    /// Reads bytes.
    ///
    /// # Errors
    ///
    /// [`StateError`] if there is no such value here.
    pub fn bytes(&mut self) -> Result<&'a [u8], StateError> {
        Ok(self.list(Tag::Bytes, 1)?.1)
    }

    /// Reads a list of `f32` into `out`, without allocating.
    ///
    /// # Errors
    ///
    /// [`StateError::Length`] if its length is not that of `out`; other [`StateError`]s if there is
    /// no such list here. `out` is then unchanged.
    pub fn f32s_into(&mut self, out: &mut [f32]) -> Result<(), StateError> {
        let (offset, bytes) = self.list(Tag::F32s, 4)?;
        let (values, _) = bytes.as_chunks();
        check_length(out.len(), values.len(), offset)?;
        for (out, &value) in out.iter_mut().zip(values) {
            *out = f32::from_le_bytes(value);
        }
        Ok(())
    }

    /// Reads a list of `f64` into `out`, without allocating.
    ///
    /// # Errors
    ///
    /// As for [`StateReader::f32s_into`].
    pub fn f64s_into(&mut self, out: &mut [f64]) -> Result<(), StateError> {
        let (offset, bytes) = self.list(Tag::F64s, 8)?;
        let (values, _) = bytes.as_chunks();
        check_length(out.len(), values.len(), offset)?;
        for (out, &value) in out.iter_mut().zip(values) {
            *out = f64::from_le_bytes(value);
        }
        Ok(())
    }

    /// Asserts that everything has been read.
    ///
    /// # Errors
    ///
    /// [`StateError::LeftOver`] if bytes are left.
    pub fn finish(self) -> Result<(), StateError> {
        match self.bytes.len() - self.offset {
            0 => Ok(()),
            left => Err(StateError::LeftOver { offset: self.offset, left }),
        }
    }

    fn tag(&mut self, expected: Tag) -> Result<(), StateError> {
        let offset = self.offset;
        let tag = self.take(1, expected)?[0];
        if tag == expected as u8 {
            return Ok(());
        }
        let names = Tag::NAMES.iter().zip(1u8..);
        let found = names.filter(|&(_, n)| n == tag).map(|(&name, _)| name).next();
        let found = found.unwrap_or("no value at all");
        Err(StateError::Type { expected: expected.name(), found, offset })
    }

    fn list(&mut self, tag: Tag, size: usize) -> Result<(usize, &'a [u8]), StateError> {
        let offset = self.offset;
        self.tag(tag)?;
        let mut len = [0; 8];
        len.copy_from_slice(self.take(8, tag)?);
        // A damaged length must end in an error, not in an overflow or a huge allocation.
        let size = usize::try_from(u64::from_le_bytes(len)).ok().and_then(|n| n.checked_mul(size));
        let size = size.ok_or(StateError::Value { what: "length", offset })?;
        Ok((offset, self.take(size, tag)?))
    }

    fn take(&mut self, len: usize, tag: Tag) -> Result<&'a [u8], StateError> {
        let taken = self.bytes[self.offset..].get(..len);
        let taken = taken.ok_or(StateError::End { expected: tag.name(), len: self.bytes.len() })?;
        self.offset += len;
        Ok(taken)
    }
}

fn check_length(expected: usize, found: usize, offset: usize) -> Result<(), StateError> {
    if expected == found { Ok(()) } else { Err(StateError::Length { expected, found, offset }) }
}

#[cfg(test)]
mod tests;
