//! How messages become bytes.

use std::marker::PhantomData;

use prost::{
    Message,
    bytes::{BufMut, Bytes, BytesMut},
};
use tonic::codec::{BufferSettings, Codec, HEADER_SIZE};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// Where what is encoded is cut into pieces.
pub const YIELD: usize = 32 * 1024;

/// A message as gRPC sends it, uncompressed: a byte that says so and four for the length come before it.
pub fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(HEADER_SIZE + length);
    frame.put_u8(0);
    // No object is near 4 GB: the API server takes a few MiB.
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut frame);
    frame.freeze()
}

/// tonic's codec for prost without its buffer of 8 KiB for each call: a process that holds thousands of silent streams would
/// have nothing but buffers. Memory is taken when there is a message.
#[derive(Debug, Clone)]
pub struct LeanCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for LeanCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Send + 'static, U: Message + Default + Send + 'static> Codec for LeanCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(0, YIELD))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::new(0, YIELD))
    }
}
