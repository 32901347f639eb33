//! What a user says about a gRPC service.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, Request};
use prost::Message;

use super::{
    GrpcConfigError, Method, MethodKind, field::FieldPath, keys::KeyFns, methods::Methods, names,
};
use crate::{
    body::Streaming,
    compare::{
        Compare,
        grpc::{ExactMessages, GrpcStatus},
    },
    flag::ConfigError,
    protocol::{Head, http::Exchange},
    reconcile::{Key, Keys},
};

type RampBy = dyn Fn(&Head<'_>) -> Option<Key> + Send + Sync;

/// The protocol of gRPC services: which methods are reads, what a call is
/// about, and how answers are compared.
///
/// Cheap to clone. Without any setting every method is a write but for health
/// and reflection, no call has a key, and answers are compared by their status
/// and the bytes of their messages.
///
/// ```
/// use tower_migration::protocol::grpc::{CallType, Grpc, MethodKind};
///
/// #[derive(Clone, PartialEq, prost::Message)]
/// struct PutRequest {
///     #[prost(message, optional, tag = "1")]
///     airport: Option<Airport>,
/// }
/// #[derive(Clone, PartialEq, prost::Message)]
/// struct Airport {
///     #[prost(string, tag = "1")]
///     code: String,
/// }
///
/// # const AIRPORTS: &[u8] =
/// #     include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tonic/airports.bin"));
/// // `AIRPORTS` are the bytes of a compiled descriptor set.
/// let grpc = Grpc::new()
///     .descriptors(AIRPORTS)?
///     .deletes(["/airports.v1.Airports/Delete"])?
///     .key_field("/airports.v1.Airports/Get", "code")?
///     .key_field("/airports.v1.Airports/Delete", "code")?
///     .key_of("/airports.v1.Airports/Put", |put: &PutRequest| {
///         put.airport.as_ref().map(|airport| airport.code.clone())
///     })?
///     .require(["airports.v1.Airports"])?;
///
/// let list = grpc.method("/airports.v1.Airports/List");
/// assert_eq!((list.kind, list.call), (MethodKind::Read, CallType::ServerStreaming));
/// assert_eq!(grpc.method("/airports.v1.Airports/Delete").kind, MethodKind::Delete);
/// assert!(!grpc.method("/airports.v1.Airports/Gett").listed);
/// # Ok::<(), tower_migration::protocol::grpc::GrpcConfigError>(())
/// ```
///
/// # Keys
///
/// The functions see the first message of a call, unpacked, without its
/// five-byte head. All that a call brings later (the second airport of an
/// import) has no part in its keys, so give a streaming method a key only if
/// its first message names all that it touches. What they give is the key's
/// text, as it is.
///
/// A dual write waits for that message. If the call may go both ways, its client
/// may be waiting for the head of the answer before it sends any: such a call
/// is waited for half a second, and has no key if nothing has come by then.
///
/// Reads and writes of one thing must give **the same key**: if `Put` gives
/// `airport.code` then `Get` has to give `code`, not `get/code`. Things of
/// different kinds that may have equal ids want a prefix
/// (`format!("airport/{id}")`), in all methods alike. Two writes that share no
/// key are not ordered with each other; no key at all means *anything*, as it
/// does in [`KeyOf`](crate::protocol::KeyOf). So does a message that cannot be
/// decoded.
///
/// A second function for the same method replaces the first.
#[derive(Clone)]
pub struct Grpc {
    pub(crate) methods: Arc<Methods>,
    pub(crate) keys: Arc<KeyFns>,
    pub(crate) answer_keys: Arc<KeyFns>,
    pub(crate) compare: Arc<dyn Compare>,
    pub(crate) ramp_by: Option<Arc<RampBy>>,
    pub(crate) exchange: Exchange,
    pub(crate) close_after: Option<Duration>,
}

impl Default for Grpc {
    fn default() -> Self {
        Self {
            methods: Arc::default(),
            keys: Arc::default(),
            answer_keys: Arc::default(),
            compare: Arc::new(GrpcStatus.and(ExactMessages)),
            ramp_by: None,
            exchange: Exchange { streaming: Some(Streaming::new()), ..Exchange::default() },
            close_after: None,
        }
    }
}

impl fmt::Debug for Grpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grpc")
            .field("methods", &self.methods.len())
            .field("keys", &self.keys)
            .field("answer_keys", &self.answer_keys)
            .finish_non_exhaustive()
    }
}

impl Grpc {
    /// Nothing said yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over what a compiled `FileDescriptorSet` says: methods with
    /// `idempotency_level = NO_SIDE_EFFECTS` are reads, all others writes, and
    /// how many messages each takes and gives.
    ///
    /// The set has to be whole, with what it imports: `protoc
    /// --include_imports --descriptor_set_out=FILE`, or
    /// `file_descriptor_set_path` of tonic's build. May be called again for
    /// another set; the later one wins where both have a method.
    ///
    /// # Errors
    ///
    /// If the bytes are no such set, or one without any service.
    pub fn descriptors(mut self, bytes: &[u8]) -> Result<Self, GrpcConfigError> {
        Arc::make_mut(&mut self.methods).describe(bytes)?;
        Ok(self)
    }

    /// These methods read, whatever a descriptor says. Full names:
    /// `/package.Service/Method`.
    ///
    /// A write that is taken for a read is lost on the other side.
    ///
    /// # Errors
    ///
    /// If a name is malformed, or listed as something else already. So for
    /// [`writes`](Self::writes) and [`deletes`](Self::deletes).
    pub fn reads<N: AsRef<str>>(
        self,
        methods: impl IntoIterator<Item = N>,
    ) -> Result<Self, GrpcConfigError> {
        self.list(methods, MethodKind::Read)
    }

    /// These methods write, whatever a descriptor says. A method that is
    /// nowhere is taken for a write too, but counted.
    ///
    /// # Errors
    ///
    /// As for [`reads`](Self::reads).
    pub fn writes<N: AsRef<str>>(
        self,
        methods: impl IntoIterator<Item = N>,
    ) -> Result<Self, GrpcConfigError> {
        self.list(methods, MethodKind::Write)
    }

    /// These methods delete: writes for which `NOT_FOUND` means done, so that
    /// `OK` on one side and `NOT_FOUND` on the other agree.
    ///
    /// Only for those that say `NOT_FOUND` of the thing itself: if it can also
    /// mean that the parent is missing, list it as a write.
    ///
    /// # Errors
    ///
    /// As for [`reads`](Self::reads).
    pub fn deletes<N: AsRef<str>>(
        self,
        methods: impl IntoIterator<Item = N>,
    ) -> Result<Self, GrpcConfigError> {
        self.list(methods, MethodKind::Delete)
    }

    /// These go to the authority alone, on every stage: they are never written
    /// twice or compared. `/package.Service/Method` is one method,
    /// `package.Service` a whole service, `package.*` all services of a package
    /// and of those below it.
    ///
    /// `grpc.health.*` and `grpc.reflection.*` are aside without being named.
    /// A method that is listed by itself is what that list says, even if its
    /// service is aside.
    ///
    /// # Errors
    ///
    /// If a name is malformed, or a method is listed as something else already.
    pub fn asides<N: AsRef<str>>(
        mut self,
        names: impl IntoIterator<Item = N>,
    ) -> Result<Self, GrpcConfigError> {
        let methods = Arc::make_mut(&mut self.methods);
        names.into_iter().try_for_each(|name| methods.aside(name.as_ref()))?;
        Ok(self)
    }

    /// Wants these methods (`/package.Service/Method`), services
    /// (`package.Service`) or packages (`package.*`) to be in the descriptors
    /// that were given before. A guard against names that were mistyped or have
    /// changed.
    ///
    /// # Errors
    ///
    /// If a name is malformed, or the descriptors lack it.
    pub fn require<N: AsRef<str>>(
        self,
        names: impl IntoIterator<Item = N>,
    ) -> Result<Self, GrpcConfigError> {
        names.into_iter().try_for_each(|name| self.methods.require(name.as_ref()))?;
        Ok(self)
    }

    /// The keys of a method's calls, from the bytes of the first message.
    ///
    /// # Errors
    ///
    /// If the name is malformed. So for the others below.
    pub fn key<K: Into<Keys>>(
        mut self,
        method: &str,
        of: impl Fn(&Bytes) -> K + Send + Sync + 'static,
    ) -> Result<Self, GrpcConfigError> {
        Arc::make_mut(&mut self.keys).set(names::method(method)?, of);
        Ok(self)
    }

    /// The keys of a method's calls, from the first message, decoded. Name the
    /// type in the closure: `|put: &PutRequest| …`.
    ///
    /// # Errors
    ///
    /// As for [`key`](Self::key).
    pub fn key_of<M, K>(
        mut self,
        method: &str,
        of: impl Fn(&M) -> K + Send + Sync + 'static,
    ) -> Result<Self, GrpcConfigError>
    where
        M: Message + Default,
        K: Into<Keys>,
    {
        Arc::make_mut(&mut self.keys).set_typed(names::method(method)?, of);
        Ok(self)
    }

    /// The keys of a method's calls, from a field of the first message, such as
    /// `code` or `airport.code`, through the descriptors that were given
    /// before.
    ///
    /// Text stands for itself, numbers and enums in decimal, bytes in lower-case
    /// hexadecimal. A repeated field on the way or at the end gives a key for
    /// each. A field that is absent or empty gives none; the number 0 of a field
    /// that cannot be absent is a key.
    ///
    /// # Errors
    ///
    /// If the name is malformed, the descriptors lack the method, or the path
    /// leads to nothing that can be a key: a message, a map, a floating-point
    /// number.
    pub fn key_field(mut self, method: &str, path: &str) -> Result<Self, GrpcConfigError> {
        self.methods.require(names::method(method)?)?;
        if let Some(descriptor) = self.methods.descriptor(method) {
            let field = FieldPath::new(method, descriptor.input(), path)?;
            Arc::make_mut(&mut self.keys).set(method, move |message| field.of(message));
        }
        Ok(self)
    }

    /// The keys that only the answer tells, such as the id that a create gave:
    /// from the answer's first message, decoded. Both sides' answers are asked:
    /// keys that differ between the two are dirty.
    ///
    /// # Errors
    ///
    /// As for [`key`](Self::key).
    pub fn answer_key_of<M, K>(
        mut self,
        method: &str,
        of: impl Fn(&M) -> K + Send + Sync + 'static,
    ) -> Result<Self, GrpcConfigError>
    where
        M: Message + Default,
        K: Into<Keys>,
    {
        Arc::make_mut(&mut self.answer_keys).set_typed(names::method(method)?, of);
        Ok(self)
    }

    /// What a call is counted under: its method. One that is in no list may be
    /// anything, so those count as one.
    pub(crate) fn route_of_path(&self, path: &str) -> Arc<str> {
        if self.method(path).listed { path.into() } else { "(unlisted)".into() }
    }

    /// How answers are compared. Default:
    /// [`GrpcStatus`]`.and(`[`ExactMessages`]`)`.
    #[must_use]
    pub fn compare(mut self, compare: impl Compare) -> Self {
        self.compare = Arc::new(compare);
        self
    }

    /// What a [`ramp`](crate::MigrationHandle::ramp) goes by: a tenant in the
    /// metadata, for example. `None` stays at `WriteBoth`, and so does every
    /// call without this: which side serves a read is decided before its message
    /// has come.
    #[must_use]
    pub fn ramp_by<K: Into<Key>>(
        mut self,
        by: impl Fn(&Head<'_>) -> Option<K> + Send + Sync + 'static,
    ) -> Self {
        self.ramp_by = Some(Arc::new(move |head| by(head).map(Into::into)));
        self
    }

    /// Runs over the head of each dual write once, before it is copied: the
    /// place to stamp metadata, so that both sides get the same. It sees the
    /// messages, framed, of a call that is known to have one; else an empty
    /// body, and what it puts there is dropped.
    #[must_use]
    pub fn prepare(
        mut self,
        prepare: impl Fn(&mut Request<Bytes>) + Send + Sync + 'static,
    ) -> Self {
        self.exchange.prepare = Some(Arc::new(prepare));
        self
    }

    /// Removes `T` from the extensions of copies.
    #[must_use]
    pub fn strip_extension<T: Clone + Send + Sync + 'static>(mut self) -> Self {
        self.exchange.strip.push(|extensions| {
            extensions.remove::<T>();
        });
        self
    }

    /// Writes each [`Dispatch`](crate::Dispatch) into this metadata too, as
    /// `write-both; new; other`, for sides that are clients of other machines.
    /// Off by default.
    #[must_use]
    pub fn dispatch_header(mut self, name: HeaderName) -> Self {
        self.exchange.dispatch_header = Some(name);
        self
    }

    /// How calls of several messages, and of methods without a descriptor, are
    /// streamed to both sides of a dual write. Default: [`Streaming::new`].
    /// Calls that are known to have one message are collected, so that neither
    /// side sees one that breaks off.
    ///
    /// With [`WriteOrder::AuthorityFirst`](crate::WriteOrder::AuthorityFirst)
    /// all are collected, since the other side comes later. Do not choose it for
    /// a service whose clients wait for answers before they have sent all: such
    /// a call is refused at [`Limits::body_timeout`](crate::Limits::body_timeout).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Zero`] if the lag is zero.
    pub fn streaming(mut self, streaming: Streaming) -> Result<Self, ConfigError> {
        streaming.check()?;
        self.exchange.streaming = Some(streaming);
        Ok(self)
    }

    /// Breaks off writes that still stream this long after the flag has moved on
    /// from where they began, or after a step has begun to wait for them, with
    /// `UNAVAILABLE` and "the service is being migrated: reconnect". Off by
    /// default: then a step waits for such a write, and is refused at its
    /// deadline with the write's method and age.
    ///
    /// Its handler sees its request break off, on both sides, with
    /// [`BranchError::Closed`](crate::body::BranchError::Closed), and its answer
    /// is dropped. Calls that a descriptor says are unary are never broken off.
    ///
    /// A client that reconnects is served by the stage of then. What it had sent
    /// may have been applied in part: in a one-sided stage that is so without
    /// the layer too; in a two-sided stage the key is dirty (without a key: the
    /// other side suspect), since the two sides may have come to different
    /// points.
    ///
    /// It costs one-sided writes that may stream a task and some allocations, and
    /// makes them known by name, as with [`name_writes`](crate::MigrationLayer::name_writes).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Zero`] if `grace` is zero.
    pub fn close_streams_after(mut self, grace: Duration) -> Result<Self, ConfigError> {
        if grace.is_zero() {
            return Err(ConfigError::Zero { limit: "close_streams_after" });
        }
        self.close_after = Some(grace);
        Ok(self)
    }

    /// What a method is, by its request's path. Allocates nothing.
    #[must_use]
    pub fn method(&self, path: &str) -> Method {
        self.methods.get(path)
    }

    fn list<N: AsRef<str>>(
        mut self,
        names: impl IntoIterator<Item = N>,
        kind: MethodKind,
    ) -> Result<Self, GrpcConfigError> {
        let methods = Arc::make_mut(&mut self.methods);
        names.into_iter().try_for_each(|name| methods.list(name.as_ref(), kind))?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::compare::{Answer, Answers, Diff};

    const AIRPORTS: &[u8] = include_bytes!("../../../examples/tonic/airports.bin");
    const GET: &str = "/airports.v1.Airports/Get";
    const PUT: &str = "/airports.v1.Airports/Put";

    #[derive(Clone, PartialEq, Message)]
    struct Coded {
        #[prost(string, tag = "1")]
        code: String,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Put {
        #[prost(message, optional, tag = "1")]
        airport: Option<Coded>,
    }

    fn framed(message: &impl Message) -> Bytes {
        let mut body = vec![0; 5];
        body[1..].copy_from_slice(&(message.encoded_len() as u32).to_be_bytes());
        message.encode(&mut body).expect("room");
        body.into()
    }

    fn put(code: &str) -> Bytes {
        framed(&Put { airport: Some(Coded { code: code.into() }) })
    }

    #[test]
    fn all_ways_to_a_key_lead_to_the_same_one() -> Result<(), GrpcConfigError> {
        let grpc = Grpc::new()
            .descriptors(AIRPORTS)?
            .key_field(PUT, "airport.code")?
            .key_of(GET, |get: &Coded| get.code.clone())?
            .key("/x.Y/Raw", |message| String::from_utf8(message.to_vec()).ok())?
            .answer_key_of(PUT, |put: &Coded| put.code.clone())?;
        let of =
            |keys: &KeyFns, path: &str, body: &Bytes| keys.of(path, &HeaderMap::new(), body, 100);
        let wanted = Keys::from("EDDF");
        assert_eq!(of(&grpc.keys, PUT, &put("EDDF")), wanted);
        let coded = framed(&Coded { code: "EDDF".into() });
        assert_eq!(of(&grpc.keys, GET, &coded), wanted);
        assert_eq!(of(&grpc.answer_keys, PUT, &coded), wanted);
        let raw = Bytes::from_static(b"\0\0\0\0\x04EDDF");
        assert_eq!(of(&grpc.keys, "/x.Y/Raw", &raw), wanted);
        assert_eq!(of(&grpc.answer_keys, GET, &coded), Keys::none());
        Ok(())
    }

    #[test]
    fn a_clone_keeps_its_own_settings() -> Result<(), GrpcConfigError> {
        let plain = Grpc::new();
        let told = plain.clone().reads([GET])?.key(GET, |_| "x")?;
        assert!(!plain.method(GET).listed && plain.keys.is_empty());
        assert_eq!(told.method(GET).kind, MethodKind::Read);
        assert!(told.keys.has(GET));
        Ok(())
    }

    #[test]
    fn each_list_makes_what_it_says() -> Result<(), GrpcConfigError> {
        let grpc = Grpc::new()
            .reads(["/a.B/R"])?
            .writes(vec!["/a.B/W".to_owned()])?
            .deletes(["/a.B/D"])?
            .asides(["/a.B/A", "a.C"])?;
        for (path, kind) in [
            ("/a.B/R", MethodKind::Read),
            ("/a.B/W", MethodKind::Write),
            ("/a.B/D", MethodKind::Delete),
            ("/a.B/A", MethodKind::Aside),
            ("/a.C/X", MethodKind::Aside),
        ] {
            assert_eq!(grpc.method(path).kind, kind, "{path}");
            assert!(grpc.method(path).listed, "{path}");
        }
        Ok(())
    }

    #[test]
    fn mistakes_are_found_when_they_are_made() {
        type E = GrpcConfigError;
        let new = Grpc::new;
        assert!(matches!(new().descriptors(b"x"), Err(E::Descriptors { .. })));
        assert!(matches!(new().descriptors(b""), Err(E::NoService)));
        for bad in [
            new().reads(["Get"]),
            new().writes(["Get"]),
            new().deletes(["Get"]),
            new().key("Get", |_| "x"),
            new().key_of("Get", |_: &Coded| "x"),
            new().answer_key_of("Get", |_: &Coded| "x"),
            new().key_field("Get", "code"),
        ] {
            assert!(matches!(bad, Err(E::MethodName { .. })), "{bad:?}");
        }
        assert!(matches!(new().asides(["a b"]), Err(E::ServiceName { .. })));
        assert!(matches!(new().reads([GET]).and_then(|g| g.writes([GET])), Err(E::Twice { .. })));
        assert!(matches!(new().require([GET]), Err(E::NotDescribed { .. })));
        assert!(matches!(new().key_field(GET, "code"), Err(E::NotDescribed { .. })));
        let told = || new().descriptors(AIRPORTS);
        assert!(told().and_then(|g| g.require([GET])).is_ok());
        assert!(matches!(told().and_then(|g| g.key_field(GET, "kode")), Err(E::Field { .. })));
    }

    #[test]
    fn the_comparer_is_by_status_and_messages_until_another_is_set() {
        let one = Answer::new(StatusCode::OK, Bytes::from_static(b"\0\0\0\0\x01a"));
        let mut two = Answer::new(StatusCode::OK, Bytes::from_static(b"\0\0\0\0\x01b"));
        two.headers.insert("grpc-status", 5.into());
        let differences =
            |grpc: &Grpc| grpc.compare.compare(&Answers::of(&one, &two)).differences().len();
        assert_eq!(differences(&Grpc::new()), 2);
        assert_eq!(differences(&Grpc::new().compare(())), 0);
        assert_eq!(
            differences(&Grpc::new().compare(|_: &Answers<'_>| Diff::of("all", "a", "b"))),
            1
        );
    }
}
