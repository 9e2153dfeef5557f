//! The order in which examples are used: a cursor over epochs that is a function of the seed and
//! two numbers, so that a resumed run goes on with the very next batch.

use cordada_env::{Persist, StateError, StateReader, StateWriter, Stream, role};

use crate::Error;

/// Number of batches among which examples of like length are put together.
const WINDOW: usize = 32;
/// Streams of role [`role::SHUFFLE`] from here on belong to data; those below, to minibatches of
/// an update.
const FIRST_STREAM: u32 = 1 << 31;

/// How an epoch is ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As given.
    Given,
    /// Shuffled, anew in each epoch.
    #[default]
    Shuffled,
    /// Shuffled, then sorted by length within windows of 32 batches, and the batches shuffled: a
    /// batch holds examples of like length, so that all batches of a length cost the same and
    /// parts of a batch end together.
    ByLength,
}

/// Gives the examples of one batch after another, for any number of epochs.
///
/// Every example is there exactly once in an epoch; an epoch's last batch is shorter if the batch
/// size does not divide the number of examples.
///
/// # Examples
///
/// ```
/// use cordada_lm::data::{Batches, Order};
///
/// let mut batches = Batches::new(vec![1; 5], 2, Order::Shuffled, 7)?;
/// let mut epoch: Vec<usize> = (0..3).flat_map(|_| batches.next_batch().to_vec()).collect();
/// epoch.sort_unstable();
/// assert_eq!(epoch, [0, 1, 2, 3, 4]);
/// # Ok::<(), cordada_lm::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Batches {
    lengths: Vec<usize>,
    batch_size: usize,
    order: Order,
    seed: u64,
    epoch: u64,
    /// Batches of this epoch that were given.
    position: usize,
    /// The batches of this epoch.
    arranged: Vec<Vec<usize>>,
}

impl Batches {
    /// A cursor at the beginning of the first epoch; `lengths` holds the number of tokens of each
    /// example.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if there is no example or the batch size is 0.
    pub fn new(
        lengths: Vec<usize>,
        batch_size: usize,
        order: Order,
        seed: u64,
    ) -> Result<Self, Error> {
        if lengths.is_empty() {
            return Err(Error::Setting("there are no examples to make batches of".to_string()));
        }
        if batch_size == 0 {
            return Err(Error::Setting("a batch must have at least 1 example, not 0".to_string()));
        }
        let mut cursor =
            Self { lengths, batch_size, order, seed, epoch: 0, position: 0, arranged: Vec::new() };
        cursor.arranged = cursor.arrange();
        Ok(cursor)
    }

    /// Number of batches in an epoch.
    pub fn per_epoch(&self) -> usize {
        self.lengths.len().div_ceil(self.batch_size)
    }

    /// The epoch of the next batch, from 0, and how many of its batches were given.
    pub fn position(&self) -> (u64, usize) {
        // After an epoch's last batch, the next one is the first of the next epoch.
        if self.position == self.arranged.len() {
            (self.epoch + 1, 0)
        } else {
            (self.epoch, self.position)
        }
    }

    /// Indices of the next batch's examples.
    pub fn next_batch(&mut self) -> &[usize] {
        self.seek(self.position());
        self.position += 1;
        &self.arranged[self.position - 1]
    }

    fn seek(&mut self, (epoch, position): (u64, usize)) {
        if epoch != self.epoch {
            self.epoch = epoch;
            self.arranged = self.arrange();
        }
        self.position = position;
    }

    /// The batches of the present epoch: a function of seed and epoch.
    fn arrange(&self) -> Vec<Vec<usize>> {
        let mut stream = Stream::new(self.seed, role::SHUFFLE, FIRST_STREAM | self.epoch as u32);
        let mut indices: Vec<usize> = (0..self.lengths.len()).collect();
        if self.order != Order::Given {
            stream.shuffle(&mut indices);
        }
        if self.order == Order::ByLength {
            for window in indices.chunks_mut(WINDOW * self.batch_size) {
                // Stable: examples of one length stay shuffled.
                window.sort_by_key(|&i| self.lengths[i]);
            }
        }
        let mut batches: Vec<Vec<usize>> =
            indices.chunks(self.batch_size).map(<[usize]>::to_vec).collect();
        if self.order == Order::ByLength {
            stream.shuffle(&mut batches);
        }
        batches
    }
}

impl Persist for Batches {
    fn save(&self, w: &mut StateWriter) {
        let (epoch, position) = self.position();
        w.u64(self.lengths.len() as u64);
        w.u64(self.batch_size as u64);
        w.u64(self.seed);
        w.u64(epoch);
        w.u64(position as u64);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        let mut same = |what, ours: u64| {
            let found = r.u64()?;
            if found == ours {
                return Ok(());
            }
            let (expected, found) = (ours.to_string(), found.to_string());
            Err(StateError::Mismatch { what, expected, found })
        };
        same("a number of examples of", self.lengths.len() as u64)?;
        same("a batch size of", self.batch_size as u64)?;
        same("the data seed", self.seed)?;
        let epoch = r.u64()?;
        let offset = r.offset();
        let position = r.u64()? as usize;
        if position >= self.per_epoch() {
            return Err(StateError::Value { what: "position in the data", offset });
        }
        self.seek((epoch, position));
        Ok(())
    }
}
