//! `Blackjack-v1`: get nearer to 21 than the dealer, without going over.

use std::convert::Infallible;

use serde::Deserialize;

use super::choice;
use crate::draws::Draws;
use crate::env::{Env, Outcome, Step};
use crate::error::Error;
use crate::registry::{EnvSpec, parse};
use crate::space::Space;
use crate::state::{StateError, StateReader, StateWriter, expect_name};
use crate::stream::Stream;

/// Entry in the list of environments.
pub const SPEC: EnvSpec = EnvSpec {
    name: NAME,
    aliases: &["Blackjack"],
    source: "Gymnasium 1.4.0, Blackjack-v1; Sutton and Barto 2018, example 5.1",
    summary: "get nearer to 21 than the dealer; +1 for a win, −1 for a loss",
    max_episode_steps: None,
    reward_threshold: None,
    make: || Box::new(Blackjack::new()),
    make_with: Some(|options| Ok(Box::new(Blackjack::with_options(parse(NAME, options)?)))),
};

const NAME: &str = "Blackjack-v1";

/// An endless deck: ace, 2 to 10, and jack, queen and king as 10.
const DECK: [f64; 13] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 10.0, 10.0, 10.0];

/// Which rules hold for a natural, an ace and a ten on the first two cards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlackjackOptions {
    /// Whether a win with a natural pays 1.5, as in casinos. Default: false.
    pub natural: bool,
    /// Sutton and Barto's rules: a natural wins unless the dealer has one too, and `natural` does
    /// not matter. Default: true.
    pub sab: bool,
}

impl Default for BlackjackOptions {
    fn default() -> Self {
        Self { natural: false, sab: true }
    }
}

/// Some cards, as far as they matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Hand {
    /// Sum with aces as 1.
    hard: u32,
    ace: bool,
    cards: u32,
}

impl Hand {
    fn add(&mut self, card: u32) {
        self.hard = self.hard.saturating_add(card);
        self.ace |= card == 1;
        self.cards = self.cards.saturating_add(1);
    }

    /// Whether an ace can count as 11.
    fn usable_ace(self) -> bool {
        self.ace && self.hard <= 11
    }

    fn sum(self) -> u32 {
        if self.usable_ace() { self.hard + 10 } else { self.hard }
    }

    fn is_bust(self) -> bool {
        self.sum() > 21
    }

    /// What counts against the other hand: nothing if the sum is above 21.
    fn score(self) -> u32 {
        if self.is_bust() { 0 } else { self.sum() }
    }

    fn is_natural(self) -> bool {
        self.cards == 2 && self.sum() == 21
    }

    fn save(self, w: &mut StateWriter) {
        w.u32(self.hard);
        w.bool(self.ace);
        w.u32(self.cards);
    }

    fn load(r: &mut StateReader<'_>) -> Result<Self, StateError> {
        Ok(Self { hard: r.u32()?, ace: r.bool()?, cards: r.u32()? })
    }
}

/// A game of cards from an endless deck against a dealer who draws up to 17.
///
/// Observation: the player's sum, the dealer's open card (ace = 1), whether the player has an ace
/// that counts as 11. Actions: 0 stick, 1 hit. A hit over 21 loses, −1; after sticking the dealer
/// plays, and the higher sum wins: +1, 0 or −1.
///
/// # Source
///
/// Gymnasium 1.4.0, `BlackjackEnv`, with the options that its registry gives to `Blackjack-v1`.
#[derive(Clone, Debug)]
pub struct Blackjack {
    obs_space: Space,
    action_space: Space,
    options: BlackjackOptions,
    player: Hand,
    dealer: Hand,
    /// The dealer's open card.
    open: u32,
    /// Set by an action that is no index: all is NaN until the next reset.
    lost: bool,
}

impl Blackjack {
    /// Blackjack by Sutton and Barto's rules.
    pub fn new() -> Self {
        Self::with_options(BlackjackOptions::default())
    }

    /// Blackjack with options.
    pub fn with_options(options: BlackjackOptions) -> Self {
        Self {
            obs_space: Space::MultiDiscrete { nvec: vec![32, 11, 2] },
            action_space: Space::Discrete { n: 2 },
            options,
            player: Hand::default(),
            dealer: Hand::default(),
            open: 0,
            lost: false,
        }
    }

    fn observe(&self, obs: &mut [f32]) {
        let ace = if self.player.usable_ace() { 1.0 } else { 0.0 };
        obs.copy_from_slice(&[self.player.sum() as f32, self.open as f32, ace]);
        if self.lost {
            obs.fill(f32::NAN);
        }
    }

    /// Deals two cards to the dealer, the first one open, and two to the player.
    fn deal<E>(
        &mut self,
        obs: &mut [f32],
        mut card: impl FnMut() -> Result<u32, E>,
    ) -> Result<(), E> {
        (self.dealer, self.player, self.lost) = (Hand::default(), Hand::default(), false);
        self.open = card()?;
        self.dealer.add(self.open);
        self.dealer.add(card()?);
        self.player.add(card()?);
        self.player.add(card()?);
        self.observe(obs);
        Ok(())
    }

    fn act<E>(
        &mut self,
        action: &[f32],
        obs: &mut [f32],
        mut card: impl FnMut() -> Result<u32, E>,
    ) -> Result<Step, E> {
        let action = choice(action[0], 2);
        self.lost |= action.is_none();
        let step = match action {
            _ if self.lost => Step { reward: f64::NAN, outcome: Outcome::Continue },
            Some(1) => {
                self.player.add(card()?);
                if self.player.is_bust() {
                    Step { reward: -1.0, outcome: Outcome::Terminated }
                } else {
                    Step { reward: 0.0, outcome: Outcome::Continue }
                }
            }
            _ => {
                while self.dealer.sum() < 17 {
                    self.dealer.add(card()?);
                }
                Step { reward: self.payoff(), outcome: Outcome::Terminated }
            }
        };
        self.observe(obs);
        Ok(step)
    }

    /// The reward once both have stuck.
    fn payoff(&self) -> f64 {
        let BlackjackOptions { natural, sab } = self.options;
        let (player, dealer) = (self.player, self.dealer);
        if sab && player.is_natural() && !dealer.is_natural() {
            return 1.0;
        }
        match player.score().cmp(&dealer.score()) {
            std::cmp::Ordering::Greater if !sab && natural && player.is_natural() => 1.5,
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.0,
            std::cmp::Ordering::Less => -1.0,
        }
    }
}

impl Default for Blackjack {
    fn default() -> Self {
        Self::new()
    }
}

/// A card from the stream.
fn draw(stream: &mut Stream) -> u32 {
    DECK[stream.below(DECK.len())] as u32
}

/// A recorded card.
fn recorded(draws: &mut Draws<'_>) -> Result<u32, Error> {
    Ok(DECK[draws.choice(&DECK)?] as u32)
}

impl Env for Blackjack {
    fn obs_space(&self) -> &Space {
        &self.obs_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, stream: &mut Stream, obs: &mut [f32]) {
        let Ok(()) = self.deal(obs, || Ok::<_, Infallible>(draw(stream)));
    }

    fn step(&mut self, action: &[f32], stream: &mut Stream, obs: &mut [f32]) -> Step {
        let Ok(step) = self.act(action, obs, || Ok::<_, Infallible>(draw(stream)));
        step
    }

    fn reset_recorded(&mut self, draws: &[f64], obs: &mut [f32]) -> Result<(), Error> {
        let mut draws = Draws::new(draws);
        self.deal(obs, || recorded(&mut draws))?;
        // For its picture Gymnasium draws the open card's suit, and the face of a ten.
        draws.choice(&[0.0, 1.0, 2.0, 3.0])?;
        if self.open == 10 {
            draws.choice(&[0.0, 1.0, 2.0])?;
        }
        draws.finish()
    }

    fn step_recorded(
        &mut self,
        action: &[f32],
        draws: &[f64],
        obs: &mut [f32],
    ) -> Result<Step, Error> {
        let mut draws = Draws::new(draws);
        let step = self.act(action, obs, || recorded(&mut draws))?;
        draws.finish()?;
        Ok(step)
    }

    fn save(&self, w: &mut StateWriter) {
        w.str(NAME);
        self.player.save(w);
        self.dealer.save(w);
        w.u32(self.open);
        w.bool(self.lost);
    }

    fn load(&mut self, r: &mut StateReader<'_>) -> Result<(), StateError> {
        expect_name(r, NAME)?;
        self.player = Hand::load(r)?;
        self.dealer = Hand::load(r)?;
        self.open = r.u32()?;
        self.lost = r.bool()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
