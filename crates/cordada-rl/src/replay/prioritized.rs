//! Proportional prioritized replay: which frames to learn from, more often those whose last TD
//! error was large, and the weights that make up for it. It knows frames by their index alone.

use cordada_env::{Persist, StateError, StateReader, StateWriter, Stream};
use cordada_nn::Real;

/// Draws that go down the tree side by side, so that they wait for memory together.
const TOGETHER: usize = 32;

/// Sum and smallest positive value of the priorities below a node of the tree.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Node {
    sum: f64,
    min: f64,
}

impl Node {
    const EMPTY: Self = Self { sum: 0.0, min: f64::INFINITY };

    /// A leaf; priority 0 is none.
    fn leaf(priority: f64) -> Self {
        let min = if priority > 0.0 { priority } else { f64::INFINITY };
        Self { sum: priority, min }
    }

    /// Always recomputed from both children, never by adding differences: a sum is a function of
    /// the priorities, not of the order in which they changed.
    fn above(left: Self, right: Self) -> Self {
        Self { sum: left.sum + right.sum, min: left.min.min(right.min) }
    }
}

/// Priorities of frames, in a tree of sums.
///
/// ```text
/// p_i = (|δ_i| + ε)^α,   P(i) = p_i / Σ_j p_j,   w_i = (N P(i))^{−β} / max_j (N P(j))^{−β} = (min_j p_j / p_i)^β
/// ```
///
/// The largest weight is that of all frames and not of the batch, so that a transition's weight
/// does not depend on its company; N and the sum then cancel. A new transition gets the largest
/// priority so far. A frame that is no transition has priority 0 and is never drawn.
///
/// # Source
///
/// Schaul et al. 2016, arXiv:1511.05952, eq. (1), section 3.4 and algorithm 1; α = 0.6 and β from 0.4
/// to 1 for the proportional variant.
#[derive(Clone, Debug)]
pub struct Priorities {
    capacity: usize,
    alpha: f64,
    eps: f64,
    /// Largest priority so far, before anything is known that of |δ| = 1.
    max: f64,
    /// A binary tree: node 1 is the root, below node k are 2k and 2k + 1; the leaves follow.
    nodes: Vec<Node>,
}

impl Priorities {
    /// No priorities yet, for indices below `capacity` (a memory's number of frames).
    ///
    /// # Panics
    ///
    /// If `capacity` is 0 or more than 2³⁰, or α or ε is negative or not finite.
    pub fn new(capacity: usize, alpha: f64, eps: f64) -> Self {
        assert!(capacity > 0, "there must be an index to prioritize");
        let named = u32::try_from(2 * capacity.next_power_of_two()).is_ok();
        assert!(named, "{capacity} priorities are more than a tree's index can name");
        for value in [alpha, eps] {
            assert!((0.0..f64::INFINITY).contains(&value), "α = {alpha}, ε = {eps}");
        }
        let nodes = vec![Node::EMPTY; 2 * capacity.next_power_of_two()];
        Self { capacity, alpha, eps, max: 1.0, nodes }
    }

    /// Bytes that priorities of `capacity` indices take.
    pub fn bytes(capacity: usize) -> u64 {
        2 * capacity.next_power_of_two() as u64 * size_of::<Node>() as u64
    }

    /// Gives a new transition the largest priority so far, so that it is seen at least once soon.
    ///
    /// # Panics
    ///
    /// If the index is out of range.
    pub fn set_new(&mut self, index: u32) {
        self.set(index, self.max);
    }

    /// Takes a frame out: it is not a transition, or none any more.
    ///
    /// # Panics
    ///
    /// If the index is out of range.
    pub fn clear(&mut self, index: u32) {
        self.set(index, 0.0);
    }

    /// Sets the priorities of transitions that were learned from, from their TD errors of either
    /// sign. Indices that have been taken out since they were drawn stay out.
    ///
    /// # Panics
    ///
    /// If the lengths differ, an index is out of range, or an error is not finite.
    pub fn update<F: Real>(&mut self, indices: &[u32], td_errors: &[F]) {
        assert_eq!(indices.len(), td_errors.len(), "as many TD errors as indices are needed");
        for (&index, error) in indices.iter().zip(td_errors) {
            let priority = libm::pow(error.f64().abs() + self.eps, self.alpha);
            assert!(priority.is_finite(), "the TD error of index {index} is {error}");
            // An error of 0 without ε must not take the transition out.
            let priority = priority.max(f64::MIN_POSITIVE);
            if self.leaf(index).sum > 0.0 {
                self.max = self.max.max(priority);
                self.set(index, priority);
            }
        }
    }

    /// P(i), the probability of one draw.
    ///
    /// # Panics
    ///
    /// If the index is out of range.
    pub fn probability(&self, index: u32) -> f64 {
        let priority = self.leaf(index).sum;
        if priority > 0.0 { priority / self.nodes[1].sum } else { 0.0 }
    }

    /// w, the factor of a transition's loss: 1 for the least probable transition, less for others.
    ///
    /// # Panics
    ///
    /// If the index is out of range or has no priority.
    pub fn weight(&self, index: u32, beta: f64) -> f64 {
        let priority = self.leaf(index).sum;
        assert!(priority > 0.0, "index {index} has no priority");
        libm::pow(self.nodes[1].min / priority, beta)
    }

    /// Draws one index from each of B equal parts of the probability, and their weights.
    ///
    /// # Shapes
    ///
    /// `indices`, `weights`: `[B]`.
    ///
    /// # Panics
    ///
    /// If the lengths differ or no index has a priority.
    ///
    /// # Source
    ///
    /// Schaul et al. 2016, appendix B.2.1 ("Proportional prioritization").
    pub fn sample<F: Real>(
        &self,
        stream: &mut Stream,
        indices: &mut [u32],
        weights: &mut [F],
        beta: f64,
    ) {
        assert_eq!(indices.len(), weights.len(), "as many weights as indices are needed");
        let total = self.nodes[1].sum;
        assert!(total > 0.0, "no index has a priority");
        let part = total / indices.len() as f64;
        for (block, indices) in indices.chunks_mut(TOGETHER).enumerate() {
            let mut masses = [0.0; TOGETHER];
            for (i, mass) in masses[..indices.len()].iter_mut().enumerate() {
                *mass = part * ((block * TOGETHER + i) as f64 + stream.uniform());
            }
            self.find(&mut masses[..indices.len()], indices);
        }
        for (weight, &index) in weights.iter_mut().zip(&*indices) {
            *weight = F::of(self.weight(index, beta));
        }
    }

    /// The indices at which the sum of priorities passes the `masses`.
    fn find(&self, masses: &mut [f64], indices: &mut [u32]) {
        let leaves = self.nodes.len() / 2;
        let nodes = indices;
        nodes.fill(1);
        for _ in 0..leaves.ilog2() {
            for (node, mass) in nodes.iter_mut().zip(&mut *masses) {
                let left = 2 * *node as usize;
                let (sum, right_sum) = (self.nodes[left].sum, self.nodes[left + 1].sum);
                // Rounding may leave `mass` at the very end: it must not go where there is nothing.
                let goes_left = *mass < sum || right_sum == 0.0;
                *mass -= if goes_left { 0.0 } else { sum };
                *node = left as u32 + u32::from(!goes_left);
            }
        }
        for node in nodes {
            *node -= leaves as u32;
        }
    }

    fn leaf(&self, index: u32) -> Node {
        self.nodes[self.nodes.len() / 2 + self.checked(index)]
    }

    fn checked(&self, index: u32) -> usize {
        assert!((index as usize) < self.capacity, "index {index} is not below {}", self.capacity);
        index as usize
    }

    fn set(&mut self, index: u32, priority: f64) {
        let mut node = self.nodes.len() / 2 + self.checked(index);
        self.nodes[node] = Node::leaf(priority);
        while node > 1 {
            node /= 2;
            self.nodes[node] = Node::above(self.nodes[2 * node], self.nodes[2 * node + 1]);
        }
    }

    fn leaves(&self) -> &[Node] {
        &self.nodes[self.nodes.len() / 2..][..self.capacity]
    }
}

impl Persist for Priorities {
    fn save(&self, w: &mut StateWriter) {
        let used = self.leaves().iter().rposition(|leaf| leaf.sum > 0.0).map_or(0, |i| i + 1);
        let priorities: Vec<f64> = self.leaves()[..used].iter().map(|leaf| leaf.sum).collect();
        w.u64(self.capacity as u64);
        w.f64(self.max);
        w.f64s(&priorities);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        let found = r.u64()?;
        if found != self.capacity as u64 {
            let (expected, found) = (self.capacity.to_string(), found.to_string());
            return Err(StateError::Mismatch { what: "number of priorities", expected, found });
        }
        let what = "priority";
        let valid = |x: f64| (0.0..f64::INFINITY).contains(&x);
        let offset = r.offset();
        self.max =
            Some(r.f64()?).filter(|&max| valid(max)).ok_or(StateError::Value { what, offset })?;
        let offset = r.offset();
        let priorities = r.f64s()?;
        if priorities.len() > self.capacity || !priorities.iter().all(|&p| valid(p)) {
            return Err(StateError::Value { what, offset });
        }
        self.nodes.fill(Node::EMPTY);
        let first = self.nodes.len() / 2;
        for (leaf, &priority) in self.nodes[first..].iter_mut().zip(&priorities) {
            *leaf = Node::leaf(priority);
        }
        for node in (1..first).rev() {
            self.nodes[node] = Node::above(self.nodes[2 * node], self.nodes[2 * node + 1]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cordada_env::role;

    use super::*;

    fn stream() -> Stream {
        Stream::new(4, role::REPLAY, 1)
    }

    /// Priorities 1, 4, none, 2, 1 of five indices, in a tree of eight leaves.
    fn some() -> Priorities {
        let mut priorities = Priorities::new(5, 2.0, 0.5);
        for index in [0, 1, 2, 3, 4] {
            priorities.set_new(index);
        }
        priorities.clear(2);
        // (|δ| + ½)²
        priorities.update(&[1, 3, 4], &[-1.5, 2.0_f64.sqrt() - 0.5, 0.5]);
        priorities
    }

    #[test]
    fn probabilities_and_weights_by_hand() {
        let priorities = some();
        for (index, want) in [(0, 0.125), (1, 0.5), (2, 0.0), (3, 0.25), (4, 0.125)] {
            let got = priorities.probability(index);
            assert!((got - want).abs() < 1e-15, "P({index}) = {got}, expected {want}");
        }
        // (N P)^{−β} of N = 4 indices, over the largest one, that of P = ⅛.
        for (index, p) in [(0, 0.125_f64), (1, 0.5), (3, 0.25)] {
            let want = (4.0 * p).powf(-0.7) / 0.5_f64.powf(-0.7);
            assert!((priorities.weight(index, 0.7) - want).abs() < 1e-15);
        }
    }

    #[test]
    fn samples_have_their_probabilities() {
        let priorities = some();
        let (mut stream, mut counts) = (stream(), [0_u32; 5]);
        let (mut indices, mut weights) = ([0; 4], [0.0_f32; 4]);
        for _ in 0..2000 {
            priorities.sample(&mut stream, &mut indices, &mut weights, 0.7);
            for (&index, &weight) in indices.iter().zip(&weights) {
                counts[index as usize] += 1;
                assert_eq!(weight, priorities.weight(index, 0.7) as f32);
            }
            // Parts of ¼: the second one lies within the ½ of index 1, the last one holds index 4.
            assert_eq!(indices[1], 1);
            assert!(indices[3] == 3 || indices[3] == 4, "{indices:?}");
        }
        // 8000 P, with deviations below those of a binomial distribution: 5 of √(8000 P (1 − P)).
        for (index, &count) in counts.iter().enumerate() {
            let p = priorities.probability(index as u32);
            let deviation = (8000.0 * p * (1.0 - p)).sqrt();
            assert!((f64::from(count) - 8000.0 * p).abs() <= 5.0 * deviation, "{counts:?}");
        }
        assert_eq!(stream.counter(), 8000);
    }

    #[test]
    fn rounding_does_not_lead_to_what_has_no_priority() {
        let mut priorities = Priorities::new(8, 1.0, 0.0);
        for index in [2, 3, 5] {
            priorities.set_new(index);
        }
        // Sums 1, 2, 3: each index from its own, included, to the next one, excluded.
        for (mass, want) in [(0.0, 2), (0.999, 2), (1.0, 3), (2.0, 5), (3.0, 5), (3.001, 5)] {
            let mut index = [9];
            priorities.find(&mut [mass], &mut index);
            assert_eq!(index, [want], "at {mass}");
        }
    }

    #[test]
    fn new_ones_come_first_and_lost_ones_stay_out() {
        let mut priorities = some();
        // The largest so far is 4, also after it has been lowered.
        priorities.update(&[1], &[0.5_f32]);
        priorities.set_new(2);
        assert_eq!(priorities.probability(2), 4.0 / 9.0);
        priorities.clear(2);
        priorities.update(&[2, 2], &[3.0_f32, 3.0]);
        assert_eq!(priorities.probability(2), 0.0);
        priorities.set_new(2);
        assert_eq!(priorities.probability(2), 4.0 / 9.0, "an error of a lost one is not kept");
        // An error of 0 without ε makes it rare, not impossible.
        let mut priorities = Priorities::new(2, 1.0, 0.0);
        priorities.set_new(0);
        priorities.update(&[0], &[0.0_f32]);
        assert_eq!(priorities.probability(0), 1.0);
    }

    #[test]
    fn sums_depend_on_priorities_alone() {
        // Added and taken away, numbers of such different sizes would leave their traces.
        let mut priorities = Priorities::new(100, 1.0, 0.0);
        let mut direct = priorities.clone();
        let mut stream = stream();
        for round in 0..20 {
            for index in 0..100 {
                priorities.set_new(index);
                let size = if round < 19 { 1e9 } else { 0.1 };
                let error = if round < 19 { stream.uniform() * size } else { size };
                priorities.update(&[index], &[error]);
            }
        }
        for index in (0..100).rev() {
            direct.set_new(index);
            direct.update(&[index], &[0.1]);
        }
        assert_eq!(priorities.nodes, direct.nodes);
    }

    #[test]
    #[should_panic(expected = "the TD error of index 3")]
    fn a_nan_does_not_get_in() {
        some().update(&[3], &[f32::NAN]);
    }

    #[test]
    fn saved_priorities_continue() {
        let priorities = some();
        let mut w = StateWriter::new();
        priorities.save(&mut w);
        let mut loaded = Priorities::new(5, 2.0, 0.5);
        loaded.set_new(2);
        loaded.load(&mut StateReader::new(w.as_bytes())).unwrap();
        assert_eq!((&loaded.nodes, loaded.max), (&priorities.nodes, priorities.max));
        let error = Priorities::new(6, 2.0, 0.5).load(&mut StateReader::new(w.as_bytes()));
        assert!(matches!(error, Err(StateError::Mismatch { .. })), "{error:?}");
        let mut damaged = StateWriter::new();
        damaged.u64(5);
        damaged.f64(1.0);
        damaged.f64s(&[1.0, -1.0]);
        let error = loaded.load(&mut StateReader::new(damaged.as_bytes()));
        assert!(matches!(error, Err(StateError::Value { what: "priority", .. })), "{error:?}");
    }
}
