//! The course of one number over a whole run, in constant memory.

/// Beyond this many points, neighbors are merged.
const CAPACITY: usize = 64;

/// Averages over equally long stretches of a run.
#[derive(Clone, Debug)]
pub(super) struct History {
    points: Vec<f64>,
    /// Numbers that make one point.
    stride: u64,
    /// Sum and count of the numbers of the point in progress.
    open: (f64, u64),
}

impl History {
    pub(super) fn new() -> Self {
        Self { points: Vec::with_capacity(CAPACITY), stride: 1, open: (0.0, 0) }
    }

    /// Adds a finite number.
    pub(super) fn push(&mut self, number: f64) {
        self.open.0 += number;
        self.open.1 += 1;
        if self.open.1 < self.stride {
            return;
        }
        self.points.push(self.open.0 / self.stride as f64);
        self.open = (0.0, 0);
        if self.points.len() == CAPACITY {
            for i in 0..CAPACITY / 2 {
                self.points[i] = f64::midpoint(self.points[2 * i], self.points[2 * i + 1]);
            }
            self.points.truncate(CAPACITY / 2);
            self.stride *= 2;
        }
    }

    /// The first point.
    pub(super) fn first(&self) -> Option<f64> {
        self.points.first().copied()
    }

    /// The course in at most `count` points.
    pub(super) fn shrink(&self, count: usize) -> Vec<f64> {
        let length = self.points.len();
        let count = count.min(length);
        (0..count)
            .map(|i| {
                let part = &self.points[i * length / count..(i + 1) * length / count];
                part.iter().sum::<f64>() / part.len() as f64
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_course_is_kept() {
        let mut history = History::new();
        assert!(history.shrink(8).is_empty());
        assert_eq!(history.first(), None);
        for number in [1.0, 5.0, 3.0] {
            history.push(number);
        }
        assert_eq!(history.shrink(8), [1.0, 5.0, 3.0]);
        // Parts [0, 1) and [1, 3).
        assert_eq!(history.shrink(2), [1.0, 4.0]);
        assert_eq!(history.first(), Some(1.0));
    }

    #[test]
    fn a_long_course_is_averaged() {
        let mut history = History::new();
        for number in 0..1024 {
            history.push(f64::from(number));
        }
        // After 64, 128, 256, 512 and 1024 numbers the points are merged: 32 points of 32 numbers.
        assert_eq!((history.points.len(), history.stride), (32, 32));
        // Four parts of 256 numbers: the mean of 0..256 is 127.5.
        assert_eq!(history.shrink(4), [127.5, 383.5, 639.5, 895.5]);
        assert_eq!(history.first(), Some(15.5));
    }
}
