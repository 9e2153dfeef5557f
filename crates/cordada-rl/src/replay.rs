//! Replay memory: what off-policy algorithms learn from. Each observation is stored once; which
//! transitions are drawn, and with which weights, is decided by [`Replay::sample`] (all alike) or
//! by [`Priorities`]. It knows no network and no algorithm.
//!
//! Every environment has a ring of frames of its own. A frame is one contiguous row
//!
//! ```text
//! observation | mask, 32 flags to a number | action | reward | tag
//! ```
//!
//! and holds the transition that starts with its observation; the next observation is that of the
//! frame after it. An episode of n steps always takes n + 1 frames: its last one holds the true
//! final observation and no transition. The newest frame of an environment waits for its action,
//! and can be read as a next observation already.
//!
//! An index names a frame, so it stays what it is until the ring comes around to that frame.

mod batch;
mod prioritized;
#[cfg(test)]
mod tests;

use cordada_env::{Outcome, Persist, StateError, StateReader, StateWriter, Stream};

pub use batch::Batch;
pub use prioritized::Priorities;

/// Sizes of a replay memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplaySizes {
    /// Number of environments N that it is filled from.
    pub num_envs: usize,
    /// How many transitions it holds, those of all environments together and rounded up to a
    /// multiple of N. Every episode's end takes the place of one of them.
    pub capacity: usize,
    /// Length D of an observation.
    pub obs_len: usize,
    /// Length A of an action.
    pub action_len: usize,
    /// Length M of an action mask; 0 if there are none.
    pub mask_len: usize,
}

impl ReplaySizes {
    /// Bytes that a full memory takes, known before anything is allocated. They are taken from the
    /// system as the memory fills.
    pub fn bytes(&self) -> u64 {
        let numbers = (self.num_frames() as u64).saturating_mul(self.stride() as u64);
        numbers.saturating_mul(size_of::<f32>() as u64)
    }

    /// Number of frames of all rings: every index is below it.
    pub fn num_frames(&self) -> usize {
        self.num_envs.saturating_mul(self.frames_per_env())
    }

    /// An environment's share of the transitions, and its newest observation.
    fn frames_per_env(&self) -> usize {
        self.capacity.div_ceil(self.num_envs.max(1)).saturating_add(1)
    }

    fn mask_words(&self) -> usize {
        self.mask_len.div_ceil(MASK_BITS)
    }

    /// Numbers of a frame. Observation and mask come first, reward and tag last.
    fn stride(&self) -> usize {
        self.obs_len + self.mask_words() + self.action_len + 2
    }
}

/// Flags of a mask in one number, whose bits they are.
const MASK_BITS: usize = 32;

/// What a frame holds, in a tag's low bits. From `Continue` on, it is a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Kind {
    /// Nothing yet.
    Empty,
    /// The newest observation, whose action is to come.
    Open,
    /// The last observation of an episode.
    Final,
    /// A transition, as the outcome of this name.
    Continue,
    Terminated,
    Truncated,
}

impl Kind {
    const FILLED: [Self; 5] =
        [Self::Open, Self::Final, Self::Continue, Self::Terminated, Self::Truncated];

    fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Continue => Self::Continue,
            Outcome::Terminated => Self::Terminated,
            Outcome::Truncated => Self::Truncated,
        }
    }
}

/// A frame's kind, and whether its ring ends with it: so that the frame after one can be found
/// without a division.
#[derive(Clone, Copy)]
struct Tag(u32);

impl Tag {
    const KIND: u32 = 7;
    const LAST: u32 = 8;

    #[inline(always)]
    fn is(self, kind: Kind) -> bool {
        self.0 & Self::KIND == kind as u32
    }

    #[inline(always)]
    fn is_transition(self) -> bool {
        self.0 & Self::KIND >= Kind::Continue as u32
    }

    #[inline(always)]
    fn is_last(self) -> bool {
        self.0 & Self::LAST != 0
    }
}

/// How far a ring has come: the place of its newest frame, and how many frames it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ring {
    newest: usize,
    filled: usize,
}

/// What [`Replay::push`] changed: needed by whoever keeps something beside each frame, as
/// [`Priorities`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The frame that is a transition now.
    pub transition: u32,
    /// The frame of the next observation. If it was a transition, of long ago, it is none any more.
    pub newest: u32,
}

/// Transitions of the past.
///
/// # Examples
///
/// ```
/// use cordada_env::{Outcome, Stream, role};
/// use cordada_rl::replay::{Batch, Replay, ReplaySizes};
///
/// let sizes = ReplaySizes { num_envs: 1, capacity: 100, obs_len: 1, action_len: 1, mask_len: 0 };
/// let mut replay = Replay::new(sizes);
/// replay.start(0, &[1.0], &[]);
/// replay.push(0, &[0.0], 4.0, Outcome::Continue, &[2.0], &[]);
/// replay.push(0, &[1.0], 8.0, Outcome::Truncated, &[3.0], &[]);
///
/// let mut indices = [0; 8];
/// replay.sample(&mut Stream::new(0, role::REPLAY, 0), &mut indices);
/// let mut batch = Batch::default();
/// replay.gather(&indices, 2, 0.5, &mut batch);
/// // The first transition takes both rewards, the second its own: 4 + ½ · 8 and 8, and both
/// // bootstrap from the true final observation, with ½² and ½.
/// for i in 0..8 {
///     let first = batch.obs[i] == 1.0;
///     assert_eq!((batch.rewards[i], batch.discounts[i]), (8.0, if first { 0.25 } else { 0.5 }));
///     assert_eq!(batch.next_obs[i], 3.0);
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Replay {
    sizes: ReplaySizes,
    frames_per_env: usize,
    stride: usize,
    /// `[N, frames, stride]`; masks and tags are bit patterns and never taken as numbers.
    rows: Vec<f32>,
    rings: Vec<Ring>,
    /// Number of transitions.
    len: usize,
}

impl Replay {
    /// An empty memory.
    ///
    /// # Panics
    ///
    /// If there are no environments, no transitions, or 2³² frames or more.
    pub fn new(sizes: ReplaySizes) -> Self {
        assert!(sizes.num_envs > 0 && sizes.capacity > 0, "a replay memory of nothing: {sizes:?}");
        let indexed = u32::try_from(sizes.num_frames()).is_ok();
        assert!(indexed, "{} frames are more than an index can name", sizes.num_frames());
        let (frames_per_env, stride) = (sizes.frames_per_env(), sizes.stride());
        let mut replay = Self {
            sizes,
            frames_per_env,
            stride,
            // All zero bits, so that the system gives the memory when it is first written.
            rows: vec![0.0; sizes.num_frames() * stride],
            rings: vec![Ring::default(); sizes.num_envs],
            len: 0,
        };
        for env in 0..sizes.num_envs {
            replay.set_kind((env + 1) * frames_per_env - 1, Kind::Empty);
        }
        replay
    }

    /// The sizes that it was made with.
    pub fn sizes(&self) -> ReplaySizes {
        self.sizes
    }

    /// How many transitions can be sampled.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none can.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the frame is a transition: whether it can be sampled.
    #[inline]
    pub fn is_transition(&self, index: u32) -> bool {
        self.tag(index as usize).is_transition()
    }

    /// Begins an episode with its first observation; returns the frame that holds it, which is
    /// none that can be sampled. An episode that has not ended is cut off before its last
    /// observation's action.
    ///
    /// # Shapes
    ///
    /// `obs`: `[D]`; `mask`: `[M]`.
    ///
    /// # Panics
    ///
    /// If a length is wrong.
    pub fn start(&mut self, env: usize, obs: &[f32], mask: &[bool]) -> u32 {
        if let Some(newest) = self.newest(env)
            && self.tag(newest).is(Kind::Open)
        {
            self.set_kind(newest, Kind::Final);
        }
        self.append(env, obs, mask, Kind::Open)
    }

    /// Appends a transition, from the newest observation of `env` to `next_obs`: the true final
    /// one, never the first of the next episode, if the episode ended.
    ///
    /// # Shapes
    ///
    /// `action`: `[A]`; `next_obs`: `[D]`; `next_mask`: `[M]`.
    ///
    /// # Panics
    ///
    /// If a length is wrong, or no episode of `env` has begun.
    #[expect(clippy::too_many_arguments, reason = "a transition, in the order in which it happens")]
    pub fn push(
        &mut self,
        env: usize,
        action: &[f32],
        reward: f32,
        outcome: Outcome,
        next_obs: &[f32],
        next_mask: &[bool],
    ) -> Pushed {
        let open = self.newest(env).filter(|&index| self.tag(index).is(Kind::Open));
        let index = open.unwrap_or_else(|| panic!("no episode of environment {env} has begun"));
        assert_eq!(action.len(), self.sizes.action_len, "the action is not [A]");
        let at = self.sizes.obs_len + self.sizes.mask_words();
        let row = self.row_mut(index);
        row[at..at + action.len()].copy_from_slice(action);
        row[at + action.len()] = reward;
        self.set_kind(index, Kind::of(outcome));
        self.len += 1;
        let next = if outcome.ended() { Kind::Final } else { Kind::Open };
        let newest = self.append(env, next_obs, next_mask, next);
        Pushed { transition: index as u32, newest }
    }

    /// Draws transitions, with replacement, all with the same probability.
    ///
    /// Frames are drawn until they are transitions. Where the rings are filled alike, as they are
    /// by environments that step together, that takes two draws an index in the mean where every
    /// step ends an episode, and little more than one where episodes are long.
    ///
    /// # Panics
    ///
    /// If there are none.
    pub fn sample(&self, stream: &mut Stream, indices: &mut [u32]) {
        assert!(self.len > 0, "there is no transition to sample");
        let filled = self.rings.iter().map(|ring| ring.filled).max().unwrap_or(0);
        // Frames of full rings, and those of a single one, lie without gaps.
        let gap_free = filled == self.frames_per_env || self.rings.len() == 1;
        let mut done = 0;
        while done < indices.len() {
            // All draws, then all tags: so the processor waits for many frames at once.
            for index in &mut indices[done..] {
                let k = stream.below(self.rings.len() * filled);
                let gaps = if gap_free { 0 } else { k / filled * (self.frames_per_env - filled) };
                *index = (k + gaps) as u32;
            }
            let mut kept = done;
            for i in done..indices.len() {
                let index = indices[i];
                indices[kept] = index;
                kept += usize::from(self.is_transition(index));
            }
            done = kept;
        }
    }

    /// The newest frame of an environment, if it has one.
    fn newest(&self, env: usize) -> Option<usize> {
        let ring = self.rings[env];
        (ring.filled > 0).then(|| env * self.frames_per_env + ring.newest)
    }

    /// Writes the frame after the newest one, over the oldest one if the ring is full.
    fn append(&mut self, env: usize, obs: &[f32], mask: &[bool], kind: Kind) -> u32 {
        assert_eq!(obs.len(), self.sizes.obs_len, "the observation is not [D]");
        assert_eq!(mask.len(), self.sizes.mask_len, "the mask is not [M]");
        let ring = &mut self.rings[env];
        ring.newest = if ring.filled == 0 { 0 } else { (ring.newest + 1) % self.frames_per_env };
        ring.filled = self.frames_per_env.min(ring.filled + 1);
        let index = env * self.frames_per_env + ring.newest;
        self.len -= usize::from(self.tag(index).is_transition());
        let (to_obs, rest) = self.row_mut(index).split_at_mut(obs.len());
        to_obs.copy_from_slice(obs);
        for (word, flags) in rest.iter_mut().zip(mask.chunks(MASK_BITS)) {
            let bits = flags.iter().rev().fold(0, |bits, &flag| bits << 1 | u32::from(flag));
            *word = f32::from_bits(bits);
        }
        self.set_kind(index, kind);
        index as u32
    }

    #[inline(always)]
    fn row(&self, index: usize) -> &[f32] {
        &self.rows[index * self.stride..][..self.stride]
    }

    fn row_mut(&mut self, index: usize) -> &mut [f32] {
        &mut self.rows[index * self.stride..][..self.stride]
    }

    #[inline(always)]
    fn tag(&self, index: usize) -> Tag {
        Tag(self.rows[index * self.stride + self.stride - 1].to_bits())
    }

    fn set_kind(&mut self, index: usize, kind: Kind) {
        let last = (index + 1).is_multiple_of(self.frames_per_env);
        let tag = kind as u32 | if last { Tag::LAST } else { 0 };
        self.rows[index * self.stride + self.stride - 1] = f32::from_bits(tag);
    }

    /// The frame after one that has `tag`.
    #[inline(always)]
    fn after(&self, index: usize, tag: Tag) -> usize {
        if tag.is_last() { index + 1 - self.frames_per_env } else { index + 1 }
    }

    /// Reads the frames of one environment and counts its transitions.
    fn load_ring(&mut self, env: usize, r: &mut StateReader<'_>) -> Result<usize, StateError> {
        let offset = r.offset();
        let (newest, filled) = (r.u64()? as usize, r.u64()? as usize);
        let fits = match filled {
            0 => newest == 0,
            _ if filled < self.frames_per_env => newest == filled - 1,
            _ => filled == self.frames_per_env && newest < filled,
        };
        if !fits {
            return Err(StateError::Value { what: "ring of a replay memory", offset });
        }
        self.rings[env] = Ring { newest, filled };
        let first = env * self.frames_per_env;
        let offset = r.offset();
        r.f32s_into(&mut self.rows[first * self.stride..][..filled * self.stride])?;
        let mut transitions = 0;
        for place in 0..filled {
            let tag = self.tag(first + place).0;
            let kind = Kind::FILLED.into_iter().find(|&kind| kind as u32 == tag & !Tag::LAST);
            // What comes next of a transition, or is waited for, is where the ring ends.
            let kind = kind.filter(|&kind| match kind {
                Kind::Final => true,
                Kind::Open => place == newest,
                _ => place != newest,
            });
            let what = "tag of a replay memory's frame";
            self.set_kind(first + place, kind.ok_or(StateError::Value { what, offset })?);
            transitions += usize::from(self.tag(first + place).is_transition());
        }
        for place in filled..self.frames_per_env {
            // Reading memory that was never written takes none.
            if !self.tag(first + place).is(Kind::Empty) {
                self.set_kind(first + place, Kind::Empty);
            }
        }
        Ok(transitions)
    }
}

impl Persist for Replay {
    fn save(&self, w: &mut StateWriter) {
        let ReplaySizes { num_envs, capacity, obs_len, action_len, mask_len } = self.sizes;
        for size in [num_envs, capacity, obs_len, action_len, mask_len] {
            w.u64(size as u64);
        }
        for (env, ring) in self.rings.iter().enumerate() {
            w.u64(ring.newest as u64);
            w.u64(ring.filled as u64);
            let first = env * self.frames_per_env * self.stride;
            w.f32s(&self.rows[first..][..ring.filled * self.stride]);
        }
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        let ReplaySizes { num_envs, capacity, obs_len, action_len, mask_len } = self.sizes;
        for (what, expected) in [
            ("num_envs", num_envs),
            ("replay capacity", capacity),
            ("obs_len", obs_len),
            ("action_len", action_len),
            ("mask_len", mask_len),
        ] {
            let found = r.u64()?;
            if found != expected as u64 {
                let (expected, found) = (expected.to_string(), found.to_string());
                return Err(StateError::Mismatch { what, expected, found });
            }
        }
        self.len = 0;
        for env in 0..num_envs {
            self.len += self.load_ring(env, r)?;
        }
        Ok(())
    }
}
