//! Tests of the layout and of initial parameters.

use cordada_env::role;

use super::*;

#[test]
fn a_fresh_policy_has_orthogonal_layers_of_the_right_gains() {
    let spec = ActorCriticSpec {
        inputs: 9,
        action_space: Space::vector(&[-1.0; 2], &[1.0; 2]),
        encoder: Encoder::Flat,
        trunk: vec![8],
        memory: None,
        actor: vec![6],
        critic: Some(vec![4]),
        activation: "tanh".into(),
        layer_norm: true,
        log_std: LogStd::Shared,
        squash: false,
    };
    let network = ActorCritic::new(&spec);
    let mut stream = Stream::new(1, role::INIT, 0);
    let theta: Vec<f64> = network.init(Init::Orthogonal, -0.5, &mut stream);
    let mut covered = 0;
    for ParamInfo { name, shape, range } in network.params() {
        assert_eq!(range.start, covered, "{name} follows the one before");
        covered = range.end;
        let values = &theta[range];
        let gain: f64 = match name.as_str() {
            "actor.layers.1.weight" => 0.01,
            "critic.layers.1.weight" => 1.0,
            _ => 2.0_f64.sqrt(),
        };
        let [rows, columns] = shape[..] else {
            let expected = match name.as_str() {
                "log_std" => -0.5,
                _ if name.ends_with("norm.weight") => 1.0,
                _ => 0.0,
            };
            assert!(values.iter().all(|x| *x == expected), "{name}: {values:?}");
            continue;
        };
        // W Wᵀ = gain² I, as there are no more rows than columns.
        for (i, a) in values.chunks_exact(columns).enumerate() {
            for (j, b) in values.chunks_exact(columns).enumerate() {
                let dot: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                let expected = if i == j { gain * gain } else { 0.0 };
                assert!((dot - expected).abs() < 1e-6, "{name} {rows}×{columns}: {i} {j} {dot}");
            }
        }
    }
    assert_eq!(covered, network.num_params());
}
