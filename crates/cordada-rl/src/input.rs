//! From a raw observation to what a network sees: indices become one-hot, numbers are normalized
//! by running moments, pixels from 0 to 255 are brought to 0 to 1. Frozen between updates, so that a segment is seen as it was collected.

use cordada_env::wrapper::normalize::{NormalizeOptions, ObsNormalizer};
use cordada_env::{Persist, Space, StateError, StateReader, StateWriter};

/// The map from rows of observations to rows of network input.
#[derive(Clone, Debug, PartialEq)]
pub struct InputMap {
    /// For each number of an observation: how many choices it indexes, or `None` for a plain one.
    choices: Vec<Option<usize>>,
    inputs: usize,
    /// Whether no number is an index.
    plain: bool,
    /// What pixels are multiplied by, so that they are at most 1; none for other observations.
    pixel_scale: Option<f32>,
    normalizer: Option<ObsNormalizer>,
}

impl InputMap {
    /// For observations of `space`, normalized if asked for (then every number is taken as a plain
    /// one where the space has no index).
    ///
    /// # Errors
    ///
    /// If an option of the normalizer is out of range.
    pub fn new(
        space: &Space,
        normalize: Option<NormalizeOptions>,
    ) -> Result<Self, cordada_env::Error> {
        let mut choices = Vec::new();
        collect_choices(space, &mut choices);
        let inputs = choices.iter().map(|c| c.unwrap_or(1)).sum();
        let normalizer = normalize.map(|o| ObsNormalizer::new(choices.len(), o)).transpose()?;
        let plain = choices.iter().all(Option::is_none);
        let pixel_scale = is_picture(space).then_some(1.0 / PIXEL);
        Ok(Self { choices, inputs, plain, pixel_scale, normalizer })
    }

    /// Length of an observation.
    pub fn obs_len(&self) -> usize {
        self.choices.len()
    }

    /// Width of the network's input.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The normalizer, if observations are normalized.
    pub fn normalizer(&self) -> Option<&ObsNormalizer> {
        self.normalizer.as_ref()
    }

    /// The same, to update it or to restore it.
    pub fn normalizer_mut(&mut self) -> Option<&mut ObsNormalizer> {
        self.normalizer.as_mut()
    }

    /// Writes the network's input for one observation.
    ///
    /// # Shapes
    ///
    /// `obs`: `[D]`; `x`: `[inputs]`.
    #[inline]
    pub fn apply(&self, obs: &[f32], x: &mut [f32]) {
        if self.plain {
            match (&self.normalizer, self.pixel_scale) {
                (None, None) => x.copy_from_slice(obs),
                (None, Some(scale)) => {
                    x.iter_mut().zip(obs).for_each(|(x, &pixel)| *x = scale * pixel);
                }
                (Some(normalizer), _) => normalizer.normalize(obs, x),
            }
            return;
        }
        x.fill(0.0);
        let mut at = 0;
        for (i, (&value, choices)) in obs.iter().zip(&self.choices).enumerate() {
            match choices {
                // NaN or an index out of range leaves the block at 0.
                Some(n) if (0.0..*n as f32).contains(&value) => x[at + value as usize] = 1.0,
                Some(_) => {}
                None => {
                    let normalize = |n: &ObsNormalizer| n.normalize_one(i, f64::from(value));
                    x[at] = self.normalizer.as_ref().map_or(value, normalize);
                }
            }
            at += choices.unwrap_or(1);
        }
    }
}

/// Brightness of a white pixel.
const PIXEL: f32 = 255.0;

/// Whether observations are pictures of pixels from 0 to 255.
fn is_picture(space: &Space) -> bool {
    let Space::Box(bounds) = space else { return false };
    bounds.shape.len() == 3
        && bounds.low.iter().all(|&low| low == 0.0)
        && bounds.high.iter().all(|&high| high == PIXEL)
}

fn collect_choices(space: &Space, choices: &mut Vec<Option<usize>>) {
    match space {
        Space::Discrete { n } => choices.push(Some(*n)),
        Space::MultiDiscrete { nvec } => choices.extend(nvec.iter().copied().map(Some)),
        Space::MultiBinary { n } => choices.extend((0..*n).map(|_| None)),
        Space::Box(b) => choices.extend(b.low.iter().map(|_| None)),
        Space::Dict(parts) => parts.iter().for_each(|(_, part)| collect_choices(part, choices)),
    }
}

impl Persist for InputMap {
    fn save(&self, w: &mut StateWriter) {
        if let Some(normalizer) = &self.normalizer {
            normalizer.save(w);
        }
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        self.normalizer.as_mut().map_or(Ok(()), |normalizer| normalizer.load(r))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_brought_to_one() {
        let pixels = |high: f32| {
            let space = cordada_env::BoxSpace::new(vec![0.0; 4], vec![high; 4], vec![1, 2, 2]);
            InputMap::new(&Space::Box(space.unwrap()), None).unwrap()
        };
        let mut x = [0.0; 4];
        pixels(255.0).apply(&[0.0, 51.0, 102.0, 255.0], &mut x);
        for (x, expected) in x.iter().zip([0.0, 0.2, 0.4, 1.0]) {
            assert!((x - expected).abs() < 1e-7, "{x}");
        }
        // Other bounds are no pixels.
        pixels(1.0).apply(&[0.0, 0.25, 0.5, 1.0], &mut x);
        assert_eq!(x, [0.0, 0.25, 0.5, 1.0]);
    }

    #[test]
    fn indices_become_one_hot_and_numbers_stay() {
        let space = Space::Dict(vec![
            ("kind".into(), Space::Discrete { n: 3 }),
            ("speed".into(), Space::vector(&[-1.0, -1.0], &[1.0, 1.0])),
        ]);
        let map = InputMap::new(&space, None).unwrap();
        assert_eq!((map.obs_len(), map.inputs()), (3, 5));
        let mut x = [9.0; 5];
        map.apply(&[2.0, 0.5, -0.25], &mut x);
        assert_eq!(x, [0.0, 0.0, 1.0, 0.5, -0.25]);
    }

    #[test]
    fn what_is_no_index_of_its_space_is_no_choice() {
        let map = InputMap::new(&Space::MultiDiscrete { nvec: vec![2, 3] }, None).unwrap();
        let mut x = [9.0; 5];
        map.apply(&[1.0, 0.0], &mut x);
        assert_eq!(x, [0.0, 1.0, 1.0, 0.0, 0.0]);
        for bad in [f32::NAN, -1.0, 3.0, f32::INFINITY] {
            map.apply(&[0.0, bad], &mut x);
            assert_eq!(x, [1.0, 0.0, 0.0, 0.0, 0.0], "{bad}");
        }
    }

    #[test]
    fn indices_are_not_normalized_beside_numbers() {
        let space = Space::Dict(vec![
            ("kind".into(), Space::Discrete { n: 2 }),
            ("speed".into(), Space::vector(&[-9.0], &[9.0])),
        ]);
        let mut map = InputMap::new(&space, Some(NormalizeOptions::default())).unwrap();
        // The second column has mean 3 and variance 4.
        map.normalizer_mut().unwrap().update(&[0.0_f32, 1.0, 1.0, 5.0]);
        let mut x = [0.0; 3];
        map.apply(&[1.0, 4.0], &mut x);
        assert_eq!(x[..2], [0.0, 1.0]);
        assert!((x[2] - 0.5).abs() < 1e-3, "{x:?}");
    }

    #[test]
    fn normalization_uses_the_moments_and_clips() {
        let space = Space::vector(&[-9.0], &[9.0]);
        let options = NormalizeOptions { clip: 1.5, ..NormalizeOptions::default() };
        let mut map = InputMap::new(&space, Some(options)).unwrap();
        // Mean 3, variance 4 (the prior weighs 1e-4 of a row).
        map.normalizer_mut().unwrap().update(&[1.0_f32, 5.0]);
        let mut x = [0.0];
        map.apply(&[4.0], &mut x);
        assert!((x[0] - 0.5).abs() < 1e-3, "{x:?}");
        map.apply(&[9.0], &mut x);
        assert_eq!(x, [1.5]);
    }
}
