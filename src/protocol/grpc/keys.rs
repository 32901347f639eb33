//! What a call is about, told by its first message.

use std::{collections::HashMap, fmt, sync::Arc};

use bytes::Bytes;
use http::HeaderMap;
use prost::Message;

use super::packing::first_message;
use crate::reconcile::Keys;

type KeyFn = Arc<dyn Fn(&Bytes) -> Keys + Send + Sync>;

/// Key functions by the path of their method.
#[derive(Clone, Default)]
pub(crate) struct KeyFns(HashMap<Box<str>, KeyFn>);

impl fmt::Debug for KeyFns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl KeyFns {
    /// Whether there is any.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the method has one, so that somebody has to look at a message.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    pub(super) fn set<K: Into<Keys>>(
        &mut self,
        path: &str,
        of: impl Fn(&Bytes) -> K + Send + Sync + 'static,
    ) {
        self.0.insert(path.into(), Arc::new(move |message| of(message).into()));
    }

    pub(super) fn set_typed<M, K>(
        &mut self,
        path: &str,
        of: impl Fn(&M) -> K + Send + Sync + 'static,
    ) where
        M: Message + Default,
        K: Into<Keys>,
    {
        self.set(path, move |message| match M::decode(message.clone()) {
            Ok(message) => of(&message).into(),
            Err(_) => Keys::none(),
        });
    }

    /// The keys that the first message of a body tells. `body` may go on after
    /// it, and the message may be compressed as `headers` say, to at most
    /// `limit` bytes.
    ///
    /// None for a method without a function, for an empty body and for a
    /// message that cannot be read: then the call may be about anything.
    pub(crate) fn of(&self, path: &str, headers: &HeaderMap, body: &Bytes, limit: usize) -> Keys {
        let Some(of) = self.0.get(path) else { return Keys::none() };
        match first_message(headers, body, limit) {
            Ok(Some(message)) => of(&message),
            Ok(None) => Keys::none(),
            Err(error) => {
                tracing::debug!(target: "tower_migration", path, %error, "a call without a key");
                Keys::none()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Get {
        #[prost(string, tag = "1")]
        code: String,
    }

    const PATH: &str = "/airports.v1.Airports/Get";

    fn fns() -> KeyFns {
        let mut fns = KeyFns::default();
        fns.set_typed(PATH, |get: &Get| get.code.clone());
        fns
    }

    fn framed(flag: u8, message: &[u8]) -> Bytes {
        let length = (message.len() as u32).to_be_bytes();
        [&[flag][..], &length, message].concat().into()
    }

    fn texts(keys: &Keys) -> Vec<&str> {
        keys.iter().map(|key| key.as_str()).collect()
    }

    #[test]
    fn a_typed_key_is_read_plain_or_compressed_and_whatever_follows() {
        let message = Get { code: "EDDF".into() }.encode_to_vec();
        let plain = [&framed(0, &message)[..], &[0, 0, 0]].concat().into();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&message).expect("memory takes all");
        let packed = framed(1, &gzip.finish().expect("memory takes all"));
        let gzip = HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-encoding"),
            http::HeaderValue::from_static("gzip"),
        )]);
        let none = HeaderMap::new();
        assert_eq!(texts(&fns().of(PATH, &none, &plain, 100)), ["EDDF"]);
        assert_eq!(texts(&fns().of(PATH, &gzip, &packed, 100)), ["EDDF"]);
        // Over the limit, and without its encoding.
        assert!(fns().of(PATH, &gzip, &packed, 5).is_empty());
        assert!(fns().of(PATH, &none, &packed, 100).is_empty());
    }

    #[test]
    fn what_cannot_be_read_has_no_key() {
        let none = HeaderMap::new();
        let of = |path: &str, body: Bytes| fns().of(path, &none, &body, 100);
        let good = framed(0, &Get { code: "EDDF".into() }.encode_to_vec());
        assert!(!of(PATH, good.clone()).is_empty());
        assert!(of(PATH, Bytes::new()).is_empty());
        assert!(of(PATH, good.slice(..good.len() - 1)).is_empty());
        assert!(of(PATH, framed(0, &[0x0a, 0x05, b'x'])).is_empty());
        assert!(of("/airports.v1.Airports/List", good).is_empty());
    }

    #[test]
    fn a_function_may_give_one_key_several_or_none() {
        let mut fns = KeyFns::default();
        fns.set("/a/One", |_| "one");
        fns.set("/a/Two", |message| vec!["b".to_owned(), format!("a{}", message.len())]);
        fns.set("/a/None", |_| None::<String>);
        let of = |path: &str| fns.of(path, &HeaderMap::new(), &framed(0, b"xyz"), 100);
        assert_eq!(texts(&of("/a/One")), ["one"]);
        assert_eq!(texts(&of("/a/Two")), ["a3", "b"]);
        assert!(of("/a/None").is_empty());
        assert!(fns.has("/a/None") && !fns.has("/a/Other") && !fns.is_empty());
    }
}
