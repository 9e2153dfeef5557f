//! Programs that do as they should, and those that do not: all are lines of `sh`.

use super::*;
use crate::data::Example;
use crate::generate::Finish;

/// Reads samples into `$line`; `$id` is a sample's id and `say` answers it.
const FRAME: &str = r#"say() { echo "{\"id\":$1,\"score\":$2}"; }
ids() { id=${line#*:}; id=${id%%,*}; }
while read -r line; do ids
BODY
done"#;

/// A program that does `body` for each sample.
fn command(body: &str, seconds: f64, max_restarts: usize) -> Command {
    let script = FRAME.replace("BODY", body);
    let options = CommandOptions { timeout: Duration::from_secs_f64(seconds), max_restarts };
    Command::new(vec!["sh".to_string(), "-c".to_string(), script], options).unwrap()
}

fn score(command: &mut Command, texts: &[&str]) -> Result<Vec<f64>, Error> {
    let example = Example::new("q").with_field("answer", 4);
    let response = |text| Response {
        example: &example,
        prompt: "the \"prompt\"\nof many words that go on and on and on for longer than fits",
        text,
        tokens: 1,
        finish: Finish::StopToken,
    };
    let responses: Vec<Response<'_>> = texts.iter().map(|t| response(t)).collect();
    command.score(&responses)
}

/// Scores, with `None` for NaN.
fn scores(command: &mut Command, texts: &[&str]) -> Vec<Option<f64>> {
    let scores = score(command, texts).unwrap();
    scores.into_iter().map(|s| (!s.is_nan()).then_some(s)).collect()
}

#[test]
fn samples_go_out_as_json_lines_and_ids_run_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seen");
    let body = format!("printf '%s\\n' \"$line\" >> '{}'; say $id 0.$id", path.display());
    let mut command = command(&body, 20.0, 0);
    assert_eq!(scores(&mut command, &["a\nb", "ü"]), [Some(0.0), Some(0.1)]);
    assert_eq!(scores(&mut command, &["c"]), [Some(0.2)]);
    let seen = std::fs::read_to_string(path).unwrap();
    let prompt =
        r#""prompt":"the \"prompt\"\nof many words that go on and on and on for longer than fits""#;
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(
        lines[0],
        format!(r#"{{"id":0,{prompt},"response":"a\nb","fields":{{"answer":4}}}}"#)
    );
    assert!(lines[1].contains(r#""response":"ü""#) && lines[2].starts_with(r#"{"id":2,"#));
    assert!(command.take_failures().is_empty());
}

#[test]
fn answers_may_come_in_any_order() {
    let body = "read -r line; first=$id; ids; say $id 2; say $first 1";
    assert_eq!(scores(&mut command(body, 20.0, 0), &["a", "b"]), [Some(1.0), Some(2.0)]);
}

#[test]
fn a_crash_costs_one_sample() {
    let body = "case $line in *die*) echo 'cannot judge this' >&2; exit 3;; esac; say $id 1";
    let mut command = command(body, 20.0, 2);
    let got = scores(&mut command, &["a", "die", "b", "die", "c"]);
    assert_eq!(got, [Some(1.0), None, Some(1.0), None, Some(1.0)]);
    let failures = command.take_failures();
    assert_eq!(failures.iter().map(|f| f.id).collect::<Vec<_>>(), [1, 3]);
    let text = failures[0].to_string();
    assert!(text.starts_with("sample 1 (\"the \\\"prompt\\\"\\nof many words"), "{text}");
    assert!(text.contains("exit status: 3") && text.contains("cannot judge this"), "{text}");
    assert!(command.take_failures().is_empty());
    // A batch without a failure sets the count of restarts back.
    assert_eq!(scores(&mut command, &["a"]), [Some(1.0)]);
    assert_eq!(scores(&mut command, &["die", "die", "b"]), [None, None, Some(1.0)]);
}

#[test]
fn restarts_are_limited() {
    let mut command = command("echo broken >&2; exit 1", 20.0, 1);
    let error = score(&mut command, &["a", "b", "c"]).unwrap_err().to_string();
    assert!(
        error.starts_with("reward \"command\": given up after 1 restarts; sample 1"),
        "{error}"
    );
    assert!(error.contains("broken") && error.contains(r#"{"id":1,"prompt":"#), "{error}");
    // Also where each batch has a single sample, so that none has to be sent again.
    let mut command = self::command("exit 1", 20.0, 1);
    assert_eq!(scores(&mut command, &["a"]), [None]);
    assert!(score(&mut command, &["a"]).is_err());
}

#[test]
fn a_program_that_hangs_is_ended() {
    let body = "case $line in *hang*) exec sleep 1000;; esac; say $id 1";
    let mut command = command(body, 0.5, 1);
    let begin = Instant::now();
    assert_eq!(scores(&mut command, &["a", "hang", "b"]), [Some(1.0), None, Some(1.0)]);
    assert!(begin.elapsed() < Duration::from_secs(20), "the time limit did not hold");
    let failures = command.take_failures();
    assert!(failures[0].problem.contains("no answer within 0.5 s"), "{failures:?}");
}

#[test]
fn a_score_that_is_no_number_costs_its_own_sample() {
    let body = "case $line in *nan*) say $id NaN;; *null*) say $id null;; *text*) say $id '\\\"1\\\"';; \
                *none*) echo \"{\\\"id\\\":$id}\";; *big*) say $id 1e999;; *) say $id 1;; esac";
    let mut command = command(body, 20.0, 0);
    let got = scores(&mut command, &["a", "nan", "null", "text", "none", "big", "b"]);
    assert_eq!(got, [Some(1.0), None, None, None, None, None, Some(1.0)]);
    let failures = command.take_failures();
    assert_eq!(failures.iter().map(|f| f.id).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert!(failures.iter().all(|f| f.problem.contains("has no finite score")), "{failures:?}");
}

#[test]
fn a_line_that_is_no_answer_is_shown() {
    let mut command = command("echo 'loading the model'; say $id 1", 20.0, 0);
    let error = score(&mut command, &["a"]).unwrap_err().to_string();
    assert!(error.contains("the program wrote \"loading the model\" instead of"), "{error}");
    for noise in ["printf '\\377\\376\\n'", "echo 17", "echo '{\"score\":1}'", "echo '{\"id\":-1}'"]
    {
        let mut command = self::command(noise, 20.0, 0);
        let error = score(&mut command, &["a"]).unwrap_err().to_string();
        assert!(error.contains("instead of"), "{noise}: {error}");
    }
    // Empty lines are harmless.
    assert_eq!(scores(&mut self::command("echo; say $id 1", 20.0, 0), &["a"]), [Some(1.0)]);
}

#[test]
fn a_line_without_end_is_refused() {
    let mut command = command("head -c 3000000 /dev/zero; sleep 1000", 20.0, 0);
    let error = score(&mut command, &["a"]).unwrap_err().to_string();
    assert!(error.contains("a line of more than a MiB"), "{error}");
}

#[test]
fn answering_twice_is_noticed_if_it_differs() {
    // The last sample is answered last, so that both answers to the first are read.
    let mut command = command("say $id 1; say $id $((id + 1))", 20.0, 0);
    assert_eq!(scores(&mut command, &["a", "b", "c"])[..2], [Some(1.0), None]);
    assert!(command.take_failures()[0].problem.contains("answered twice: 1 and 2"));
}

#[test]
fn answers_for_unknown_ids_are_ignored_but_told() {
    let mut command = command("say 99 1; say $id 1", 20.0, 0);
    assert_eq!(scores(&mut command, &["a"]), [Some(1.0)]);
    let mut command = self::command("say 99 1", 0.5, 0);
    let error = score(&mut command, &["a"]).unwrap_err().to_string();
    assert!(error.contains("1 answers that nobody waited for, the first for id 99"), "{error}");
}

#[test]
fn a_large_batch_does_not_block() {
    // Far more than the pipes hold in both directions, and on the one for messages.
    let mut command = command("echo \"$line\" >&2; say $id 1", 60.0, 0);
    let long = "x".repeat(2000);
    let texts = vec![long.as_str(); 500];
    assert_eq!(scores(&mut command, &texts), vec![Some(1.0); 500]);
}

#[test]
fn a_program_that_is_not_there_is_named_at_once() {
    let error = super::super::parse("command:no-such-program-here --x").unwrap_err().to_string();
    assert!(error.contains("\"no-such-program-here\" cannot be started"), "{error}");
    let (_, mut reward) = super::super::parse("command,timeout=20:sh -c 'cat >/dev/null'").unwrap();
    assert_eq!(reward.score(&[]).unwrap(), [0.0; 0]);
}

#[test]
fn the_program_ends_with_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pid");
    // Ignores that its input ends and that it is asked to go.
    let body =
        format!("echo $$ > '{}'; trap '' TERM HUP; say $id 1; exec sleep 1000", path.display());
    let mut command = command(&body, 20.0, 0);
    assert_eq!(scores(&mut command, &["a"]), [Some(1.0)]);
    let pid = std::fs::read_to_string(&path).unwrap();
    let alive = |pid: &str| {
        let probe = format!("kill -0 {pid} 2>/dev/null");
        std::process::Command::new("sh").args(["-c", &probe]).status().unwrap().success()
    };
    assert!(alive(pid.trim()));
    drop(command);
    assert!(!alive(pid.trim()));
}

#[test]
fn words_are_split_as_a_shell_would() {
    let words = |text| split(text).map(|w| w.join("|"));
    assert_eq!(words("a  b\tc").unwrap(), "a|b|c");
    assert_eq!(words("sh -c 'x \"y\"' \"\" a'b c'd").unwrap(), "sh|-c|x \"y\"||ab cd");
    assert_eq!(words(r"C:\bin\x").unwrap(), r"C:\bin\x");
    assert!(split("a 'b").is_none() && split(" ").unwrap().is_empty());
}
