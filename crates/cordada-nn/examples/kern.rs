use cordada_nn::kernel::*;
use std::time::Instant;
fn best(mut f: impl FnMut()) -> f64 {
    let mut b = f64::MAX;
    for _ in 0..200 {
        let n = 20;
        let t = Instant::now();
        for _ in 0..n {
            f();
        }
        b = b.min(t.elapsed().as_secs_f64() / n as f64);
    }
    b
}
fn main() {
    for _ in 0..5 {
        let t = Instant::now();
        let s = multiply_add_chains::<f32>(Isa::detect(), 1000000);
        println!("peak {:.1} GF/s {s}", 2.0 * 24.0 * 16.0 * 1e6 / t.elapsed().as_secs_f64() / 1e9);
    }
    for isa in Isa::available().take(2) {
        println!("{isa:?}");
        for (m, k, n) in [
            (64, 64, 64),
            (128, 64, 64),
            (64, 4, 64),
            (64, 64, 2),
            (128, 256, 256),
            (256, 256, 256),
        ] {
            let a = vec![0.5f32; m * k];
            let b = vec![0.25f32; k * n];
            let mut c = vec![0f32; m * n];
            let mut p = Panels::new(isa, k, n);
            p.pack(&b);
            let bias = vec![0.1f32; n];
            let t = best(|| matmul(&a, &p, Start::Row(&bias), &mut c));
            let fl = 2.0 * (m * k * n) as f64;
            let t2 = best(|| p.pack_transposed(&b));
            let t2b = best(|| p.pack(&b));
            let d = vec![0.1f32; m * n];
            let mut g = vec![0f32; n * k];
            let t3 = best(|| matmul_tn(isa, &d, &a, (n, k), &mut g));
            println!(
                "{m}x{k}x{n}: fwd {:.2}us {:.1} GF/s | packT {:.2}us pack {:.2} | tn {:.2}us {:.1} GF/s",
                t * 1e6,
                fl / t / 1e9,
                t2 * 1e6,
                t2b * 1e6,
                t3 * 1e6,
                fl / t3 / 1e9
            );
        }
    }
}
