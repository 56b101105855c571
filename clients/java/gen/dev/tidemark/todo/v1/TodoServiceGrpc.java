package dev.tidemark.todo.v1;

import static io.grpc.MethodDescriptor.generateFullMethodName;

/**
 * <pre>
 * Reads, writes and watches todos.
 * Every error carries one google.rpc.ErrorInfo with the domain `todo.v1`, a
 * reason from ErrorReason (without its prefix) and, in its metadata, every
 * value that the text mentions. Invalid arguments also carry a
 * google.rpc.BadRequest with field paths, and errors that waiting can resolve a
 * google.rpc.RetryInfo.
 * UNAVAILABLE on a write means that the write had no effect. A write whose
 * outcome is not known ends with UNKNOWN.
 * Output-only fields in a request are ignored. Limits on text count characters
 * (Unicode scalar values).
 * </pre>
 */
@io.grpc.stub.annotations.GrpcGenerated
public final class TodoServiceGrpc {

  private TodoServiceGrpc() {}

  public static final java.lang.String SERVICE_NAME = "todo.v1.TodoService";

  // Static method descriptors that strictly reflect the proto.
  private static volatile io.grpc.MethodDescriptor<dev.tidemark.todo.v1.GetTodoRequest,
      dev.tidemark.todo.v1.GetTodoResponse> getGetTodoMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "GetTodo",
      requestType = dev.tidemark.todo.v1.GetTodoRequest.class,
      responseType = dev.tidemark.todo.v1.GetTodoResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.tidemark.todo.v1.GetTodoRequest,
      dev.tidemark.todo.v1.GetTodoResponse> getGetTodoMethod() {
    io.grpc.MethodDescriptor<dev.tidemark.todo.v1.GetTodoRequest, dev.tidemark.todo.v1.GetTodoResponse> getGetTodoMethod;
    if ((getGetTodoMethod = TodoServiceGrpc.getGetTodoMethod) == null) {
      synchronized (TodoServiceGrpc.class) {
        if ((getGetTodoMethod = TodoServiceGrpc.getGetTodoMethod) == null) {
          TodoServiceGrpc.getGetTodoMethod = getGetTodoMethod =
              io.grpc.MethodDescriptor.<dev.tidemark.todo.v1.GetTodoRequest, dev.tidemark.todo.v1.GetTodoResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "GetTodo"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tidemark.todo.v1.GetTodoRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tidemark.todo.v1.GetTodoResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TodoServiceMethodDescriptorSupplier("GetTodo"))
              .build();
        }
      }
    }
    return getGetTodoMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.tidemark.todo.v1.BatchGetTodosRequest,
      dev.tidemark.todo.v1.BatchGetTodosResponse> getBatchGetTodosMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "BatchGetTodos",
      requestType = dev.tidemark.todo.v1.BatchGetTodosRequest.class,
      responseType = dev.tidemark.todo.v1.BatchGetTodosResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.tidemark.todo.v1.BatchGetTodosRequest,
      dev.tidemark.todo.v1.BatchGetTodosResponse> getBatchGetTodosMethod() {
    io.grpc.MethodDescriptor<dev.tidemark.todo.v1.BatchGetTodosRequest, dev.tidemark.todo.v1.BatchGetTodosResponse> getBatchGetTodosMethod;
    if ((getBatchGetTodosMethod = TodoServiceGrpc.getBatchGetTodosMethod) == null) {
      synchronized (TodoServiceGrpc.class) {
        if ((getBatchGetTodosMethod = TodoServiceGrpc.getBatchGetTodosMethod) == null) {
          TodoServiceGrpc.getBatchGetTodosMethod = getBatchGetTodosMethod =
              io.grpc.MethodDescriptor.<dev.tidemark.todo.v1.BatchGetTodosRequest, dev.tidemark.todo.v1.BatchGetTodosResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "BatchGetTodos"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tidemark.todo.v1.BatchGetTodosRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tidemark.todo.v1.BatchGetTodosResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TodoServiceMethodDescriptorSupplier("BatchGetTodos"))
              .build();
        }
      }
    }
    return getBatchGetTodosMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.tidemark.todo.v1.ListTodosRequest,
      dev.tidemark.todo.v1.ListTodosResponse> getListTodosMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "ListTodos",
      requestType = dev.tidemark.todo.v1.ListTodosRequest.class,
      responseType = dev.tidemark.todo.v1.ListTodosResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.tidemark.todo.v1.ListTodosRequest,
      dev.tidemark.todo.v1.ListTodosResponse> getListTodosMethod() {
    io.grpc.MethodDescriptor<dev.tidemark.todo.v1.ListTodosRequest, dev.tidemark.todo.v1.ListTodosResponse> getListTodosMethod;
    if ((getListTodosMethod = TodoServiceGrpc.getListTodosMethod) == null) {
      synchronized (TodoServiceGrpc.class) {
        if ((getListTodosMethod = TodoServiceGrpc.getListTodosMethod) == null) {
          TodoServiceGrpc.getListTodosMethod = getListTodosMethod =
              io.grpc.MethodDescriptor.<dev.tidemark.todo.v1.ListTodosRequest, dev.tidemark.todo.v1.ListTodosResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "ListTodos"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tidemark.todo.v1.ListTodosRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tidemark.todo.v1.ListTodosResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TodoServiceMethodDescriptorSupplier("ListTodos"))
              .build();
        }
      }
    }
    return getListTodosMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.tidemark.todo.v1.CreateTodoRequest,
      dev.tidemark.todo.v1.CreateTodoResponse> getCreateTodoMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "CreateTodo",
      requestType = dev.tidemark.todo.v1.CreateTodoRequest.class,
      responseType = dev.tidemark.todo.v1.CreateTodoResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.tidemark.todo.v1.CreateTodoRequest,
      dev.tidemark.todo.v1.CreateTodoResponse> getCreateTodoMethod() {
    io.grpc.MethodDescriptor<dev.tidemark.todo.v1.CreateTodoRequest, dev.tidemark.todo.v1.CreateTodoResponse> getCreateTodoMethod;
    if ((getCreateTodoMethod = TodoServiceGrpc.getCreateTodoMethod) == null) {
      synchronized (TodoServiceGrpc.class) {
        if ((getCreateTodoMethod = TodoServiceGrpc.getCreateTodoMethod) == null) {
          TodoServiceGrpc.getCreateTodoMethod = getCreateTodoMethod =
              io.grpc.MethodDescriptor.<dev.tidemark.todo.v1.CreateTodoRequest, dev.tidemark.todo.v1.CreateTodoResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "CreateTodo"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tidemark.todo.v1.CreateTodoRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tidemark.todo.v1.CreateTodoResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TodoServiceMethodDescriptorSupplier("CreateTodo"))
              .build();
        }
      }
    }
    return getCreateTodoMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.tidemark.todo.v1.UpdateTodoRequest,
      dev.tidemark.todo.v1.UpdateTodoResponse> getUpdateTodoMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "UpdateTodo",
      requestType = dev.tidemark.todo.v1.UpdateTodoRequest.class,
      responseType = dev.tidemark.todo.v1.UpdateTodoResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.tidemark.todo.v1.UpdateTodoRequest,
      dev.tidemark.todo.v1.UpdateTodoResponse> getUpdateTodoMethod() {
    io.grpc.MethodDescriptor<dev.tidemark.todo.v1.UpdateTodoRequest, dev.tidemark.todo.v1.UpdateTodoResponse> getUpdateTodoMethod;
    if ((getUpdateTodoMethod = TodoServiceGrpc.getUpdateTodoMethod) == null) {
      synchronized (TodoServiceGrpc.class) {
        if ((getUpdateTodoMethod = TodoServiceGrpc.getUpdateTodoMethod) == null) {
          TodoServiceGrpc.getUpdateTodoMethod = getUpdateTodoMethod =
              io.grpc.MethodDescriptor.<dev.tidemark.todo.v1.UpdateTodoRequest, dev.tidemark.todo.v1.UpdateTodoResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "UpdateTodo"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tidemark.todo.v1.UpdateTodoRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tidemark.todo.v1.UpdateTodoResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TodoServiceMethodDescriptorSupplier("UpdateTodo"))
              .build();
        }
      }
    }
    return getUpdateTodoMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.tidemark.todo.v1.DeleteTodoRequest,
      dev.tidemark.todo.v1.DeleteTodoResponse> getDeleteTodoMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "DeleteTodo",
      requestType = dev.tidemark.todo.v1.DeleteTodoRequest.class,
      responseType = dev.tidemark.todo.v1.DeleteTodoResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.tidemark.todo.v1.DeleteTodoRequest,
      dev.tidemark.todo.v1.DeleteTodoResponse> getDeleteTodoMethod() {
    io.grpc.MethodDescriptor<dev.tidemark.todo.v1.DeleteTodoRequest, dev.tidemark.todo.v1.DeleteTodoResponse> getDeleteTodoMethod;
    if ((getDeleteTodoMethod = TodoServiceGrpc.getDeleteTodoMethod) == null) {
      synchronized (TodoServiceGrpc.class) {
        if ((getDeleteTodoMethod = TodoServiceGrpc.getDeleteTodoMethod) == null) {
          TodoServiceGrpc.getDeleteTodoMethod = getDeleteTodoMethod =
              io.grpc.MethodDescriptor.<dev.tidemark.todo.v1.DeleteTodoRequest, dev.tidemark.todo.v1.DeleteTodoResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "DeleteTodo"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tidemark.todo.v1.DeleteTodoRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tidemark.todo.v1.DeleteTodoResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TodoServiceMethodDescriptorSupplier("DeleteTodo"))
              .build();
        }
      }
    }
    return getDeleteTodoMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.tidemark.todo.v1.WatchTodosRequest,
      dev.tidemark.todo.v1.WatchTodosResponse> getWatchTodosMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "WatchTodos",
      requestType = dev.tidemark.todo.v1.WatchTodosRequest.class,
      responseType = dev.tidemark.todo.v1.WatchTodosResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.SERVER_STREAMING)
  public static io.grpc.MethodDescriptor<dev.tidemark.todo.v1.WatchTodosRequest,
      dev.tidemark.todo.v1.WatchTodosResponse> getWatchTodosMethod() {
    io.grpc.MethodDescriptor<dev.tidemark.todo.v1.WatchTodosRequest, dev.tidemark.todo.v1.WatchTodosResponse> getWatchTodosMethod;
    if ((getWatchTodosMethod = TodoServiceGrpc.getWatchTodosMethod) == null) {
      synchronized (TodoServiceGrpc.class) {
        if ((getWatchTodosMethod = TodoServiceGrpc.getWatchTodosMethod) == null) {
          TodoServiceGrpc.getWatchTodosMethod = getWatchTodosMethod =
              io.grpc.MethodDescriptor.<dev.tidemark.todo.v1.WatchTodosRequest, dev.tidemark.todo.v1.WatchTodosResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.SERVER_STREAMING)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "WatchTodos"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tidemark.todo.v1.WatchTodosRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tidemark.todo.v1.WatchTodosResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TodoServiceMethodDescriptorSupplier("WatchTodos"))
              .build();
        }
      }
    }
    return getWatchTodosMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.tidemark.todo.v1.GetTodoListRequest,
      dev.tidemark.todo.v1.GetTodoListResponse> getGetTodoListMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "GetTodoList",
      requestType = dev.tidemark.todo.v1.GetTodoListRequest.class,
      responseType = dev.tidemark.todo.v1.GetTodoListResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.tidemark.todo.v1.GetTodoListRequest,
      dev.tidemark.todo.v1.GetTodoListResponse> getGetTodoListMethod() {
    io.grpc.MethodDescriptor<dev.tidemark.todo.v1.GetTodoListRequest, dev.tidemark.todo.v1.GetTodoListResponse> getGetTodoListMethod;
    if ((getGetTodoListMethod = TodoServiceGrpc.getGetTodoListMethod) == null) {
      synchronized (TodoServiceGrpc.class) {
        if ((getGetTodoListMethod = TodoServiceGrpc.getGetTodoListMethod) == null) {
          TodoServiceGrpc.getGetTodoListMethod = getGetTodoListMethod =
              io.grpc.MethodDescriptor.<dev.tidemark.todo.v1.GetTodoListRequest, dev.tidemark.todo.v1.GetTodoListResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "GetTodoList"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tidemark.todo.v1.GetTodoListRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tidemark.todo.v1.GetTodoListResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TodoServiceMethodDescriptorSupplier("GetTodoList"))
              .build();
        }
      }
    }
    return getGetTodoListMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.tidemark.todo.v1.ListTodoListsRequest,
      dev.tidemark.todo.v1.ListTodoListsResponse> getListTodoListsMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "ListTodoLists",
      requestType = dev.tidemark.todo.v1.ListTodoListsRequest.class,
      responseType = dev.tidemark.todo.v1.ListTodoListsResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.tidemark.todo.v1.ListTodoListsRequest,
      dev.tidemark.todo.v1.ListTodoListsResponse> getListTodoListsMethod() {
    io.grpc.MethodDescriptor<dev.tidemark.todo.v1.ListTodoListsRequest, dev.tidemark.todo.v1.ListTodoListsResponse> getListTodoListsMethod;
    if ((getListTodoListsMethod = TodoServiceGrpc.getListTodoListsMethod) == null) {
      synchronized (TodoServiceGrpc.class) {
        if ((getListTodoListsMethod = TodoServiceGrpc.getListTodoListsMethod) == null) {
          TodoServiceGrpc.getListTodoListsMethod = getListTodoListsMethod =
              io.grpc.MethodDescriptor.<dev.tidemark.todo.v1.ListTodoListsRequest, dev.tidemark.todo.v1.ListTodoListsResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "ListTodoLists"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tidemark.todo.v1.ListTodoListsRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tidemark.todo.v1.ListTodoListsResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TodoServiceMethodDescriptorSupplier("ListTodoLists"))
              .build();
        }
      }
    }
    return getListTodoListsMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.tidemark.todo.v1.CreateTodoListRequest,
      dev.tidemark.todo.v1.CreateTodoListResponse> getCreateTodoListMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "CreateTodoList",
      requestType = dev.tidemark.todo.v1.CreateTodoListRequest.class,
      responseType = dev.tidemark.todo.v1.CreateTodoListResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.tidemark.todo.v1.CreateTodoListRequest,
      dev.tidemark.todo.v1.CreateTodoListResponse> getCreateTodoListMethod() {
    io.grpc.MethodDescriptor<dev.tidemark.todo.v1.CreateTodoListRequest, dev.tidemark.todo.v1.CreateTodoListResponse> getCreateTodoListMethod;
    if ((getCreateTodoListMethod = TodoServiceGrpc.getCreateTodoListMethod) == null) {
      synchronized (TodoServiceGrpc.class) {
        if ((getCreateTodoListMethod = TodoServiceGrpc.getCreateTodoListMethod) == null) {
          TodoServiceGrpc.getCreateTodoListMethod = getCreateTodoListMethod =
              io.grpc.MethodDescriptor.<dev.tidemark.todo.v1.CreateTodoListRequest, dev.tidemark.todo.v1.CreateTodoListResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "CreateTodoList"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tidemark.todo.v1.CreateTodoListRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tidemark.todo.v1.CreateTodoListResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TodoServiceMethodDescriptorSupplier("CreateTodoList"))
              .build();
        }
      }
    }
    return getCreateTodoListMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.tidemark.todo.v1.UpdateTodoListRequest,
      dev.tidemark.todo.v1.UpdateTodoListResponse> getUpdateTodoListMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "UpdateTodoList",
      requestType = dev.tidemark.todo.v1.UpdateTodoListRequest.class,
      responseType = dev.tidemark.todo.v1.UpdateTodoListResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.tidemark.todo.v1.UpdateTodoListRequest,
      dev.tidemark.todo.v1.UpdateTodoListResponse> getUpdateTodoListMethod() {
    io.grpc.MethodDescriptor<dev.tidemark.todo.v1.UpdateTodoListRequest, dev.tidemark.todo.v1.UpdateTodoListResponse> getUpdateTodoListMethod;
    if ((getUpdateTodoListMethod = TodoServiceGrpc.getUpdateTodoListMethod) == null) {
      synchronized (TodoServiceGrpc.class) {
        if ((getUpdateTodoListMethod = TodoServiceGrpc.getUpdateTodoListMethod) == null) {
          TodoServiceGrpc.getUpdateTodoListMethod = getUpdateTodoListMethod =
              io.grpc.MethodDescriptor.<dev.tidemark.todo.v1.UpdateTodoListRequest, dev.tidemark.todo.v1.UpdateTodoListResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "UpdateTodoList"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tidemark.todo.v1.UpdateTodoListRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tidemark.todo.v1.UpdateTodoListResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TodoServiceMethodDescriptorSupplier("UpdateTodoList"))
              .build();
        }
      }
    }
    return getUpdateTodoListMethod;
  }

  private static volatile io.grpc.MethodDescriptor<dev.tidemark.todo.v1.DeleteTodoListRequest,
      dev.tidemark.todo.v1.DeleteTodoListResponse> getDeleteTodoListMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "DeleteTodoList",
      requestType = dev.tidemark.todo.v1.DeleteTodoListRequest.class,
      responseType = dev.tidemark.todo.v1.DeleteTodoListResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<dev.tidemark.todo.v1.DeleteTodoListRequest,
      dev.tidemark.todo.v1.DeleteTodoListResponse> getDeleteTodoListMethod() {
    io.grpc.MethodDescriptor<dev.tidemark.todo.v1.DeleteTodoListRequest, dev.tidemark.todo.v1.DeleteTodoListResponse> getDeleteTodoListMethod;
    if ((getDeleteTodoListMethod = TodoServiceGrpc.getDeleteTodoListMethod) == null) {
      synchronized (TodoServiceGrpc.class) {
        if ((getDeleteTodoListMethod = TodoServiceGrpc.getDeleteTodoListMethod) == null) {
          TodoServiceGrpc.getDeleteTodoListMethod = getDeleteTodoListMethod =
              io.grpc.MethodDescriptor.<dev.tidemark.todo.v1.DeleteTodoListRequest, dev.tidemark.todo.v1.DeleteTodoListResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "DeleteTodoList"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tidemark.todo.v1.DeleteTodoListRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  dev.tidemark.todo.v1.DeleteTodoListResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TodoServiceMethodDescriptorSupplier("DeleteTodoList"))
              .build();
        }
      }
    }
    return getDeleteTodoListMethod;
  }

  /**
   * Creates a new async stub that supports all call types for the service
   */
  public static TodoServiceStub newStub(io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<TodoServiceStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<TodoServiceStub>() {
        @java.lang.Override
        public TodoServiceStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new TodoServiceStub(channel, callOptions);
        }
      };
    return TodoServiceStub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports all types of calls on the service
   */
  public static TodoServiceBlockingV2Stub newBlockingV2Stub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<TodoServiceBlockingV2Stub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<TodoServiceBlockingV2Stub>() {
        @java.lang.Override
        public TodoServiceBlockingV2Stub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new TodoServiceBlockingV2Stub(channel, callOptions);
        }
      };
    return TodoServiceBlockingV2Stub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports unary and streaming output calls on the service
   */
  public static TodoServiceBlockingStub newBlockingStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<TodoServiceBlockingStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<TodoServiceBlockingStub>() {
        @java.lang.Override
        public TodoServiceBlockingStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new TodoServiceBlockingStub(channel, callOptions);
        }
      };
    return TodoServiceBlockingStub.newStub(factory, channel);
  }

  /**
   * Creates a new ListenableFuture-style stub that supports unary calls on the service
   */
  public static TodoServiceFutureStub newFutureStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<TodoServiceFutureStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<TodoServiceFutureStub>() {
        @java.lang.Override
        public TodoServiceFutureStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new TodoServiceFutureStub(channel, callOptions);
        }
      };
    return TodoServiceFutureStub.newStub(factory, channel);
  }

  /**
   * <pre>
   * Reads, writes and watches todos.
   * Every error carries one google.rpc.ErrorInfo with the domain `todo.v1`, a
   * reason from ErrorReason (without its prefix) and, in its metadata, every
   * value that the text mentions. Invalid arguments also carry a
   * google.rpc.BadRequest with field paths, and errors that waiting can resolve a
   * google.rpc.RetryInfo.
   * UNAVAILABLE on a write means that the write had no effect. A write whose
   * outcome is not known ends with UNKNOWN.
   * Output-only fields in a request are ignored. Limits on text count characters
   * (Unicode scalar values).
   * </pre>
   */
  public interface AsyncService {

    /**
     * <pre>
     * Reads one todo. NOT_FOUND also states how fresh it is: its metadata
     * carries the fields of ReadInfo (`token`, `source`, `staleness_bound_ms`).
     * </pre>
     */
    default void getTodo(dev.tidemark.todo.v1.GetTodoRequest request,
        io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.GetTodoResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getGetTodoMethod(), responseObserver);
    }

    /**
     * <pre>
     * Reads up to 1000 todos, of any lists, in one call. Names that no todo has
     * are listed in `missing` and are not an error. If the response would exceed
     * 4 MiB, the call ends with MESSAGE_TOO_LARGE and the number of names that fit.
     * </pre>
     */
    default void batchGetTodos(dev.tidemark.todo.v1.BatchGetTodosRequest request,
        io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.BatchGetTodosResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getBatchGetTodosMethod(), responseObserver);
    }

    /**
     * <pre>
     * Reads the todos of one list, one page at a time. A run through all pages
     * returns every todo that was there all along exactly once.
     * </pre>
     */
    default void listTodos(dev.tidemark.todo.v1.ListTodosRequest request,
        io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.ListTodosResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getListTodosMethod(), responseObserver);
    }

    /**
     * <pre>
     * Creates a todo. ALREADY_EXISTS carries a `token` in its metadata.
     * </pre>
     */
    default void createTodo(dev.tidemark.todo.v1.CreateTodoRequest request,
        io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.CreateTodoResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getCreateTodoMethod(), responseObserver);
    }

    /**
     * <pre>
     * Changes fields of a todo. ABORTED (the etag does not match) and NOT_FOUND
     * carry a `token` in their metadata, so that the next read is not older than
     * the refusal.
     * </pre>
     */
    default void updateTodo(dev.tidemark.todo.v1.UpdateTodoRequest request,
        io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.UpdateTodoResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getUpdateTodoMethod(), responseObserver);
    }

    /**
     * <pre>
     * Deletes a todo. Errors as for UpdateTodo.
     * </pre>
     */
    default void deleteTodo(dev.tidemark.todo.v1.DeleteTodoRequest request,
        io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.DeleteTodoResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getDeleteTodoMethod(), responseObserver);
    }

    /**
     * <pre>
     * Streams the changes of a list, of chosen todos or of all lists. For each
     * change the stream delivers that change, or a newer one of the same name, or
     * a reset. There is never a silent gap. To follow a list: read it, then watch
     * from the token of its last page.
     * </pre>
     */
    default void watchTodos(dev.tidemark.todo.v1.WatchTodosRequest request,
        io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.WatchTodosResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getWatchTodosMethod(), responseObserver);
    }

    /**
     * <pre>
     * Reads one list. Without authentication a list exists as soon as it contains
     * a todo; then its fields other than `name` are empty.
     * </pre>
     */
    default void getTodoList(dev.tidemark.todo.v1.GetTodoListRequest request,
        io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.GetTodoListResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getGetTodoListMethod(), responseObserver);
    }

    /**
     * <pre>
     * Reads the lists that the caller is a member of, in order of name, one page
     * at a time. An administrator reads all lists; so does everybody without
     * authentication, lists that only contain todos included.
     * </pre>
     */
    default void listTodoLists(dev.tidemark.todo.v1.ListTodoListsRequest request,
        io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.ListTodoListsResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getListTodoListsMethod(), responseObserver);
    }

    /**
     * <pre>
     * Creates a list. The caller becomes its owner.
     * </pre>
     */
    default void createTodoList(dev.tidemark.todo.v1.CreateTodoListRequest request,
        io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.CreateTodoListResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getCreateTodoListMethod(), responseObserver);
    }

    /**
     * <pre>
     * Changes the title or the members of a list. A member who was removed reads
     * nothing of the list that was written later, from any cache.
     * </pre>
     */
    default void updateTodoList(dev.tidemark.todo.v1.UpdateTodoListRequest request,
        io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.UpdateTodoListResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getUpdateTodoListMethod(), responseObserver);
    }

    /**
     * <pre>
     * Deletes a list. LIST_NOT_EMPTY if it contains todos, unless `force` is set.
     * </pre>
     */
    default void deleteTodoList(dev.tidemark.todo.v1.DeleteTodoListRequest request,
        io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.DeleteTodoListResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getDeleteTodoListMethod(), responseObserver);
    }
  }

  /**
   * Base class for the server implementation of the service TodoService.
   * <pre>
   * Reads, writes and watches todos.
   * Every error carries one google.rpc.ErrorInfo with the domain `todo.v1`, a
   * reason from ErrorReason (without its prefix) and, in its metadata, every
   * value that the text mentions. Invalid arguments also carry a
   * google.rpc.BadRequest with field paths, and errors that waiting can resolve a
   * google.rpc.RetryInfo.
   * UNAVAILABLE on a write means that the write had no effect. A write whose
   * outcome is not known ends with UNKNOWN.
   * Output-only fields in a request are ignored. Limits on text count characters
   * (Unicode scalar values).
   * </pre>
   */
  public static abstract class TodoServiceImplBase
      implements io.grpc.BindableService, AsyncService {

    @java.lang.Override public final io.grpc.ServerServiceDefinition bindService() {
      return TodoServiceGrpc.bindService(this);
    }
  }

  /**
   * A stub to allow clients to do asynchronous rpc calls to service TodoService.
   * <pre>
   * Reads, writes and watches todos.
   * Every error carries one google.rpc.ErrorInfo with the domain `todo.v1`, a
   * reason from ErrorReason (without its prefix) and, in its metadata, every
   * value that the text mentions. Invalid arguments also carry a
   * google.rpc.BadRequest with field paths, and errors that waiting can resolve a
   * google.rpc.RetryInfo.
   * UNAVAILABLE on a write means that the write had no effect. A write whose
   * outcome is not known ends with UNKNOWN.
   * Output-only fields in a request are ignored. Limits on text count characters
   * (Unicode scalar values).
   * </pre>
   */
  public static final class TodoServiceStub
      extends io.grpc.stub.AbstractAsyncStub<TodoServiceStub> {
    private TodoServiceStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected TodoServiceStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new TodoServiceStub(channel, callOptions);
    }

    /**
     * <pre>
     * Reads one todo. NOT_FOUND also states how fresh it is: its metadata
     * carries the fields of ReadInfo (`token`, `source`, `staleness_bound_ms`).
     * </pre>
     */
    public void getTodo(dev.tidemark.todo.v1.GetTodoRequest request,
        io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.GetTodoResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getGetTodoMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Reads up to 1000 todos, of any lists, in one call. Names that no todo has
     * are listed in `missing` and are not an error. If the response would exceed
     * 4 MiB, the call ends with MESSAGE_TOO_LARGE and the number of names that fit.
     * </pre>
     */
    public void batchGetTodos(dev.tidemark.todo.v1.BatchGetTodosRequest request,
        io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.BatchGetTodosResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getBatchGetTodosMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Reads the todos of one list, one page at a time. A run through all pages
     * returns every todo that was there all along exactly once.
     * </pre>
     */
    public void listTodos(dev.tidemark.todo.v1.ListTodosRequest request,
        io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.ListTodosResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getListTodosMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Creates a todo. ALREADY_EXISTS carries a `token` in its metadata.
     * </pre>
     */
    public void createTodo(dev.tidemark.todo.v1.CreateTodoRequest request,
        io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.CreateTodoResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getCreateTodoMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Changes fields of a todo. ABORTED (the etag does not match) and NOT_FOUND
     * carry a `token` in their metadata, so that the next read is not older than
     * the refusal.
     * </pre>
     */
    public void updateTodo(dev.tidemark.todo.v1.UpdateTodoRequest request,
        io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.UpdateTodoResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getUpdateTodoMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Deletes a todo. Errors as for UpdateTodo.
     * </pre>
     */
    public void deleteTodo(dev.tidemark.todo.v1.DeleteTodoRequest request,
        io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.DeleteTodoResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getDeleteTodoMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Streams the changes of a list, of chosen todos or of all lists. For each
     * change the stream delivers that change, or a newer one of the same name, or
     * a reset. There is never a silent gap. To follow a list: read it, then watch
     * from the token of its last page.
     * </pre>
     */
    public void watchTodos(dev.tidemark.todo.v1.WatchTodosRequest request,
        io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.WatchTodosResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncServerStreamingCall(
          getChannel().newCall(getWatchTodosMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Reads one list. Without authentication a list exists as soon as it contains
     * a todo; then its fields other than `name` are empty.
     * </pre>
     */
    public void getTodoList(dev.tidemark.todo.v1.GetTodoListRequest request,
        io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.GetTodoListResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getGetTodoListMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Reads the lists that the caller is a member of, in order of name, one page
     * at a time. An administrator reads all lists; so does everybody without
     * authentication, lists that only contain todos included.
     * </pre>
     */
    public void listTodoLists(dev.tidemark.todo.v1.ListTodoListsRequest request,
        io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.ListTodoListsResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getListTodoListsMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Creates a list. The caller becomes its owner.
     * </pre>
     */
    public void createTodoList(dev.tidemark.todo.v1.CreateTodoListRequest request,
        io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.CreateTodoListResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getCreateTodoListMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Changes the title or the members of a list. A member who was removed reads
     * nothing of the list that was written later, from any cache.
     * </pre>
     */
    public void updateTodoList(dev.tidemark.todo.v1.UpdateTodoListRequest request,
        io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.UpdateTodoListResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getUpdateTodoListMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Deletes a list. LIST_NOT_EMPTY if it contains todos, unless `force` is set.
     * </pre>
     */
    public void deleteTodoList(dev.tidemark.todo.v1.DeleteTodoListRequest request,
        io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.DeleteTodoListResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getDeleteTodoListMethod(), getCallOptions()), request, responseObserver);
    }
  }

  /**
   * A stub to allow clients to do synchronous rpc calls to service TodoService.
   * <pre>
   * Reads, writes and watches todos.
   * Every error carries one google.rpc.ErrorInfo with the domain `todo.v1`, a
   * reason from ErrorReason (without its prefix) and, in its metadata, every
   * value that the text mentions. Invalid arguments also carry a
   * google.rpc.BadRequest with field paths, and errors that waiting can resolve a
   * google.rpc.RetryInfo.
   * UNAVAILABLE on a write means that the write had no effect. A write whose
   * outcome is not known ends with UNKNOWN.
   * Output-only fields in a request are ignored. Limits on text count characters
   * (Unicode scalar values).
   * </pre>
   */
  public static final class TodoServiceBlockingV2Stub
      extends io.grpc.stub.AbstractBlockingStub<TodoServiceBlockingV2Stub> {
    private TodoServiceBlockingV2Stub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected TodoServiceBlockingV2Stub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new TodoServiceBlockingV2Stub(channel, callOptions);
    }

    /**
     * <pre>
     * Reads one todo. NOT_FOUND also states how fresh it is: its metadata
     * carries the fields of ReadInfo (`token`, `source`, `staleness_bound_ms`).
     * </pre>
     */
    public dev.tidemark.todo.v1.GetTodoResponse getTodo(dev.tidemark.todo.v1.GetTodoRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getGetTodoMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Reads up to 1000 todos, of any lists, in one call. Names that no todo has
     * are listed in `missing` and are not an error. If the response would exceed
     * 4 MiB, the call ends with MESSAGE_TOO_LARGE and the number of names that fit.
     * </pre>
     */
    public dev.tidemark.todo.v1.BatchGetTodosResponse batchGetTodos(dev.tidemark.todo.v1.BatchGetTodosRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getBatchGetTodosMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Reads the todos of one list, one page at a time. A run through all pages
     * returns every todo that was there all along exactly once.
     * </pre>
     */
    public dev.tidemark.todo.v1.ListTodosResponse listTodos(dev.tidemark.todo.v1.ListTodosRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getListTodosMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Creates a todo. ALREADY_EXISTS carries a `token` in its metadata.
     * </pre>
     */
    public dev.tidemark.todo.v1.CreateTodoResponse createTodo(dev.tidemark.todo.v1.CreateTodoRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getCreateTodoMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Changes fields of a todo. ABORTED (the etag does not match) and NOT_FOUND
     * carry a `token` in their metadata, so that the next read is not older than
     * the refusal.
     * </pre>
     */
    public dev.tidemark.todo.v1.UpdateTodoResponse updateTodo(dev.tidemark.todo.v1.UpdateTodoRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getUpdateTodoMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Deletes a todo. Errors as for UpdateTodo.
     * </pre>
     */
    public dev.tidemark.todo.v1.DeleteTodoResponse deleteTodo(dev.tidemark.todo.v1.DeleteTodoRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getDeleteTodoMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Streams the changes of a list, of chosen todos or of all lists. For each
     * change the stream delivers that change, or a newer one of the same name, or
     * a reset. There is never a silent gap. To follow a list: read it, then watch
     * from the token of its last page.
     * </pre>
     */
    @io.grpc.ExperimentalApi("https://github.com/grpc/grpc-java/issues/10918")
    public io.grpc.stub.BlockingClientCall<?, dev.tidemark.todo.v1.WatchTodosResponse>
        watchTodos(dev.tidemark.todo.v1.WatchTodosRequest request) {
      return io.grpc.stub.ClientCalls.blockingV2ServerStreamingCall(
          getChannel(), getWatchTodosMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Reads one list. Without authentication a list exists as soon as it contains
     * a todo; then its fields other than `name` are empty.
     * </pre>
     */
    public dev.tidemark.todo.v1.GetTodoListResponse getTodoList(dev.tidemark.todo.v1.GetTodoListRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getGetTodoListMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Reads the lists that the caller is a member of, in order of name, one page
     * at a time. An administrator reads all lists; so does everybody without
     * authentication, lists that only contain todos included.
     * </pre>
     */
    public dev.tidemark.todo.v1.ListTodoListsResponse listTodoLists(dev.tidemark.todo.v1.ListTodoListsRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getListTodoListsMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Creates a list. The caller becomes its owner.
     * </pre>
     */
    public dev.tidemark.todo.v1.CreateTodoListResponse createTodoList(dev.tidemark.todo.v1.CreateTodoListRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getCreateTodoListMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Changes the title or the members of a list. A member who was removed reads
     * nothing of the list that was written later, from any cache.
     * </pre>
     */
    public dev.tidemark.todo.v1.UpdateTodoListResponse updateTodoList(dev.tidemark.todo.v1.UpdateTodoListRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getUpdateTodoListMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Deletes a list. LIST_NOT_EMPTY if it contains todos, unless `force` is set.
     * </pre>
     */
    public dev.tidemark.todo.v1.DeleteTodoListResponse deleteTodoList(dev.tidemark.todo.v1.DeleteTodoListRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getDeleteTodoListMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do limited synchronous rpc calls to service TodoService.
   * <pre>
   * Reads, writes and watches todos.
   * Every error carries one google.rpc.ErrorInfo with the domain `todo.v1`, a
   * reason from ErrorReason (without its prefix) and, in its metadata, every
   * value that the text mentions. Invalid arguments also carry a
   * google.rpc.BadRequest with field paths, and errors that waiting can resolve a
   * google.rpc.RetryInfo.
   * UNAVAILABLE on a write means that the write had no effect. A write whose
   * outcome is not known ends with UNKNOWN.
   * Output-only fields in a request are ignored. Limits on text count characters
   * (Unicode scalar values).
   * </pre>
   */
  public static final class TodoServiceBlockingStub
      extends io.grpc.stub.AbstractBlockingStub<TodoServiceBlockingStub> {
    private TodoServiceBlockingStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected TodoServiceBlockingStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new TodoServiceBlockingStub(channel, callOptions);
    }

    /**
     * <pre>
     * Reads one todo. NOT_FOUND also states how fresh it is: its metadata
     * carries the fields of ReadInfo (`token`, `source`, `staleness_bound_ms`).
     * </pre>
     */
    public dev.tidemark.todo.v1.GetTodoResponse getTodo(dev.tidemark.todo.v1.GetTodoRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getGetTodoMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Reads up to 1000 todos, of any lists, in one call. Names that no todo has
     * are listed in `missing` and are not an error. If the response would exceed
     * 4 MiB, the call ends with MESSAGE_TOO_LARGE and the number of names that fit.
     * </pre>
     */
    public dev.tidemark.todo.v1.BatchGetTodosResponse batchGetTodos(dev.tidemark.todo.v1.BatchGetTodosRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getBatchGetTodosMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Reads the todos of one list, one page at a time. A run through all pages
     * returns every todo that was there all along exactly once.
     * </pre>
     */
    public dev.tidemark.todo.v1.ListTodosResponse listTodos(dev.tidemark.todo.v1.ListTodosRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getListTodosMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Creates a todo. ALREADY_EXISTS carries a `token` in its metadata.
     * </pre>
     */
    public dev.tidemark.todo.v1.CreateTodoResponse createTodo(dev.tidemark.todo.v1.CreateTodoRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getCreateTodoMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Changes fields of a todo. ABORTED (the etag does not match) and NOT_FOUND
     * carry a `token` in their metadata, so that the next read is not older than
     * the refusal.
     * </pre>
     */
    public dev.tidemark.todo.v1.UpdateTodoResponse updateTodo(dev.tidemark.todo.v1.UpdateTodoRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getUpdateTodoMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Deletes a todo. Errors as for UpdateTodo.
     * </pre>
     */
    public dev.tidemark.todo.v1.DeleteTodoResponse deleteTodo(dev.tidemark.todo.v1.DeleteTodoRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getDeleteTodoMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Streams the changes of a list, of chosen todos or of all lists. For each
     * change the stream delivers that change, or a newer one of the same name, or
     * a reset. There is never a silent gap. To follow a list: read it, then watch
     * from the token of its last page.
     * </pre>
     */
    public java.util.Iterator<dev.tidemark.todo.v1.WatchTodosResponse> watchTodos(
        dev.tidemark.todo.v1.WatchTodosRequest request) {
      return io.grpc.stub.ClientCalls.blockingServerStreamingCall(
          getChannel(), getWatchTodosMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Reads one list. Without authentication a list exists as soon as it contains
     * a todo; then its fields other than `name` are empty.
     * </pre>
     */
    public dev.tidemark.todo.v1.GetTodoListResponse getTodoList(dev.tidemark.todo.v1.GetTodoListRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getGetTodoListMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Reads the lists that the caller is a member of, in order of name, one page
     * at a time. An administrator reads all lists; so does everybody without
     * authentication, lists that only contain todos included.
     * </pre>
     */
    public dev.tidemark.todo.v1.ListTodoListsResponse listTodoLists(dev.tidemark.todo.v1.ListTodoListsRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getListTodoListsMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Creates a list. The caller becomes its owner.
     * </pre>
     */
    public dev.tidemark.todo.v1.CreateTodoListResponse createTodoList(dev.tidemark.todo.v1.CreateTodoListRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getCreateTodoListMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Changes the title or the members of a list. A member who was removed reads
     * nothing of the list that was written later, from any cache.
     * </pre>
     */
    public dev.tidemark.todo.v1.UpdateTodoListResponse updateTodoList(dev.tidemark.todo.v1.UpdateTodoListRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getUpdateTodoListMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Deletes a list. LIST_NOT_EMPTY if it contains todos, unless `force` is set.
     * </pre>
     */
    public dev.tidemark.todo.v1.DeleteTodoListResponse deleteTodoList(dev.tidemark.todo.v1.DeleteTodoListRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getDeleteTodoListMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do ListenableFuture-style rpc calls to service TodoService.
   * <pre>
   * Reads, writes and watches todos.
   * Every error carries one google.rpc.ErrorInfo with the domain `todo.v1`, a
   * reason from ErrorReason (without its prefix) and, in its metadata, every
   * value that the text mentions. Invalid arguments also carry a
   * google.rpc.BadRequest with field paths, and errors that waiting can resolve a
   * google.rpc.RetryInfo.
   * UNAVAILABLE on a write means that the write had no effect. A write whose
   * outcome is not known ends with UNKNOWN.
   * Output-only fields in a request are ignored. Limits on text count characters
   * (Unicode scalar values).
   * </pre>
   */
  public static final class TodoServiceFutureStub
      extends io.grpc.stub.AbstractFutureStub<TodoServiceFutureStub> {
    private TodoServiceFutureStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected TodoServiceFutureStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new TodoServiceFutureStub(channel, callOptions);
    }

    /**
     * <pre>
     * Reads one todo. NOT_FOUND also states how fresh it is: its metadata
     * carries the fields of ReadInfo (`token`, `source`, `staleness_bound_ms`).
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.tidemark.todo.v1.GetTodoResponse> getTodo(
        dev.tidemark.todo.v1.GetTodoRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getGetTodoMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Reads up to 1000 todos, of any lists, in one call. Names that no todo has
     * are listed in `missing` and are not an error. If the response would exceed
     * 4 MiB, the call ends with MESSAGE_TOO_LARGE and the number of names that fit.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.tidemark.todo.v1.BatchGetTodosResponse> batchGetTodos(
        dev.tidemark.todo.v1.BatchGetTodosRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getBatchGetTodosMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Reads the todos of one list, one page at a time. A run through all pages
     * returns every todo that was there all along exactly once.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.tidemark.todo.v1.ListTodosResponse> listTodos(
        dev.tidemark.todo.v1.ListTodosRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getListTodosMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Creates a todo. ALREADY_EXISTS carries a `token` in its metadata.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.tidemark.todo.v1.CreateTodoResponse> createTodo(
        dev.tidemark.todo.v1.CreateTodoRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getCreateTodoMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Changes fields of a todo. ABORTED (the etag does not match) and NOT_FOUND
     * carry a `token` in their metadata, so that the next read is not older than
     * the refusal.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.tidemark.todo.v1.UpdateTodoResponse> updateTodo(
        dev.tidemark.todo.v1.UpdateTodoRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getUpdateTodoMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Deletes a todo. Errors as for UpdateTodo.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.tidemark.todo.v1.DeleteTodoResponse> deleteTodo(
        dev.tidemark.todo.v1.DeleteTodoRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getDeleteTodoMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Reads one list. Without authentication a list exists as soon as it contains
     * a todo; then its fields other than `name` are empty.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.tidemark.todo.v1.GetTodoListResponse> getTodoList(
        dev.tidemark.todo.v1.GetTodoListRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getGetTodoListMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Reads the lists that the caller is a member of, in order of name, one page
     * at a time. An administrator reads all lists; so does everybody without
     * authentication, lists that only contain todos included.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.tidemark.todo.v1.ListTodoListsResponse> listTodoLists(
        dev.tidemark.todo.v1.ListTodoListsRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getListTodoListsMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Creates a list. The caller becomes its owner.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.tidemark.todo.v1.CreateTodoListResponse> createTodoList(
        dev.tidemark.todo.v1.CreateTodoListRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getCreateTodoListMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Changes the title or the members of a list. A member who was removed reads
     * nothing of the list that was written later, from any cache.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.tidemark.todo.v1.UpdateTodoListResponse> updateTodoList(
        dev.tidemark.todo.v1.UpdateTodoListRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getUpdateTodoListMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Deletes a list. LIST_NOT_EMPTY if it contains todos, unless `force` is set.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<dev.tidemark.todo.v1.DeleteTodoListResponse> deleteTodoList(
        dev.tidemark.todo.v1.DeleteTodoListRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getDeleteTodoListMethod(), getCallOptions()), request);
    }
  }

  private static final int METHODID_GET_TODO = 0;
  private static final int METHODID_BATCH_GET_TODOS = 1;
  private static final int METHODID_LIST_TODOS = 2;
  private static final int METHODID_CREATE_TODO = 3;
  private static final int METHODID_UPDATE_TODO = 4;
  private static final int METHODID_DELETE_TODO = 5;
  private static final int METHODID_WATCH_TODOS = 6;
  private static final int METHODID_GET_TODO_LIST = 7;
  private static final int METHODID_LIST_TODO_LISTS = 8;
  private static final int METHODID_CREATE_TODO_LIST = 9;
  private static final int METHODID_UPDATE_TODO_LIST = 10;
  private static final int METHODID_DELETE_TODO_LIST = 11;

  private static final class MethodHandlers<Req, Resp> implements
      io.grpc.stub.ServerCalls.UnaryMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.ServerStreamingMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.ClientStreamingMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.BidiStreamingMethod<Req, Resp> {
    private final AsyncService serviceImpl;
    private final int methodId;

    MethodHandlers(AsyncService serviceImpl, int methodId) {
      this.serviceImpl = serviceImpl;
      this.methodId = methodId;
    }

    @java.lang.Override
    @java.lang.SuppressWarnings("unchecked")
    public void invoke(Req request, io.grpc.stub.StreamObserver<Resp> responseObserver) {
      switch (methodId) {
        case METHODID_GET_TODO:
          serviceImpl.getTodo((dev.tidemark.todo.v1.GetTodoRequest) request,
              (io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.GetTodoResponse>) responseObserver);
          break;
        case METHODID_BATCH_GET_TODOS:
          serviceImpl.batchGetTodos((dev.tidemark.todo.v1.BatchGetTodosRequest) request,
              (io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.BatchGetTodosResponse>) responseObserver);
          break;
        case METHODID_LIST_TODOS:
          serviceImpl.listTodos((dev.tidemark.todo.v1.ListTodosRequest) request,
              (io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.ListTodosResponse>) responseObserver);
          break;
        case METHODID_CREATE_TODO:
          serviceImpl.createTodo((dev.tidemark.todo.v1.CreateTodoRequest) request,
              (io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.CreateTodoResponse>) responseObserver);
          break;
        case METHODID_UPDATE_TODO:
          serviceImpl.updateTodo((dev.tidemark.todo.v1.UpdateTodoRequest) request,
              (io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.UpdateTodoResponse>) responseObserver);
          break;
        case METHODID_DELETE_TODO:
          serviceImpl.deleteTodo((dev.tidemark.todo.v1.DeleteTodoRequest) request,
              (io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.DeleteTodoResponse>) responseObserver);
          break;
        case METHODID_WATCH_TODOS:
          serviceImpl.watchTodos((dev.tidemark.todo.v1.WatchTodosRequest) request,
              (io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.WatchTodosResponse>) responseObserver);
          break;
        case METHODID_GET_TODO_LIST:
          serviceImpl.getTodoList((dev.tidemark.todo.v1.GetTodoListRequest) request,
              (io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.GetTodoListResponse>) responseObserver);
          break;
        case METHODID_LIST_TODO_LISTS:
          serviceImpl.listTodoLists((dev.tidemark.todo.v1.ListTodoListsRequest) request,
              (io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.ListTodoListsResponse>) responseObserver);
          break;
        case METHODID_CREATE_TODO_LIST:
          serviceImpl.createTodoList((dev.tidemark.todo.v1.CreateTodoListRequest) request,
              (io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.CreateTodoListResponse>) responseObserver);
          break;
        case METHODID_UPDATE_TODO_LIST:
          serviceImpl.updateTodoList((dev.tidemark.todo.v1.UpdateTodoListRequest) request,
              (io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.UpdateTodoListResponse>) responseObserver);
          break;
        case METHODID_DELETE_TODO_LIST:
          serviceImpl.deleteTodoList((dev.tidemark.todo.v1.DeleteTodoListRequest) request,
              (io.grpc.stub.StreamObserver<dev.tidemark.todo.v1.DeleteTodoListResponse>) responseObserver);
          break;
        default:
          throw new AssertionError();
      }
    }

    @java.lang.Override
    @java.lang.SuppressWarnings("unchecked")
    public io.grpc.stub.StreamObserver<Req> invoke(
        io.grpc.stub.StreamObserver<Resp> responseObserver) {
      switch (methodId) {
        default:
          throw new AssertionError();
      }
    }
  }

  public static final io.grpc.ServerServiceDefinition bindService(AsyncService service) {
    return io.grpc.ServerServiceDefinition.builder(getServiceDescriptor())
        .addMethod(
          getGetTodoMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.tidemark.todo.v1.GetTodoRequest,
              dev.tidemark.todo.v1.GetTodoResponse>(
                service, METHODID_GET_TODO)))
        .addMethod(
          getBatchGetTodosMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.tidemark.todo.v1.BatchGetTodosRequest,
              dev.tidemark.todo.v1.BatchGetTodosResponse>(
                service, METHODID_BATCH_GET_TODOS)))
        .addMethod(
          getListTodosMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.tidemark.todo.v1.ListTodosRequest,
              dev.tidemark.todo.v1.ListTodosResponse>(
                service, METHODID_LIST_TODOS)))
        .addMethod(
          getCreateTodoMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.tidemark.todo.v1.CreateTodoRequest,
              dev.tidemark.todo.v1.CreateTodoResponse>(
                service, METHODID_CREATE_TODO)))
        .addMethod(
          getUpdateTodoMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.tidemark.todo.v1.UpdateTodoRequest,
              dev.tidemark.todo.v1.UpdateTodoResponse>(
                service, METHODID_UPDATE_TODO)))
        .addMethod(
          getDeleteTodoMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.tidemark.todo.v1.DeleteTodoRequest,
              dev.tidemark.todo.v1.DeleteTodoResponse>(
                service, METHODID_DELETE_TODO)))
        .addMethod(
          getWatchTodosMethod(),
          io.grpc.stub.ServerCalls.asyncServerStreamingCall(
            new MethodHandlers<
              dev.tidemark.todo.v1.WatchTodosRequest,
              dev.tidemark.todo.v1.WatchTodosResponse>(
                service, METHODID_WATCH_TODOS)))
        .addMethod(
          getGetTodoListMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.tidemark.todo.v1.GetTodoListRequest,
              dev.tidemark.todo.v1.GetTodoListResponse>(
                service, METHODID_GET_TODO_LIST)))
        .addMethod(
          getListTodoListsMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.tidemark.todo.v1.ListTodoListsRequest,
              dev.tidemark.todo.v1.ListTodoListsResponse>(
                service, METHODID_LIST_TODO_LISTS)))
        .addMethod(
          getCreateTodoListMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.tidemark.todo.v1.CreateTodoListRequest,
              dev.tidemark.todo.v1.CreateTodoListResponse>(
                service, METHODID_CREATE_TODO_LIST)))
        .addMethod(
          getUpdateTodoListMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.tidemark.todo.v1.UpdateTodoListRequest,
              dev.tidemark.todo.v1.UpdateTodoListResponse>(
                service, METHODID_UPDATE_TODO_LIST)))
        .addMethod(
          getDeleteTodoListMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              dev.tidemark.todo.v1.DeleteTodoListRequest,
              dev.tidemark.todo.v1.DeleteTodoListResponse>(
                service, METHODID_DELETE_TODO_LIST)))
        .build();
  }

  private static abstract class TodoServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoFileDescriptorSupplier, io.grpc.protobuf.ProtoServiceDescriptorSupplier {
    TodoServiceBaseDescriptorSupplier() {}

    @java.lang.Override
    public com.google.protobuf.Descriptors.FileDescriptor getFileDescriptor() {
      return dev.tidemark.todo.v1.TodoProto.getDescriptor();
    }

    @java.lang.Override
    public com.google.protobuf.Descriptors.ServiceDescriptor getServiceDescriptor() {
      return getFileDescriptor().findServiceByName("TodoService");
    }
  }

  private static final class TodoServiceFileDescriptorSupplier
      extends TodoServiceBaseDescriptorSupplier {
    TodoServiceFileDescriptorSupplier() {}
  }

  private static final class TodoServiceMethodDescriptorSupplier
      extends TodoServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoMethodDescriptorSupplier {
    private final java.lang.String methodName;

    TodoServiceMethodDescriptorSupplier(java.lang.String methodName) {
      this.methodName = methodName;
    }

    @java.lang.Override
    public com.google.protobuf.Descriptors.MethodDescriptor getMethodDescriptor() {
      return getServiceDescriptor().findMethodByName(methodName);
    }
  }

  private static volatile io.grpc.ServiceDescriptor serviceDescriptor;

  public static io.grpc.ServiceDescriptor getServiceDescriptor() {
    io.grpc.ServiceDescriptor result = serviceDescriptor;
    if (result == null) {
      synchronized (TodoServiceGrpc.class) {
        result = serviceDescriptor;
        if (result == null) {
          serviceDescriptor = result = io.grpc.ServiceDescriptor.newBuilder(SERVICE_NAME)
              .setSchemaDescriptor(new TodoServiceFileDescriptorSupplier())
              .addMethod(getGetTodoMethod())
              .addMethod(getBatchGetTodosMethod())
              .addMethod(getListTodosMethod())
              .addMethod(getCreateTodoMethod())
              .addMethod(getUpdateTodoMethod())
              .addMethod(getDeleteTodoMethod())
              .addMethod(getWatchTodosMethod())
              .addMethod(getGetTodoListMethod())
              .addMethod(getListTodoListsMethod())
              .addMethod(getCreateTodoListMethod())
              .addMethod(getUpdateTodoListMethod())
              .addMethod(getDeleteTodoListMethod())
              .build();
        }
      }
    }
    return result;
  }
}
