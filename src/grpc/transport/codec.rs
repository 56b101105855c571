//! A codec like tonic's own, with buffers that fit the message.
//!
//! tonic's codec allocates 8 KiB for each request and 8 KiB for each response,
//! and an idle stream keeps both: two thirds of the memory of a watcher.

use std::marker::PhantomData;

use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, EncodeBuf, Encoder},
};
use tonic_prost::ProstDecoder;

/// Initial size of a buffer, in bytes: a small request, or one todo and its
/// token. Larger messages reserve what they need.
const BUFFER_BYTES: usize = 1024;
/// Buffered bytes at which a stream's messages are sent: tonic's default.
const YIELD_BYTES: usize = 32 << 10;

/// The codec of the service.
pub struct SizedBufferCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SizedBufferCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SizedBufferCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = SizedBufferEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        SizedBufferEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }
}

/// Reserves the encoded length of a message, then encodes it.
pub struct SizedBufferEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for SizedBufferEncoder<T> {
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
