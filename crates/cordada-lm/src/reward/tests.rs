//! Terms on small responses, and how they are written.

use serde_json::json;

use super::*;

fn score_of(written: &str, example: &Example, text: &str) -> f64 {
    let (_, mut reward) = parse(written).unwrap();
    score(&mut *reward, example, text, 0, Finish::StopToken).unwrap()
}

fn score(
    reward: &mut dyn Reward,
    example: &Example,
    text: &str,
    tokens: usize,
    finish: Finish,
) -> Result<f64, Error> {
    let response = Response { example, prompt: "p", text, tokens, finish };
    let scores = reward.score(&[response])?;
    assert_eq!(scores.len(), 1);
    Ok(scores[0])
}

fn answer(value: impl Into<Value>) -> Example {
    Example::new("p").with_field("answer", value)
}

fn wrong(written: &str) -> String {
    parse(written).unwrap_err().to_string()
}

#[test]
fn exact_compares_whole_texts() {
    let four = answer("4 2");
    for (written, text, want) in [
        ("exact", " 4 2\n", 1.0),
        ("exact", "4  2", 0.0),
        ("exact", "4 2.", 0.0),
        ("exact", "", 0.0),
        ("exact,trim=false", " 4 2", 0.0),
        ("exact,trim=false", "4 2", 1.0),
    ] {
        assert_eq!(score_of(written, &four, text), want, "{written} {text:?}");
    }
    let several = answer(json!(["Rome", true, 3]));
    for (written, text, want) in [
        ("exact", "rome", 0.0),
        ("exact,ignore_case=true", "rome", 1.0),
        ("exact", "true", 1.0),
        ("exact", "3", 1.0),
        ("exact", "33", 0.0),
    ] {
        assert_eq!(score_of(written, &several, text), want, "{written} {text:?}");
    }
    let label = answer("no").with_field("label", "yes");
    assert_eq!(score_of("exact,field=label", &label, "yes"), 1.0);
}

#[test]
fn an_example_without_an_answer_is_named() {
    for (example, what) in [
        (Example::new("why?"), "missing"),
        (answer(Value::Null), "null"),
        (answer(json!([])), "an empty list"),
        (answer(json!({"a": 1})), "an object"),
    ] {
        for written in ["exact", "numeric", "extract:x"] {
            let (_, mut reward) = parse(written).unwrap();
            let error = score(&mut *reward, &example, "x", 0, Finish::StopToken).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(&format!("field \"answer\" is {what}")), "{error}");
            assert!(error.contains(&example.label()), "{error}");
        }
    }
}

#[test]
fn the_last_number_is_found() {
    for (text, want) in [
        ("I had 3 and got 4, so 7.", Some(7.0)),
        ("-3", Some(-3.0)),
        ("x = −2.5", Some(-2.5)),
        ("10-4", Some(4.0)),
        ("f(2)-4", Some(4.0)),
        ("5 - 3", Some(3.0)),
        ("$1,234,567.50", Some(1_234_567.5)),
        ("1,2", Some(2.0)),
        ("12345,678", Some(678.0)),
        ("1,0000", Some(0.0)),
        (".5", Some(0.5)),
        ("2e-3", Some(0.002)),
        ("1e999", None),
        ("none", None),
        ("", None),
    ] {
        assert_eq!(last_number(text), want, "{text:?}");
    }
}

#[test]
fn numeric_allows_its_tolerance_and_no_more() {
    let thousand = answer("#### 1,000");
    // 1 % of 1000 is 10; both limits are exact in binary.
    for (text, want) in [("1010", 1.0), ("1010.5", 0.0), ("990", 1.0), ("-1000", 0.0), ("x", 0.0)] {
        assert_eq!(score_of("numeric,tol=0.01", &thousand, text), want, "{text}");
    }
    assert_eq!(score_of("numeric", &answer(0.1), "0.10"), 1.0);
    assert_eq!(score_of("numeric", &answer(json!([1, 2])), "is 2"), 1.0);
    let (_, mut reward) = parse("numeric").unwrap();
    let error = score(&mut *reward, &answer("x"), "1", 0, Finish::StopToken).unwrap_err();
    assert!(error.to_string().contains("holds no number"), "{error}");
    assert!(wrong("numeric,tol=-1").contains("tol=-1 must be a number of at least 0"));
    assert!(wrong("numeric,tol=inf").contains("must be a number"));
}

#[test]
fn expressions_match_and_extract() {
    let example = answer("42");
    for (written, text, want) in [
        (r"match:^\d+$", "42", 1.0),
        (r"match:^\d+$", "42 ", 0.0),
        (r"match:a:b,c=d", "xa:b,c=dx", 1.0),
        (r"extract:is (\d+)", "it is 41, no, it is 42", 1.0),
        (r"extract:is (\d+)", "it is 42, no, it is 41", 0.0),
        (r"extract:\d+", "n 42", 1.0),
        (r"extract:is (\d+)", "42", 0.0),
        (r"format:a+|b", "aaa", 1.0),
        (r"format:a+|b", "aab", 0.0),
        (r"format:a+", "a\n", 0.0),
        ("json", "{\"a\": [1, null]} ", 1.0),
        ("json", "{\"a\": [1, null]} 2", 0.0),
        ("json", "", 0.0),
        ("contains:Because|so|?", "why? because", 2.0 / 3.0),
        ("contains:so", "some", 0.0),
        ("contains:a.c", "abc", 0.0),
        ("excludes:sorry|as an ai", "Sorry!", -1.0),
        ("excludes:sorry|as an ai", "sorrys", 0.0),
    ] {
        assert_eq!(score_of(written, &example, text), want, "{written} {text:?}");
    }
    assert!(wrong("match:(").contains("\"(\" is no regular expression: "));
    assert!(wrong("format:a)|(b").contains("is no regular expression"));
    assert!(wrong("contains:a||b").contains("empty word"));
}

#[test]
fn an_expression_cannot_run_away() {
    // Exponential for engines that backtrack.
    let text = "a".repeat(50_000) + "b";
    assert_eq!(score_of("match:^(a|a)*(a|a)*c$", &Example::new(""), &text), 0.0);
}

#[test]
fn lengths_follow_their_formulas() {
    let of = |written: &str, tokens| {
        let (_, mut reward) = parse(written).unwrap();
        score(&mut *reward, &Example::new(""), "", tokens, Finish::Length).unwrap()
    };
    for (written, tokens, want) in [
        ("length,max=64,soft=16", 48, 0.0),
        // (64 − 16 − 52) / 16
        ("length,max=64,soft=16", 52, -0.25),
        ("length,max=64,soft=16", 64, -1.0),
        ("length,max=64,soft=16", 65, -1.0),
        ("length,max=64", 64, 0.0),
        ("length,max=64", 65, -1.0),
        ("length,min=8", 8, 0.0),
        ("length,min=8", 6, -0.25),
        ("length,min=8", 0, -1.0),
        ("length,target=10", 10, 0.0),
        ("length,target=10", 13, -0.3),
        ("length,target=10", 5, -0.5),
        ("length,target=10", 90, -1.0),
        ("length,min=8,target=16", 6, -0.25 - 0.625),
    ] {
        assert!((of(written, tokens) - want).abs() < 1e-12, "{written} {tokens}");
    }
    for bad in
        ["length", "length,max=0", "length,soft=4", "length,max=4,soft=5", "length,max=4,min=5"]
    {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn ended_sees_why_a_response_ended() {
    let (_, mut reward) = parse("ended").unwrap();
    for (finish, want) in [
        (Finish::StopToken, 0.0),
        (Finish::StopString, 0.0),
        (Finish::Length, -1.0),
        (Finish::Context, -1.0),
    ] {
        assert_eq!(score(&mut *reward, &Example::new(""), "", 1, finish).unwrap(), want);
    }
}

#[test]
fn sums_report_their_terms() {
    let terms = ["exact,weight=2", "length,max=2,weight=0.5", "length,min=4,weight=0"];
    let mut reward = parse_all(&terms).unwrap();
    let (a, b) = (answer("x"), answer("y"));
    let of = |example, tokens| Response {
        example,
        prompt: "",
        text: "x",
        tokens,
        finish: Finish::StopToken,
    };
    // exact 1, 0; max 0, −1; min −0.75, −0.25.
    assert_eq!(reward.score(&[of(&a, 1), of(&b, 3)]).unwrap(), [2.0, -0.5]);
    let report = reward.report();
    let got: Vec<_> = report.iter().map(|t| (t.name.as_str(), t.weight, t.mean)).collect();
    assert_eq!(got, [("exact", 2.0, 0.5), ("length", 0.5, -0.5), ("length_2", 0.0, -0.5)]);
    assert!(report.iter().all(|t| (t.scored, t.unscored) == (2, 0)));
    assert!(parse_all::<&str>(&[]).unwrap_err().to_string().contains("there is no reward"));
    assert!(Weighted::new(vec![(f64::NAN, Box::new(Ended))]).is_err());
}

/// A term that cannot score the second response, or gives too few scores.
#[derive(Debug)]
struct Odd {
    scores: Vec<f64>,
}

impl Reward for Odd {
    fn name(&self) -> &'static str {
        "odd"
    }

    fn score(&mut self, _: &[Response<'_>]) -> Result<Vec<f64>, Error> {
        Ok(self.scores.clone())
    }
}

#[test]
fn what_a_term_cannot_score_has_no_sum() {
    let example = answer("x");
    let response =
        Response { example: &example, prompt: "", text: "x", tokens: 1, finish: Finish::StopToken };
    let sum = |weight, scores: &[f64]| {
        let odd = Box::new(Odd { scores: scores.to_vec() });
        let mut reward =
            Weighted::new(vec![(1.0, parse("exact").unwrap().1), (weight, odd)]).unwrap();
        let sums = reward.score(&[response, response])?;
        Ok::<_, Error>((sums, reward.report()))
    };
    let (sums, report) = sum(0.5, &[4.0, f64::NAN]).unwrap();
    assert!(sums[0] == 3.0 && sums[1].is_nan(), "{sums:?}");
    assert_eq!((report[1].mean, report[1].scored, report[1].unscored), (4.0, 1, 1));
    // A term that is only watched takes nothing away.
    assert_eq!(sum(0.0, &[4.0, f64::NAN]).unwrap().0, [1.0, 1.0]);
    let error = sum(1.0, &[1.0]).unwrap_err().to_string();
    assert_eq!(error, "reward \"odd\": gave 1 scores for 2 responses");
}

#[test]
fn mistakes_in_writing_get_a_hint() {
    for (written, want) in [
        ("exakt", "there is no \"exakt\", did you mean \"exact\"?; known: exact, numeric, "),
        ("", "there is no \"\"; known:"),
        ("length,maxx=3", "has no option \"maxx\", did you mean \"max\"?; it has: max, soft, "),
        ("length:max=64", "takes nothing after a colon; write for example \"length,max=64,"),
        ("length,64", "\"64\" is not KEY=VALUE"),
        ("length,max=1,max=2", "option \"max\" is set twice"),
        ("length,max=-1", "max=-1 is no number of tokens"),
        ("match", "needs a regular expression after a colon"),
        ("match:", "needs a regular expression after a colon"),
        ("exact,weight=heavy", "weight=heavy is no number"),
        ("exact,weight=inf", "weight=inf must be a number"),
        ("exact,trim=ja", "trim=ja is no true or false"),
        ("command:sh 'x", "quotation mark that is not closed"),
        ("command:  ", "names no program"),
        ("command,timeout=0:sh", "timeout=0 must be a number of at least 0.001"),
    ] {
        let got = wrong(written);
        assert!(got.contains(want) && got.contains(&format!("{written:?}")), "{got}");
    }
    assert_eq!(parse("exact, weight = -0.5").unwrap().0, -0.5);
}

#[test]
fn every_term_is_whole() {
    for (i, term) in TERMS.iter().enumerate() {
        assert!(TERMS[..i].iter().all(|t| t.name != term.name), "{}", term.name);
        assert!(!term.about.is_empty() && term.options.iter().all(|(_, about)| !about.is_empty()));
        assert!(term.example.starts_with(term.name), "{}", term.example);
        // Its example would start a program; its own tests do.
        if term.name != "command" {
            let (_, reward) = parse(term.example).unwrap();
            assert_eq!(reward.name(), term.name);
        }
    }
}
