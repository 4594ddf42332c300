//! The answers to lists. Thousands of sidecars ask for the same list again and again, so a server may give one as the bytes that
//! it encoded before, and they are copied as a whole.

use prost::{
    DecodeError, Message,
    bytes::{Buf, BufMut, Bytes, BytesMut},
    encoding::{DecodeContext, WireType, bytes, skip_field},
};

/// The number of the one field that every list has.
const ITEMS: u32 = 1;

/// A list's items as they are on the wire, the same for every kind.
pub fn encode<'a>(items: impl Iterator<Item = &'a Bytes> + Clone) -> Bytes {
    let length = items.clone().map(|item| bytes::encoded_len(ITEMS, item)).sum();
    let mut encoded = BytesMut::with_capacity(length);
    items.for_each(|item| bytes::encode(ITEMS, item, &mut encoded));
    encoded.freeze()
}

macro_rules! lists {
    ($($name:ident { $items:ident })*) => {$(
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            pub $items: Vec<Bytes>,
            /// Further items, as [`encode`] makes them.
            encoded: Bytes,
        }

        impl $name {
            /// A list of what [`encode`] returned.
            pub fn encoded(encoded: Bytes) -> Self {
                Self { $items: Vec::new(), encoded }
            }
        }

        impl From<Vec<Bytes>> for $name {
            fn from($items: Vec<Bytes>) -> Self {
                Self { $items, encoded: Bytes::new() }
            }
        }

        impl Message for $name {
            fn encode_raw(&self, buf: &mut impl BufMut) {
                bytes::encode_repeated(ITEMS, &self.$items, buf);
                buf.put_slice(&self.encoded);
            }

            fn merge_field(
                &mut self,
                tag: u32,
                wire_type: WireType,
                buf: &mut impl Buf,
                ctx: DecodeContext,
            ) -> Result<(), DecodeError> {
                match tag {
                    ITEMS => bytes::merge_repeated(wire_type, &mut self.$items, buf, ctx),
                    _ => skip_field(wire_type, tag, buf, ctx),
                }
            }

            fn encoded_len(&self) -> usize {
                bytes::encoded_len_repeated(ITEMS, &self.$items) + self.encoded.len()
            }

            fn clear(&mut self) {
                *self = Self::default();
            }
        }
    )*};
}

lists! {
    ListComponentResponse { components }
    ListSubscriptionsResponse { subscriptions }
    ListResiliencyResponse { resiliencies }
    ListHttpEndpointsResponse { http_endpoints }
    ListMcpServersResponse { mcp_servers }
    ListWorkflowAccessPolicyResponse { policies }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_before_or_now_it_is_the_same_message() {
        let items = vec![Bytes::from_static(b"{}"), Bytes::new(), Bytes::from(vec![b'x'; 300])];
        let now = ListComponentResponse::from(items.clone()).encode_to_vec();
        let before = ListComponentResponse::encoded(encode(items.iter()));
        assert_eq!(before.encode_to_vec(), now);
        assert_eq!(ListComponentResponse::decode(&*now).unwrap().components, items);
        // Another field of a later release.
        let more = [&now[..], &[0x10, 1]].concat();
        assert_eq!(ListSubscriptionsResponse::decode(&*more).unwrap().subscriptions, items);
    }
}
