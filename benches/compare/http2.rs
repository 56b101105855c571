//! As much of HTTP/2 as a load generator needs: requests that are encoded
//! already, replies that are looked at only as far as frames go. It costs a
//! fraction of what the server under test costs, so that both fit on one
//! machine. Like real clients it names its headers in full once, and after
//! that by their numbers in the header table.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
/// Streams whose state is kept: more than any server allows at once on one
/// connection (Tidemark: 1000).
const PLACES: usize = 16_384;
/// What the server may send before it is told that it was read.
const WINDOW: u32 = i32::MAX as u32;
/// What a client may send on one connection before the server says more.
const FIRST_WINDOW: i64 = 65_535;
const READ_BYTES: usize = 256 << 10;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// What came in.
pub enum Event<'a> {
    /// Bytes of a stream's messages, each with its five bytes of length.
    Data(&'a [u8]),
    /// The call is over; `ok` if it had a message, as only replies without an
    /// error have.
    End { ok: bool },
}

/// A call under way.
#[derive(Clone, Copy, Default)]
struct Place {
    stream: u32,
    tag: u64,
    got_data: bool,
}

/// One connection, for calls of one method.
pub struct Connection {
    pub socket: TcpStream,
    first_block: Option<Vec<u8>>,
    next_block: &'static [u8],
    next_stream: u32,
    places: Vec<Place>,
    /// Calls under way.
    pub outstanding: usize,
    out: Vec<u8>,
    input: Vec<u8>,
    filled: usize,
    window: i64,
    unread: u32,
}

impl Connection {
    /// `bearer`: what `authorization` carries after the word Bearer.
    pub fn open(address: SocketAddr, path: &str, bearer: Option<&str>) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut out = PREFACE.to_vec();
        frame(
            &mut out,
            SETTINGS,
            0,
            0,
            &[0, 2, 0, 0, 0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff],
        );
        frame(
            &mut out,
            WINDOW_UPDATE,
            0,
            0,
            &(WINDOW - 65_535).to_be_bytes(),
        );
        Ok(Self {
            socket,
            first_block: Some(first_block(path, &address.to_string(), bearer)),
            next_block: if bearer.is_some() {
                &NEXT_BLOCK_WITH_BEARER
            } else {
                &NEXT_BLOCK
            },
            next_stream: 1,
            places: vec![Place::default(); PLACES],
            outstanding: 0,
            out,
            input: vec![0; READ_BYTES],
            filled: 0,
            window: FIRST_WINDOW,
            unread: 0,
        })
    }

    /// Whether a message of this size may be sent now.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.window >= i64::try_from(bytes).unwrap_or(i64::MAX) + 5
    }

    /// Begins a call: `tag` comes back with what comes of it.
    pub fn call(&mut self, message: &[u8], tag: u64) {
        let stream = self.next_stream;
        self.next_stream += 2;
        match self.first_block.take() {
            Some(block) => frame(&mut self.out, HEADERS, END_HEADERS, stream, &block),
            None => frame(&mut self.out, HEADERS, END_HEADERS, stream, self.next_block),
        }
        let length = u32::try_from(message.len()).expect("a message of a few kilobytes");
        head(&mut self.out, DATA, END_STREAM, stream, length + 5);
        self.out.push(0);
        self.out.extend_from_slice(&length.to_be_bytes());
        self.out.extend_from_slice(message);
        self.window -= i64::from(length) + 5;
        self.outstanding += 1;
        self.places[place(stream)] = Place {
            stream,
            tag,
            got_data: false,
        };
    }

    /// Sends what waits, as far as the socket takes it. `true`: all of it.
    pub fn flush(&mut self) -> io::Result<bool> {
        let mut sent = 0;
        while sent < self.out.len() {
            match self.socket.write(&self.out[sent..]) {
                Ok(n) => sent += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.out.drain(..sent);
        Ok(self.out.is_empty())
    }

    /// Takes in what is there.
    pub fn read(&mut self, mut on: impl FnMut(u64, Event<'_>)) -> io::Result<()> {
        loop {
            let n = match self.socket.read(&mut self.input[self.filled..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            self.filled += n;
            let whole = self.filled == self.input.len();
            self.take_frames(&mut on)?;
            if !whole {
                return Ok(());
            }
        }
    }

    fn take_frames(&mut self, on: &mut impl FnMut(u64, Event<'_>)) -> io::Result<()> {
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        while self.filled - at >= FRAME_HEAD {
            let h = &input[at..at + FRAME_HEAD];
            let length = usize::from(h[0]) << 16 | usize::from(h[1]) << 8 | usize::from(h[2]);
            let end = at + FRAME_HEAD + length;
            if end > self.filled {
                break;
            }
            let stream = u32::from_be_bytes([h[5], h[6], h[7], h[8]]) & 0x7fff_ffff;
            self.take_frame(h[3], h[4], stream, &input[at + FRAME_HEAD..end], on)?;
            at = end;
        }
        self.input = input;
        self.input.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(())
    }

    fn take_frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        on: &mut impl FnMut(u64, Event<'_>),
    ) -> io::Result<()> {
        match kind {
            DATA => {
                assert_eq!(flags & PADDED, 0, "no server of ours pads");
                self.read_bytes(payload.len());
                let place = &mut self.places[place(stream)];
                place.got_data = true;
                on(place.tag, Event::Data(payload));
            }
            SETTINGS if flags & ACK == 0 => frame(&mut self.out, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame(&mut self.out, PING, ACK, 0, payload),
            GOAWAY => return Err(io::Error::other("the server goes away")),
            WINDOW_UPDATE if stream == 0 => {
                self.window += i64::from(u32::from_be_bytes([
                    payload[0], payload[1], payload[2], payload[3],
                ]));
            }
            _ => {}
        }
        let ended = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 || kind == RST_STREAM;
        let place = self.places[place(stream)];
        if ended && place.stream == stream && stream != 0 {
            self.outstanding -= 1;
            on(
                place.tag,
                Event::End {
                    ok: place.got_data && kind != RST_STREAM,
                },
            );
        }
        Ok(())
    }

    /// Opens the connection's window again, long before it closes.
    fn read_bytes(&mut self, bytes: usize) {
        self.unread += u32::try_from(bytes).unwrap_or(0);
        if self.unread > WINDOW / 4 {
            frame(
                &mut self.out,
                WINDOW_UPDATE,
                0,
                0,
                &self.unread.to_be_bytes(),
            );
            self.unread = 0;
        }
    }
}

fn place(stream: u32) -> usize {
    (stream >> 1) as usize % PLACES
}

fn head(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, length: u32) {
    out.extend_from_slice(&length.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    head(
        out,
        kind,
        flags,
        stream,
        u32::try_from(payload.len()).expect("a short frame"),
    );
    out.extend_from_slice(payload);
}

/// POST, http, then entries 66 to 62 of the header table: what `first_block`
/// put there.
const NEXT_BLOCK: [u8; 7] = [0x83, 0x86, 0xc2, 0xc1, 0xc0, 0xbf, 0xbe];
/// The same with one header more.
const NEXT_BLOCK_WITH_BEARER: [u8; 8] = [0x83, 0x86, 0xc3, 0xc2, 0xc1, 0xc0, 0xbf, 0xbe];

/// The headers in full, each to be remembered (RFC 7541, 6.2.1).
fn first_block(path: &str, authority: &str, bearer: Option<&str>) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    let mut known = |name: u8, value: &str| {
        block.push(0x40 | name);
        text(&mut block, value);
    };
    known(4, path);
    known(1, authority);
    known(31, "application/grpc");
    // A name that the static table has not.
    block.push(0x40);
    text(&mut block, "te");
    text(&mut block, "trailers");
    block.push(0x40 | 0x3a);
    text(&mut block, "tidemark-bench/1");
    if let Some(bearer) = bearer {
        block.push(0x40 | 23);
        text(&mut block, &format!("Bearer {bearer}"));
    }
    block
}

fn text(block: &mut Vec<u8>, text: &str) {
    block.push(u8::try_from(text.len()).expect("below 127 characters"));
    block.extend_from_slice(text.as_bytes());
}
