//! Compiles the public contract without a `protoc` on the machine.
//!
//! Three passes over one descriptor set: plain messages for everyone
//! (`crate::pb`), the client, and the service. In the service's pass the
//! replies are generated a second time with `Todo`, `TodoChange` and `TodoList`
//! mapped to the types of `grpc/encoded.rs`: a cached todo is sent without being
//! decoded or encoded again, and a cached list without being copied.

use std::{env, error::Error, fs, path::PathBuf};

use prost_types::FileDescriptorSet;

const PROTO: &str = "proto/todo/v1/todo.proto";

/// The package of the contract.
const PACKAGE: &str = "todo.v1";

/// Messages that the service's pass maps to a type of `grpc/encoded.rs`.
const ENCODED: [(&str, &str); 3] = [
    ("Todo", "crate::grpc::encoded::EncodedTodo"),
    ("TodoChange", "crate::grpc::encoded::EncodedChange"),
    ("TodoList", "crate::grpc::encoded::SharedList"),
];
/// Messages that hold one of `ENCODED`: the service's pass generates them.
const REPLIES: [&str; 10] = [
    "GetTodoResponse",
    "BatchGetTodosResponse",
    "ListTodosResponse",
    "CreateTodoResponse",
    "UpdateTodoResponse",
    "WatchTodosResponse",
    "GetTodoListResponse",
    "ListTodoListsResponse",
    "CreateTodoListResponse",
    "UpdateTodoListResponse",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_file(PROTO)?;
    let descriptors = compiler.file_descriptor_set();
    fs::write(
        out.join("descriptors.bin"),
        compiler.encode_file_descriptor_set(),
    )?;

    let messages = out.join("messages");
    fs::create_dir_all(&messages)?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        // Sorted, so that equal lists have equal encodings.
        .btree_map(".")
        .out_dir(&messages)
        .compile_fds(descriptors.clone())?;

    // The client speaks plain messages.
    let client = out.join("client");
    fs::create_dir_all(&client)?;
    tonic_prost_build::configure()
        .build_server(false)
        .extern_path(".todo.v1", "crate::pb")
        .out_dir(&client)
        .compile_fds(descriptors.clone())?;

    let server = out.join("server");
    fs::create_dir_all(&server)?;
    let mut service = tonic_prost_build::configure()
        .build_client(false)
        .codec_path("crate::grpc::transport::SizedBufferCodec")
        .out_dir(&server);
    for (name, path) in server_types(&descriptors) {
        service = service.extern_path(format!(".{PACKAGE}.{name}"), path);
    }
    service.compile_fds(descriptors.clone())?;

    // The baseline servers of `benches/`: ordinary generated code, but for
    // the two replies that they give as bytes.
    let baseline = out.join("baseline");
    fs::create_dir_all(&baseline)?;
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".todo.v1.ListTodosResponse", "crate::baseline::Raw")
        .extern_path(".todo.v1.BatchGetTodosResponse", "crate::baseline::Raw")
        .extern_path(".todo.v1", "::tidemark::pb")
        .out_dir(&baseline)
        .compile_fds(descriptors)?;
    Ok(())
}

/// Each type that the service's pass does not generate, with its path: the
/// plain type, or the encoded one.
fn server_types(descriptors: &FileDescriptorSet) -> Vec<(String, String)> {
    let file = descriptors
        .file
        .iter()
        .find(|file| file.package() == PACKAGE);
    let file = file.expect("the contract is in the set");
    let messages = file.message_type.iter().map(|message| message.name());
    let enums = file.enum_type.iter().map(|it| it.name());
    messages
        .chain(enums)
        .filter(|name| !REPLIES.contains(name))
        .map(|name| {
            let encoded = ENCODED.iter().find(|(message, _)| *message == name);
            let path = encoded.map_or_else(
                || format!("crate::pb::{name}"),
                |(_, path)| (*path).to_owned(),
            );
            (name.to_owned(), path)
        })
        .collect()
}
