//! Tests of blackjack: hands by hand, the dealer's play, the rules for naturals.

use super::*;
use crate::stream::role;

/// Deals from a list of cards.
struct Game {
    env: Blackjack,
    cards: std::vec::IntoIter<u32>,
    obs: [f32; 3],
}

impl Game {
    /// Cards in the order dealt: dealer, dealer, player, player, then what follows.
    fn new(options: BlackjackOptions, cards: &[u32]) -> Self {
        let mut env = Blackjack::with_options(options);
        let (cards, mut obs) = (cards.to_vec(), [9.0; 3]);
        let mut cards = cards.into_iter();
        env.deal(&mut obs, || cards.next().ok_or(())).unwrap();
        Self { env, cards, obs }
    }

    fn act(&mut self, action: f32) -> (f64, bool, [f32; 3]) {
        let cards = &mut self.cards;
        let step = self.env.act(&[action], &mut self.obs, || cards.next().ok_or(())).unwrap();
        (step.reward, step.outcome.ended(), self.obs)
    }
}

fn play(cards: &[u32]) -> Game {
    Game::new(BlackjackOptions::default(), cards)
}

#[test]
fn the_deal_goes_to_the_dealer_first() {
    let game = play(&[9, 7, 1, 5]);
    assert_eq!(game.obs, [16.0, 9.0, 1.0]);
    assert_eq!(play(&[1, 10, 10, 2]).obs, [12.0, 1.0, 0.0]);
}

#[test]
fn an_ace_counts_eleven_while_it_can() {
    let mut game = play(&[9, 7, 1, 5, 5, 10, 1]);
    assert_eq!(game.act(1.0), (0.0, false, [21.0, 9.0, 1.0])); // 1 + 5 + 5 + 10
    assert_eq!(game.act(1.0), (0.0, false, [21.0, 9.0, 0.0])); // with a ten, the ace is 1
    assert_eq!(game.act(1.0), (-1.0, true, [22.0, 9.0, 0.0]));
    // Of two aces, one counts 11.
    assert_eq!(play(&[9, 7, 1, 1]).obs, [12.0, 9.0, 1.0]);
}

#[test]
fn the_dealer_draws_up_to_seventeen() {
    // Dealer 10 + 6 has to draw: 5 makes 21.
    assert_eq!(play(&[10, 6, 10, 10, 5]).act(0.0).0, -1.0);
    // Dealer 10 + 6 + 6 is over.
    assert_eq!(play(&[10, 6, 2, 2, 6]).act(0.0).0, 1.0);
    // Dealer 10 + 7 stands, and so does ace + 6, a soft 17: no card is left to draw.
    assert_eq!(play(&[10, 7, 10, 7]).act(0.0), (0.0, true, [17.0, 10.0, 0.0]));
    assert_eq!(play(&[1, 6, 10, 8]).act(0.0).0, 1.0);
    assert_eq!(play(&[2, 3, 10, 10, 4, 8]).act(0.0).0, 1.0); // 17 against 20
}

#[test]
fn naturals_pay_by_the_rules_chosen() {
    let payoff = |natural, sab, cards: &[u32]| {
        Game::new(BlackjackOptions { natural, sab }, cards).act(0.0).0
    };
    // The dealer draws to 21 with three cards; the player has a natural.
    let drawn = [10, 6, 1, 10, 5];
    assert_eq!(payoff(false, true, &drawn), 1.0);
    assert_eq!(payoff(true, true, &drawn), 1.0);
    assert_eq!(payoff(true, false, &drawn), 0.0);
    // A plain win.
    let won = [10, 9, 1, 10];
    assert_eq!(payoff(true, false, &won), 1.5);
    assert_eq!(payoff(false, false, &won), 1.0);
    assert_eq!(payoff(true, true, &won), 1.0);
    // Both have one.
    assert_eq!(payoff(false, true, &[1, 10, 10, 1]), 0.0);
    // 21 with three cards is no natural: 7 + 7 + 7 against 20.
    let mut game = Game::new(BlackjackOptions { natural: true, sab: false }, &[10, 10, 7, 7, 7]);
    game.act(1.0);
    assert_eq!(game.act(0.0).0, 1.0);
}

#[test]
fn recorded_deals_carry_indices_cards_and_the_picture() {
    let (mut env, mut obs) = (Blackjack::new(), [9.0; 3]);
    // Index and value of 8, 3, 10 (a king), ace; suit 2.
    let dealt = [7.0, 8.0, 2.0, 3.0, 12.0, 10.0, 0.0, 1.0, 2.0, 2.0];
    env.reset_recorded(&dealt, &mut obs).unwrap();
    assert_eq!(obs, [21.0, 8.0, 1.0]);
    // The dealer's 11 and a 6 make 17, against a natural.
    let step = env.step_recorded(&[0.0], &[5.0, 6.0], &mut obs).unwrap();
    assert_eq!(step, Step { reward: 1.0, outcome: Outcome::Terminated });
    assert!(env.step_recorded(&[1.0], &[], &mut obs).is_err());
    assert!(env.step_recorded(&[1.0], &[5.0, 7.0], &mut obs).is_err());
    assert!(env.reset_recorded(&dealt[..8], &mut obs).is_err());
    // An open ten has a face.
    let mut ten = dealt;
    (ten[0], ten[1]) = (9.0, 10.0);
    assert!(env.reset_recorded(&ten, &mut obs).is_err());
    env.reset_recorded(&[&ten[..], &[1.0, 1.0]].concat(), &mut obs).unwrap();
}

#[test]
fn cards_have_the_decks_frequencies() {
    let (mut env, mut obs) = (Blackjack::new(), [9.0; 3]);
    let mut stream = Stream::new(8, role::ENV, 0);
    let mut counts = [0u32; 11];
    for _ in 0..13_000 {
        env.reset(&mut stream, &mut obs);
        counts[obs[1] as usize] += 1;
    }
    // Mean 1000, deviation 30; of tens 4000 and 53.
    assert!(counts[1..10].iter().all(|n| n.abs_diff(1000) < 152), "{counts:?}");
    assert!(counts[10].abs_diff(4000) < 264 && counts[0] == 0, "{counts:?}");
}

#[test]
fn a_hand_survives_saving() {
    let mut game = play(&[10, 6, 1, 10, 5]);
    let mut w = StateWriter::new();
    game.env.save(&mut w);
    let mut restored = Blackjack::new();
    restored.load(&mut StateReader::new(w.as_bytes())).unwrap();
    game.env = restored;
    assert_eq!(game.act(0.0), (1.0, true, [21.0, 10.0, 1.0])); // still a natural
}
