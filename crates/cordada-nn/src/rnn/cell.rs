//! The recurrent cells: names and equations.

/// What a recurrent network does at each step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cell {
    /// Long short-term memory with a forget gate; gates i, f, g, o.
    ///
    /// ```text
    /// i, f, o = σ(W_i x + b_i + W_h h + b_h)    g = tanh(W_i x + b_i + W_h h + b_h)
    /// c' = f c + i g    h' = o tanh c'
    /// ```
    ///
    /// # Source
    ///
    /// Hochreiter and Schmidhuber 1997; forget gate: Gers, Schmidhuber and Cummins 2000.
    #[default]
    Lstm,
    /// Gated recurrent unit; gates r, z, n. As in `PyTorch`, and unlike the paper, r multiplies the
    /// state after its product.
    ///
    /// ```text
    /// r, z = σ(W_i x + b_i + W_h h + b_h)    n = tanh(W_i x + b_i + r (W_h h + b_h))
    /// h' = (1 − z) n + z h
    /// ```
    ///
    /// # Source
    ///
    /// Cho et al. 2014, arXiv:1406.1078, eqs. (5) to (8).
    Gru,
}

impl Cell {
    /// Every cell.
    pub const ALL: [Self; 2] = [Self::Lstm, Self::Gru];

    /// Name in configs: `lstm` or `gru`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lstm => "lstm",
            Self::Gru => "gru",
        }
    }

    /// The cell of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.name() == name)
    }

    /// Number of gates.
    pub(super) fn gates(self) -> usize {
        match self {
            Self::Lstm => 4,
            Self::Gru => 3,
        }
    }
}
