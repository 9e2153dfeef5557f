//! Templates by hand: what each addition to Jinja does.

use super::*;

fn render(source: &str, options: &ChatOptions) -> Result<Rendered, Error> {
    let messages = [Message::new("user", "hi"), Message::new("assistant", "yo")];
    ChatTemplate::new(source, Path::new("chat_template.jinja"))?.render(&messages, options)
}

fn text(source: &str) -> String {
    render(source, &ChatOptions::default()).unwrap().text
}

#[test]
fn white_space_around_block_tags_is_trimmed() {
    // trim_blocks takes the line break after a tag, lstrip_blocks the spaces before it; the last
    // line break of the file goes too.
    assert_eq!(text("a\n  {% if true %}\nb\n  {% endif %}\nc\n"), "a\nb\nc");
}

#[test]
fn loop_controls_and_string_methods_work() {
    let source = "{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}\
                  {{ m.content.upper() }}{% endfor %}{{ 'a-b'.split('-')[-1] }}\
                  {{ 'xay'.removeprefix('x').removesuffix('y') }}{{ 'k=v'.partition('=')[2] }}";
    assert_eq!(text(source), "HIbav");
}

#[test]
fn values_print_in_pythons_spelling() {
    assert_eq!(text("{{ true }} {{ none }} {{ [1, 'a'] }} {{ nothing }}."), "True None [1, 'a'] .");
}

#[test]
fn tojson_is_pythons() {
    let tools = value_from_json(r#"{"b": [1, "<ü&'\"\n"], "a": {}, "c": 1e16}"#).unwrap();
    let options = ChatOptions { tools: Some(tools), ..ChatOptions::default() };
    let json = |source: &str| render(source, &options).unwrap().text;
    assert_eq!(json("{{ tools | tojson }}"), r#"{"b": [1, "<ü&'\"\n"], "a": {}, "c": 1e+16}"#);
    assert_eq!(
        json("{{ tools | tojson(indent=2, sort_keys=true, ensure_ascii=true) }}"),
        "{\n  \"a\": {},\n  \"b\": [\n    1,\n    \"<\\u00fc&'\\\"\\n\"\n  ],\n  \"c\": 1e+16\n}"
    );
    assert_eq!(json("{{ tools.b | tojson(separators=(',', ':')) }}"), r#"[1,"<ü&'\"\n"]"#);
}

#[test]
fn now_is_a_setting() {
    // 86,400 s after the epoch is 2 January 1970, one hour east of UTC 01:00.
    let clock = Some(Clock { unix_seconds: 86_400, utc_offset_seconds: 3_600 });
    let options = ChatOptions { clock, ..ChatOptions::default() };
    let rendered = render("{{ strftime_now('%d %b %Y %H:%M') }}", &options).unwrap();
    assert_eq!(rendered.text, "02 Jan 1970 01:00");
    let year: i32 = text("{{ strftime_now('%Y') }}").parse().unwrap();
    assert!(year >= 2026, "the machine's clock says {year}");
}

#[test]
fn generated_text_is_marked() {
    let source = "{% for m in messages %}{% if m.role == 'assistant' %}<{% generation %}\n\
                  {{ m.content }}!{% endgeneration %}>{% else %}{{ m.content }}{% endif %}\
                  {% endfor %}";
    let rendered = render(source, &ChatOptions::default()).unwrap();
    assert_eq!(rendered.text, "hi<yo!>");
    assert_eq!(rendered.generated.as_deref(), Some(std::slice::from_ref(&(3..6))));
    let plain = render("x", &ChatOptions::default()).unwrap();
    assert_eq!(plain.generated, None);
}

#[test]
fn text_that_looks_like_a_mark_is_kept() {
    let messages = [Message::new("assistant", "a\u{1}0\u{1}b")];
    let source = "{% generation %}{{ messages[0].content }}{% endgeneration %}.";
    let template = ChatTemplate::new(source, Path::new("t")).unwrap();
    let rendered = template.render(&messages, &ChatOptions::default()).unwrap();
    assert_eq!(rendered.text, "a\u{1}0\u{1}b.");
    assert_eq!(rendered.generated.as_deref(), Some(std::slice::from_ref(&(0..5))));
}

#[test]
fn templates_are_chosen_by_name_and_by_tools() {
    let sources = [("default", "d"), ("tool_use", "t"), ("rag", "r")];
    let sources = sources.map(|(name, source)| (name.to_string(), source.to_string()));
    let template = ChatTemplate::named(sources, Path::new("tokenizer_config.json")).unwrap();
    let mut options = ChatOptions::default();
    assert_eq!(template.render(&[], &options).unwrap().text, "d");
    options.tools = Some(Value::from(vec![1]));
    assert_eq!(template.render(&[], &options).unwrap().text, "t");
    options.template = Some("rag".into());
    assert_eq!(template.render(&[], &options).unwrap().text, "r");
    options.template = Some("none".into());
    let message = template.render(&[], &options).unwrap_err().to_string();
    assert_eq!(
        message,
        "tokenizer_config.json has no chat template \"none\"; it has: default, rag, tool_use"
    );
}

#[test]
fn errors_name_the_file_the_line_and_the_reason() {
    let message = |source: &str| render(source, &ChatOptions::default()).unwrap_err().to_string();
    let syntax = message("a\n{% if %}");
    assert!(
        syntax.starts_with("chat_template.jinja: chat template, line 2: syntax error"),
        "{syntax}"
    );
    let undefined = message("a\n\n{{ nothing.here }}");
    assert!(undefined.contains("line 3: undefined value"), "{undefined}");
    assert_eq!(
        message("{{ raise_exception('only one turn') }}"),
        "the chat template of chat_template.jinja rejects the conversation: only one turn"
    );
    let unknown = message("{{ 'a' | reverse_words }}");
    assert!(unknown.contains("unknown filter") && unknown.contains("reverse_words"), "{unknown}");
}

#[test]
fn messages_come_from_json_in_order() {
    let json = r#"[{"role": "user", "content": "a", "z": 1, "b": 2}]"#;
    let messages = Message::list_from_json(json).unwrap();
    assert_eq!(
        (messages[0].role().as_str(), messages[0].content().as_deref()),
        ("user", Some("a"))
    );
    let template = ChatTemplate::new("{{ messages[0] | tojson }}", Path::new("t")).unwrap();
    let text = template.render(&messages, &ChatOptions::default()).unwrap().text;
    assert_eq!(text, &json[1..json.len() - 1]);
    let error = Message::list_from_json(r#"[{"content": "a"}]"#).unwrap_err().to_string();
    assert!(error.starts_with("message 0 of the conversation has no text \"role\""), "{error}");
    let error = Message::list_from_json("[{]").unwrap_err().to_string();
    assert!(error.starts_with("this is not JSON: ") && error.contains("line 1"), "{error}");
}
