//! Means and spreads of numbers that come one at a time.

/// A running mean.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mean {
    sum: f64,
    count: u64,
}

impl Mean {
    pub(crate) fn add(&mut self, x: f64) {
        self.sum += x;
        self.count += 1;
    }

    /// The mean; 0 of nothing.
    pub(crate) fn get(self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / self.count as f64 }
    }
}

/// Mean, standard deviation and range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    count: u64,
    mean: f64,
    /// Sum of squared deviations.
    squares: f64,
    min: f64,
    max: f64,
}

impl Default for Spread {
    fn default() -> Self {
        Self { count: 0, mean: 0.0, squares: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY }
    }
}

impl Spread {
    pub(crate) fn add(&mut self, x: f64) {
        self.count += 1;
        let change = x - self.mean;
        self.mean += change / self.count as f64;
        self.squares += change * (x - self.mean);
        self.min = self.min.min(x);
        self.max = self.max.max(x);
    }

    pub(crate) fn count(self) -> u64 {
        self.count
    }

    /// 0 of nothing.
    pub(crate) fn mean(self) -> f64 {
        self.mean
    }

    /// With n − 1; 0 of fewer than two.
    pub(crate) fn std(self) -> f64 {
        if self.count < 2 { 0.0 } else { (self.squares / (self.count - 1) as f64).sqrt() }
    }

    pub(crate) fn standard_error(self) -> f64 {
        if self.count == 0 { 0.0 } else { self.std() / (self.count as f64).sqrt() }
    }

    pub(crate) fn min(self) -> f64 {
        if self.count == 0 { 0.0 } else { self.min }
    }

    pub(crate) fn max(self) -> f64 {
        if self.count == 0 { 0.0 } else { self.max }
    }
}

impl FromIterator<f64> for Spread {
    fn from_iter<I: IntoIterator<Item = f64>>(iter: I) -> Self {
        let mut spread = Self::default();
        iter.into_iter().for_each(|x| spread.add(x));
        spread
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_by_hand() {
        // Mean 3, deviations −2, −1, 3: 14 / 2.
        let s: Spread = [1.0, 2.0, 6.0].into_iter().collect();
        assert_eq!((s.count(), s.mean(), s.min(), s.max()), (3, 3.0, 1.0, 6.0));
        assert!((s.std() - 7.0_f64.sqrt()).abs() < 1e-14);
        assert!((s.standard_error() - (7.0_f64 / 3.0).sqrt()).abs() < 1e-14);
        let none = Spread::default();
        assert_eq!((none.mean(), none.std(), none.min(), none.max()), (0.0, 0.0, 0.0, 0.0));
    }
}
