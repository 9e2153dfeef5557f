//! From indices to a batch: rows side by side, n-step rewards, and the discount of what follows.

use super::{Kind, MASK_BITS, Replay};

/// Transitions side by side: what a learner's update reads. Made to be filled again and again.
///
/// A target for a value of row i is `rewards[i] + discounts[i] · (value of next_obs[i])`, whatever
/// n is and however the episode ended.
///
/// # Shapes
///
/// `obs`, `next_obs`: `[B, D]`; `masks`, `next_masks`: `[B, M]`; `actions`: `[B, A]`; `rewards`,
/// `discounts`: `[B]`.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// `s_t`
    pub obs: Vec<f32>,
    /// Which actions are allowed in `s_t`.
    pub masks: Vec<bool>,
    /// `a_t`
    pub actions: Vec<f32>,
    /// `Σ_{i<k} γ^i r_{t+i}`, where k is n, or less where the episode or the memory ends before.
    pub rewards: Vec<f32>,
    /// γᵏ, or exactly 0 if the episode terminated with step t + k − 1.
    pub discounts: Vec<f32>,
    /// `s_{t+k}`; the true final observation if the episode ended with step t + k − 1.
    pub next_obs: Vec<f32>,
    /// Which actions are allowed in `s_{t+k}`.
    pub next_masks: Vec<bool>,
    /// The frames of `next_obs`.
    next: Vec<u32>,
}

impl Batch {
    /// Number of transitions B.
    pub fn len(&self) -> usize {
        self.rewards.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rewards.is_empty()
    }
}

impl Replay {
    /// Fills `batch` with the transitions that start at the frames of `indices`.
    ///
    /// ```text
    /// reward = Σ_{i<k} γ^i r_{t+i}     discount = γᵏ, or 0 after a termination
    /// ```
    ///
    /// k is n, or less: rewards are added up to the end of the episode, and never past the newest
    /// observation or past an episode that was cut off.
    ///
    /// # Panics
    ///
    /// If `n_step` is 0 or a frame is not a transition.
    ///
    /// # Source
    ///
    /// Sutton & Barto 2018, eq. (7.1); for replay, Hessel et al. 2018, arXiv:1710.02298, "Multi-step
    /// learning".
    pub fn gather(&self, indices: &[u32], n_step: usize, gamma: f32, batch: &mut Batch) {
        assert!(n_step > 0, "an n-step return needs n > 0");
        batch.rewards.clear();
        batch.discounts.clear();
        batch.next.clear();
        for &index in indices {
            let (reward, discount, next) = self.n_steps(index as usize, n_step, gamma);
            batch.rewards.push(reward);
            batch.discounts.push(discount);
            batch.next.push(next as u32);
        }
        // One array after the other: short loops, of which the processor overlaps many rounds.
        let (obs, masks) = (self.sizes.obs_len, self.sizes.obs_len + self.sizes.mask_words());
        self.copy_columns(indices, 0, obs, &mut batch.obs);
        self.copy_columns(indices, masks, self.sizes.action_len, &mut batch.actions);
        self.copy_columns(&batch.next, 0, obs, &mut batch.next_obs);
        self.copy_masks(indices, &mut batch.masks);
        self.copy_masks(&batch.next, &mut batch.next_masks);
    }

    /// Reward, discount and end of up to `n_step` steps.
    #[inline(always)]
    fn n_steps(&self, first: usize, n_step: usize, gamma: f32) -> (f32, f32, usize) {
        let (mut index, mut tag) = (first, self.tag(first));
        assert!(tag.is_transition(), "frame {first} is not a transition");
        let (mut sum, mut discount) = (0.0, 1.0);
        for left in (0..n_step).rev() {
            sum += discount * self.rows[index * self.stride + self.stride - 2];
            discount *= gamma;
            let next = self.after(index, tag);
            if !tag.is(Kind::Continue) {
                let discount = if tag.is(Kind::Terminated) { 0.0 } else { discount };
                return (sum, discount, next);
            }
            index = next;
            if left == 0 {
                break;
            }
            tag = self.tag(index);
            if !tag.is_transition() {
                break;
            }
        }
        (sum, discount, index)
    }

    /// Copies `width` numbers from column `start` of every frame of `indices`.
    #[inline(always)]
    fn copy_columns(&self, indices: &[u32], start: usize, width: usize, out: &mut Vec<f32>) {
        out.clear();
        for &index in indices {
            out.extend_from_slice(&self.rows[index as usize * self.stride + start..][..width]);
        }
    }

    fn copy_masks(&self, indices: &[u32], out: &mut Vec<bool>) {
        out.clear();
        if self.sizes.mask_len == 0 {
            return;
        }
        for &index in indices {
            let words = &self.row(index as usize)[self.sizes.obs_len..];
            let flag = |i: usize| words[i / MASK_BITS].to_bits() >> (i % MASK_BITS) & 1 != 0;
            out.extend((0..self.sizes.mask_len).map(flag));
        }
    }
}
