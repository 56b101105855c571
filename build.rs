//! Compiles the public contract without a `protoc` on the machine.
//!
//! Two passes over one descriptor: plain messages for everybody (`crate::pb`),
//! then the service with its client. In the second pass the replies that carry
//! todos are mapped to types of ours whose todos are bytes that are already
//! encoded: a submessage and a `bytes` field look the same on the wire, so a
//! cached todo is answered without being decoded or encoded again.

use std::{env, error::Error, fs, path::PathBuf};

const PROTO: &str = "proto/todo/v1/todo.proto";

/// Replies whose todos are sent as they lie in the cache.
const ENCODED: [&str; 4] = [
    "GetTodoResponse",
    "BatchGetTodosResponse",
    "ListTodosResponse",
    "WatchTodosResponse",
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
        .extern_path(".todo.v1", "crate::pb")
        .out_dir(&server);
    for reply in ENCODED {
        service = service.extern_path(
            format!(".todo.v1.{reply}"),
            format!("crate::grpc::reply::{reply}"),
        );
    }
    service.compile_fds(descriptors.clone())?;

    // The yardstick servers of `benches/`: ordinary generated code, but for
    // the two replies that they give as bytes.
    let yardstick = out.join("yardstick");
    fs::create_dir_all(&yardstick)?;
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".todo.v1.ListTodosResponse", "crate::yardstick::Raw")
        .extern_path(".todo.v1.BatchGetTodosResponse", "crate::yardstick::Raw")
        .extern_path(".todo.v1", "::tidemark::pb")
        .out_dir(&yardstick)
        .compile_fds(descriptors)?;
    Ok(())
}
