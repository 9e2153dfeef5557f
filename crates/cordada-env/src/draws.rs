//! Recorded draws of another implementation's random generator, read in their order. What they
//! mean is known to the environment that is driven by them.

use crate::error::Error;

/// The draws of one reset or step.
#[derive(Debug)]
pub(crate) struct Draws<'a> {
    draws: &'a [f64],
    used: usize,
}

impl<'a> Draws<'a> {
    /// All of `draws`, to be used from the first on.
    pub(crate) fn new(draws: &'a [f64]) -> Self {
        Self { draws, used: 0 }
    }

    fn next(&mut self) -> Result<f64, Error> {
        let found = self.draws.len();
        let draw = self.draws.get(self.used);
        self.used += 1;
        draw.copied().ok_or(Error::DrawCount { used: self.used, found })
    }

    /// A number in [0, 1).
    pub(crate) fn uniform(&mut self) -> Result<f64, Error> {
        let value = self.next()?;
        if (0.0..1.0).contains(&value) {
            return Ok(value);
        }
        Err(Error::Draw { position: self.used - 1, value, range: "at least 0 and below 1" })
    }

    /// The index of one of `options`. `NumPy`'s `choice` draws an index, and a recording holds the
    /// option that it chose after that.
    pub(crate) fn choice(&mut self, options: &[f64]) -> Result<usize, Error> {
        let value = self.next()?;
        let index = value as usize;
        if index as f64 != value || index >= options.len() {
            let range = "an index of the options that are chosen from";
            return Err(Error::Draw { position: self.used - 1, value, range });
        }
        let chosen = self.next()?;
        if chosen != options[index] {
            let range = "the option of the index before it";
            return Err(Error::Draw { position: self.used - 1, value: chosen, range });
        }
        Ok(index)
    }

    /// Asserts that every draw has been used.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        if self.used == self.draws.len() {
            return Ok(());
        }
        Err(Error::DrawCount { used: self.used, found: self.draws.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_used_in_order_and_all_of_them() {
        let mut draws = Draws::new(&[0.25, 2.0, 7.0]);
        assert_eq!(draws.uniform().unwrap(), 0.25);
        assert!(draws.finish().is_err());
        assert_eq!(draws.choice(&[5.0, 6.0, 7.0]).unwrap(), 2);
        draws.finish().unwrap();
        let error = draws.uniform().unwrap_err().to_string();
        assert_eq!(error, "the environment uses 4 draws here, 3 are recorded");
    }

    #[test]
    fn draws_of_something_else_are_refused() {
        let error = |draws: &[f64]| Draws::new(draws).choice(&[5.0, 6.0]).unwrap_err().to_string();
        let range = "an index of the options that are chosen from";
        assert_eq!(error(&[2.0, 5.0]), format!("recorded draw 0 is 2, it has to be {range}"));
        assert_eq!(error(&[0.5, 5.0]), format!("recorded draw 0 is 0.5, it has to be {range}"));
        assert!(error(&[1.0, 5.0]).starts_with("recorded draw 1 is 5, it has to be the option"));
        for outside in [1.0, -0.1, f64::NAN] {
            assert!(Draws::new(&[outside]).uniform().is_err(), "{outside}");
        }
    }
}
