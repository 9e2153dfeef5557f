//! TRPO's step against stable-baselines3's form of it, run on small tanh networks: the family `trpo`
//! of the golden data.

#[path = "trust_region/network.rs"]
mod network;

use cordada_nn::{Activation, Mlp, MlpSpec};
use cordada_rl::distribution::{Categorical, DiagGaussian, Distribution};
use cordada_rl::estimate::normalize_advantages;
use cordada_rl::objective::surrogate;
use cordada_rl::trust_region::{Backtracking, ConjugateGradient, LineSearch, step_size};
use cordada_testkit::golden::{self, Case};

use network::{Network, Point};

#[test]
fn golden_trpo() {
    let mut rejected = 0;
    for case in golden::family("trpo") {
        match case.name.as_str() {
            "trpo_categorical" | "trpo_categorical_backtrack" | "trpo_categorical_rejected" => {
                Step::new(&case, Distribution::Categorical(Categorical::new(3))).check();
            }
            "trpo_gaussian" | "trpo_gaussian_backtrack" | "trpo_gaussian_rejected" => {
                Step::new(&case, Distribution::DiagGaussian(DiagGaussian::new(3))).check();
            }
            other => panic!("no test for the case {other}"),
        }
        rejected += usize::from(case.param("accepted_index") < 0.0);
    }
    assert_eq!(rejected, 2, "cases in which no step is good");
}

/// One step of TRPO from the data of a case.
struct Step<'a> {
    case: &'a Case,
    network: Network,
    theta: Vec<f64>,
    obs: &'a [f64],
    actions: &'a [f64],
    old_log_prob: &'a [f64],
    advantages: Vec<f64>,
    /// The data's divergence is a mean over the batch and, unlike ours, over the components of a
    /// real-valued action: ours times this.
    kl_scale: f64,
}

impl<'a> Step<'a> {
    fn new(case: &'a Case, distribution: Distribution) -> Self {
        let gaussian = matches!(distribution, Distribution::DiagGaussian(_));
        let num_shared = if gaussian { distribution.action_len() } else { 0 };
        let hidden = &case.tensor("input/param/l1.weight").shape;
        let mlp = Mlp::new(&MlpSpec {
            sizes: vec![hidden[1], hidden[0], distribution.num_params() - num_shared],
            activation: Activation::Tanh,
            output_activation: Activation::Identity,
            layer_norm: false,
            output_norm: false,
        });
        let kl_scale = 1.0 / distribution.action_len() as f64;
        let mut advantages = case.tensor("input/advantages").data.clone();
        normalize_advantages(&mut advantages);
        Self {
            case,
            network: Network { distribution, mlp, num_shared },
            theta: flat(case, "input/param"),
            obs: &case.tensor("input/obs").data,
            actions: &case.tensor("input/actions").data,
            old_log_prob: &case.tensor("input/old_log_prob").data,
            advantages,
            kl_scale,
        }
    }

    fn start(&self) -> Point<'_> {
        self.network.at(&self.theta, self.obs)
    }

    /// mean(r A), and its gradient in the distribution's parameters.
    fn surrogate(&self, params: &[f64]) -> (f64, Vec<f64>) {
        let pi = &self.network.distribution;
        let share = 1.0 / self.advantages.len() as f64;
        let (mut mean, mut d) = (0.0, vec![0.0; params.len()]);
        let width = pi.num_params();
        let rows = params.chunks_exact(width).zip(d.chunks_exact_mut(width));
        for (i, (params, d)) in rows.enumerate() {
            let action = &self.actions[i * pi.action_len()..][..pi.action_len()];
            let log_prob = pi.log_prob(params, None, action);
            let term = surrogate(log_prob, self.old_log_prob[i], self.advantages[i]);
            mean += share * term.objective;
            pi.add_score(params, None, action, share * term.psi, d);
        }
        (mean, d)
    }

    /// The mean KL(p ‖ q) of rows of parameters, as the data has it.
    fn kl(&self, p: &[f64], q: &[f64]) -> f64 {
        let pi = &self.network.distribution;
        let rows = p.chunks_exact(pi.num_params()).zip(q.chunks_exact(pi.num_params()));
        let sum: f64 = rows.map(|(p, q)| pi.kl(p, q, None)).sum();
        self.kl_scale * sum / self.advantages.len() as f64
    }

    fn check(&self) {
        let case = self.case;
        let mut point = self.start();
        let (value, d) = self.surrogate(&point.params);
        case.check("output/surrogate", &[value]);
        let g = point.backward(&d);
        case.check("output/surrogate_gradient", &g);

        let row_weights = vec![self.kl_scale / self.advantages.len() as f64; self.advantages.len()];
        let mut fisher = |v: &[f64], out: &mut [f64]| {
            out.copy_from_slice(&point.fisher_product(&row_weights, v));
        };
        self.check_fisher(&mut fisher);
        let x = self.check_conjugate_gradient(&g, &mut fisher);
        self.check_line_search(&x, value);
    }

    fn check_fisher(&self, mut fisher: impl FnMut(&[f64], &mut [f64])) {
        let (case, len) = (self.case, self.theta.len());
        let damping = case.param("damping");
        let mut products = Vec::new();
        for v in case.tensor("input/fvp_vectors").data.chunks_exact(len) {
            let mut product = vec![0.0; len];
            fisher(v, &mut product);
            products.extend(product.iter().zip(v).map(|(p, v)| p + damping * v));
        }
        case.check("output/fvp", &products);
        if case.has("output/fisher") {
            let mut columns = vec![0.0; len * len];
            for (i, column) in columns.chunks_exact_mut(len).enumerate() {
                let mut unit = vec![0.0; len];
                unit[i] = 1.0;
                fisher(&unit, column);
            }
            case.check("output/fisher", &columns);
        }
    }

    /// The direction from the data's starting point, after the check of those from 0.
    fn check_conjugate_gradient(
        &self,
        g: &[f64],
        mut fisher: impl FnMut(&[f64], &mut [f64]),
    ) -> Vec<f64> {
        let case = self.case;
        let (damping, tolerance) = (case.param("damping"), case.param("cg_residual_tol"));
        let max_steps = case.param("cg_max_steps") as usize;
        let mut residuals = Vec::new();
        let mut x = Vec::new();
        let mut steps = 0;
        for limit in 0..=max_steps {
            let mut solver = ConjugateGradient::new(limit, tolerance, damping);
            x = vec![0.0; g.len()];
            let solved = solver.solve(g, &mut x, &mut fisher);
            residuals.push(solved.residual);
            steps = solved.steps;
        }
        case.check("output/cg_residual_norm_sq", &residuals);
        case.check("output/cg_from_zero", &x);
        assert_eq!(steps as f64, case.param("cg_iterations_from_zero"), "{}", case.name);
        // With as many steps as it takes, the solution of the linear equations.
        let mut solver = ConjugateGradient::new(1000, 1e-24, damping);
        x.fill(0.0);
        let solved = solver.solve(g, &mut x, &mut fisher);
        assert!(solved.steps < 1000, "{}: no solution", case.name);
        case.check("output/exact_solution", &x);

        x.clone_from(&case.tensor("input/cg_x0").data);
        let mut solver = ConjugateGradient::new(max_steps, tolerance, damping);
        solver.solve(g, &mut x, &mut fisher);
        case.check("output/cg_direction_library", &x);
        // The product that comes for free is the one that a product would give.
        let mut product = vec![0.0; x.len()];
        fisher(&x, &mut product);
        for ((free, fx), x) in solver.product().iter().zip(&product).zip(&x) {
            let want = fx + damping * x;
            assert!((free - want).abs() <= 1e-11 * want.abs().max(1.0), "{free:e}, {want:e}");
        }
        let step = step_size(case.param("target_kl"), &x, solver.product()).expect("a step");
        case.check("output/step_size", &[step]);
        x
    }

    fn check_line_search(&self, x: &[f64], value: f64) {
        let case = self.case;
        let before = self.start().params;
        let (mut trace, mut theta) = (Vec::new(), self.theta.clone());
        let max_tries = case.param("line_search_max_iter") as usize;
        let mut search =
            Backtracking::new(case.param("target_kl"), case.param("shrink"), max_tries);
        let step = case.tensor("output/step_size").scalar();
        let found = search.line_search(&mut theta, (x, step), value, |theta| {
            let params = self.network.at(theta, self.obs).params;
            let (value, kl) = (self.surrogate(&params).0, self.kl(&params, &before));
            trace.extend([value, kl, self.kl(&before, &params)]);
            (value, kl)
        });
        case.check("output/line_search_trace", &trace);
        check_params(case, &theta);
        match found {
            LineSearch::Rejected => {
                assert_eq!(case.param("accepted_index"), -1.0, "{}", case.name);
                assert_eq!(theta, self.theta, "{}: θ is not restored", case.name);
            }
            LineSearch::Accepted { index, surrogate, kl } => {
                assert_eq!(index as f64, case.param("accepted_index"), "{}", case.name);
                assert_eq!([surrogate, kl], trace[3 * index..3 * index + 2]);
            }
        }
    }
}

/// The parameters of a case, in the order of θ.
fn flat(case: &Case, prefix: &str) -> Vec<f64> {
    names(case)
        .iter()
        .flat_map(|name| case.tensor(&format!("{prefix}/{name}")).data.clone())
        .collect()
}

fn names(case: &Case) -> Vec<&str> {
    let order = case.params["flat_order"].as_array().expect("a list of names");
    order.iter().map(|name| name.as_str().expect("a name")).collect()
}

/// θ against the parameters after the step.
fn check_params(case: &Case, theta: &[f64]) {
    let mut rest = theta;
    for name in names(case) {
        let key = format!("output/new_param/{name}");
        let (part, after) = rest.split_at(case.tensor(&key).data.len());
        case.check(&key, part);
        rest = after;
    }
    assert!(rest.is_empty(), "{}: θ is too long", case.name);
}
