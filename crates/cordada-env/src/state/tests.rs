//! Tests of explicit state saving: layout, round trips, and every kind of damage.

use super::*;
use proptest::prelude::*;

#[test]
fn layout_is_tag_then_little_endian() {
    let mut w = StateWriter::new();
    w.u32(0x0102_0304);
    w.bool(true);
    w.u64s(&[5]);
    let want = [2, 4, 3, 2, 1, 7, 1, 11, 1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(w.as_bytes(), want);
}

#[test]
fn another_type_is_noticed() {
    let mut w = StateWriter::new();
    w.u64(1);
    w.f64(2.0);
    let bytes = w.into_bytes();
    let mut r = StateReader::new(&bytes);
    r.u64().unwrap();
    let want = StateError::Type { expected: "a u64", found: "an f64", offset: 9 };
    assert_eq!(r.u64(), Err(want));
    let mut garbage = StateReader::new(&[77]);
    let want = StateError::Type { expected: "bytes", found: "no value at all", offset: 0 };
    assert_eq!(garbage.bytes(), Err(want));
}

#[test]
fn cut_off_or_left_over_bytes_are_noticed() {
    let mut w = StateWriter::new();
    w.f32s(&[1.0, 2.0]);
    let bytes = w.into_bytes();
    for len in 0..bytes.len() {
        let cut = StateReader::new(&bytes[..len]).f32s();
        assert_eq!(cut, Err(StateError::End { expected: "a list of f32", len }));
    }
    let unread = StateReader::new(&bytes).finish();
    assert_eq!(unread, Err(StateError::LeftOver { offset: 0, left: 17 }));
}

#[test]
fn wrong_length_leaves_the_target_alone() {
    let mut w = StateWriter::new();
    w.f32s(&[1.0, 2.0]);
    w.f64s(&[1.0]);
    let bytes = w.into_bytes();
    let mut r = StateReader::new(&bytes);
    let mut out = [7.0f32; 3];
    let want = StateError::Length { expected: 3, found: 2, offset: 0 };
    assert_eq!(r.f32s_into(&mut out), Err(want));
    assert_eq!(out, [7.0; 3]);
    let want = StateError::Length { expected: 0, found: 1, offset: 17 };
    assert_eq!(r.f64s_into(&mut []), Err(want));
}

#[test]
fn damaged_values_are_errors() {
    assert_eq!(
        StateReader::new(&[7, 2]).bool(),
        Err(StateError::Value { what: "bool", offset: 0 })
    );
    let huge = [11, 255, 255, 255, 255, 255, 255, 255, 255];
    assert_eq!(
        StateReader::new(&huge).u64s(),
        Err(StateError::Value { what: "length", offset: 0 })
    );
    assert_eq!(
        StateReader::new(&[8, 1, 0, 0, 0, 0, 0, 0, 0, 0xff]).str(),
        Err(StateError::Value { what: "string", offset: 0 })
    );
}

proptest! {
    #[test]
    fn every_type_comes_back_bit_for_bit(
        (a, b, c, d) in any::<(u8, u32, u64, i64)>(),
        (e, f, g) in any::<(u32, u64, bool)>(),
        s in ".*",
        (x, y) in any::<(Vec<u32>, Vec<u64>)>(),
        (z, raw) in any::<(Vec<u64>, Vec<u8>)>(),
    ) {
        // Floats as arbitrary bits: NaNs and −0 must survive.
        let x: Vec<f32> = x.into_iter().map(f32::from_bits).collect();
        let y: Vec<f64> = y.into_iter().map(f64::from_bits).collect();
        let mut w = StateWriter::new();
        w.u8(a); w.u32(b); w.u64(c); w.i64(d);
        w.f32(f32::from_bits(e)); w.f64(f64::from_bits(f)); w.bool(g);
        w.str(&s); w.f32s(&x); w.f64s(&y); w.u64s(&z); w.bytes(&raw);
        let bytes = w.into_bytes();
        let mut r = StateReader::new(&bytes);
        prop_assert_eq!((r.u8()?, r.u32()?, r.u64()?, r.i64()?), (a, b, c, d));
        prop_assert_eq!((r.f32()?.to_bits(), r.f64()?.to_bits(), r.bool()?), (e, f, g));
        prop_assert_eq!(r.str()?, s);
        let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&r.f32s()?), bits(&x));
        let bits = |v: &[f64]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&r.f64s()?), bits(&y));
        prop_assert_eq!(r.u64s()?, z);
        prop_assert_eq!(r.bytes()?, raw);
        prop_assert!(r.finish().is_ok());
    }
}
