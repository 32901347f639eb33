//! Which methods there are, and what each of them is.

use std::{collections::HashMap, panic, sync::Arc};

use prost_reflect::{
    DescriptorPool, MethodDescriptor, prost_types::method_options::IdempotencyLevel,
};

use super::{CallType, GrpcConfigError, Method, MethodKind, names};
use crate::BoxError;

/// What is aside unless a list says otherwise: it tells about the process, not
/// about the data.
const ASIDE: [&str; 2] = ["/grpc.health.", "/grpc.reflection."];

/// Every method that is known, by its path.
#[derive(Clone, Debug)]
pub(crate) struct Methods {
    lists: HashMap<Box<str>, MethodKind>,
    /// What the paths of whole services or packages start with.
    asides: Vec<Box<str>>,
    described: HashMap<Box<str>, MethodDescriptor>,
    /// What follows from the three above, so that a request looks up once.
    known: HashMap<Box<str>, Method>,
}

impl Default for Methods {
    fn default() -> Self {
        Self {
            lists: HashMap::new(),
            asides: ASIDE.map(Box::from).into(),
            described: HashMap::new(),
            known: HashMap::new(),
        }
    }
}

impl Methods {
    /// What is known of the method with this path. Allocates nothing.
    pub(crate) fn get(&self, path: &str) -> Method {
        match self.known.get(path) {
            Some(method) => *method,
            None if self.is_aside(path) => {
                Method { kind: MethodKind::Aside, listed: true, ..Method::UNLISTED }
            }
            None => Method::UNLISTED,
        }
    }

    /// The descriptor of the method with this path.
    pub(crate) fn descriptor(&self, path: &str) -> Option<&MethodDescriptor> {
        self.described.get(path)
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Says what one method is.
    pub(super) fn list(&mut self, name: &str, kind: MethodKind) -> Result<(), GrpcConfigError> {
        let name = names::method(name)?;
        match self.lists.insert(name.into(), kind) {
            Some(first) if first != kind => {
                return Err(GrpcConfigError::Twice { method: name.into(), first, second: kind });
            }
            _ => {}
        }
        self.resolve();
        Ok(())
    }

    /// Says that a method, a service or a package goes to the authority alone.
    pub(super) fn aside(&mut self, name: &str) -> Result<(), GrpcConfigError> {
        if name.starts_with('/') {
            return self.list(name, MethodKind::Aside);
        }
        self.asides.push(names::prefix(name)?);
        self.resolve();
        Ok(())
    }

    /// Adds the methods of a descriptor set.
    pub(super) fn describe(&mut self, set: &[u8]) -> Result<(), GrpcConfigError> {
        // A pool for each set: in one pool, a second file of the same name
        // would be left out in silence.
        let pool = pool(set)?;
        for service in pool.services() {
            for method in service.methods() {
                let path = format!("/{}/{}", service.full_name(), method.name());
                self.described.insert(path.into(), method);
            }
        }
        self.resolve();
        Ok(())
    }

    /// Wants a service or a method to be in the descriptors.
    pub(super) fn require(&self, name: &str) -> Result<(), GrpcConfigError> {
        let found = if name.starts_with('/') {
            self.described.contains_key(names::method(name)?)
        } else {
            let prefix = names::prefix(name)?;
            self.described.keys().any(|path| path.starts_with(&*prefix))
        };
        if found { Ok(()) } else { Err(GrpcConfigError::NotDescribed { name: name.into() }) }
    }

    fn is_aside(&self, path: &str) -> bool {
        self.asides.iter().any(|prefix| path.starts_with(&**prefix))
    }

    fn resolve(&mut self) {
        let paths = self.lists.keys().chain(self.described.keys());
        self.known = paths.map(|path| (path.clone(), self.resolved(path))).collect();
    }

    /// The lists win over whole services, and those over descriptors.
    fn resolved(&self, path: &str) -> Method {
        let described = self.described.get(path);
        let kind = match (self.lists.get(path), described) {
            (Some(kind), _) => *kind,
            (None, _) if self.is_aside(path) => MethodKind::Aside,
            (None, Some(method)) if is_read(method) => MethodKind::Read,
            (None, _) => MethodKind::Write,
        };
        let call = described.map_or(CallType::Unknown, |method| {
            CallType::of(method.is_client_streaming(), method.is_server_streaming())
        });
        Method { kind, call, listed: true }
    }
}

/// Reads a descriptor set.
pub(crate) fn pool(set: &[u8]) -> Result<DescriptorPool, GrpcConfigError> {
    // It indexes what it has not checked while it puts an error together: a
    // damaged file shall not end the process in a way that says nothing.
    let pool = panic::catch_unwind(|| DescriptorPool::decode(set))
        .map_err(|_| Arc::from(BoxError::from("damaged beyond what the decoder can name")))
        .and_then(|pool| pool.map_err(|source| Arc::new(source) as _))
        .map_err(|source| GrpcConfigError::Descriptors { source })?;
    // A set that was cut off between two files, or no set at all, is valid.
    if pool.services().len() == 0 { Err(GrpcConfigError::NoService) } else { Ok(pool) }
}

fn is_read(method: &MethodDescriptor) -> bool {
    let options = method.method_descriptor_proto().options.as_ref();
    options.is_some_and(|options| options.idempotency_level() == IdempotencyLevel::NoSideEffects)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AIRPORTS: &[u8] = include_bytes!("../../../examples/tonic/airports.bin");
    const INTEROP: &[u8] = include_bytes!("../../../tests/proto/interop.bin");

    fn described(sets: &[&[u8]]) -> Methods {
        let mut methods = Methods::default();
        for set in sets {
            methods.describe(set).expect("a descriptor set");
        }
        methods
    }

    fn airports(method: &str) -> String {
        format!("/airports.v1.Airports/{method}")
    }

    #[test]
    fn descriptors_tell_reads_and_call_types() {
        use CallType::{Bidirectional, ClientStreaming, ServerStreaming, Unary};
        use MethodKind::{Read, Write};
        let methods = described(&[AIRPORTS, INTEROP]);
        for (name, kind, call) in [
            ("Get", Read, Unary),
            ("List", Read, ServerStreaming),
            // Idempotent is not the same as without effect.
            ("Put", Write, Unary),
            ("Delete", Write, Unary),
            ("Import", Write, ClientStreaming),
            ("Follow", Write, Bidirectional),
        ] {
            assert_eq!(methods.get(&airports(name)), Method { kind, call, listed: true }, "{name}");
        }
        assert!(methods.get("/grpc.testing.TestService/EmptyCall").listed);
        assert_eq!(methods.len(), 6 + 8);
    }

    #[test]
    fn what_is_nowhere_is_a_write_and_known_to_be_so() {
        let methods = described(&[AIRPORTS]);
        for path in ["", "/", "/x", &airports("get"), &airports("Get/"), "airports.v1.Airports/Get"]
        {
            assert_eq!(methods.get(path), Method::UNLISTED, "{path:?}");
        }
    }

    #[test]
    fn lists_win_over_services_and_services_over_descriptors() {
        for descriptors_first in [true, false] {
            let mut methods = Methods::default();
            if descriptors_first {
                methods.describe(AIRPORTS).expect("a descriptor set");
            }
            methods.list(&airports("Delete"), MethodKind::Delete).expect("a name");
            methods.list(&airports("Follow"), MethodKind::Read).expect("a name");
            methods.aside(&airports("Own")).expect("a name");
            methods.aside("airports.v1.Airports").expect("a name");
            if !descriptors_first {
                methods.describe(AIRPORTS).expect("a descriptor set");
            }
            let kind = |name: &str| methods.get(&airports(name)).kind;
            assert_eq!(kind("Delete"), MethodKind::Delete);
            assert_eq!(kind("Follow"), MethodKind::Read);
            assert_eq!(kind("Get"), MethodKind::Aside);
            assert_eq!(kind("Own"), MethodKind::Aside);
            assert_eq!(methods.get(&airports("Get")).call, CallType::Unary);
            assert_eq!(methods.get(&airports("Follow")).call, CallType::Bidirectional);
            // In no descriptor, but in the service.
            assert_eq!(methods.get(&airports("New")).kind, MethodKind::Aside);
            assert!(methods.get(&airports("New")).listed);
        }
    }

    #[test]
    fn health_and_reflection_are_aside_unless_listed() {
        let mut methods = Methods::default();
        methods.list("/grpc.health.v1.Health/Check", MethodKind::Read).expect("a name");
        for (path, kind) in [
            ("/grpc.health.v1.Health/Check", MethodKind::Read),
            ("/grpc.health.v1.Health/Watch", MethodKind::Aside),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", MethodKind::Aside),
            ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", MethodKind::Aside),
            ("/grpc.healthy.v1.Health/Check", MethodKind::Write),
            ("/grpc.testing.TestService/UnaryCall", MethodKind::Write),
        ] {
            assert_eq!(methods.get(path).kind, kind, "{path}");
        }
    }

    #[test]
    fn a_prefix_ends_where_a_name_ends() {
        let mut methods = Methods::default();
        methods.aside("a.B").expect("a name");
        methods.aside("c.*").expect("a name");
        for (path, aside) in [
            ("/a.B/M", true),
            ("/a.Bc/M", false),
            ("/a.B.C/M", false),
            ("/c.D/M", true),
            ("/c.d.E/M", true),
            ("/cc.D/M", false),
            ("/c/M", false),
        ] {
            assert_eq!(methods.get(path).kind == MethodKind::Aside, aside, "{path}");
        }
    }

    #[test]
    fn one_method_cannot_be_two_things() {
        let mut methods = Methods::default();
        methods.list("/a.B/C", MethodKind::Read).expect("a name");
        methods.list("/a.B/C", MethodKind::Read).expect("the same again");
        let error = methods.aside("/a.B/C").expect_err("two things");
        assert_eq!(
            error.to_string(),
            "/a.B/C is listed as a read and as aside: keep one of the two"
        );
    }

    #[test]
    fn what_is_required_must_be_described() {
        let methods = described(&[AIRPORTS]);
        for there in ["airports.v1.Airports", "airports.v1.*", &airports("Get")] {
            methods.require(there).expect("it is there");
        }
        for missing in ["airports.v1.Airport", "airports.v2.*", &airports("Gett"), "v1.Airports"] {
            let error = methods.require(missing).expect_err("it is missing");
            assert!(matches!(error, GrpcConfigError::NotDescribed { .. }), "{missing}");
            assert!(error.to_string().contains(missing), "{error}");
        }
        assert!(matches!(methods.require("/x"), Err(GrpcConfigError::MethodName { .. })));
        assert!(matches!(methods.require("x/"), Err(GrpcConfigError::ServiceName { .. })));
        assert!(Methods::default().require(&airports("Get")).is_err());
    }

    #[test]
    fn a_descriptor_set_cut_anywhere_is_an_error() {
        for set in [AIRPORTS, INTEROP] {
            for end in 0..set.len() {
                let mut methods = Methods::default();
                assert!(methods.describe(&set[..end]).is_err(), "cut at {end}");
                assert_eq!(methods.len(), 0);
            }
        }
        for garbage in [&[0xff; 64][..], b"syntax = \"proto3\";", &[0; 3]] {
            let error = Methods::default().describe(garbage).expect_err("garbage");
            assert!(error.to_string().contains("--descriptor_set_out"), "{error}");
        }
    }

    #[test]
    fn a_descriptor_set_with_any_byte_changed_does_no_harm() {
        let (mut good, mut bad) = (0, 0);
        for at in 0..AIRPORTS.len() {
            for flip in [0x01, 0x04, 0x20, 0x80, 0xff] {
                let mut set = AIRPORTS.to_vec();
                set[at] ^= flip;
                let described = Methods::default().describe(&set).is_ok();
                let comparer = crate::compare::grpc::DecodedMessages::new(&set).is_ok();
                assert_eq!(described, comparer);
                *(if described { &mut good } else { &mut bad }) += 1;
            }
        }
        // A letter of a name may well be another one.
        assert!(good > 100 && bad > 100, "{good} good, {bad} bad");
    }
}
