//! Reading, tokens and batches on small data.

use std::path::Path;

use cordada_env::{Persist, StateReader, StateWriter};
use serde_json::json;

use super::*;
use crate::batch::Group;
use crate::chat::ChatTemplate;
use crate::tokenizer::{BpeOptions, Special, Tokenizer, Unit};

fn read(text: &[u8]) -> Result<Vec<Example>, String> {
    let mut reader = text;
    parse_examples(&mut reader, Path::new("data.jsonl")).map_err(|e| e.to_string())
}

fn problem(text: &[u8]) -> String {
    read(text).unwrap_err()
}

#[test]
fn every_form_is_read_and_other_fields_are_kept() {
    let text = "\u{feff}{\"prompt\":\"a\",\"completion\":\"b\",\"source\":{\"x\":1}}\r\n\n\
        {\"prompt\":\"2+2\",\"answer\":4}\n\
        {\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"completion\":null}\n\
        {\"prompt\":[{\"role\":\"user\",\"content\":\"q\"}],\
         \"completion\":[{\"role\":\"assistant\",\"content\":\"r\"}]}\n{\"text\":\"all\"}";
    let got = read(text.as_bytes()).unwrap();
    let conversation = |text: &str| Prompt::Messages(vec![Message::new("user", text)]);
    let with = |prompt, completion: Option<&str>| Example {
        prompt,
        completion: completion.map(str::to_string),
        fields: Map::new(),
    };
    assert_eq!(
        got,
        [
            Example::new("a").with_completion("b").with_field("source", json!({"x": 1})),
            Example::new("2+2").with_field("answer", 4),
            with(conversation("hi"), None),
            with(conversation("q"), Some("r")),
            Example::new("").with_completion("all"),
        ]
    );
}

#[test]
fn problems_name_file_line_and_field() {
    let good = b"{\"prompt\":\"a\"}\n".as_slice();
    let cases: &[(&[u8], &str)] = &[
        (b"{\"prompt\": }", "line 2: not JSON at column 12: expected value"),
        (b"[1]", "line 2: is a list; it must be an object"),
        (b"{\"prompt\":7}", "field \"prompt\" is a number; it must be a text or list of messages"),
        (b"{\"prompt\":\"a\",\"completion\":true}", "field \"completion\" is true or false"),
        (b"{\"prompt\":\"a\",\"completion\":[]}", "a list of one message"),
        (
            b"{\"question\":\"a\"}",
            "has no \"prompt\", \"messages\" or \"text\", but \"question\"; rename the field",
        ),
        (b"{\"prompt\":\"a\",\"messages\":[]}", "has both \"prompt\" and \"messages\""),
        (b"{\"messages\":[]}", "field \"messages\" is an empty list"),
        (b"{\"messages\":[{\"content\":\"x\"}]}", "field \"messages\": message 0"),
        (b"{\"text\":\"a\",\"completion\":\"b\"}", "rename \"text\" to \"prompt\""),
        (b"{\"text\":[]}", "field \"text\" is a list; it must be a text"),
        (b"{\"prompt\":\"\xff\"}", "line 2: byte 12 is not UTF-8"),
    ];
    for (line, want) in cases {
        let got = problem(&[good, line].concat());
        assert!(got.starts_with("data.jsonl: line 2: ") && got.contains(want), "{got}");
    }
    for empty in [&b""[..], b"\n  \n"] {
        assert!(problem(empty).contains("data.jsonl: holds no example"));
    }
}

#[test]
fn a_huge_line_and_deep_nesting_are_refused() {
    // Endless input without a line feed: reading must stop by itself.
    let mut endless = std::io::BufReader::new(std::io::repeat(b'x'));
    let error = parse_examples(&mut endless, Path::new("big")).unwrap_err().to_string();
    assert!(error.contains("line 1: longer than 64 MiB"), "{error}");
    let deep = [b"{\"prompt\":", "[".repeat(100_000).as_bytes()].concat();
    assert!(problem(&deep).contains("recursion limit"));
}

#[test]
fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.jsonl");
    let error = read_examples(&path).unwrap_err().to_string();
    assert!(error.contains("none.jsonl"), "{error}");
    std::fs::write(&path, "{\"prompt\":\"a\"}\n").unwrap();
    assert_eq!(read_examples(&path).unwrap(), [Example::new("a")]);
}

/// Ids: `<eos>` 1, a 3, b 4, c 5, d 6.
fn letters() -> Tokenizer {
    Tokenizer::from_vocabulary(&["a", "b", "c", "d"], Unit::Character, 8).unwrap()
}

#[test]
fn only_the_answer_is_scored_and_it_ends() {
    let examples = [
        Example::new("ab").with_completion("cd"),
        Example::new("").with_completion("abc"),
        Example::new("a").with_completion("b<eos>"),
    ];
    let options = TokenizeOptions::new(8, &[1]);
    let got = tokenize_answers(&letters(), &examples, &options).unwrap();
    let group = |prompt: &[u32], answer: &[u32]| Group::new(prompt.to_vec(), vec![answer.to_vec()]);
    // The text alone: its first token has nothing before it. The end token is not doubled.
    let want = [group(&[3, 4], &[5, 6, 1]), group(&[3], &[4, 5, 1]), group(&[3], &[4, 1])];
    assert_eq!(got.items, want);
    let report = DataReport {
        examples: 3,
        kept: 3,
        tokens: 12,
        scored: 8,
        longest: 5,
        ..DataReport::default()
    };
    assert_eq!(got.report, report);
    let options = TokenizeOptions::new(8, &[]);
    let open = tokenize_answers(&letters(), &examples[..1], &options).unwrap();
    assert_eq!(
        (open.items[0].completions[0].as_slice(), open.report.without_end),
        (&[5, 6][..], 1)
    );
}

#[test]
fn what_is_cut_or_dropped_is_counted_and_limited() {
    let example = |p: &str, c: &str| Example::new(p).with_completion(c);
    // With the end token 3, 5, 6 and 6 tokens.
    let examples =
        [example("a", "b"), example("a", "bcd"), example("a", "abcd"), example("abcd", "a")];
    let mut options = TokenizeOptions::new(4, &[1]);
    options.max_lost_share = 0.75;
    let got = tokenize_answers(&letters(), &examples, &options).unwrap();
    assert_eq!((got.indices, got.report.dropped, got.report.truncated), (vec![0], 3, 0));
    options.overlong = Overlong::Cut;
    let got = tokenize_answers(&letters(), &examples, &options).unwrap();
    assert_eq!(got.indices, [0, 1, 2]);
    assert_eq!(got.items[2], Group::new(vec![3], vec![vec![3, 4, 5]]));
    assert_eq!((got.report.dropped, got.report.truncated, got.report.longest), (1, 2, 6));
    // The first ends whole; cut ones do not count as answers without an end.
    assert_eq!((got.report.tokens, got.report.without_end), (3 + 4 + 4, 0));
    options.max_lost_share = 0.74;
    let error = tokenize_answers(&letters(), &examples, &options).unwrap_err().to_string();
    assert!(error.contains("1 of 4 examples are left out and 2 are cut (75.0 %"), "{error}");
    options.max_lost_share = 1.0;
    assert!(tokenize_answers(&letters(), &examples[3..], &options).is_err(), "nothing is left");
    let got = tokenize_prompts(&letters(), &examples, &TokenizeOptions::new(4, &[1])).unwrap();
    assert_eq!(got.items[3], [3, 4, 5, 6]);
    let mut options = TokenizeOptions::new(3, &[1]);
    options.max_lost_share = 0.25;
    let got = tokenize_prompts(&letters(), &examples, &options).unwrap();
    assert_eq!((got.indices, got.report.dropped), (vec![0, 1, 2], 1));
}

#[test]
fn a_prompt_that_is_no_beginning_is_an_error() {
    let options = BpeOptions { vocab_size: 300, special_tokens: Vec::new() };
    let tokenizer = Tokenizer::train_bpe(&["say hello say hello say hello"], &options).unwrap();
    let options = TokenizeOptions::new(64, &[]);
    let good = [Example::new("say").with_completion(" hello")];
    let got = tokenize_answers(&tokenizer, &good, &options).unwrap();
    let text = tokenizer.decode(&got.items[0].completions[0], Special::Skip).unwrap();
    assert_eq!(text, " hello");
    // The space joins the word, so the model would see other tokens than it is asked with.
    let bad = [good[0].clone(), Example::new("say ").with_completion("hello")];
    let error = tokenize_answers(&tokenizer, &bad, &options).unwrap_err().to_string();
    assert!(error.contains("example 2 (\"say \")"), "{error}");
    assert!(error.contains("move the space at the end of the prompt"), "{error}");
    let error = tokenize_answers(&tokenizer, &[Example::new("x")], &options).unwrap_err();
    assert!(error.to_string().contains("has no answer to learn"), "{error}");
}

fn chat(source: &str) -> Tokenizer {
    letters().with_chat_template(ChatTemplate::new(source, Path::new("chat")).unwrap())
}

fn exchange() -> Example {
    let says = |role, text| Message::new(role, text);
    let messages =
        [says("user", "a"), says("assistant", "b"), says("user", "c"), says("assistant", "d")];
    Example { prompt: Prompt::Messages(messages.to_vec()), completion: None, fields: Map::new() }
}

#[test]
fn conversations_score_what_the_assistant_said() {
    let options = TokenizeOptions::new(16, &[1]);
    // Every message ends with <eos>, and another token follows it.
    let plain = chat("{% for m in messages %}{{ m.content }}<eos>a{% endfor %}");
    let got = tokenize_answers(&plain, &[exchange()], &options).unwrap();
    let asked = vec![3, 1, 3, 4, 1, 3, 5, 1, 3];
    assert_eq!(got.items, [Group::new(asked.clone(), vec![vec![6, 1]])]);
    let got = tokenize_prompts(&plain, &[exchange()], &options).unwrap();
    assert_eq!(got.items, [asked]);
    let marked = chat(
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<eos>\
         {% endgeneration %}{% else %}{{ m.content }}{% endif %}a{% endfor %}",
    );
    let got = tokenize_answers(&marked, &[exchange()], &options).unwrap();
    // a a | b <eos> a c a d <eos>
    let group = Group {
        prompt: vec![3, 3],
        completions: vec![vec![4, 1, 3, 5, 3, 6, 1]],
        scored: vec![vec![true, true, false, false, false, true, true]],
    };
    assert_eq!((got.items, got.report.scored), (vec![group], 4));
    let mut asked = exchange();
    asked.completion = Some("bb".to_string());
    let got = tokenize_answers(&plain, &[asked], &options).unwrap();
    assert_eq!(got.items[0].completions, [[4, 4, 1]]);
    let mut silent = exchange();
    silent.prompt = Prompt::Messages(vec![Message::new("user", "a")]);
    for tokenizer in [&plain, &marked] {
        let error = tokenize_answers(tokenizer, &[silent.clone()], &options).unwrap_err();
        assert!(error.to_string().contains("has no answer to learn"), "{error}");
    }
}

fn epochs(batches: &mut Batches, n: usize) -> Vec<Vec<usize>> {
    (0..n * batches.per_epoch()).map(|_| batches.next_batch().to_vec()).collect()
}

#[test]
fn an_epoch_has_every_example_once() {
    let lengths: Vec<usize> = (0..101).map(|i| i * 7 % 13).collect();
    for order in [Order::Given, Order::Shuffled, Order::ByLength] {
        let mut cursor = Batches::new(lengths.clone(), 8, order, 3).unwrap();
        let all = epochs(&mut cursor, 2);
        assert_eq!(cursor.position(), (2, 0));
        let (first, second) = all.split_at(13);
        for epoch in [first, second] {
            let mut seen = epoch.concat();
            seen.sort_unstable();
            assert_eq!(seen, (0..101).collect::<Vec<_>>());
        }
        assert_eq!(first == second, order == Order::Given);
        let mut same = Batches::new(lengths.clone(), 8, order, 3).unwrap();
        assert_eq!(epochs(&mut same, 2), all);
        let mut other = Batches::new(lengths.clone(), 8, order, 4).unwrap();
        assert_eq!(epochs(&mut other, 2) == all, order == Order::Given);
    }
}

#[test]
fn batches_by_length_are_of_like_length_and_in_no_order_of_length() {
    let lengths: Vec<usize> = (0..256).map(|i| i * 37 % 64).collect();
    let mut cursor = Batches::new(lengths.clone(), 8, Order::ByLength, 1).unwrap();
    let mut firsts = Vec::new();
    for batch in epochs(&mut cursor, 1) {
        let of = |i: &usize| lengths[*i];
        // 256 examples are one window, and each of the 64 lengths is there 4 times.
        let (least, most) = (batch.iter().map(of).min(), batch.iter().map(of).max());
        assert_eq!(most.unwrap() - least.unwrap(), 1);
        firsts.push(least.unwrap());
    }
    assert!(!firsts.is_sorted());
}

#[test]
fn a_saved_cursor_goes_on_with_the_next_batch() {
    let lengths: Vec<usize> = (0..23).collect();
    for order in [Order::Shuffled, Order::ByLength] {
        for given in 0..14 {
            let mut whole = Batches::new(lengths.clone(), 4, order, 9).unwrap();
            for _ in 0..given {
                whole.next_batch();
            }
            let mut w = StateWriter::new();
            whole.save(&mut w);
            let bytes = w.into_bytes();
            let mut resumed = Batches::new(lengths.clone(), 4, order, 9).unwrap();
            // Loading must not depend on where the cursor was.
            resumed.next_batch();
            resumed.load(&mut StateReader::new(&bytes)).unwrap();
            assert_eq!(resumed.position(), whole.position());
            assert_eq!(epochs(&mut resumed, 2), epochs(&mut whole, 2), "after {given} batches");
        }
    }
}

#[test]
fn a_cursor_of_other_data_is_refused() {
    let mut w = StateWriter::new();
    Batches::new(vec![1; 9], 4, Order::Shuffled, 9).unwrap().save(&mut w);
    let bytes = w.into_bytes();
    let load = |lengths: usize, size, seed| {
        let mut cursor = Batches::new(vec![1; lengths], size, Order::Shuffled, seed).unwrap();
        cursor.load(&mut StateReader::new(&bytes))
    };
    load(9, 4, 9).unwrap();
    assert!(load(8, 4, 9).unwrap_err().to_string().contains("a number of examples of 9"));
    assert!(load(9, 3, 9).unwrap_err().to_string().contains("a batch size of 4"));
    assert!(load(9, 4, 8).unwrap_err().to_string().contains("the data seed 9"));
    assert!(Batches::new(Vec::new(), 4, Order::Given, 0).is_err());
    assert!(Batches::new(vec![1], 0, Order::Given, 0).is_err());
}
