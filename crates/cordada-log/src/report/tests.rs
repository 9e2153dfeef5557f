//! The page as a whole, made from small metrics files that are written here by hand.

use std::fs;

use super::*;

/// A run directory with these lines, and the page made from it.
fn report(lines: &str) -> Result<String, Error> {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDir::create(&folder.path().join("a")).unwrap();
    run.write_config("# 1 < 2 & \"3\"\nseed = 7\n").unwrap();
    fs::write(run.metrics_path(), lines).unwrap();
    let path = write_report(&run)?;
    assert_eq!(path, run.root().join("report.html"));
    Ok(fs::read_to_string(path).unwrap())
}

const START: &str = r#"{"event":"start","run":"runs/a","algo":"ppo","env":"Pendulum-v1","seed":7,"total_steps":3000,"threads":2,"version":"0.1.0"}
"#;

const RUN: &str = r#"{"event":"metrics","step":1000,"iteration":1,"rollout/episode_return":-1196.7,"train/entropy":1.25,"train/std":"nan","mine/number":3,"time":{"time/seconds":0.5,"time/steps_per_s":2000}}
{"event":"warning","step":1000,"message":"look: <script>alert('x')</script> & \"more\""}
{"event":"metrics","step":2000,"iteration":2,"rollout/episode_return":-800,"train/entropy":"inf","train/std":"nan","mine/number":4,"time":{"time/seconds":1.0,"time/steps_per_s":2000}}
{"event":"checkpoint","step":2000,"path":"c"}
{"event":"metrics","step":3000,"iteration":3,"rollout/episode_return":-400.5,"train/entropy":0.75,"train/std":"nan","mine/number":6,"time":{"time/seconds":1.5,"time/steps_per_s":2000}}
{"event":"evaluation","step":3000,"episodes":100,"mean_return":-166.37,"std_return":109.67,"mean_length":200,"deterministic":true}
"#;

const DONE: &str = r#"{"event":"done","run":"runs/a","steps":3000,"seconds":1.5,"steps_per_s":2000,"eval_return":-166.37}
"#;

/// The names of the opening tags in order. Panics if the tags are not properly nested.
fn tags(html: &str) -> Vec<&str> {
    let (mut open, mut seen) = (Vec::new(), Vec::new());
    for part in html.split('<').skip(1) {
        let (tag, _) = part.split_once('>').expect(part);
        let name = tag.split([' ', '/']).find(|word| !word.is_empty()).unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "before {part}");
        } else {
            seen.push(name);
            if !(tag.ends_with('/') || ["!doctype", "meta"].contains(&name)) {
                open.push(name);
            }
        }
    }
    assert_eq!(open, [""; 0]);
    seen
}

fn assert_has(html: &str, texts: &[&str]) {
    for text in texts {
        assert_eq!(html.matches(text).count(), 1, "{text} in {html}");
    }
}

#[test]
fn a_page_tells_the_run() {
    let html = report(&format!("{START}{RUN}{DONE}")).unwrap();
    assert_has(
        &html,
        &[
            "<title>ppo on Pendulum-v1, seed 7</title>",
            "<h1>ppo on Pendulum-v1</h1>",
            "Report of the run runs/a",
            "Return -1,197 at the start → <strong>-166.4 ± 109.7</strong>",
            "over 100 evaluation episodes",
            "<dt>Steps</dt><dd>3,000 of 3,000</dd>",
            "<dt>Iterations</dt><dd>3</dd>",
            "<dt>Time</dt><dd>1.5 s</dd>",
            "<dt>Speed</dt><dd>2,000 steps/s</dd>",
            "<dt>Seed</dt><dd>7</dd>",
            "<dt>Threads</dt><dd>2</dd>",
            "<dt>Version</dt><dd>0.1.0</dd>",
            "train/entropy<small> nats</small></th><td>0.75</td><td>0.75</td><td>1.25</td>",
            "train/std<small> action</small></th><td>nan</td><td>nan</td><td>nan</td>",
            "mine/number<small></small></th><td>6</td><td>3</td><td>6</td>",
            "eval/mean_length<small> steps</small></th><td>200</td><td>200</td><td>200</td>",
            "<p><small>1 value is not finite and left out.</small></p>",
            "<p><small>3 values are not finite and left out.</small></p>",
            "<pre class=\"card\"># 1 &lt; 2 &amp; &quot;3&quot;\nseed = 7\n</pre>",
        ],
    );
    assert!(!html.contains("not finished") && !html.contains("Processes"));
}

#[test]
fn every_metric_that_can_be_drawn_has_one_chart_in_the_order_of_the_list() {
    let html = report(&format!("{START}{RUN}{DONE}")).unwrap();
    assert_eq!(tags(&html).iter().filter(|tag| **tag == "svg").count(), 5);
    let labels: Vec<&str> =
        html.split("aria-label=\"").skip(1).map(|rest| rest.split_once('"').unwrap().0).collect();
    let expected = [MAIN, "train/entropy", "time/seconds", "time/steps_per_s", "mine/number"];
    assert_eq!(labels, expected);
    // 1000, 2000 and 3000 of 3000 steps; the return from −1.2k to 0: −800 is ⅔ down.
    assert_has(
        &html,
        &[
            r#"<path class="dots" d="M333.3 398.9h0M666.7 266.7h0M1000 133.5h0"/>"#,
            r#"<path class="mean" d="M333.3 398.9L666.7 266.7L1000 133.5"/>"#,
            r#"<path class="mark" d="M1000 55.5h0"/>"#,
        ],
    );
    assert!(html.contains(&escape(find_metric("train/entropy").unwrap().trouble)));
    assert!(html.contains(&escape(find_metric(MAIN).unwrap().summary)));
}

#[test]
fn nothing_runs_and_nothing_is_loaded() {
    let html = report(&format!("{START}{RUN}{DONE}")).unwrap();
    assert_has(
        &html,
        &[
            "step 1,000: look: &lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;more&quot;",
        ],
    );
    for forbidden in ["<script", "http", "src=", "href", "url(", "@import"] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    let evil = START.replace("Pendulum-v1", "</title><img>").replace("runs/a", "<b>");
    let run = RUN.replace("mine/number", "mine/\\\"><i>");
    let html = report(&format!("{evil}{run}")).unwrap();
    let seen = tags(&html);
    assert!(!seen.contains(&"img") && !seen.contains(&"b"));
    // The legend of the large chart: iterations and evaluation; so few have no running mean.
    assert_eq!(seen.iter().filter(|tag| **tag == "i").count(), 2);
}

#[test]
fn a_run_that_ended_early_says_so() {
    let torn = format!("{START}{RUN}{{\"event\":\"metr");
    let stopped = report(&torn).unwrap();
    assert_has(&stopped, &["The run is not finished:", "<dt>Time</dt><dd>1.5 s</dd>"]);

    let failure = "{\"event\":\"failed\",\"step\":3000,\"message\":\"a <b> is nan\"}\n";
    let failed = report(&format!("{START}{RUN}{failure}")).unwrap();
    assert_has(
        &failed,
        &["<strong>The run failed</strong> at step 3,000: a &lt;b&gt; is nan</div>"],
    );
    assert!(!failed.contains("not finished"));

    // Two processes of 1.5 s; the second one reached the end.
    let resumed = report(&format!("{START}{RUN}{failure}{START}{RUN}{DONE}")).unwrap();
    assert_has(&resumed, &["<dt>Time</dt><dd>3.0 s</dd>", "<dt>Processes</dt><dd>2</dd>"]);
    assert!(!resumed.contains("failed"));
}

#[test]
fn an_empty_run_has_a_page() {
    for lines in ["", START] {
        let html = report(lines).unwrap();
        assert_has(&html, &["There are no metrics yet", "<dt>Steps</dt>", "seed = 7"]);
        assert!(!tags(&html).contains(&"svg") && !html.contains("Return"));
    }
    let folder = tempfile::tempdir().unwrap();
    let run = RunDir::create(&folder.path().join("b")).unwrap();
    assert!(matches!(write_report(&run), Err(Error::Io { action: "read", .. })));
    run.write_config("").unwrap();
    let html = fs::read_to_string(write_report(&run).unwrap()).unwrap();
    assert_has(&html, &["<h1>b</h1>"]);
}

#[test]
fn a_damaged_line_is_named() {
    let error = report(&format!("{START}{{\"event\":\n{RUN}")).unwrap_err();
    assert!(matches!(error, Error::MalformedLine { line: 2, .. }), "{error}");
    let error = report("{\"step\":1}\n").unwrap_err();
    assert!(error.to_string().contains("line 1 is not an event (it has no key `event`)"));
}

#[test]
fn a_long_run_has_a_small_page_and_few_warnings() {
    let mut lines = START.to_owned();
    for iteration in 1..=20_000_u64 {
        let _ = write!(
            lines,
            "{{\"event\":\"metrics\",\"step\":{0},\"iteration\":{iteration}",
            128 * iteration
        );
        for (index, metric) in METRICS.iter().filter(|m| m.deterministic).enumerate() {
            let value = ((iteration * (index as u64 + 7) * 7919) % 1009) as f64 / 3.0;
            let _ = write!(lines, ",\"{}\":{value}", metric.name);
        }
        lines.push_str("}\n");
        let _ = writeln!(lines, "{{\"event\":\"warning\",\"step\":{iteration},\"message\":\"m\"}}");
    }
    let html = report(&lines).unwrap();
    assert!(html.len() < 500_000, "{}", html.len());
    assert_eq!(html.matches("<li>").count(), 51);
    assert_has(&html, &["<li>and 19,950 more</li>"]);
}
