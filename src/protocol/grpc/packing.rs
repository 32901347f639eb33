//! Compressed messages, unpacked under a limit.

use std::io::Read;

use bytes::Bytes;
use flate2::read::{GzDecoder, ZlibDecoder};
use http::HeaderMap;

use super::frames::{Frame, FrameError, frames};
use crate::body::unpack;

/// How the compressed messages of one body are compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Not at all.
    Identity,
    Gzip,
    /// What gRPC calls so is zlib's format.
    Deflate,
    /// Something else; an error once a message makes use of it.
    Other(Box<str>),
}

impl Encoding {
    /// What `grpc-encoding` says.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        match headers.get("grpc-encoding").map(|value| value.as_bytes()) {
            None | Some(b"identity") => Self::Identity,
            Some(b"gzip") => Self::Gzip,
            Some(b"deflate") => Self::Deflate,
            Some(other) => Self::Other(String::from_utf8_lossy(other).into()),
        }
    }

    /// A message's own bytes, at most `limit` of them if they have to be
    /// unpacked: a few kilobytes can claim to be gigabytes.
    pub(crate) fn unpack(&self, frame: &Frame, limit: usize) -> Result<Bytes, FrameError> {
        if !frame.compressed {
            return Ok(frame.payload.clone());
        }
        let packed = frame.payload.as_ref();
        match self {
            Self::Identity => Err(FrameError::NoEncoding),
            Self::Gzip => read(GzDecoder::new(packed), "gzip", limit),
            Self::Deflate => read(ZlibDecoder::new(packed), "deflate", limit),
            Self::Other(encoding) => {
                Err(FrameError::UnknownEncoding { encoding: encoding.clone() })
            }
        }
    }
}

fn read(decoder: impl Read, encoding: &'static str, limit: usize) -> Result<Bytes, FrameError> {
    match unpack(decoder, limit) {
        Ok(Some(plain)) => Ok(plain),
        Ok(None) => Err(FrameError::TooLarge { limit }),
        Err(_) => Err(FrameError::Corrupt { encoding }),
    }
}

/// The first message of a body that may go on, unpacked. `None` for an empty
/// body.
pub(crate) fn first_message(
    headers: &HeaderMap,
    body: &Bytes,
    limit: usize,
) -> Result<Option<Bytes>, FrameError> {
    let Some(frame) = frames(body.clone()).next() else { return Ok(None) };
    Encoding::of(headers).unpack(&frame?, limit).map(Some)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{
        Compression,
        write::{GzEncoder, ZlibEncoder},
    };

    use super::*;

    fn encoding(name: &str) -> Encoding {
        Encoding::of(&HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-encoding"),
            name.parse().expect("a value"),
        )]))
    }

    fn packed(encoding: &Encoding, plain: &[u8]) -> Frame {
        let payload = if *encoding == Encoding::Gzip {
            let mut writer = GzEncoder::new(Vec::new(), Compression::best());
            writer.write_all(plain).and_then(|()| writer.finish())
        } else {
            let mut writer = ZlibEncoder::new(Vec::new(), Compression::best());
            writer.write_all(plain).and_then(|()| writer.finish())
        };
        Frame { compressed: true, payload: payload.expect("memory takes all").into() }
    }

    #[test]
    fn both_encodings_are_unpacked_up_to_the_limit_and_not_beyond() {
        for name in ["gzip", "deflate"] {
            let encoding = encoding(name);
            let frame = packed(&encoding, b"0123456789");
            assert_eq!(encoding.unpack(&frame, 10), Ok(Bytes::from_static(b"0123456789")));
            assert_eq!(encoding.unpack(&frame, 9), Err(FrameError::TooLarge { limit: 9 }));
            assert_eq!(encoding.unpack(&packed(&encoding, b""), 0), Ok(Bytes::new()));
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit_and_not_read_on() {
        let encoding = encoding("gzip");
        let bomb = packed(&encoding, &vec![0; 1 << 20]);
        assert!(bomb.payload.len() < 10_000);
        assert_eq!(encoding.unpack(&bomb, 1_000), Err(FrameError::TooLarge { limit: 1_000 }));
        // What a decoder would have given, and what is left of it.
        let mut plain = std::io::repeat(0).take(1 << 20);
        assert_eq!(read(&mut plain, "gzip", 1_000), Err(FrameError::TooLarge { limit: 1_000 }));
        assert_eq!(plain.limit(), (1 << 20) - 1_001);
    }

    #[test]
    fn data_cut_or_foreign_is_damaged() {
        for name in ["gzip", "deflate"] {
            let encoding = encoding(name);
            let Frame { payload, .. } = packed(&encoding, b"0123456789");
            for end in 0..payload.len() {
                let cut = Frame { compressed: true, payload: payload.slice(..end) };
                let found = encoding.unpack(&cut, 100);
                assert!(matches!(found, Err(FrameError::Corrupt { .. })), "{name} cut at {end}");
            }
        }
        let (gzip, deflate) = (encoding("gzip"), encoding("deflate"));
        let found = gzip.unpack(&packed(&deflate, b"x"), 100);
        assert_eq!(found, Err(FrameError::Corrupt { encoding: "gzip" }));
    }

    #[test]
    fn a_flag_without_an_encoding_that_is_known_is_an_error_and_no_flag_never_is() {
        let frame = Frame { compressed: true, payload: Bytes::from_static(b"x") };
        let plain = Frame { compressed: false, ..frame.clone() };
        for identity in [Encoding::of(&HeaderMap::new()), encoding("identity")] {
            assert_eq!(identity.unpack(&frame, 100), Err(FrameError::NoEncoding));
            assert_eq!(identity.unpack(&plain, 0), Ok(plain.payload.clone()));
        }
        let zstd = encoding("zstd");
        assert_eq!(
            zstd.unpack(&frame, 100),
            Err(FrameError::UnknownEncoding { encoding: "zstd".into() })
        );
        assert_eq!(zstd.unpack(&plain, 0), Ok(plain.payload));
    }

    #[test]
    fn the_first_message_is_had_although_the_body_goes_on() {
        let headers = HeaderMap::new();
        let body = Bytes::from_static(b"\0\0\0\0\x02ab\0\0");
        assert_eq!(first_message(&headers, &body, 100), Ok(Some(Bytes::from_static(b"ab"))));
        assert_eq!(first_message(&headers, &Bytes::new(), 100), Ok(None));
        assert_eq!(
            first_message(&headers, &body.slice(..3), 100),
            Err(FrameError::TruncatedHeader { have: 3 })
        );
    }
}
