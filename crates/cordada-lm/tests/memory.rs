//! The predicted memory against what is allocated.

mod common;

use cordada_lm::adapter::{AdapterLayout, LoraConfig};
use cordada_lm::config::{Architecture, ModelConfig};
use cordada_lm::plan::{Plan, PlanOptions};
use cordada_lm::{
    ACTIVATION_LIMIT, Adapter, Group, Layout, Model, Request, Sampling, Site, StepSettings,
    Threads, Transformer,
};
use cordada_nn::OptimizerConfig;

fn config(vocab_size: usize, hidden_size: usize) -> ModelConfig {
    ModelConfig {
        vocab_size,
        hidden_size,
        num_layers: 4,
        num_heads: 4,
        num_kv_heads: 2,
        head_dim: hidden_size / 4,
        intermediate_size: 4 * hidden_size,
        max_positions: 512,
        ..common::config(Architecture::Qwen2, true)
    }
}

/// Largest number of bytes that are allocated at a time while a model is made, samples if asked to,
/// and takes a step.
fn measured(config: &ModelConfig, options: &PlanOptions) -> u64 {
    let info = allocation_counter::measure(|| {
        let t = Transformer::<f32>::new(config);
        let theta = vec![0.01; t.layout().num_params];
        let adapter = options.lora.as_ref().map(|lora| {
            let places = AdapterLayout::new(t.layout(), lora).expect("an adapter");
            let numbers = vec![0.01; places.num_params];
            let sites: Vec<_> = places.adapters.iter().map(|a| a.place.clone()).collect();
            let scale = lora.scaling() as f32;
            Adapter::new(numbers, &sites, scale, config.num_layers, |b, site| {
                let b = &t.layout().blocks[b];
                match site {
                    Site::Qkv => b.qkv.outputs,
                    Site::Output => b.output.outputs,
                    Site::Up => b.up.outputs,
                    Site::Down => b.down.outputs,
                }
            })
        });
        let threads = Threads::new(1).expect("a thread");
        let mut model =
            Model::trainable(t, theta, adapter, None, OptimizerConfig::adamw(), threads)
                .expect("a model");
        model.set_activation_limit(options.activation_limit);
        let prompt: Vec<u32> = vec![1; options.prompt_tokens];
        if options.generate {
            let request =
                |i| Request { prompt: prompt.clone(), samples: options.samples, stream: i };
            let requests: Vec<Request> = (0..options.prompts as u32).map(request).collect();
            let sampling =
                Sampling { max_new_tokens: options.completion_tokens, ..Sampling::default() };
            model.generate(&requests, &sampling, 1, None).expect("completions");
        }
        let completions = vec![vec![2; options.completion_tokens]; options.samples];
        let groups = vec![Group::new(prompt, completions); options.prompts];
        model.score(&groups, 1.0, &mut |_, _, d| d.log_prob.fill(0.1));
        let settings =
            StepSettings { learning_rate: 1e-3, value_learning_rate: 0.0, max_grad_norm: 1.0 };
        model.step(settings);
    });
    info.bytes_max
}

#[test]
fn predictions_are_within_fifteen_percent() {
    let lora = LoraConfig {
        rank: 8,
        alpha: 16.0,
        target_modules: vec!["q_proj".into(), "v_proj".into()],
        use_rslora: false,
    };
    let base = PlanOptions {
        train: true,
        lora: None,
        reference: false,
        critic: false,
        prompts: 8,
        samples: 1,
        prompt_tokens: 1,
        completion_tokens: 128,
        generate: false,
        activation_limit: ACTIVATION_LIMIT,
        threads: 1,
    };
    let sampled =
        PlanOptions { prompts: 4, samples: 8, prompt_tokens: 64, generate: true, ..base.clone() };
    let with_lora = PlanOptions { lora: Some(lora), ..sampled.clone() };
    let long =
        PlanOptions { prompts: 1, prompt_tokens: 384, activation_limit: 2 << 20, ..base.clone() };
    for (name, config, options) in [
        ("small, full", config(512, 128), &base),
        ("wide vocabulary, full", config(32_768, 64), &base),
        ("wider, sampled", config(1024, 256), &sampled),
        ("wider, adapter", config(1024, 256), &with_lora),
        ("long, recomputed", config(512, 128), &long),
    ] {
        let plan = Plan::new(&config, options).expect("a plan");
        let (want, got) = (measured(&config, options), plan.total());
        let ratio = got as f64 / want as f64;
        assert!((0.85..1.15).contains(&ratio), "{name}: planned {got}, measured {want}: {plan:#?}");
    }
}

#[test]
fn the_largest_models_can_be_planned() {
    let config = ModelConfig {
        hidden_size: 8192,
        num_layers: 80,
        num_heads: 64,
        num_kv_heads: 8,
        head_dim: 128,
        intermediate_size: 28_672,
        vocab_size: 128_256,
        tied: false,
        max_positions: 8192,
        ..config(512, 128)
    };
    let options = PlanOptions {
        train: true,
        lora: None,
        reference: true,
        critic: true,
        prompts: 8,
        samples: 8,
        prompt_tokens: 512,
        completion_tokens: 512,
        generate: true,
        activation_limit: ACTIVATION_LIMIT,
        threads: 16,
    };
    let plan = Plan::new(&config, &options).expect("a plan");
    assert_eq!(plan.num_params, Layout::new(&config).num_params as u64);
    assert!(plan.num_params > 70_000_000_000 && plan.num_trained == plan.num_params);
    // Weights, two packed forms, gradient, two moments, and the reference with one packed form.
    assert!(plan.total() > 8 * 4 * plan.num_params, "{plan:#?}");
}
