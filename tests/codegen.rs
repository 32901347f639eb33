//! The code and the descriptor sets that are checked in for the `.proto` files
//! are what the compiler makes of them.
//!
//! `WRITE_GENERATED=1 cargo test --test codegen` writes them anew. Neither
//! needs `protoc`.

use std::{fs, path::Path};

use prost::Message;

/// Compares `folder/name.{rs,bin}` with what `folder/name.proto`, whose package
/// is `package`, gives.
fn check(folder: &str, name: &str, package: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let set = protox::compile([format!("{name}.proto")], [&folder]).expect("valid protobuf");
    let made = tempfile::tempdir().expect("a directory");
    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        .out_dir(made.path())
        .compile_fds(set.clone())
        .expect("code can be made of it");
    let code = fs::read(made.path().join(format!("{package}.rs"))).expect("the package's code");

    // Comments are for the code. Without them the set tells only what a program
    // needs, and a reworded comment does not change it.
    let mut bare = set;
    for file in &mut bare.file {
        file.source_code_info = None;
    }

    for (extension, wanted) in [("rs", code), ("bin", bare.encode_to_vec())] {
        let path = folder.join(name).with_extension(extension);
        if std::env::var_os("WRITE_GENERATED").is_some() {
            fs::write(&path, wanted).expect("written");
            continue;
        }
        let found = fs::read(&path).unwrap_or_default();
        assert!(
            found == wanted,
            "{} is not what its .proto gives: WRITE_GENERATED=1 cargo test --test codegen",
            path.display()
        );
    }
}

#[test]
fn the_interop_service_is_as_its_proto_says() {
    check("tests/proto", "interop", "grpc.testing");
}

#[test]
fn the_airports_are_as_their_proto_says() {
    check("examples/tonic", "airports", "airports.v1");
}

/// What is checked in compiles, and is quiet about it.
mod generated {
    #[allow(warnings)]
    pub(crate) mod interop {
        include!("proto/interop.rs");
    }
    #[allow(warnings)]
    pub(crate) mod airports {
        include!("../examples/tonic/airports.rs");
    }
}

struct Nothing;

#[tonic::async_trait]
impl generated::interop::unimplemented_service_server::UnimplementedService for Nothing {
    async fn unimplemented_call(
        &self,
        _: tonic::Request<generated::interop::Empty>,
    ) -> Result<tonic::Response<generated::interop::Empty>, tonic::Status> {
        Err(tonic::Status::unimplemented("as its name says"))
    }
}

#[tokio::test]
async fn a_generated_client_and_a_generated_server_understand_each_other() {
    use generated::interop::{
        Empty, unimplemented_service_client::UnimplementedServiceClient,
        unimplemented_service_server::UnimplementedServiceServer,
    };

    let server = UnimplementedServiceServer::new(Nothing);
    let error = UnimplementedServiceClient::new(server)
        .unimplemented_call(Empty {})
        .await
        .expect_err("not implemented");
    assert_eq!(error.message(), "as its name says");
    assert_eq!(generated::airports::Airport::default().encoded_len(), 0);
}
