//! How messages are read and written: as tonic's own codec does, with buffers
//! of the size that is needed.
//!
//! What it buys: the usual codec takes 8 KiB for each request and for each
//! reply, and a stream that is idle keeps them: two thirds of what a watcher
//! costs. What it costs: this page.

use std::marker::PhantomData;

use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, EncodeBuf, Encoder},
};
use tonic_prost::ProstDecoder;

/// What a buffer has at first: a small request, or one todo and its token.
/// Larger messages reserve what they need.
const BUFFER_BYTES: usize = 1024;
/// A stream's messages are sent when so many bytes wait: tonic's own default.
const YIELD_BYTES: usize = 32 << 10;

/// The codec of the service.
pub struct Exact<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Exact<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for Exact<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ExactEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ExactEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }
}

/// Reserves what a message takes, then writes it.
pub struct ExactEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for ExactEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.reserve(item.encoded_len());
        item.encode_raw(buf);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}
