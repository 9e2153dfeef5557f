//! Weighted sums of rewards, with the mean of each term.

use super::{Failure, Response, Reward, TermReport};
use crate::Error;

/// `Σ weight · score` over its terms.
///
/// A response that a term could not score has no sum either (NaN), unless that term's weight is 0:
/// such a term is only watched.
#[derive(Debug)]
pub struct Weighted {
    terms: Vec<(f64, Box<dyn Reward>)>,
    report: Vec<TermReport>,
}

impl Weighted {
    /// The sum of terms, each with its weight.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if there is no term or a weight is not finite.
    pub fn new(terms: Vec<(f64, Box<dyn Reward>)>) -> Result<Self, Error> {
        if terms.is_empty() {
            return Err(Error::Setting("there is no reward; give one, such as \"exact\"".into()));
        }
        let mut report: Vec<TermReport> = Vec::new();
        for (weight, term) in &terms {
            let name = term.name();
            if !weight.is_finite() {
                let problem = format!("the weight of the reward {name:?} is {weight}");
                return Err(Error::Setting(format!("{problem}; it must be a number")));
            }
            let same = terms.iter().take(report.len()).filter(|(_, t)| t.name() == name).count();
            let name = if same == 0 { name.to_string() } else { format!("{name}_{}", same + 1) };
            report.push(TermReport {
                name,
                weight: *weight,
                mean: f64::NAN,
                scored: 0,
                unscored: 0,
            });
        }
        Ok(Self { terms, report })
    }
}

impl Reward for Weighted {
    fn name(&self) -> &'static str {
        "reward"
    }

    fn score(&mut self, responses: &[Response<'_>]) -> Result<Vec<f64>, Error> {
        let mut sums = vec![0.0; responses.len()];
        for ((weight, term), report) in self.terms.iter_mut().zip(&mut self.report) {
            let scores = term.score(responses)?;
            if scores.len() != sums.len() {
                let problem = format!("gave {} scores for {} responses", scores.len(), sums.len());
                return Err(Error::Reward { name: report.name.clone(), problem });
            }
            let mut total = 0.0;
            report.scored = 0;
            for (sum, score) in sums.iter_mut().zip(&scores) {
                if !score.is_nan() {
                    report.scored += 1;
                    total += score;
                }
                if *weight != 0.0 {
                    *sum += *weight * score;
                }
            }
            report.unscored = scores.len() - report.scored;
            report.mean = total / report.scored as f64;
        }
        Ok(sums)
    }

    fn report(&self) -> Vec<TermReport> {
        self.report.clone()
    }

    fn take_failures(&mut self) -> Vec<Failure> {
        self.terms.iter_mut().flat_map(|(_, term)| term.take_failures()).collect()
    }
}
