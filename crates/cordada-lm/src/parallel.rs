//! Threads that share work without touching its results: every item is computed by one thread, in
//! a way that does not depend on which.

use rayon::prelude::*;

use crate::Error;

/// A fixed number of threads.
#[derive(Debug)]
pub struct Threads {
    pool: Option<rayon::ThreadPool>,
    count: usize,
}

impl Threads {
    /// `count` threads; one means the caller's own.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if it is 0 or the system has no threads left.
    pub fn new(count: usize) -> Result<Self, Error> {
        if count == 0 {
            return Err(Error::Setting(
                "threads: 0 threads compute nothing; give 1 or more".into(),
            ));
        }
        let build = || rayon::ThreadPoolBuilder::new().num_threads(count).build();
        let pool = (count > 1).then(build).transpose();
        let pool = pool.map_err(|e| Error::Setting(format!("{count} threads: {e}")))?;
        Ok(Self { pool, count })
    }

    /// Number of threads.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Runs `work` on every item.
    pub fn for_each<I: Send>(&self, items: &mut [I], work: impl Fn(&mut I) + Sync + Send) {
        match &self.pool {
            Some(pool) if items.len() > 1 => {
                pool.install(|| items.par_iter_mut().with_max_len(1).for_each(work));
            }
            _ => items.iter_mut().for_each(work),
        }
    }
}
