//! Tests of spaces: membership, sampling, text and storage.

use super::*;
use crate::stream::role;
use proptest::prelude::*;

const INF: f32 = f32::INFINITY;

fn all_kinds() -> Space {
    Space::Dict(vec![
        ("level".into(), Space::Discrete { n: 3 }),
        ("hands".into(), Space::MultiDiscrete { nvec: vec![2, 5] }),
        ("flags".into(), Space::MultiBinary { n: 2 }),
        (
            "body".into(),
            Space::Dict(vec![("speed".into(), Space::vector(&[-1.0, 0.0], &[1.0, INF]))]),
        ),
    ])
}

#[test]
fn rows_have_the_documented_length() {
    assert_eq!(all_kinds().len(), 1 + 2 + 2 + 2);
    assert_eq!(all_kinds().num_choices(), 3 + 7 + 4);
    assert!(Space::Dict(vec![]).is_empty());
}

#[test]
fn contains_names_component_value_and_bound() {
    let good = [2.0, 1.0, 4.0, 0.0, 1.0, -1.0, 1e9];
    let space = all_kinds();
    assert_eq!(space.contains(&good), Ok(()));
    let with = |i: usize, x: f32| {
        let mut row = good;
        row[i] = x;
        space.contains(&row).unwrap_err().to_string()
    };
    assert_eq!(with(0, 3.0), "component level[0] is 3, not an index below 3");
    assert_eq!(with(0, -1.0), "component level[0] is -1, not an index below 3");
    assert_eq!(with(2, 0.5), "component hands[1] is 0.5, not an index below 5");
    assert_eq!(with(4, 2.0), "component flags[1] is 2, not an index below 2");
    assert_eq!(with(5, 1.5), "component body.speed[0] is 1.5, not within [-1, 1]");
    assert_eq!(with(6, -0.1), "component body.speed[1] is -0.1, not within [0, inf]");
    assert_eq!(with(6, f32::NAN), "component body.speed[1] is NaN, not within [0, inf]");
    let short = space.contains(&good[1..]).unwrap_err();
    assert!(matches!(short, SpaceError::Length { expected: 7, found: 6, .. }), "{short}");
}

#[test]
fn boxes_need_fitting_bounds() {
    let shape = BoxSpace::new(vec![0.0; 3], vec![1.0; 4], vec![2, 2]);
    assert_eq!(shape, Err(SpaceError::Shape { shape: vec![2, 2], low: 3, high: 4 }));
    let empty = BoxSpace::new(vec![0.0, 2.0], vec![1.0, 1.0], vec![2]);
    assert_eq!(empty, Err(SpaceError::Empty { component: 1, low: 2.0, high: 1.0 }));
    assert!(BoxSpace::new(vec![f32::NAN], vec![1.0], vec![1]).is_err());
    let half = BoxSpace::new(vec![0.0], vec![INF], vec![1]).unwrap();
    assert!(!half.is_bounded());
}

#[test]
fn text_is_like_gymnasiums() {
    let cart = Space::vector(&[-4.8, -INF], &[4.8, INF]);
    assert_eq!(cart.to_string(), "Box([-4.8 -inf], [4.8 inf], (2,))");
    let BoxSpace { low, high, .. } = BoxSpace::new(vec![-1.0; 6], vec![1.0; 6], vec![6]).unwrap();
    let image = Space::Box(BoxSpace::new(low, high, vec![2, 3]).unwrap());
    assert_eq!(image.to_string(), "Box(-1.0, 1.0, (2, 3))");
    assert_eq!(Space::MultiDiscrete { nvec: vec![2, 5] }.to_string(), "MultiDiscrete([2, 5])");
    let dict = Space::Dict(vec![("a".into(), Space::MultiBinary { n: 4 })]);
    assert_eq!(dict.to_string(), "Dict('a': MultiBinary(4))");
}

#[test]
fn json_keeps_infinite_bounds() {
    let space = Space::vector(&[-4.8, -INF], &[4.8, INF]);
    let json = serde_json::to_string(&space).unwrap();
    assert_eq!(json, r#"{"box":{"low":[-4.8,"-inf"],"high":[4.8,"inf"],"shape":[2]}}"#);
    assert_eq!(serde_json::from_str::<Space>(&json).unwrap(), space);
    let discrete = serde_json::to_string(&Space::Discrete { n: 2 }).unwrap();
    assert_eq!(discrete, r#"{"discrete":{"n":2}}"#);
    let all = serde_json::to_string(&all_kinds()).unwrap();
    assert_eq!(serde_json::from_str::<Space>(&all).unwrap(), all_kinds());
    let bad = r#"{"box":{"low":[1.0],"high":[0.0],"shape":[1]}}"#;
    assert!(serde_json::from_str::<Space>(bad).is_err());
}

#[test]
fn samples_follow_the_bounds() {
    // Means: uniform on [2, 4] is 3; 1 + Exp(1) is 2; 1 − Exp(1) is 0; normal is 0.
    let space = Space::vector(&[2.0, 1.0, -INF, -INF], &[4.0, INF, 1.0, INF]);
    let mut stream = Stream::new(1, role::ENV, 0);
    let (n, mut row, mut sum) = (4000, [0.0; 4], [0.0f64; 4]);
    for _ in 0..n {
        space.sample(&mut stream, &mut row);
        space.contains(&row).unwrap();
        for (sum, &x) in sum.iter_mut().zip(&row) {
            *sum += f64::from(x) / n as f64;
        }
    }
    // Deviations of the means are at most 1/√4000 = 0.016.
    for (got, want) in sum.iter().zip([3.0, 2.0, 0.0, 0.0]) {
        assert!((got - want).abs() < 0.08, "{sum:?}");
    }
}

#[test]
fn masked_samples_take_allowed_choices_only() {
    let space = Space::MultiDiscrete { nvec: vec![3, 4] };
    let mask = [true, false, true, false, false, true, false];
    let mut stream = Stream::new(1, role::ENV, 0);
    let (mut row, mut seen) = ([0.0; 2], [0u32; 3]);
    for _ in 0..300 {
        space.sample_masked(&mut stream, &mask, &mut row);
        seen[row[0] as usize] += 1;
        assert_eq!(row[1], 2.0);
    }
    // Binomial with mean 150 and deviation 8.7.
    assert!(seen[1] == 0 && seen[0].abs_diff(150) < 45, "{seen:?}");
}

proptest! {
    #[test]
    fn samples_are_elements(seed: u64) {
        let space = all_kinds();
        let mut row = vec![f32::NAN; space.len()];
        space.sample(&mut Stream::new(seed, role::ENV, 0), &mut row);
        prop_assert_eq!(space.contains(&row), Ok(()));
    }

    #[test]
    fn json_keeps_every_bound_exactly(a: f32, b: f32) {
        prop_assume!(!a.is_nan() && !b.is_nan());
        let space = Space::vector(&[a.min(b)], &[a.max(b)]);
        let json = serde_json::to_string(&space).unwrap();
        prop_assert_eq!(serde_json::from_str::<Space>(&json).unwrap(), space);
    }
}
