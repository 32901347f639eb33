//! Messages in a body: five bytes of head, then the message.

use std::fmt;

use bytes::Bytes;

/// Length of a message's head: a flag, then the length as four bytes.
const HEAD: usize = 5;

/// One message as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Whether the payload has to be unpacked first.
    pub(crate) compressed: bool,
    /// A slice of the body.
    pub(crate) payload: Bytes,
}

/// Why there is no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// The body has bytes, but not even the head of one message.
    TruncatedHeader { have: usize },
    /// The body ends inside a message.
    TruncatedMessage { at: usize, length: usize, have: usize },
    /// The flag is neither 0 nor 1.
    UnknownFlag { at: usize, flag: u8 },
    /// After the last message come a few bytes that are none.
    Trailing { at: usize, length: usize },
    /// A message says that it is compressed, and the head does not say how.
    NoEncoding,
    /// Compressed in a way that this crate does not know.
    UnknownEncoding { encoding: Box<str> },
    /// It cannot be unpacked.
    Corrupt { encoding: &'static str },
    /// Unpacked it would be longer than allowed.
    TooLarge { limit: usize },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TruncatedHeader { have } => {
                write!(f, "a message's head has {have} bytes instead of {HEAD}")
            }
            Self::TruncatedMessage { at, length, have } => {
                write!(f, "the message at byte {at} has {have} bytes instead of {length}")
            }
            Self::UnknownFlag { at, flag } => {
                write!(f, "the message at byte {at} has the unknown flag {flag}")
            }
            Self::Trailing { at, length } => {
                write!(f, "{length} bytes at byte {at} are no message")
            }
            Self::NoEncoding => f.write_str("a compressed message without grpc-encoding"),
            Self::UnknownEncoding { encoding } => write!(f, "unknown encoding {encoding:?}"),
            Self::Corrupt { encoding } => write!(f, "damaged {encoding} data"),
            Self::TooLarge { limit } => write!(f, "more than {limit} bytes when unpacked"),
        }
    }
}

impl std::error::Error for FrameError {}

/// The messages of a body, in order. After an error comes nothing.
#[derive(Clone, Debug)]
pub(crate) struct Frames {
    body: Bytes,
    at: usize,
}

/// The messages of a whole body.
pub(crate) const fn frames(body: Bytes) -> Frames {
    Frames { body, at: 0 }
}

impl Iterator for Frames {
    type Item = Result<Frame, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        let rest = self.body.get(at..).filter(|rest| !rest.is_empty())?;
        let frame = parse(rest, at);
        self.at = match &frame {
            Ok((_, length)) => at + HEAD + length,
            Err(_) => self.body.len(),
        };
        Some(frame.map(|(compressed, _)| Frame {
            compressed,
            payload: self.body.slice(at + HEAD..self.at),
        }))
    }
}

/// Whether the message is compressed, and how long it is.
fn parse(rest: &[u8], at: usize) -> Result<(bool, usize), FrameError> {
    let &[flag, a, b, c, d, ref payload @ ..] = rest else {
        let length = rest.len();
        return Err(if at == 0 {
            FrameError::TruncatedHeader { have: length }
        } else {
            FrameError::Trailing { at, length }
        });
    };
    if flag > 1 {
        return Err(FrameError::UnknownFlag { at, flag });
    }
    let length = length([a, b, c, d]);
    if payload.len() < length {
        return Err(FrameError::TruncatedMessage { at, length, have: payload.len() });
    }
    Ok((flag == 1, length))
}

fn length(bytes: [u8; 4]) -> usize {
    usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(usize::MAX)
}

/// How many bytes the first message takes, head included, as soon as the buffer
/// tells. It may claim up to 4 GiB: compare with a limit before waiting for it.
pub(crate) fn first_length(buffer: &[u8]) -> Option<usize> {
    let &[_, a, b, c, d, ..] = buffer else { return None };
    Some(length([a, b, c, d]).saturating_add(HEAD))
}

/// Whether a buffer that grows holds the first message to its end.
pub(crate) fn holds_first(buffer: &[u8]) -> bool {
    first_length(buffer).is_some_and(|length| buffer.len() >= length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(messages: &[(u8, &str)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (flag, text) in messages {
            body.push(*flag);
            body.extend((text.len() as u32).to_be_bytes());
            body.extend(text.as_bytes());
        }
        body
    }

    fn all(body: Vec<u8>) -> Vec<Result<Frame, FrameError>> {
        frames(body.into()).collect()
    }

    fn plain(text: &'static str) -> Result<Frame, FrameError> {
        Ok(Frame { compressed: false, payload: Bytes::from_static(text.as_bytes()) })
    }

    #[test]
    fn messages_come_in_order_and_empty_ones_count() {
        let mut packed = plain("z");
        if let Ok(frame) = &mut packed {
            frame.compressed = true;
        }
        assert_eq!(all(body(&[(0, "ab"), (0, ""), (1, "z")])), [plain("ab"), plain(""), packed]);
        assert_eq!(all(Vec::new()), []);
    }

    #[test]
    fn payloads_are_slices_of_the_body() {
        let body = Bytes::from(body(&[(0, "abc")]));
        let frame = frames(body.clone()).next().expect("one").expect("whole");
        assert_eq!(frame.payload.as_ptr(), body[HEAD..].as_ptr());
    }

    #[test]
    fn each_kind_of_damage_has_its_name_and_ends_the_body() {
        let good = || body(&[(0, "ab")]);
        let damaged = |tail: &[u8]| {
            let found = all([&good()[..], tail].concat());
            assert_eq!(found.len(), 2);
            found[1].clone().expect_err("damaged")
        };
        assert_eq!(all(vec![0, 0, 0]), [Err(FrameError::TruncatedHeader { have: 3 })]);
        assert_eq!(damaged(&[0, 0]), FrameError::Trailing { at: 7, length: 2 });
        assert_eq!(
            damaged(&[0, 0, 0, 0, 2, b'x']),
            FrameError::TruncatedMessage { at: 7, length: 2, have: 1 }
        );
        assert_eq!(
            damaged(&[0, 0xff, 0xff, 0xff, 0xff]),
            FrameError::TruncatedMessage { at: 7, length: 0xffff_ffff, have: 0 }
        );
        // gRPC-Web's trailers look like this.
        assert_eq!(damaged(&[0x80, 0, 0, 0, 0]), FrameError::UnknownFlag { at: 7, flag: 0x80 });
        assert_eq!(damaged(&[2, 0, 0, 0, 0]), FrameError::UnknownFlag { at: 7, flag: 2 });
    }

    #[test]
    fn a_body_cut_anywhere_but_between_messages_is_an_error() {
        let whole = body(&[(0, "abc"), (0, "defgh")]);
        for end in 0..whole.len() {
            let errors = all(whole[..end].to_vec()).iter().filter(|frame| frame.is_err()).count();
            assert_eq!(errors, usize::from(![0, 8].contains(&end)), "cut at {end}");
        }
    }

    #[test]
    fn a_growing_buffer_holds_its_first_message_from_its_last_byte_on() {
        let whole = body(&[(0, "abc"), (0, "d")]);
        for end in 0..=whole.len() {
            assert_eq!(holds_first(&whole[..end]), end >= 8, "{end} bytes");
            assert_eq!(first_length(&whole[..end]), (end >= HEAD).then_some(8), "{end} bytes");
        }
        assert_eq!(first_length(&[1, 0xff, 0xff, 0xff, 0xff]), Some(0xffff_ffff + HEAD));
        assert!(!holds_first(&[1, 0xff, 0xff, 0xff, 0xff]));
        assert!(holds_first(&[0, 0, 0, 0, 0]));
    }
}
