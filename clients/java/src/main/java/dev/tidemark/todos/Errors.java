package dev.tidemark.todos;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import dev.tidemark.todo.v1.ErrorReason;
import io.grpc.Status;
import io.grpc.protobuf.StatusProto;
import java.util.Arrays;
import java.util.Map;

/** Errors told by their reason. */
final class Errors {
  private Errors() {}

  /** What the service says of an error, and its values. */
  record Why(ErrorReason reason, Map<String, String> values) {
    /** Of an error that the service did not make, a lost connection say. */
    static final Why NOT_SAID = new Why(ErrorReason.ERROR_REASON_UNSPECIFIED, Map.of());

    private static Why of(ErrorInfo info) {
      String name = "ERROR_REASON_" + info.getReason();
      return Arrays.stream(ErrorReason.values())
          .filter(reason -> reason.name().equals(name))
          .findFirst()
          .map(reason -> new Why(reason, info.getMetadataMap()))
          .orElse(NOT_SAID);
    }
  }

  static Why why(Throwable error) {
    com.google.rpc.Status status = StatusProto.fromThrowable(error);
    if (status == null) {
      return Why.NOT_SAID;
    }
    for (Any detail : status.getDetailsList()) {
      if (detail.is(ErrorInfo.class)) {
        try {
          ErrorInfo info = detail.unpack(ErrorInfo.class);
          if (info.getDomain().equals("todo.v1")) {
            return Why.of(info);
          }
        } catch (InvalidProtocolBufferException malformed) {
          return Why.NOT_SAID;
        }
      }
    }
    return Why.NOT_SAID;
  }

  /**
   * Whether a write that failed surely changed nothing. UNAVAILABLE promises so when the service
   * says it; but the client's own transport says UNAVAILABLE too, when a connection is lost after
   * the request went out.
   */
  static boolean hadNoEffect(Throwable error) {
    return code(error) == Status.Code.UNAVAILABLE && why(error) != Why.NOT_SAID;
  }

  static Status.Code code(Throwable error) {
    return Status.fromThrowable(error).getCode();
  }
}
