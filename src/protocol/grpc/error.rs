//! What can be wrong with what is said about methods.

use std::{fmt, sync::Arc};

use super::MethodKind;

/// A setting of [`Grpc`](super::Grpc) that cannot be. `Display` says what to do.
///
/// ```
/// use tower_migration::protocol::grpc::{Grpc, GrpcConfigError};
///
/// let error = Grpc::new().reads(["airports.v1.Airports/Get"]).unwrap_err();
/// assert!(matches!(error, GrpcConfigError::MethodName { .. }));
/// assert!(error.to_string().contains("/package.Service/Method"));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum GrpcConfigError {
    /// The bytes are no descriptor set, or one that does not fit together.
    Descriptors {
        /// What is wrong with them.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The descriptor set has no service.
    NoService,
    /// This is not the full name of a method.
    MethodName {
        /// What was given.
        name: Box<str>,
    },
    /// This is not the name of a service, and no prefix of such names.
    ServiceName {
        /// What was given.
        name: Box<str>,
    },
    /// One method is in two lists.
    Twice {
        /// The method.
        method: Box<str>,
        /// What it was said to be first.
        first: MethodKind,
        /// What it was said to be then.
        second: MethodKind,
    },
    /// The descriptors lack a service or method that they must have.
    NotDescribed {
        /// The service or the method.
        name: Box<str>,
    },
    /// A field that is to be a key cannot be one.
    Field {
        /// The method.
        method: Box<str>,
        /// The path as it was given.
        path: Box<str>,
        /// The name in the path at which it ends.
        at: Box<str>,
        /// Why.
        problem: FieldProblem,
    },
}

/// Why a field cannot be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FieldProblem {
    /// The message has no field of that name.
    Missing,
    /// The path goes on after a field that is no message.
    NoMessage,
    /// The path ends at a message.
    Message,
    /// It is a map: its entries have no order and no name of their own.
    Map,
    /// It is a floating-point number, of which two that are equal may look
    /// different.
    Float,
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "the message has no such field: look the name up in the .proto file",
            Self::NoMessage => "the field is no message, so the path must end there",
            Self::Message => "the field is a message: go on to one of its fields",
            Self::Map => "the field is a map: give a function with `key_of` instead",
            Self::Float => {
                "a floating-point number makes no good key: take another field, or give a \
                 function with `key_of`"
            }
        })
    }
}

impl fmt::Display for GrpcConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Descriptors { source } => write!(
                f,
                "these bytes are no whole descriptor set ({source}): give the file that \
                 `protoc --include_imports --descriptor_set_out` or a build script has written"
            ),
            Self::NoService => f.write_str(
                "the descriptor set has no service: give the set of the .proto file that has it",
            ),
            Self::MethodName { name } => write!(
                f,
                "{name:?} is no method's full name: write it as in the request's path, \
                 /package.Service/Method"
            ),
            Self::ServiceName { name } => write!(
                f,
                "{name:?} is no service: write package.Service for one, package.* for all below \
                 a package, or /package.Service/Method for one method"
            ),
            Self::Twice { method, first, second } => {
                write!(f, "{method} is listed as {first} and as {second}: keep one of the two")
            }
            Self::NotDescribed { name } => write!(
                f,
                "the descriptors lack {name}: correct the name, or give (before it) the \
                 descriptor set that has it"
            ),
            Self::Field { method, path, at, problem } => {
                write!(f, "`{path}` cannot be the key of {method}: at `{at}`, {problem}")
            }
        }
    }
}

impl std::error::Error for GrpcConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Descriptors { source } => Some(&**source),
            _ => None,
        }
    }
}
