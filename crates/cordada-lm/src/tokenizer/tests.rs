//! Trained tokenizers, streams and exchanges.

use super::*;

const TEXT: &str = "the fish and the dish and the wish; the children fish for 1234 fish\n\
                    die Fische und die Tische 👋 日本語\n";

fn tokenizer() -> Tokenizer {
    let options =
        BpeOptions { vocab_size: 300, special_tokens: vec!["<tool>".into(), "<|pad|>".into()] };
    Tokenizer::train_bpe(&[TEXT, "a second text"], &options).unwrap()
}

#[test]
fn training_gives_the_tokens_asked_for() {
    let t = tokenizer();
    assert_eq!(t.vocab_size(), 300);
    let ids = ["<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool>"];
    assert_eq!(ids.map(|token| t.token_id(token)), [Some(0), Some(1), Some(2), Some(3), Some(4)]);
    assert_eq!((t.special_id("eos_token"), t.special_id("pad_token")), (Some(3), Some(0)));
    assert_eq!(t.special_id("bos_token"), None);
    // "Ġthe" is the most frequent pair's end: it is one token; digits stand alone.
    assert_eq!(t.encode(" the", Special::Keep).unwrap().len(), 1);
    assert_eq!(t.encode("1234", Special::Keep).unwrap().len(), 4);
    let small = BpeOptions { vocab_size: 259, special_tokens: Vec::new() };
    let message = Tokenizer::train_bpe(&[TEXT], &small).unwrap_err().to_string();
    assert!(message.contains("259 tokens is too small") && message.contains("260"), "{message}");
}

#[test]
fn training_is_deterministic_and_survives_files() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for folder in &folders {
        tokenizer().write(folder.path()).unwrap();
    }
    for name in [TOKENIZER, CONFIG] {
        let [a, b] = [0, 1].map(|i| std::fs::read(folders[i].path().join(name)).unwrap());
        assert_eq!(a, b, "{name}");
    }
    let again = Tokenizer::read(folders[0].path()).unwrap();
    assert_eq!(
        again.encode(TEXT, Special::Keep).unwrap(),
        tokenizer().encode(TEXT, Special::Keep).unwrap()
    );
    let chat = again.encode_chat(&[Message::new("user", "hi")], &ChatOptions::default()).unwrap();
    assert_eq!(chat.text, "<|im_start|>user\nhi<|im_end|>\n");
    assert_eq!((chat.ids[0], chat.assistant_mask), (2, None));
}

#[test]
fn a_stream_gives_whole_characters() {
    let t = tokenizer();
    let ids = t.encode("a👋b", Special::Skip).unwrap();
    let mut stream = t.stream(Special::Skip);
    let parts: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    assert!(ids.len() > 3 && parts.iter().all(|p| !p.contains('\u{FFFD}')), "{parts:?}");
    assert_eq!(parts.concat() + &stream.finish().unwrap(), "a👋b");
    // A text that ends within a character: the first two bytes of 👋 (F0 9F).
    let mut stream = t.stream(Special::Skip);
    assert_eq!(stream.push(ids[1]).unwrap(), "");
    assert_eq!(stream.finish().unwrap(), "\u{FFFD}");
    // Special tokens are shown or left out.
    let text = |special| {
        let mut stream = t.stream(special);
        let parts: Vec<String> = [2, ids[0], 3].iter().map(|&i| stream.push(i).unwrap()).collect();
        parts.concat() + &stream.finish().unwrap()
    };
    assert_eq!(
        (text(Special::Keep).as_str(), text(Special::Skip).as_str()),
        ("<|im_start|>a<|im_end|>", "a")
    );
}

#[test]
fn a_stream_keeps_the_spaces_of_tokenizers_that_drop_the_first() {
    let there = tempfile::tempdir().unwrap();
    let json = r#"{"model": {"type": "WordLevel", "vocab": {"▁so": 0, "▁it": 1}, "unk_token": "▁so"},
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}}"#;
    std::fs::write(there.path().join(TOKENIZER), json).unwrap();
    let t = Tokenizer::read(there.path()).unwrap();
    let mut stream = t.stream(Special::Skip);
    let parts = [0, 1, 0].map(|id| stream.push(id).unwrap());
    assert_eq!(parts, ["so", " it", " so"]);
}

proptest::proptest! {
    #[test]
    fn a_stream_gives_the_same_text_as_decoding_at_once(
        ids in proptest::collection::vec(0_u32..300, 0..60)
    ) {
        let t = tokenizer();
        for special in [Special::Keep, Special::Skip] {
            let mut stream = t.stream(special);
            let mut text = String::new();
            for &id in &ids {
                text += &stream.push(id).unwrap();
            }
            text += &stream.finish().unwrap();
            proptest::prop_assert_eq!(&text, &t.decode(&ids, special).unwrap());
        }
    }
}

#[test]
fn begin_and_end_tokens_follow_the_config() {
    let with = |add_bos: bool, add_eos: bool| {
        let mut t = tokenizer();
        t.config.insert("add_bos_token".into(), add_bos.into());
        t.config.insert("add_eos_token".into(), add_eos.into());
        t.special.insert("bos_token".into(), "<tool>".into());
        t
    };
    let a = tokenizer().encode("a", Special::Skip).unwrap()[0];
    assert_eq!(with(true, true).encode("a", Special::Keep).unwrap(), [4, a, 3]);
    assert_eq!(with(true, true).encode("<tool>a", Special::Keep).unwrap(), [4, a, 3]);
    assert_eq!(with(true, true).encode("a", Special::Skip).unwrap(), [a]);
    assert_eq!(with(false, false).encode("a", Special::Keep).unwrap(), [a]);
}

#[test]
fn an_exchange_is_split_at_the_answer() {
    let t = tokenizer();
    let (ask, answer) = ([Message::new("user", "a")], [Message::new("assistant", "b")]);
    let options = ChatOptions::default();
    let (prompt, reply) = t.encode_exchange(&ask, &answer, &options).unwrap();
    assert_eq!(
        t.decode(&prompt, Special::Keep).unwrap(),
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(t.decode(&reply, Special::Keep).unwrap(), "b<|im_end|>\n");
    // A template that counts messages changes the first line once the answer is there.
    let source = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}";
    let template = ChatTemplate::new(source, Path::new("t")).unwrap();
    let t = t.with_chat_template(template);
    let message = t.encode_exchange(&ask, &answer, &options).unwrap_err().to_string();
    assert!(
        message.contains("from token 0 on it is \"1a\" alone and \"2ab\" with the answer"),
        "{message}"
    );
}
