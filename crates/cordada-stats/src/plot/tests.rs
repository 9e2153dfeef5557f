//! The SVG is read back with an XML parser and checked element by element.

use roxmltree::{Document, Node};

use super::*;
use crate::band::{Aligned, common_grid};
use crate::sample::Center;
use crate::testing::Random;

const ALGORITHMS: [&str; 14] = [
    "PPO",
    "TRPO",
    "A2C",
    "A3C",
    "REINFORCE",
    "REINFORCE+b",
    "SAC",
    "TD3",
    "DDPG",
    "DQN",
    "Double DQN",
    "C51",
    "SARSA",
    "Q-learning",
];

/// Ten runs that rise from `low` to about `high`.
fn series(name: &str, low: f64, high: f64, random: &mut Random) -> Series {
    let rate = 1.0 + 9.0 * random.uniform();
    let share = 0.6 + 0.4 * random.uniform();
    let runs: Vec<Curve> = (0..10)
        .map(|_| {
            let (rate, start) = (rate * (0.7 + 0.6 * random.uniform()), 3000.0 * random.uniform());
            let points: Vec<(f64, f64)> = (0..=200)
                .map(|k| {
                    let t = f64::from(k) / 200.0;
                    let rise = share * (1.0 - (-rate * t).exp()) + 0.03 * random.normal();
                    (start + t * 500_000.0, (low + (high - low) * rise).min(high))
                })
                .collect();
            Curve::new(points).unwrap()
        })
        .collect();
    let aligned = Aligned::new(&runs, &common_grid(&runs, 80).unwrap()).unwrap();
    let band = aligned.percentile_band(Center::Iqm, 0.8).unwrap();
    Series { name: name.to_owned(), band, runs: Vec::new() }
}

/// Panels with the given numbers of algorithms.
fn panels(counts: &[usize]) -> Vec<Panel> {
    let tasks = [
        ("CartPole-v1", 20.0, 500.0, Some(475.0)),
        ("Acrobot-v1", -500.0, -80.0, None),
        ("Pendulum-v1", -1400.0, -150.0, Some(-200.0)),
        ("HalfCheetah-v5", -300.0, 11_500.0, None),
        ("MountainCar-v0", -200.0, -100.0, Some(-110.0)),
        ("LunarLander-v3", -600.0, 280.0, Some(200.0)),
    ];
    let mut random = Random(11);
    let panel =
        |(&count, (title, low, high, threshold)): (&usize, (&str, f64, f64, Option<f64>))| Panel {
            title: title.to_owned(),
            x_label: "environment steps".to_owned(),
            y_label: "episode return".to_owned(),
            series: (0..count).map(|k| series(ALGORITHMS[k], low, high, &mut random)).collect(),
            threshold,
        };
    counts.iter().zip(tasks).map(panel).collect()
}

/// The document of panels with all that a plot can have.
fn full() -> String {
    let options = PlotOptions {
        title: "Return against environment steps".into(),
        caption: "Line: interquartile mean of 10 runs. Band: middle 80 % of the runs. ".repeat(3),
        ..PlotOptions::default()
    };
    learning_curves(&panels(&[14, 14, 14, 14, 8, 5]), &options).unwrap()
}

fn attribute(node: Node, name: &str) -> f64 {
    node.attribute(name).unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

fn elements<'a>(doc: &'a Document, tag: &'a str) -> impl Iterator<Item = Node<'a, 'a>> {
    doc.descendants().filter(move |node| node.has_tag_name(tag))
}

/// The numbers of a path: pairs, since all commands here but the last `h` take pairs.
fn numbers(d: &str) -> Vec<f64> {
    let separator = |c: char| c.is_ascii_alphabetic() || c == ' ';
    d.split(separator).filter(|s| !s.is_empty()).map(|s| s.parse().unwrap()).collect()
}

/// Left, right, top, bottom of a text, by the estimate of widths.
fn text_box(node: Node) -> (f64, f64, f64, f64) {
    let (x, y, size) = (attribute(node, "x"), attribute(node, "y"), attribute(node, "font-size"));
    let width = svg::text_width(node.text().unwrap_or(""), size);
    let left = match node.attribute("text-anchor") {
        Some("middle") => x - width / 2.0,
        Some("end") => x - width,
        _ => x,
    };
    (left, left + width, y - 0.75 * size, y + 0.2 * size)
}

/// The styles of the lines (not bands, not thin runs) by name of their group.
fn styles(svg: &str) -> Vec<(String, String)> {
    let doc = Document::parse(svg).unwrap();
    let mut styles = Vec::new();
    for path in elements(&doc, "path").filter(|path| path.attribute("stroke-width") == Some("1.8"))
    {
        let group = path.parent().unwrap();
        let Some(title) = group.children().find(|node| node.has_tag_name("title")) else {
            continue;
        };
        let dash = path.attribute("stroke-dasharray").unwrap_or("solid");
        let style = format!("{} {dash}", path.attribute("stroke").unwrap());
        styles.push((title.text().unwrap().to_owned(), style));
    }
    styles.sort();
    styles.dedup();
    styles
}

#[test]
fn every_algorithm_is_in_the_legend_and_at_the_end_of_its_curves() {
    let svg = full();
    let doc = Document::parse(&svg).unwrap();
    for (name, panels) in ALGORITHMS.iter().zip([6, 6, 6, 6, 6, 5, 5, 5, 4, 4, 4, 4, 4, 4]) {
        let shown = elements(&doc, "text").filter(|text| text.text() == Some(name)).count();
        assert_eq!(shown, 1 + panels, "{name}");
    }
    let texts: Vec<&str> = elements(&doc, "text").filter_map(|text| text.text()).collect();
    for text in ["CartPole-v1", "episode return", "environment steps", "threshold", "−1000", "200k"]
    {
        assert!(texts.contains(&text), "{text} is not in {texts:?}");
    }
}

#[test]
fn nothing_is_outside_the_picture_and_everything_is_a_number() {
    let default = PlotOptions::default();
    let high = Panel { threshold: Some(900.0), ..simple() };
    for svg in [
        full(),
        learning_curves(&panels(&[3]), &default).unwrap(),
        learning_curves(&[high], &default).unwrap(),
    ] {
        let doc = Document::parse(&svg).unwrap();
        let root = doc.root_element();
        let (width, height) = (attribute(root, "width"), attribute(root, "height"));
        assert_eq!(width, 900.0);
        let mut num_paths = 0;
        for path in elements(&doc, "path") {
            let d = path.attribute("d").unwrap();
            for pair in numbers(d).chunks_exact(2) {
                assert!(pair[0].is_finite() && pair[1].is_finite(), "{d}");
                assert!((0.0..=width).contains(&pair[0]), "{d}");
                assert!((0.0..=height).contains(&pair[1]), "{d}");
            }
            num_paths += 1;
        }
        assert!(num_paths >= 10);
    }
}

#[test]
fn no_text_is_clipped_or_covers_another() {
    let narrow = PlotOptions { width: 420.0, ..PlotOptions::default() };
    let bare = PlotOptions { end_labels: false, ..PlotOptions::default() };
    let mut many = panels(&[14, 2]);
    for k in 0..14 {
        let series = Series { name: format!("other {k}"), ..many[0].series[k].clone() };
        many[0].series.push(series);
    }
    for svg in [
        full(),
        learning_curves(&many, &narrow).unwrap(),
        learning_curves(&panels(&[14, 2, 7, 1]), &bare).unwrap(),
    ] {
        let doc = Document::parse(&svg).unwrap();
        let width = attribute(doc.root_element(), "width");
        let texts: Vec<Node> = elements(&doc, "text").collect();
        for (index, &text) in texts.iter().enumerate() {
            let a = text_box(text);
            assert!(a.0 >= 0.0 && a.1 <= width, "{:?} is clipped: {a:?}", text.text());
            for &other in &texts[..index] {
                let b = text_box(other);
                let apart = a.0 >= b.1 || b.0 >= a.1 || a.2 >= b.3 || b.2 >= a.3;
                assert!(apart, "{:?} covers {:?}", text.text(), other.text());
            }
            // The pieces of lines in the legend end in `h26`, save the threshold's.
            let samples = elements(&doc, "path").filter_map(|path| path.attribute("d"));
            for sample in samples.filter(|d| d.ends_with("h26")).map(numbers) {
                let beside = a.0 >= sample[0] + 26.0 || sample[0] >= a.1;
                let apart = beside || a.2 >= sample[1] || sample[1] >= a.3;
                assert!(apart, "{:?} covers a piece of a line", text.text());
            }
        }
    }
}

#[test]
fn a_name_has_one_style_everywhere_and_no_two_have_the_same() {
    let styles = styles(&full());
    // One entry per name: the same style in the legend's order, in every panel.
    assert_eq!(styles.len(), 14, "{styles:?}");
    let mut distinct: Vec<&str> = styles.iter().map(|(_, style)| style.as_str()).collect();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 14, "{styles:?}");
}

#[test]
fn listed_names_keep_their_styles_when_others_are_missing() {
    let mut few = panels(&[3]);
    few[0].series.remove(0);
    let names: Vec<String> = ALGORITHMS.iter().map(ToString::to_string).collect();
    let options = PlotOptions { names, ..PlotOptions::default() };
    let svg = learning_curves(&few, &options).unwrap();
    assert!(!svg.contains("PPO"));
    let expected = |name: &str| styles(&full()).into_iter().find(|(n, _)| n == name).unwrap();
    assert_eq!(styles(&svg), [expected("A2C"), expected("TRPO")]);
}

/// A panel with one curve through known points.
fn simple() -> Panel {
    let interval = |point: f64| crate::Interval { point, low: point - 100.0, high: point + 50.0 };
    let band = Band::new(vec![0.0, 100.0], vec![interval(100.0), interval(200.0)]).unwrap();
    let runs = vec![Curve::new([(0.0, 0.0), (100.0, 250.0)]).unwrap()];
    let series = vec![Series { name: "A".into(), band, runs }];
    Panel { title: "T".into(), series, threshold: Some(150.0), ..Panel::default() }
}

#[test]
fn curves_run_where_the_axes_say() {
    let svg = learning_curves(&[simple()], &PlotOptions::default()).unwrap();
    let doc = Document::parse(&svg).unwrap();
    let tick = |label: &str, anchor: &str| {
        let mut texts = elements(&doc, "text");
        texts
            .find(|t| t.text() == Some(label) && t.attribute("text-anchor") == Some(anchor))
            .unwrap()
    };
    let x = |label| attribute(tick(label, "middle"), "x");
    // Labels stand 3.8 below the value that they name.
    let y = |label| attribute(tick(label, "end"), "y") - 3.8;
    let path = |width: &str| {
        let mut paths = elements(&doc, "path");
        let found = paths.find(|path| path.attribute("stroke-width") == Some(width));
        numbers(found.unwrap().attribute("d").unwrap())
    };
    let close = |got: &[f64], want: &[f64]| {
        assert_eq!(got.len(), want.len());
        let near = got.iter().zip(want).all(|(g, w)| (g - w).abs() <= 0.11);
        assert!(near, "{got:?}, expected {want:?}");
    };
    close(&path("1.8"), &[x("0"), y("100"), x("100"), y("200")]);
    close(&path("0.7"), &[x("0"), y("0"), x("100"), y("250")]);
    let fill = elements(&doc, "path").find(|path| path.has_attribute("fill-opacity")).unwrap();
    let corners = [x("0"), y("150"), x("100"), y("250"), x("100"), y("100"), x("0"), y("0")];
    close(&numbers(fill.attribute("d").unwrap()), &corners);
    let dotted = |path: &Node| path.attribute("stroke-dasharray") == Some("1.5 3");
    // The first one is the legend's.
    let threshold = elements(&doc, "path").filter(dotted).nth(1).unwrap();
    let level = [x("0"), y("150"), x("100"), y("150")];
    close(&numbers(threshold.attribute("d").unwrap()), &level);
}

#[test]
fn names_are_escaped() {
    let mut panel = simple();
    panel.series[0].name = "<A> & \"B\" \u{1}\u{fffe}'C'".into();
    let svg = learning_curves(&[panel], &PlotOptions::default()).unwrap();
    let doc = Document::parse(&svg).unwrap();
    assert!(elements(&doc, "text").any(|text| text.text() == Some("<A> & \"B\" 'C'")));
}

#[test]
fn a_single_point_and_a_constant_can_be_drawn() {
    let mut panel = simple();
    let interval = crate::Interval { point: 0.0, low: 0.0, high: 0.0 };
    panel.series[0].band = Band::new(vec![7.0], vec![interval]).unwrap();
    panel.series[0].runs.clear();
    panel.threshold = None;
    let svg = learning_curves(&[panel], &PlotOptions::default()).unwrap();
    let doc = Document::parse(&svg).unwrap();
    assert!(elements(&doc, "path").any(|path| path.attribute("d").unwrap().ends_with("h4")));
    assert!(!svg.contains("NaN") && !svg.contains("inf") && !svg.contains("threshold"));
}

#[test]
fn unusable_plots_are_refused() {
    let default = PlotOptions::default();
    let draw = |panel: Panel, options: &PlotOptions| learning_curves(&[panel], options);
    assert_eq!(learning_curves(&[], &default), Err(Error::Empty { what: "panels" }));
    let empty = Panel { series: Vec::new(), ..simple() };
    assert!(matches!(draw(empty, &default), Err(Error::Empty { what: "series in a panel" })));
    let mut many = simple();
    many.series =
        (0..29).map(|k| Series { name: k.to_string(), ..many.series[0].clone() }).collect();
    assert_eq!(draw(many.clone(), &default), Err(Error::TooManyNames { count: 29, most: 28 }));
    many.series.pop();
    assert_eq!(styles(&draw(many, &default).unwrap()).len(), 28);
    let level = Panel { threshold: Some(f64::NAN), ..simple() };
    assert!(matches!(draw(level, &default), Err(Error::NonFinite { what: "threshold", .. })));
    for width in [100.0, f64::NAN, f64::INFINITY] {
        let options = PlotOptions { width, ..default.clone() };
        assert!(matches!(draw(simple(), &options), Err(Error::OutOfRange { what: "width", .. })));
    }
    let none = PlotOptions { columns: Some(0), ..default.clone() };
    assert!(matches!(draw(simple(), &none), Err(Error::OutOfRange { .. })));
    let mut long = simple();
    long.series[0].name = "a name that leaves no room for any curve".into();
    let narrow = PlotOptions { width: 400.0, ..default };
    assert!(matches!(draw(long, &narrow), Err(Error::TooNarrow { width: 400.0, .. })));
}
