use cordada_rl::train::RunConfig;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let ch: Vec<_> =
        a[3..].iter().map(|s| cordada_rl::config::parse_assignment(s).unwrap()).collect();
    let c = RunConfig::new(&a[1], &a[2], &ch).unwrap();
    let threads: usize = std::env::var("T").map(|x| x.parse().unwrap()).unwrap_or(1);
    let mut al = c.make(threads).unwrap();
    let t = std::time::Instant::now();
    while al.steps() < c.run.total_steps {
        let r = al.iterate().unwrap();
        if std::env::var("V").is_ok() {
            println!("{} {:?}", al.steps(), r.metrics);
        }
    }
    let s = t.elapsed().as_secs_f64();
    let e = c.evaluate(&*al).unwrap();
    println!(
        "{} seed {} {:.3}s {:.0} steps/s eval {:.1} +- {:.1}",
        c.run.env,
        c.run.seed,
        s,
        al.steps() as f64 / s,
        e.mean_return,
        e.std_return
    );
}
