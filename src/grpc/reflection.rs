//! `grpc.reflection`: which services there are, and their messages.
//!
//! The ready-made service of tonic-reflection ends the stream at the first
//! unknown symbol. The protocol answers it with an `error_response`, and the
//! stream continues: tools ask for several symbols in one stream.

use std::{collections::HashMap, sync::LazyLock};

use prost::Message as _;
use prost_reflect::{DescriptorPool, FileDescriptor};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::{method::MAX_REFLECTION_REQUEST_BYTES, status};
use crate::{error::shorten, pb};

/// The services that the server has, with all files that they need.
///
/// # Errors
/// A built-in descriptor set that does not decode.
pub fn descriptors() -> Result<DescriptorPool, prost_reflect::DescriptorError> {
    let mut pool = DescriptorPool::decode(pb::DESCRIPTORS)?;
    for set in [
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_types::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ] {
        pool.decode_file_descriptor_set(set)?;
    }
    Ok(pool)
}

/// Why a question has no answer.
struct Unanswered {
    code: Code,
    message: String,
}

fn not_found(kind: &str, name: &str) -> Unanswered {
    Unanswered {
        code: Code::NotFound,
        message: format!("there is no {kind} {:?}", shorten(name)),
    }
}

/// The file that declares a symbol: a message, an enum or a service, or a
/// member of one.
fn file_of_symbol(pool: &DescriptorPool, symbol: &str) -> Option<FileDescriptor> {
    let declared = |name: &str| {
        let message = pool.get_message_by_name(name).map(|it| it.parent_file());
        let or_enum = || pool.get_enum_by_name(name).map(|it| it.parent_file());
        let or_service = || pool.get_service_by_name(name).map(|it| it.parent_file());
        message.or_else(or_enum).or_else(or_service)
    };
    declared(symbol).or_else(|| {
        let (parent, member) = symbol.rsplit_once('.')?;
        let message = pool.get_message_by_name(parent);
        let service = pool.get_service_by_name(parent);
        let values = pool.get_enum_by_name(parent);
        let is_member = message.is_some_and(|it| {
            it.get_field_by_name(member).is_some() || it.oneofs().any(|one| one.name() == member)
        }) || service
            .is_some_and(|it| it.methods().any(|one| one.name() == member))
            || values.is_some_and(|it| it.get_value_by_name(member).is_some());
        is_member.then(|| declared(parent)).flatten()
    })
}

/// The same service for both versions of the protocol, whose messages differ
/// by package only.
macro_rules! service {
    ($version:ident) => {
        /// The service of this version of the protocol.
        pub mod $version {
            use std::{pin::Pin, sync::Arc};

            use futures::{Stream, StreamExt as _};
            use tonic::{Request, Response, Status, Streaming};
            use tonic_reflection::pb::$version::{
                ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse,
                ListServiceResponse, ServerReflectionRequest, ServerReflectionResponse,
                ServiceResponse,
                server_reflection_request::MessageRequest,
                server_reflection_response::MessageResponse,
                server_reflection_server::{ServerReflection, ServerReflectionServer},
            };

            use super::{
                CancellationToken, Code, DescriptorPool, FileDescriptor, Unanswered,
                file_of_symbol, not_found,
            };

            struct Reflection {
                pool: Arc<DescriptorPool>,
                shutdown: CancellationToken,
            }

            /// The service; its streams end with `shutdown`.
            pub fn service(
                pool: Arc<DescriptorPool>,
                shutdown: CancellationToken,
            ) -> ServerReflectionServer<impl ServerReflection> {
                ServerReflectionServer::new(Reflection { pool, shutdown })
            }

            #[tonic::async_trait]
            impl ServerReflection for Reflection {
                type ServerReflectionInfoStream =
                    Pin<Box<dyn Stream<Item = Result<ServerReflectionResponse, Status>> + Send>>;

                async fn server_reflection_info(
                    &self,
                    request: Request<Streaming<ServerReflectionRequest>>,
                ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
                    let pool = Arc::clone(&self.pool);
                    let end = self.shutdown.clone().cancelled_owned();
                    let replies = request
                        .into_inner()
                        .map(move |request| {
                            let request = request.map_err(super::translate)?;
                            Ok(reply(&pool, request))
                        })
                        .take_until(end);
                    Ok(Response::new(Box::pin(replies)))
                }
            }

            fn reply(
                pool: &DescriptorPool,
                request: ServerReflectionRequest,
            ) -> ServerReflectionResponse {
                let answer = answer(pool, request.message_request.as_ref());
                let response = answer.unwrap_or_else(|unanswered| {
                    MessageResponse::ErrorResponse(ErrorResponse {
                        error_code: unanswered.code.into(),
                        error_message: unanswered.message,
                    })
                });
                ServerReflectionResponse {
                    valid_host: request.host.clone(),
                    original_request: Some(request),
                    message_response: Some(response),
                }
            }

            fn answer(
                pool: &DescriptorPool,
                question: Option<&MessageRequest>,
            ) -> Result<MessageResponse, Unanswered> {
                match question {
                    Some(MessageRequest::FileByFilename(name)) => pool
                        .get_file_by_name(name)
                        .map(|it| file(&it))
                        .ok_or_else(|| not_found("file", name)),
                    Some(MessageRequest::FileContainingSymbol(name)) => file_of_symbol(pool, name)
                        .map(|it| file(&it))
                        .ok_or_else(|| not_found("symbol", name)),
                    Some(MessageRequest::FileContainingExtension(extension)) => {
                        Err(not_found("extension of", &extension.containing_type))
                    }
                    Some(MessageRequest::AllExtensionNumbersOfType(name)) => {
                        let known = pool.get_message_by_name(name);
                        let known = known.ok_or_else(|| not_found("message", name))?;
                        Ok(MessageResponse::AllExtensionNumbersResponse(
                            ExtensionNumberResponse {
                                base_type_name: known.full_name().to_owned(),
                                extension_number: Vec::new(),
                            },
                        ))
                    }
                    Some(MessageRequest::ListServices(_)) => {
                        let service = pool.services().map(|it| ServiceResponse {
                            name: it.full_name().to_owned(),
                        });
                        Ok(MessageResponse::ListServicesResponse(ListServiceResponse {
                            service: service.collect(),
                        }))
                    }
                    None => Err(Unanswered {
                        code: Code::InvalidArgument,
                        message: "the request asks for nothing".into(),
                    }),
                }
            }

            fn file(file: &FileDescriptor) -> MessageResponse {
                MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
                    file_descriptor_proto: vec![super::encode(file)],
                })
            }
        }
    };
}

service!(v1);
service!(v1alpha);

/// What the framework said of a request that it could not decode.
fn translate(status: tonic::Status) -> tonic::Status {
    status::translate(status, MAX_REFLECTION_REQUEST_BYTES)
}

/// Each file, encoded once: that takes as much CPU time as some ten reads.
static ENCODED: LazyLock<HashMap<String, Vec<u8>>> = LazyLock::new(|| {
    let encoded = |file: FileDescriptor| {
        let bytes = file.file_descriptor_proto().encode_to_vec();
        (file.name().to_owned(), bytes)
    };
    let pool = descriptors().unwrap_or_default();
    pool.files().map(encoded).collect()
});

fn encode(file: &FileDescriptor) -> Vec<u8> {
    let known = ENCODED.get(file.name()).cloned();
    known.unwrap_or_else(|| file.file_descriptor_proto().encode_to_vec())
}
