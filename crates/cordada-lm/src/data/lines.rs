//! Lines of bytes with a limit to their length, so that a hostile or broken file or program
//! cannot fill the memory.

use std::io::{BufRead, Error};

/// How a line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineEnd {
    /// With a line feed, or with the end of the input.
    Whole,
    /// The limit was reached first; the rest of the line is still unread.
    TooLong,
    /// There was no further line.
    Input,
}

/// Reads the next line into `line`, without its line feed and a carriage return before it; of an
/// overlong line, the first `limit` bytes.
pub(crate) fn read_line(
    reader: &mut impl BufRead,
    line: &mut Vec<u8>,
    limit: usize,
) -> Result<LineEnd, Error> {
    line.clear();
    loop {
        let available = match reader.fill_buf() {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if available.is_empty() {
            return Ok(if line.is_empty() { LineEnd::Input } else { LineEnd::Whole });
        }
        let end = available.iter().position(|&byte| byte == b'\n');
        let n = end.unwrap_or(available.len());
        if line.len() + n > limit {
            let n = limit - line.len();
            line.extend_from_slice(&available[..n]);
            return Ok(LineEnd::TooLong);
        }
        line.extend_from_slice(&available[..n]);
        let used = n + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok(LineEnd::Whole);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_they_should() {
        // A buffer of 3 bytes, so that lines cross its border.
        let mut reader = std::io::BufReader::with_capacity(3, &b"ab\r\n\nlonger line\nlast"[..]);
        let mut line = Vec::new();
        for want in ["ab", "", "longer line", "last"] {
            assert_eq!(read_line(&mut reader, &mut line, 11).unwrap(), LineEnd::Whole);
            assert_eq!(line, want.as_bytes());
        }
        assert_eq!(read_line(&mut reader, &mut line, 11).unwrap(), LineEnd::Input);
        let mut reader = &b"0123456789\n"[..];
        assert_eq!(read_line(&mut reader, &mut line, 9).unwrap(), LineEnd::TooLong);
        assert_eq!(line, b"012345678");
    }
}
