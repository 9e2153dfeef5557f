//! Spaces: which observations and actions there are. An element of any space is a flat row of
//! `f32`, so that rows of all environments fit into one contiguous array; how a policy reads the
//! row is left to the policy.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::stream::Stream;

/// A set of observations or actions, each one a flat row of [`Space::len`] numbers.
///
/// | space | row |
/// |---|---|
/// | `Discrete` | one number, the index |
/// | `MultiDiscrete` | one index per component |
/// | `MultiBinary` | 0 or 1 per component |
/// | `Box` | the values in row-major order |
/// | `Dict` | the rows of its parts, one after another |
///
/// Indices are exact in `f32` below 2²⁴.
///
/// # Examples
///
/// ```
/// use cordada_env::Space;
///
/// let space = Space::Discrete { n: 3 };
/// assert_eq!(space.len(), 1);
/// assert!(space.contains(&[2.0]).is_ok());
/// assert!(space.contains(&[3.0]).is_err());
/// assert_eq!(space.to_string(), "Discrete(3)");
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Space {
    /// One of `n` choices, numbered from 0.
    Discrete {
        /// Number of choices.
        n: usize,
    },
    /// Several independent choices.
    MultiDiscrete {
        /// Number of choices of each component.
        nvec: Vec<usize>,
    },
    /// Several independent bits.
    MultiBinary {
        /// Number of bits.
        n: usize,
    },
    /// Real numbers between bounds.
    Box(BoxSpace),
    /// Named parts, in the order given.
    Dict(Vec<(String, Space)>),
}

/// An array of real numbers with a lower and an upper bound each; bounds may be infinite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "StoredBox", into = "StoredBox")]
pub struct BoxSpace {
    /// Lower bounds in row-major order.
    pub low: Vec<f32>,
    /// Upper bounds in row-major order.
    pub high: Vec<f32>,
    /// Length of each axis.
    pub shape: Vec<usize>,
}

/// Why a row is not an element of a space, or a space cannot be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SpaceError {
    /// The row has the wrong length.
    #[error("a row of {space} has {expected} numbers, not {found}")]
    Length {
        /// The space, as displayed.
        space: String,
        /// Its length.
        expected: usize,
        /// The row's length.
        found: usize,
    },
    /// A component that has to be an index is not.
    #[error("component {component} is {value}, not an index below {n}")]
    Index {
        /// The component, with the path to it within a `Dict`.
        component: String,
        /// Its value.
        value: f32,
        /// Number of choices.
        n: usize,
    },
    /// A component is out of bounds or not a number.
    #[error("component {component} is {value}, not within [{low}, {high}]")]
    Bounds {
        /// The component, with the path to it within a `Dict`.
        component: String,
        /// Its value.
        value: f32,
        /// Lower bound.
        low: f32,
        /// Upper bound.
        high: f32,
    },
    /// A box whose bounds do not fit its shape.
    #[error("a box of shape {shape:?} has {low} lower and {high} upper bounds")]
    Shape {
        /// The shape.
        shape: Vec<usize>,
        /// Number of lower bounds.
        low: usize,
        /// Number of upper bounds.
        high: usize,
    },
    /// A box with a lower bound above the upper one, or a bound that is not a number.
    #[error("component {component} of a box has the bounds [{low}, {high}]")]
    Empty {
        /// The component.
        component: usize,
        /// Lower bound.
        low: f32,
        /// Upper bound.
        high: f32,
    },
}

impl BoxSpace {
    /// A box with bounds for each component.
    ///
    /// # Errors
    ///
    /// [`SpaceError::Shape`] if the numbers of bounds are not the product of `shape`;
    /// [`SpaceError::Empty`] if no number lies within a component's bounds.
    pub fn new(low: Vec<f32>, high: Vec<f32>, shape: Vec<usize>) -> Result<Self, SpaceError> {
        let len = shape.iter().product::<usize>();
        if low.len() != len || high.len() != len {
            return Err(SpaceError::Shape { shape, low: low.len(), high: high.len() });
        }
        for (component, (&low, &high)) in low.iter().zip(&high).enumerate() {
            if low.is_nan() || high.is_nan() || low > high {
                return Err(SpaceError::Empty { component, low, high });
            }
        }
        Ok(Self { low, high, shape })
    }

    /// Whether every component has two finite bounds.
    pub fn is_bounded(&self) -> bool {
        self.low.iter().chain(&self.high).all(|x| x.is_finite())
    }
}

impl Space {
    /// A vector of real numbers with bounds for each.
    ///
    /// # Panics
    ///
    /// If `low` and `high` differ in length or are in the wrong order; for bounds from outside the
    /// program use [`BoxSpace::new`].
    pub fn vector(low: &[f32], high: &[f32]) -> Self {
        match BoxSpace::new(low.to_vec(), high.to_vec(), vec![low.len()]) {
            Ok(space) => Self::Box(space),
            Err(error) => panic!("{error}"),
        }
    }

    /// How many numbers a row has.
    pub fn len(&self) -> usize {
        match self {
            Self::Discrete { .. } => 1,
            Self::MultiDiscrete { nvec } => nvec.len(),
            Self::MultiBinary { n } => *n,
            Self::Box(space) => space.low.len(),
            Self::Dict(parts) => parts.iter().map(|(_, part)| part.len()).sum(),
        }
    }

    /// Whether a row has no numbers.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many discrete choices there are in all: the length of an action mask. A bit counts as
    /// two choices, a real number as none.
    pub fn num_choices(&self) -> usize {
        match self {
            Self::Discrete { n } => *n,
            Self::MultiDiscrete { nvec } => nvec.iter().sum(),
            Self::MultiBinary { n } => 2 * n,
            Self::Box(_) => 0,
            Self::Dict(parts) => parts.iter().map(|(_, part)| part.num_choices()).sum(),
        }
    }

    /// Checks that `row` is an element.
    ///
    /// # Errors
    ///
    /// [`SpaceError`] that names the first component that is not, its value and what is allowed.
    pub fn contains(&self, row: &[f32]) -> Result<(), SpaceError> {
        if row.len() != self.len() {
            let (expected, found) = (self.len(), row.len());
            return Err(SpaceError::Length { space: self.to_string(), expected, found });
        }
        self.contains_at(row, "")
    }

    fn contains_at(&self, row: &[f32], path: &str) -> Result<(), SpaceError> {
        let index = |i: usize, value: f32, n: usize| {
            let valid = value >= 0.0 && value < n as f32 && value.fract() == 0.0;
            let component = || format!("{path}[{i}]");
            if valid { Ok(()) } else { Err(SpaceError::Index { component: component(), value, n }) }
        };
        match self {
            Self::Discrete { n } => index(0, row[0], *n),
            Self::MultiDiscrete { nvec } => {
                row.iter().zip(nvec).enumerate().try_for_each(|(i, (&x, &n))| index(i, x, n))
            }
            Self::MultiBinary { .. } => {
                row.iter().enumerate().try_for_each(|(i, &x)| index(i, x, 2))
            }
            Self::Box(BoxSpace { low, high, .. }) => {
                for (i, ((&value, &low), &high)) in row.iter().zip(low).zip(high).enumerate() {
                    if !(low..=high).contains(&value) {
                        let component = format!("{path}[{i}]");
                        return Err(SpaceError::Bounds { component, value, low, high });
                    }
                }
                Ok(())
            }
            Self::Dict(parts) => {
                let mut rest = row;
                for (name, part) in parts {
                    let (row, tail) = rest.split_at(part.len());
                    let dot = if path.is_empty() { "" } else { "." };
                    part.contains_at(row, &format!("{path}{dot}{name}"))?;
                    rest = tail;
                }
                Ok(())
            }
        }
    }

    /// Writes a random element into `row`: indices and bits are uniform; a real number is uniform
    /// between two finite bounds, exponential (mean 1) from a single one, and standard normal
    /// without.
    ///
    /// # Panics
    ///
    /// If `row` is not [`Space::len`] long.
    ///
    /// # Source
    ///
    /// Gymnasium 1.4.0, `Space.sample` of each space (the distributions; the numbers are ours).
    pub fn sample(&self, stream: &mut Stream, row: &mut [f32]) {
        self.sample_masked(stream, &[], row);
    }

    /// Like [`Space::sample`], but with only those choices whose entry of `mask` is true. An empty
    /// mask allows all.
    ///
    /// # Shapes
    ///
    /// `mask`: [`Space::num_choices`] entries, one per choice in the order of the row, or none.
    ///
    /// # Panics
    ///
    /// If `row` or `mask` has another length, or the mask allows none of a component's choices.
    pub fn sample_masked(&self, stream: &mut Stream, mask: &[bool], row: &mut [f32]) {
        assert_eq!(row.len(), self.len(), "a row of {self} has another length");
        assert!(
            mask.is_empty() || mask.len() == self.num_choices(),
            "a mask of {self} has {} entries, not {}",
            self.num_choices(),
            mask.len()
        );
        let mut rest = mask;
        let mut choose = |n: usize, out: &mut f32| {
            let (mask, tail) = rest.split_at(n.min(rest.len()));
            rest = tail;
            *out = choose_one(stream, n, mask) as f32;
        };
        match self {
            Self::Discrete { n } => choose(*n, &mut row[0]),
            Self::MultiDiscrete { nvec } => {
                nvec.iter().zip(row).for_each(|(&n, out)| choose(n, out));
            }
            Self::MultiBinary { .. } => row.iter_mut().for_each(|out| choose(2, out)),
            Self::Box(BoxSpace { low, high, .. }) => {
                for ((out, &low), &high) in row.iter_mut().zip(low).zip(high) {
                    *out = sample_real(stream, low, high);
                }
            }
            Self::Dict(parts) => {
                let mut row = row;
                let mut mask = mask;
                for (_, part) in parts {
                    let (head, tail) = row.split_at_mut(part.len());
                    let (allowed, others) = mask.split_at(part.num_choices().min(mask.len()));
                    part.sample_masked(stream, allowed, head);
                    (row, mask) = (tail, others);
                }
            }
        }
    }
}

fn choose_one(stream: &mut Stream, n: usize, mask: &[bool]) -> usize {
    if mask.is_empty() {
        return stream.below(n);
    }
    let allowed = mask.iter().filter(|&&m| m).count();
    assert!(allowed > 0, "the action mask allows none of {n} choices");
    let k = stream.below(allowed);
    let choices = mask.iter().enumerate().filter(|&(_, &m)| m);
    choices.map(|(i, _)| i).nth(k).expect("k is below the number of allowed choices")
}

fn sample_real(stream: &mut Stream, low: f32, high: f32) -> f32 {
    match (low.is_finite(), high.is_finite()) {
        // Rounding to f32 can reach the upper bound, which belongs to the box, but not pass it.
        (true, true) => stream.uniform_in(f64::from(low), f64::from(high)) as f32,
        (true, false) => (f64::from(low) + stream.exponential()) as f32,
        (false, true) => (f64::from(high) - stream.exponential()) as f32,
        (false, false) => stream.normal() as f32,
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Discrete { n } => write!(f, "Discrete({n})"),
            Self::MultiDiscrete { nvec } => write!(f, "MultiDiscrete({nvec:?})"),
            Self::MultiBinary { n } => write!(f, "MultiBinary({n})"),
            Self::Box(space) => space.fmt(f),
            Self::Dict(parts) => {
                let parts: Vec<_> = parts.iter().map(|(k, v)| format!("'{k}': {v}")).collect();
                write!(f, "Dict({})", parts.join(", "))
            }
        }
    }
}

impl fmt::Display for BoxSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = match &self.shape[..] {
            [n] => format!("({n},)"),
            axes => {
                let axes: Vec<_> = axes.iter().map(usize::to_string).collect();
                format!("({})", axes.join(", "))
            }
        };
        write!(f, "Box({}, {}, {shape})", bounds(&self.low), bounds(&self.high))
    }
}

/// All bounds, or one if they are all the same.
fn bounds(values: &[f32]) -> String {
    match values {
        [first, rest @ ..] if rest.iter().all(|x| x == first) => format!("{first:?}"),
        _ => {
            let values: Vec<_> = values.iter().map(|x| format!("{x:?}")).collect();
            format!("[{}]", values.join(" "))
        }
    }
}

/// A box as stored: JSON has no infinity, so infinite bounds become strings.
#[derive(Serialize, Deserialize)]
struct StoredBox {
    low: Vec<Bound>,
    high: Vec<Bound>,
    shape: Vec<usize>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Bound {
    Finite(f32),
    Infinite(Infinity),
}

#[derive(Serialize, Deserialize)]
enum Infinity {
    #[serde(rename = "inf")]
    Plus,
    #[serde(rename = "-inf")]
    Minus,
}

impl From<f32> for Bound {
    fn from(value: f32) -> Self {
        match value {
            f32::INFINITY => Self::Infinite(Infinity::Plus),
            f32::NEG_INFINITY => Self::Infinite(Infinity::Minus),
            value => Self::Finite(value),
        }
    }
}

impl From<Bound> for f32 {
    fn from(bound: Bound) -> Self {
        match bound {
            Bound::Finite(value) => value,
            Bound::Infinite(Infinity::Plus) => f32::INFINITY,
            Bound::Infinite(Infinity::Minus) => f32::NEG_INFINITY,
        }
    }
}

impl From<BoxSpace> for StoredBox {
    fn from(space: BoxSpace) -> Self {
        let stored = |bounds: Vec<f32>| bounds.into_iter().map(Bound::from).collect();
        Self { low: stored(space.low), high: stored(space.high), shape: space.shape }
    }
}

impl TryFrom<StoredBox> for BoxSpace {
    type Error = SpaceError;

    fn try_from(stored: StoredBox) -> Result<Self, SpaceError> {
        let bounds = |stored: Vec<Bound>| stored.into_iter().map(f32::from).collect();
        Self::new(bounds(stored.low), bounds(stored.high), stored.shape)
    }
}

#[cfg(test)]
mod tests;
