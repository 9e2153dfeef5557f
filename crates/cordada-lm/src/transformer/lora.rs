//! Low-rank adapters in activation form: `y += s · B (A x)` beside a frozen matrix, which is never
//! changed nor written out in full.

use std::ops::Range;

use cordada_nn::Real;
use cordada_nn::kernel::{Isa, Panels, Size, Start, View, matmul_tn_view, matmul_view};

use super::tape::sized;

/// A linear layer of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// Queries, keys and values.
    Qkv,
    /// Output of the attention.
    Output,
    /// First layer of the perceptron (gate and up).
    Up,
    /// Second layer.
    Down,
}

/// Where one low-rank pair stands, and where it lies in the adapter's parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Block.
    pub block: usize,
    /// Linear layer.
    pub site: Site,
    /// Which outputs of the layer it adds to.
    pub outputs: Range<usize>,
    /// A: `[rank, inputs]`.
    pub a: Range<usize>,
    /// B: `[outputs, rank]`.
    pub b: Range<usize>,
    /// Width of the input.
    pub inputs: usize,
    /// Rank.
    pub rank: usize,
}

/// Adapters of all blocks, packed.
#[derive(Clone, Debug)]
pub struct Adapter<T> {
    isa: Isa,
    /// Parameters, see [`Place`].
    pub theta: Vec<T>,
    /// s = α / r.
    scale: T,
    pub(crate) blocks: Vec<AdapterBlock<T>>,
}

/// The adapters of one block: those of each [`Site`].
#[derive(Clone, Debug)]
pub(crate) struct AdapterBlock<T> {
    scale: T,
    sites: [Vec<Pair<T>>; 4],
}

/// One pair, packed for both ways.
#[derive(Clone, Debug)]
struct Pair<T> {
    place: Place,
    /// Width of the layer's whole output.
    width: usize,
    a_forward: Panels<T>,
    a_backward: Panels<T>,
    b_forward: Panels<T>,
    b_backward: Panels<T>,
}

impl<T: Real> Adapter<T> {
    /// Adapters at these places; `width(block, site)` is the number of a layer's outputs.
    ///
    /// # Panics
    ///
    /// If a place lies outside `theta` or the model.
    pub fn new(
        theta: Vec<T>,
        places: &[Place],
        scale: T,
        blocks: usize,
        width: impl Fn(usize, Site) -> usize,
    ) -> Self {
        let isa = Isa::detect();
        let empty = || AdapterBlock { scale, sites: [const { Vec::new() }; 4] };
        let mut all: Vec<AdapterBlock<T>> = (0..blocks).map(|_| empty()).collect();
        for place in places {
            let (r, i, o) = (place.rank, place.inputs, place.outputs.len());
            all[place.block].sites[place.site as usize].push(Pair {
                width: width(place.block, place.site),
                a_forward: Panels::for_views(isa, i, r),
                a_backward: Panels::for_views(isa, r, i),
                b_forward: Panels::for_views(isa, r, o),
                b_backward: Panels::for_views(isa, o, r),
                place: place.clone(),
            });
        }
        let mut adapter = Self { isa, theta, scale, blocks: all };
        adapter.pack();
        adapter
    }

    /// The ranks of all pairs of the first block, added: numbers that a row of it leaves.
    pub(crate) fn ranks(&self) -> usize {
        let sites = self.blocks.first().into_iter().flat_map(|b| &b.sites);
        sites.flatten().map(|pair| pair.place.rank).sum()
    }

    /// Packs the parameters anew after they have changed.
    pub fn pack(&mut self) {
        for pair in self.blocks.iter_mut().flat_map(|b| &mut b.sites).flatten() {
            let (a, b) = (&self.theta[pair.place.a.clone()], &self.theta[pair.place.b.clone()]);
            pair.a_forward.pack_transposed(a);
            pair.a_backward.pack(a);
            pair.b_forward.pack_transposed(b);
            pair.b_backward.pack(b);
        }
    }

    /// s = α / r.
    pub fn scale(&self) -> T {
        self.scale
    }

    /// `y += s · B (A x)` where the block has adapters at this site; keeps `s · A x`.
    pub(super) fn apply(
        block: Option<&AdapterBlock<T>>,
        site: Site,
        x: &[T],
        y: &mut [T],
        kept: &mut Vec<T>,
    ) {
        let Some(block) = block else { return };
        let pairs = &block.sites[site as usize];
        let Some(first) = pairs.first() else { return };
        let rows = x.len() / first.place.inputs;
        let mut kept = sized(kept, pairs.iter().map(|p| rows * p.place.rank).sum());
        for pair in pairs {
            let Place { inputs, rank, outputs, .. } = &pair.place;
            let (t, rest) = kept.split_at_mut(rows * rank);
            kept = rest;
            let size = Size { rows, depth: *inputs, columns: *rank };
            matmul_view(x, *inputs, &pair.a_forward, size, Start::Zero, t, *rank);
            for t in t.iter_mut() {
                *t *= block.scale;
            }
            let size = Size { rows, depth: *rank, columns: outputs.len() };
            let y = &mut y[outputs.start..];
            matmul_view(t, *rank, &pair.b_forward, size, Start::Old, y, pair.width);
        }
    }

    /// Backward through the adapters of a site: `dx += Aᵀ (s Bᵀ dy)`; keeps `s Bᵀ dy`.
    pub(super) fn apply_back(
        block: Option<&AdapterBlock<T>>,
        site: Site,
        dy: &[T],
        dx: &mut [T],
        kept: &mut Vec<T>,
    ) {
        let Some(block) = block else { return };
        let pairs = &block.sites[site as usize];
        let Some(first) = pairs.first() else { return };
        let rows = dx.len() / first.place.inputs;
        let mut kept = sized(kept, pairs.iter().map(|p| rows * p.place.rank).sum());
        for pair in pairs {
            let Place { inputs, rank, outputs, .. } = &pair.place;
            let (dt, rest) = kept.split_at_mut(rows * rank);
            kept = rest;
            let size = Size { rows, depth: outputs.len(), columns: *rank };
            let dy = &dy[outputs.start..];
            matmul_view(dy, pair.width, &pair.b_backward, size, Start::Zero, dt, *rank);
            for dt in dt.iter_mut() {
                *dt *= block.scale;
            }
            let size = Size { rows, depth: *rank, columns: *inputs };
            matmul_view(dt, *rank, &pair.a_backward, size, Start::Old, dx, *inputs);
        }
    }

    /// Gradients of a site's adapters: `dA += (s Bᵀ dy)ᵀ x`, `dB += dyᵀ (s A x)`.
    #[allow(clippy::too_many_arguments, reason = "what both ways left, and the gradient")]
    pub(super) fn gradient(
        &self,
        l: usize,
        site: Site,
        x: &[T],
        dy: &[T],
        mut kept: &[T],
        mut kept_back: &[T],
        grad: &mut [T],
    ) {
        for Pair { place, width, .. } in &self.blocks[l].sites[site as usize] {
            let rows = x.len() / place.inputs;
            let t;
            (t, kept) = kept.split_at(rows * place.rank);
            let dt;
            (dt, kept_back) = kept_back.split_at(rows * place.rank);
            let (x, t) = (View::dense(x, place.inputs), View::dense(t, place.rank));
            let dt = View::dense(dt, place.rank);
            matmul_tn_view(self.isa, dt, x, 0..place.rank, &mut grad[place.a.clone()]);
            let dy = View::dense(dy, *width).columns(place.outputs.clone());
            matmul_tn_view(self.isa, dy, t, 0..dy.width, &mut grad[place.b.clone()]);
        }
    }
}
