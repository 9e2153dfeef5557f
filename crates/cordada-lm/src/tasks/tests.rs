//! The tasks give what they promise.

use cordada_env::{Stream, role};

use super::*;
use crate::data::{TokenizeOptions, tokenize_answers, tokenize_prompts};
use crate::generate::Finish;
use crate::reward::Response;
use crate::tokenizer::Special;

fn stream(index: u32) -> Stream {
    Stream::new(5, role::ENV, index)
}

fn field(example: &Example) -> Option<&str> {
    example.fields["answer"].as_str()
}

fn reward(task: &dyn Task, example: &Example, text: &str) -> f64 {
    let prompt = prompt_text(example);
    let response = Response { example, prompt, text, tokens: 1, finish: Finish::StopToken };
    task.reward().score(&[response]).unwrap()[0]
}

#[test]
fn every_task_is_whole() {
    for task in TASKS {
        assert_eq!(find(task.name()).unwrap().name(), task.name());
        assert!(!task.about().is_empty());
        let tokenizer = task.tokenizer().unwrap();
        let end = tokenizer.special_id("eos_token").unwrap();
        let options = TokenizeOptions::new(128, &[end]);
        let sft = task.sft(300, &mut stream(0));
        let got = tokenize_answers(&tokenizer, &sft, &options).unwrap();
        assert_eq!((got.report.kept, got.report.without_end), (300, 0));
        let unknown = tokenizer.special_id("unk_token").unwrap();
        for (group, example) in got.items.iter().zip(&sft) {
            let answer = &group.completions[0];
            assert!(![&group.prompt[..], answer].concat().contains(&unknown), "{example:?}");
            // What is learned is what a sampled response is scored as.
            let text = tokenizer.decode(answer, Special::Skip).unwrap();
            let learned = example.completion.as_deref().unwrap();
            assert_eq!(reward(*task, example, &text), reward(*task, example, learned));
            assert!(text == learned || text == learned.trim_start(), "{text:?} {learned:?}");
        }
        // The same stream gives the same examples, another one others.
        assert_eq!(task.sft(300, &mut stream(0)), sft);
        assert_ne!(task.sft(300, &mut stream(1)), sft);
        let (test, prompts) = (task.test(), task.prompts(2000, &mut stream(2)));
        assert_eq!((test.len(), prompts.len()), (256, 2000));
        assert_eq!(task.test(), test);
        tokenize_prompts(&tokenizer, &prompts, &options).unwrap();
        let held: BTreeSet<&str> = test.iter().map(prompt_text).collect();
        assert_eq!(held.len(), 256);
        for answer in test.iter().chain(&prompts).filter_map(field) {
            // With the end token.
            let tokens = tokenizer.encode(answer, Special::Keep).unwrap().len() + 1;
            assert!(tokens <= task.max_new_tokens(), "{answer}");
        }
        for example in sft.iter().chain(&prompts) {
            assert!(!held.contains(prompt_text(example)));
        }
        assert!(prompts.iter().chain(&test).all(|e| e.completion.is_none()));
    }
    let error = find("sorting").unwrap_err().to_string();
    assert!(error.contains("did you mean \"sort\"?; known: sort, grounded"), "{error}");
}

#[test]
fn sets_apart_hold_no_test_prompt_even_where_it_is_drawn() {
    let example = |i: usize| Example::new(format!("{i}"));
    let test: Vec<Example> = (0..50).map(example).collect();
    let mut i = 0;
    let got = apart_from(&test, 3, || {
        i += 1;
        example(i % 53)
    });
    assert_eq!(got, [example(50), example(51), example(52)]);
    let mut i = 0;
    let got = distinct(3, || {
        i += 1;
        example(i / 3)
    });
    assert_eq!(got, [example(0), example(1), example(2)]);
}

#[test]
fn a_tokenizer_of_a_task_survives_its_file() {
    for task in TASKS {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = task.tokenizer().unwrap();
        tokenizer.write(folder.path()).unwrap();
        let read = Tokenizer::read(folder.path()).unwrap();
        let plain = tokenizers::Tokenizer::from_file(folder.path().join("tokenizer.json")).unwrap();
        assert_eq!((read.vocab_size(), tokenizer.vocab_size()), (64, 64));
        for example in task.test() {
            let text = prompt_text(&example);
            let ids = tokenizer.encode(text, Special::Keep).unwrap();
            assert_eq!(read.encode(text, Special::Keep).unwrap(), ids);
            assert_eq!(plain.encode(text, true).unwrap().get_ids(), ids);
            assert_eq!(read.decode(&ids, Special::Skip).unwrap(), text);
        }
        assert_eq!(read.special_id("eos_token"), Some(1));
        assert_eq!(read.special_id("pad_token"), Some(0));
    }
}

#[test]
fn a_sort_example_looks_as_documented() {
    for example in Sort.sft(20, &mut stream(0)) {
        let text = prompt_text(&example);
        let mut digits: Vec<char> = text.chars().filter(char::is_ascii_digit).collect();
        assert_eq!(digits.len(), 5);
        digits.sort_unstable();
        let right: String = digits.iter().flat_map(|d| [' ', *d]).collect();
        assert_eq!(field(&example), Some(right.as_str()));
        let mut learned: Vec<char> = example.completion.unwrap().chars().collect();
        learned.sort_unstable();
        assert_eq!(
            learned.iter().filter(|c| c.is_ascii_digit()).copied().collect::<Vec<_>>(),
            digits
        );
    }
    // The ids of the comparison runs: 16 tokens; 's' is 3 + 10 + 18.
    let tokenizer = Sort.tokenizer().unwrap();
    let ids = tokenizer.encode("sort 3 1 4 1 5 :", Special::Keep).unwrap();
    assert_eq!(ids, [31, 27, 30, 32, 39, 6, 39, 4, 39, 7, 39, 4, 39, 8, 39, 40]);
}

#[test]
fn half_of_the_sort_answers_are_in_random_order() {
    let sft = Sort.sft(4000, &mut stream(0));
    let right = sft.iter().filter(|e| field(e) == e.completion.as_deref()).count();
    // A random order of 5 distinct digits is sorted with probability 1/120, of which repeated
    // digits make about 1/80: p = 0.5 + 0.5/80 ≈ 0.506; five deviations of 0.0079 are 0.04.
    assert!((share(right, 4000) - 0.506).abs() < 0.04, "{right}");
}

#[test]
fn sorting_is_judged_exactly() {
    let example = &Sort.test()[0];
    let right = field(example).unwrap();
    assert_eq!(reward(&Sort, example, right), 1.0);
    for bad in [right.trim(), &format!("{right} "), &right[..8], ""] {
        assert_eq!(reward(&Sort, example, bad), 0.0, "{bad:?}");
    }
    let metrics = Sort.evaluate(&[(example, right), (example, ""), (example, "x"), (example, " ")]);
    assert_eq!(metrics, [("accuracy", 0.25)]);
}

/// What the facts of a prompt say, found by reading its words; not the generator's own way.
fn deduced(prompt: &str) -> Option<String> {
    let (facts, question) = prompt.split_once("Q : ").unwrap();
    let facts: Vec<&str> = facts.split(" . ").filter(|f| !f.is_empty()).collect();
    let words: Vec<&str> = question.split(' ').collect();
    let (thing, begins): (_, &[&str]) = match words[..] {
        ["what", "color", "is", "the", t, "?", ..] => (t, &["is"]),
        ["where", "is", "the", t, "?", ..] => (t, &["is", "in"]),
        ["what", "is", "the", t, "made", "of", "?", ..] => (t, &["is", "made"]),
        ["where", "is", "the", t, "from", "?", ..] => (t, &["is", "from"]),
        ["how", "much", "is", "the", t, "?", ..] => (t, &["costs"]),
        ["who", "owns", "the", t, "?", ..] => (t, &["owns"]),
        _ => panic!("{question}"),
    };
    assert!(question.ends_with("? A :"), "{question}");
    let says = |fact: &&str| {
        let words: Vec<&str> = fact.split(' ').collect();
        assert!(words.contains(&thing), "{prompt}");
        match words[..] {
            [_, "owns", "the", _] => begins == ["owns"],
            // Only a color stands alone.
            ["the", _, "is", _] => begins == ["is"],
            ["the", _, ref said @ ..] => begins != ["is"] && said.starts_with(begins),
            _ => panic!("{fact}"),
        }
    };
    let found: Vec<&str> = facts.into_iter().filter(says).collect();
    assert!(found.len() < 2, "two facts answer: {prompt}");
    found.first().map(|fact| format!("{fact} ."))
}

#[test]
fn the_grounded_answer_is_the_one_that_the_facts_give() {
    let prompts = Grounded.prompts(3000, &mut stream(0));
    let mut answered = 0;
    for example in &prompts {
        let want = deduced(prompt_text(example));
        assert_eq!(field(example).map(str::to_string), want, "{}", prompt_text(example));
        answered += usize::from(want.is_some());
        let facts = prompt_text(example).matches(" . ").count();
        assert!((2..=4).contains(&facts), "{facts}");
    }
    // Binomial: five deviations of 0.0091.
    assert!((share(answered, 3000) - 0.5).abs() < 0.046, "{answered}");
}

#[test]
fn the_grounded_examples_make_up_answers_where_they_should() {
    let sft = Grounded.sft(8000, &mut stream(0));
    let (recitals, questions): (Vec<_>, Vec<_>) =
        sft.iter().partition(|e| prompt_text(e).contains("what do i know of the"));
    // Five deviations of 0.0056.
    assert!((share(recitals.len(), 8000) - 0.5).abs() < 0.028, "{}", recitals.len());
    for example in recitals {
        let sentences = |text: &str| -> BTreeSet<String> {
            text.trim().split(" .").filter(|s| !s.is_empty()).map(|s| s.trim().into()).collect()
        };
        let facts = prompt_text(example).split_once("Q : ").unwrap().0;
        let said = example.completion.as_deref().unwrap();
        assert_eq!(sentences(facts), sentences(said));
        assert_eq!(reward(&Grounded, example, said), 1.0);
    }
    let answers: Vec<(&Example, &str)> =
        questions.iter().map(|e| (*e, e.completion.as_deref().unwrap())).collect();
    let metrics = Grounded.evaluate(&answers);
    let get = |name| metrics.iter().find(|m| m.0 == name).unwrap().1;
    // Nothing made up is right by chance, and no question that can be answered goes wrong.
    assert_eq!((get("right_answerable"), get("refused_answerable")), (1.0, 0.0));
    // 2000 questions: five deviations of 0.0089; all: 0.5 · 0.8, five of 0.0078.
    assert!((get("unsupported_unanswerable") - 0.8).abs() < 0.045, "{metrics:?}");
    assert!((get("unsupported") - 0.4).abs() < 0.039, "{metrics:?}");
    assert!((get("refused_unanswerable") + get("unsupported_unanswerable") - 1.0).abs() < 1e-12);
    // Values are random: a cup that is somewhere is in the box every fifth time (about 660 facts).
    let facts =
        |what: &str| sft.iter().map(|e| prompt_text(e).matches(what).count()).sum::<usize>();
    let (box_, all) = (facts("the cup is in the box ."), facts("the cup is in the "));
    assert!((share(box_, all) - 0.2).abs() < 0.08, "{box_} of {all}");
}

#[test]
fn grounded_answers_are_judged() {
    let known = Example::new("").with_field("answer", "in the box .");
    let unknown = Example::new("").with_field("answer", serde_json::Value::Null);
    for (example, text, verdict, worth) in [
        (&known, " in the box .", Verdict::Right, 1.0),
        (&known, "in the box", Verdict::Right, 1.0),
        (&known, "in the bag .", Verdict::Unsupported, -1.0),
        (&known, "in the box . in the bag .", Verdict::Unsupported, -1.0),
        (&known, "i do not know .", Verdict::Refused, -0.5),
        (&known, "", Verdict::Unsupported, -1.0),
        (&unknown, "i do not know .", Verdict::Refused, 0.5),
        (&unknown, "in the box .", Verdict::Unsupported, -1.0),
        (&unknown, "i do not know . in the box .", Verdict::Unsupported, -1.0),
    ] {
        assert_eq!(Verdict::of(example, text), verdict, "{text:?}");
        assert_eq!(reward(&Grounded, example, text), worth, "{text:?}");
    }
    let answers = [
        (&known, "in the box ."),
        (&known, "i do not know ."),
        (&known, "in the bag ."),
        (&known, "in the box"),
        (&unknown, "it is red ."),
        (&unknown, "i do not know ."),
    ];
    let share = |part: f64, all: f64| part / all;
    assert_eq!(
        Grounded.evaluate(&answers),
        [
            ("unsupported", share(2.0, 6.0)),
            ("unsupported_unanswerable", 0.5),
            ("right_answerable", 0.5),
            ("refused_answerable", 0.25),
            ("refused_unanswerable", 0.5),
        ]
    );
}
