//! Splits the input into records, each with its line: lines, or the elements of
//! arrays. Reads no more than one record into memory.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::Path,
};

/// Longest record, in bytes: the largest todo takes some 60 kB, escaped; a page
/// of `tidemark list` a thousand of them.
const MAX_RECORD_BYTES: usize = 32 << 20;
/// Bytes that are read from a file at once.
const READ_BUFFER_BYTES: usize = 1 << 20;

/// A part of the input that should be a todo, or a page of them.
pub(crate) struct Record {
    /// Where it begins; the first line is 1.
    pub line: u64,
    /// Its text, or what is wrong with it.
    pub text: Result<String, String>,
}

/// The records of an input.
pub(crate) struct Records {
    input: Box<dyn BufRead + Send>,
    size: Option<u64>,
    line: u64,
    bytes: u64,
    /// Inside an array.
    in_array: bool,
    /// Longest record, in bytes.
    limit: usize,
}

impl Records {
    /// Those of a file, or of stdin for `-`.
    pub(crate) fn open(file: &Path) -> Result<Self, String> {
        if file == Path::new("-") {
            return Ok(Self::of(Box::new(BufReader::new(io::stdin()))));
        }
        let opened = File::open(file).map_err(|e| format!("{}: {e}", file.display()))?;
        let metadata = opened.metadata();
        let metadata = metadata.map_err(|e| format!("{}: {e}", file.display()))?;
        if metadata.is_dir() {
            return Err(format!("{} is a directory", file.display()));
        }
        let input = BufReader::with_capacity(READ_BUFFER_BYTES, opened);
        Ok(Self {
            size: Some(metadata.len()),
            ..Self::of(Box::new(input))
        })
    }

    /// Those of an input of unknown size.
    pub(crate) fn of(input: Box<dyn BufRead + Send>) -> Self {
        Self {
            input,
            size: None,
            line: 1,
            bytes: 0,
            in_array: false,
            limit: MAX_RECORD_BYTES,
        }
    }

    /// Size of the input in bytes, if it is known.
    pub(crate) const fn size(&self) -> Option<u64> {
        self.size
    }

    /// Bytes read so far.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next record; `None` at the end.
    ///
    /// # Errors
    /// The input cannot be read.
    pub(crate) fn next(&mut self) -> Result<Option<Record>, String> {
        loop {
            let Some(first) = self.skip_space()? else {
                return Ok(if std::mem::take(&mut self.in_array) {
                    self.problem("the array has no end: ] is missing")
                } else {
                    None
                });
            };
            match first {
                b'[' if !self.in_array => {
                    self.consume_one()?;
                    self.in_array = true;
                }
                b']' if self.in_array => {
                    self.consume_one()?;
                    self.in_array = false;
                }
                b',' if self.in_array => self.consume_one()?,
                _ if self.in_array => return self.element().map(Some),
                _ => return self.rest_of_line().map(Some),
            }
        }
    }

    fn too_long(&self) -> String {
        format!("is longer than {} bytes", self.limit)
    }

    fn problem(&self, problem: &str) -> Option<Record> {
        Some(Record {
            line: self.line,
            text: Err(problem.to_owned()),
        })
    }

    fn peek(&mut self) -> Result<Option<u8>, String> {
        let line = self.line;
        let buffer = self.input.fill_buf();
        let buffer = buffer.map_err(|e| format!("the input cannot be read at line {line}: {e}"))?;
        Ok(buffer.first().copied())
    }

    fn consume_one(&mut self) -> Result<(), String> {
        if self.peek()? == Some(b'\n') {
            self.line += 1;
        }
        self.input.consume(1);
        self.bytes += 1;
        Ok(())
    }

    /// The first byte that is neither white space nor a byte order mark.
    fn skip_space(&mut self) -> Result<Option<u8>, String> {
        while let Some(byte) = self.peek()? {
            let is_mark = self.bytes < 3 && matches!(byte, 0xef | 0xbb | 0xbf);
            if !byte.is_ascii_whitespace() && !is_mark {
                return Ok(Some(byte));
            }
            self.consume_one()?;
        }
        Ok(None)
    }

    /// From here to the end of the line.
    fn rest_of_line(&mut self) -> Result<Record, String> {
        let line = self.line;
        let mut raw = Vec::new();
        let limit = self.limit as u64;
        let read = (&mut self.input).take(limit).read_until(b'\n', &mut raw);
        let read = read.map_err(|e| format!("the input cannot be read at line {line}: {e}"))?;
        self.bytes += read as u64;
        if raw.len() == self.limit && raw.last() != Some(&b'\n') {
            while self.peek()?.is_some_and(|byte| byte != b'\n') {
                self.consume_one()?;
            }
            return Ok(Record {
                line,
                text: Err(self.too_long()),
            });
        }
        if raw.last() == Some(&b'\n') {
            self.line += 1;
        }
        Ok(Record {
            line,
            text: text_of(raw),
        })
    }

    /// An element of an array: to the `,` or `]` behind it, which stays.
    fn element(&mut self) -> Result<Record, String> {
        let line = self.line;
        let (mut raw, mut depth) = (Vec::new(), 0_u32);
        let (mut in_string, mut is_escaped, mut is_long) = (false, false, false);
        while let Some(byte) = self.peek()? {
            if !in_string && depth == 0 && matches!(byte, b',' | b']') {
                break;
            }
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' if in_string => is_escaped = true,
                b'"' => in_string = !in_string,
                b'{' | b'[' if !in_string => depth += 1,
                b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
                _ => {}
            }
            if raw.len() < self.limit {
                raw.push(byte);
            } else {
                is_long = true;
            }
            self.consume_one()?;
        }
        let text = if is_long {
            Err(self.too_long())
        } else {
            text_of(raw)
        };
        Ok(Record { line, text })
    }
}

fn text_of(raw: Vec<u8>) -> Result<String, String> {
    String::from_utf8(raw).map_err(|e| format!("is not UTF-8: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Vec<(u64, Result<String, ()>)> {
        let mut records = Records {
            limit: 1000,
            ..Records::of(Box::new(io::Cursor::new(text.to_vec())))
        };
        let mut found = Vec::new();
        while let Some(record) = records.next().expect("readable") {
            let text = record.text.map(|text| text.trim().to_owned());
            found.push((record.line, text.map_err(drop)));
        }
        found
    }

    fn text(line: u64, text: &str) -> (u64, Result<String, ()>) {
        (line, Ok(text.to_owned()))
    }

    #[test]
    fn lines_are_records() {
        assert_eq!(
            all(b"\xef\xbb\xbf{\"a\": 1}\r\n\n {\"b\": [2]} \n\xff\xfe\nx"),
            [
                text(1, "{\"a\": 1}"),
                text(3, "{\"b\": [2]}"),
                (4, Err(())),
                text(5, "x")
            ]
        );
    }

    #[test]
    fn elements_of_arrays_are_records() {
        assert_eq!(
            all(b"[\n {\"a\": \"],\\\"{\"},\n {\"b\":\n [1, 2]} ,3]\n[4]{\"c\": 5}"),
            [
                text(2, "{\"a\": \"],\\\"{\"}"),
                text(3, "{\"b\":\n [1, 2]}"),
                text(4, "3"),
                text(5, "4"),
                text(5, "{\"c\": 5}"),
            ]
        );
        assert_eq!(all(b"[]"), []);
        assert_eq!(all(b"[1,"), [text(1, "1"), (1, Err(()))]);
    }

    #[test]
    fn long_records_are_left_out_and_the_others_read() {
        for (begin, between, end) in [("", "\n", "\n"), ("[", ",", "]")] {
            let mut long = format!("{begin}1{between}").into_bytes();
            long.extend(vec![b'x'; 3000]);
            long.extend(format!("{between}2{end}").bytes());
            let found: Vec<_> = all(&long).into_iter().map(|(_, text)| text).collect();
            assert_eq!(found, [Ok("1".into()), Err(()), Ok("2".into())]);
        }
    }
}
