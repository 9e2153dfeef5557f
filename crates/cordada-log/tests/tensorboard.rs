//! Reads the event files back twice: with a reader written for this test from the format's
//! description, and with TensorBoard's own, if a Python that has it is there (`CORDADA_PYTHON`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use cordada_log::{Event, Sink, TensorBoardSink, find_metric};
use serde_json::{Value, json};

/// CRC-32C bit by bit: polynomial 0x1edc6f41, reflected.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// Takes the mask off a stored checksum.
fn unmask(stored: u32) -> u32 {
    stored.wrapping_sub(0xa282_ead8).rotate_left(15)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (head, tail) = bytes.split_at(length);
    *bytes = tail;
    head
}

fn u32_of(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().unwrap())
}

fn u64_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

fn records(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let length = take(&mut bytes, 8);
        assert_eq!(unmask(u32_of(take(&mut bytes, 4))), crc32c(length));
        let record = take(&mut bytes, u64_of(length) as usize);
        assert_eq!(unmask(u32_of(take(&mut bytes, 4))), crc32c(record));
        records.push(record);
    }
    records
}

#[derive(Debug, PartialEq)]
enum Field<'a> {
    Varint(u64),
    Double(f64),
    Bytes(&'a [u8]),
    Float(f32),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = take(bytes, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

/// The fields of a message in order.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let field = match key & 7 {
            0 => Field::Varint(varint(&mut bytes)),
            1 => Field::Double(f64::from_bits(u64_of(take(&mut bytes, 8)))),
            2 => {
                let length = varint(&mut bytes) as usize;
                Field::Bytes(take(&mut bytes, length))
            }
            5 => Field::Float(f32::from_bits(u32_of(take(&mut bytes, 4)))),
            other => panic!("wire type {other}"),
        };
        fields.push((key >> 3, field));
    }
    fields
}

fn message<'a>(field: &(u64, Field<'a>), number: u64) -> Vec<(u64, Field<'a>)> {
    match field {
        (found, Field::Bytes(bytes)) if *found == number => fields(bytes),
        other => panic!("expected message {number}, got {other:?}"),
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// Checks the fields that every event has and returns the rest.
fn event(record: &[u8], step: u64) -> (u64, Field<'_>) {
    let mut all = fields(record);
    assert_eq!(all.len(), 3, "{all:?}");
    let (1, Field::Double(wall_time)) = all[0] else { panic!("{all:?}") };
    assert!((now() - wall_time).abs() < 60.0, "wall time {wall_time}");
    assert_eq!(all[1], (2, Field::Varint(step)));
    all.remove(2)
}

fn metrics(step: u64, values: &[(&'static str, f64)]) -> Event {
    Event::Metrics { step, iteration: step / 100, values: values.to_vec() }
}

fn evaluation(step: u64) -> Event {
    Event::Evaluation {
        step,
        episodes: 10,
        mean_return: 500.0,
        std_return: 1.5,
        mean_length: 499.0,
        deterministic: true,
    }
}

#[test]
fn an_event_file_holds_what_the_format_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let tensorboard = folder.path().join("tensorboard");
    let mut sink = TensorBoardSink::create(&tensorboard).unwrap();
    sink.record(&metrics(300, &[("train/std", 0.1), ("mine/number", f64::NAN)])).unwrap();
    sink.record(&Event::Warning { step: 300, message: "m".into() }).unwrap();
    sink.record(&metrics(400, &[("train/std", f64::INFINITY)])).unwrap();
    sink.flush().unwrap();

    let bytes = fs::read(sink.path()).unwrap();
    let records = records(&bytes);
    assert_eq!(records.len(), 3);
    assert_eq!(event(records[0], 0), (3, Field::Bytes(b"brain.Event:2")));

    let values = message(&event(records[1], 300), 5);
    let std = message(&values[0], 1);
    assert_eq!(std[..2], [(1, Field::Bytes(b"train/std")), (2, Field::Float(0.1))]);
    let metadata = message(&std[2], 9);
    assert_eq!(message(&metadata[0], 1), [(1, Field::Bytes(b"scalars"))]);
    let spec = find_metric("train/std").unwrap();
    let text = format!("{} Unit: action. Trouble: {}", spec.summary, spec.trouble);
    assert_eq!(metadata[1], (3, Field::Bytes(text.as_bytes())));
    let mine = message(&values[1], 1);
    assert_eq!(mine[0], (1, Field::Bytes(b"mine/number")));
    assert!(matches!(mine[1], (2, Field::Float(value)) if value.is_nan()));
    assert_eq!(message(&mine[2], 9).len(), 1, "an unknown metric has no description");

    // The description comes once a file.
    let values = message(&event(records[2], 400), 5);
    let expected = [(1, Field::Bytes(b"train/std".as_slice())), (2, Field::Float(f32::INFINITY))];
    assert_eq!(message(&values[0], 1), expected);
}

#[test]
fn the_name_is_what_tensorboard_looks_for() {
    let folder = tempfile::tempdir().unwrap();
    let sink = TensorBoardSink::create(folder.path()).unwrap();
    let name = sink.path().file_name().unwrap().to_str().unwrap();
    let parts: Vec<&str> = name.split('.').collect();
    assert_eq!(parts[..3], ["events", "out", "tfevents"], "{name}");
    assert!((now() - parts[3].parse::<f64>().unwrap()).abs() < 60.0, "{name}");
    assert_eq!(parts[parts.len() - 2], std::process::id().to_string(), "{name}");
}

#[test]
fn an_evaluation_becomes_three_scalars() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = TensorBoardSink::create(folder.path()).unwrap();
    sink.record(&evaluation(1 << 40)).unwrap();
    sink.flush().unwrap();
    let bytes = fs::read(sink.path()).unwrap();
    let values = message(&event(records(&bytes)[1], 1 << 40), 5);
    let expected =
        [("eval/mean_return", 500.0), ("eval/std_return", 1.5), ("eval/mean_length", 499.0)];
    assert_eq!(values.len(), expected.len());
    for (value, (tag, number)) in values.iter().zip(expected) {
        let value = message(value, 1);
        assert_eq!(value[..2], [(1, Field::Bytes(tag.as_bytes())), (2, Field::Float(number))]);
    }
}

/// A run that is killed after step 300 and resumed from its checkpoint at step 200.
fn interrupted_run(folder: &Path) -> TensorBoardSink {
    let mut sink = TensorBoardSink::create(folder).unwrap();
    for step in [100, 200, 300] {
        sink.record(&metrics(step, &[("train/std", 0.5), ("train/entropy", f64::NAN)])).unwrap();
    }
    sink.record(&evaluation(300)).unwrap();
    drop(sink);
    let mut sink = TensorBoardSink::resume(folder, 200).unwrap();
    sink.record(&metrics(300, &[("train/std", 0.25)])).unwrap();
    sink.flush().unwrap();
    sink
}

#[test]
fn a_resumed_run_starts_a_later_file_with_a_session_log() {
    let folder = tempfile::tempdir().unwrap();
    let sink = interrupted_run(folder.path());
    let mut names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert_eq!(names.len(), 2);
    assert_eq!(names[1], sink.path());
    let bytes = fs::read(sink.path()).unwrap();
    let records = records(&bytes);
    assert_eq!(event(records[0], 0), (3, Field::Bytes(b"brain.Event:2")));
    // Status 1 is START; it purges its own step and what follows, and step 200 is to stay.
    assert_eq!(message(&event(records[1], 201), 7), [(1, Field::Varint(1))]);
    let values = message(&event(records[2], 300), 5);
    assert_eq!(message(&values[0], 1)[1], (2, Field::Float(0.25)));
}

#[test]
fn tensorboard_itself_reads_the_files() {
    let python = std::env::var("CORDADA_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/read_tensorboard.py");
    let probe = Command::new(&python).arg(&script).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {python} has no tensorboard; name one that has with CORDADA_PYTHON");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let _sink = interrupted_run(folder.path());
    let output = Command::new(&python).arg(&script).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(read["version"], json!(2.0));
    assert_eq!(
        read["scalars"],
        json!({
            "train/std": [[100, "0.5"], [200, "0.5"], [300, "0.25"]],
            "train/entropy": [[100, "nan"], [200, "nan"]],
            // Purged with everything after step 200, and not made again.
            "eval/mean_return": [],
            "eval/std_return": [],
            "eval/mean_length": [],
        })
    );
    for wall_time in read["wall_time"].as_array().unwrap() {
        assert!((now() - wall_time.as_f64().unwrap()).abs() < 60.0, "{wall_time}");
    }
    let spec = find_metric("train/std").unwrap();
    let description = read["descriptions"]["train/std"].as_str().unwrap();
    assert!(description.starts_with(spec.summary), "{description}");
}
