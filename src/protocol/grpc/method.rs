//! What is known of one method.

use std::fmt;

use tonic::Code;

use super::outcome;
use crate::stage::{Operation, Outcome};

/// What a method does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MethodKind {
    /// It changes nothing.
    Read,
    /// It may change something.
    Write,
    /// A write after which a thing is gone: for it `NOT_FOUND` means done.
    Delete,
    /// It goes to the authority alone, on every stage.
    Aside,
}

impl fmt::Display for MethodKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "a read",
            Self::Write => "a write",
            Self::Delete => "a delete",
            Self::Aside => "aside",
        })
    }
}

/// Which of its two directions carry several messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallType {
    /// One message each way.
    Unary,
    /// One message, answered by several.
    ServerStreaming,
    /// Several messages, answered by one.
    ClientStreaming,
    /// Several messages each way.
    Bidirectional,
    /// No descriptor tells.
    Unknown,
}

impl CallType {
    pub(super) const fn of(client_streaming: bool, server_streaming: bool) -> Self {
        match (client_streaming, server_streaming) {
            (false, false) => Self::Unary,
            (false, true) => Self::ServerStreaming,
            (true, false) => Self::ClientStreaming,
            (true, true) => Self::Bidirectional,
        }
    }
}

/// What is known of one method: see [`Grpc::method`](super::Grpc::method).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Method {
    /// What it does.
    pub kind: MethodKind,
    /// How many messages it takes and gives.
    pub call: CallType,
    /// Whether a list or a descriptor has it. One of which nothing is known is
    /// taken for a write.
    pub listed: bool,
}

impl Method {
    pub(super) const UNLISTED: Self =
        Self { kind: MethodKind::Write, call: CallType::Unknown, listed: false };

    /// Read or write; `None` for one that goes to the authority alone.
    #[must_use]
    pub const fn operation(self) -> Option<Operation> {
        match self.kind {
            MethodKind::Read => Some(Operation::Read),
            MethodKind::Write | MethodKind::Delete => Some(Operation::Write),
            MethodKind::Aside => None,
        }
    }

    /// What a status says about a call of this method: as
    /// [`outcome`] says, and applied for the `NOT_FOUND` of a
    /// delete.
    #[must_use]
    pub const fn outcome(self, code: Code) -> Outcome {
        match (self.kind, code) {
            (MethodKind::Delete, Code::NotFound) => Outcome::Applied,
            _ => outcome(code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_delete_is_done_when_nothing_is_there() {
        for kind in [MethodKind::Read, MethodKind::Write, MethodKind::Delete, MethodKind::Aside] {
            let method = Method { kind, ..Method::UNLISTED };
            let delete = kind == MethodKind::Delete;
            let wanted = if delete { Outcome::Applied } else { Outcome::Refused };
            assert_eq!(method.outcome(Code::NotFound), wanted);
            for code in (0..=16).map(Code::from_i32).filter(|code| *code != Code::NotFound) {
                assert_eq!(method.outcome(code), outcome(code));
            }
        }
    }

    #[test]
    fn aside_is_neither_read_nor_write() {
        let operation = |kind| Method { kind, ..Method::UNLISTED }.operation();
        assert_eq!(operation(MethodKind::Read), Some(Operation::Read));
        assert_eq!(operation(MethodKind::Write), Some(Operation::Write));
        assert_eq!(operation(MethodKind::Delete), Some(Operation::Write));
        assert_eq!(operation(MethodKind::Aside), None);
    }
}
