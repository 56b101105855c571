package dev.tidemark.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Status;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** The error of every call that failed. */
public final class TodoError extends RuntimeException {
  private static final long serialVersionUID = 1;

  /** The domain of the service's google.rpc.ErrorInfo. */
  private static final String DOMAIN = "todo.v1";

  /**
   * One invalid field of a request.
   *
   * @param field its path, such as {@code todo.title}
   * @param description what is wrong, and what would be right
   */
  public record FieldProblem(String field, String description) {}

  private final Status.Code code;
  private String reason = "";
  private transient Map<String, String> metadata = Map.of();
  private final transient List<FieldProblem> fields = new ArrayList<>();
  private Duration retryAfter = Duration.ZERO;

  TodoError(Throwable cause) {
    super(Status.fromThrowable(cause).getDescription(), cause);
    code = Status.fromThrowable(cause).getCode();
    com.google.rpc.Status status = StatusProto.fromThrowable(cause);
    if (status == null) {
      return;
    }
    for (Any detail : status.getDetailsList()) {
      try {
        read(detail);
      } catch (InvalidProtocolBufferException malformed) {
        addSuppressed(malformed);
      }
    }
  }

  private void read(Any detail) throws InvalidProtocolBufferException {
    if (detail.is(ErrorInfo.class)) {
      ErrorInfo info = detail.unpack(ErrorInfo.class);
      if (info.getDomain().equals(DOMAIN)) {
        reason = info.getReason();
        metadata = info.getMetadataMap();
      }
    } else if (detail.is(BadRequest.class)) {
      for (BadRequest.FieldViolation one : detail.unpack(BadRequest.class).getFieldViolationsList()) {
        fields.add(new FieldProblem(one.getField(), one.getDescription()));
      }
    } else if (detail.is(RetryInfo.class)) {
      com.google.protobuf.Duration delay = detail.unpack(RetryInfo.class).getRetryDelay();
      retryAfter = Duration.ofSeconds(delay.getSeconds(), delay.getNanos());
    }
  }

  /** The status code of gRPC. */
  public Status.Code code() {
    return code;
  }

  /**
   * Why: a value of ErrorReason without its prefix, such as {@code TODO_NOT_FOUND}. Empty if the
   * error is not from the service: a lost connection, or a deadline that passed on the way.
   */
  public String reason() {
    return reason;
  }

  /** The values that the message mentions, such as {@code token}. */
  public Map<String, String> metadata() {
    return metadata;
  }

  /** The fields of the request that are invalid. */
  public List<FieldProblem> fields() {
    return List.copyOf(fields);
  }

  /** How long the service asks to wait. Zero: it does not say. */
  public Duration retryAfter() {
    return retryAfter;
  }

  /**
   * Whether a write that failed changed nothing for certain. UNAVAILABLE says so if it is from the
   * service; gRPC itself reports UNAVAILABLE too when a connection is lost after the request was
   * sent, and then the write may have been applied.
   */
  public boolean hadNoEffect() {
    return code == Status.Code.UNAVAILABLE && !reason.isEmpty();
  }

  /** Whether the service refused the token that was presented. */
  boolean voidsToken() {
    return reason.equals("TOKEN_FOREIGN") || reason.equals("TOKEN_INVALID");
  }

  @Override
  public String toString() {
    return "TodoError: " + code + (reason.isEmpty() ? "" : " " + reason) + ": " + getMessage();
  }
}
