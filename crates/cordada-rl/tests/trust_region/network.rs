//! A perceptron whose output a distribution acts by, as the tests of trust regions need it: the
//! gradient in θ, and products of the Fisher matrix with vectors by forward derivative, rows' Fisher
//! matrices and backward pass. All three are the crates' own.

use cordada_nn::{Mlp, Tape, Weights};
use cordada_rl::distribution::Distribution;

/// θ = log standard deviations that all rows share (none for most families) · perceptron.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) distribution: Distribution,
    pub(crate) mlp: Mlp,
    pub(crate) num_shared: usize,
}

/// A network at one θ, on rows of inputs.
#[derive(Debug)]
pub(crate) struct Point<'a> {
    network: &'a Network,
    x: &'a [f64],
    weights: Weights<f64>,
    tape: Tape<f64>,
    /// The distribution's parameters: `[rows, P]`.
    pub(crate) params: Vec<f64>,
}

impl Network {
    pub(crate) fn at<'a>(&'a self, theta: &[f64], x: &'a [f64]) -> Point<'a> {
        let (shared, theta) = theta.split_at(self.num_shared);
        let (mut weights, mut tape) = (self.mlp.weights(), Tape::new());
        self.mlp.pack(theta, &mut weights);
        let y = self.mlp.forward(&weights, x, &mut tape);
        let params = y.chunks_exact(self.mlp.outputs()).flat_map(|y| [y, shared].concat());
        let params = params.collect();
        Point { network: self, x, weights, tape, params }
    }
}

impl Point<'_> {
    /// Number of parameters of the distribution, P.
    fn width(&self) -> usize {
        self.network.distribution.num_params()
    }

    /// Jᵀ d, J being the derivative of all rows' parameters in θ.
    pub(crate) fn backward(&mut self, d_params: &[f64]) -> Vec<f64> {
        let Network { mlp, num_shared, .. } = self.network;
        let mut grad = vec![0.0; num_shared + mlp.num_params()];
        let (shared, theta) = grad.split_at_mut(*num_shared);
        let mut dy = Vec::new();
        for row in d_params.chunks_exact(self.width()) {
            let (of_network, of_shared) = row.split_at(mlp.outputs());
            dy.extend_from_slice(of_network);
            shared.iter_mut().zip(of_shared).for_each(|(sum, d)| *sum += d);
        }
        mlp.vjp(&self.weights, self.x, &mut self.tape, &dy, theta, None);
        grad
    }

    /// J v.
    pub(crate) fn forward_derivative(&mut self, v: &[f64]) -> Vec<f64> {
        let Network { mlp, num_shared, .. } = self.network;
        let (shared, theta) = v.split_at(*num_shared);
        let mut packed = mlp.weights();
        mlp.pack(theta, &mut packed);
        let mut dy = vec![0.0; self.x.len() / mlp.inputs() * mlp.outputs()];
        mlp.jvp(&self.weights, &packed, self.x, &mut self.tape, &mut dy);
        dy.chunks_exact(mlp.outputs()).flat_map(|dy| [dy, shared].concat()).collect()
    }

    /// F v = Σ_rows weight Jᵀ F_row J v.
    pub(crate) fn fisher_product(&mut self, row_weights: &[f64], v: &[f64]) -> Vec<f64> {
        let width = self.width();
        let mut d_params = self.forward_derivative(v);
        let mut product = vec![0.0; width];
        let rows = d_params.chunks_exact_mut(width).zip(self.params.chunks_exact(width));
        for ((d, params), weight) in rows.zip(row_weights) {
            self.network.distribution.fisher_product(params, None, d, &mut product);
            d.iter_mut().zip(&product).for_each(|(d, p)| *d = weight * p);
        }
        self.backward(&d_params)
    }
}
