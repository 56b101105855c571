//! Connections: accepting them, TLS, grpc-web, write coalescing, and the codec
//! of messages. Nothing here knows the calls of the service.

mod codec;
pub(super) mod protocol;
mod tls;
mod web;
mod write_coalescing;

pub use self::tls::Tls;
pub(super) use self::{codec::SizedBufferCodec, web::WebLayer, write_coalescing::CoalescedWrites};
