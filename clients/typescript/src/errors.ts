// Errors told by their reason.

import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema } from "../gen/google/rpc/error_details_pb.js";
import { ErrorReason, ErrorReasonSchema } from "../gen/todo/v1/todo_pb.js";

export interface Why {
  reason: ErrorReason;
  values: Record<string, string>;
}

/**
 * What the service says of an error, and its values. An error that the service
 * did not make, a lost connection say, has no reason.
 */
export function why(error: unknown): Why {
  for (const info of ConnectError.from(error).findDetails(ErrorInfoSchema)) {
    if (info.domain === "todo.v1") {
      const name = `ERROR_REASON_${info.reason}`;
      const known = ErrorReasonSchema.values.find((value) => value.name === name);
      return { reason: known?.number ?? ErrorReason.UNSPECIFIED, values: info.metadata };
    }
  }
  return { reason: ErrorReason.UNSPECIFIED, values: {} };
}

/** The reason as the proto spells it. */
export function reasonName(error: unknown): string {
  return ErrorReasonSchema.value[why(error).reason]?.name ?? "ERROR_REASON_UNSPECIFIED";
}

/** The code as the gRPC documents spell it: DEADLINE_EXCEEDED. */
export function codeName(error: unknown): string {
  const name = Code[ConnectError.from(error).code] ?? "Unknown";
  return name.replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();
}

/**
 * Whether another replica may do better. The service says UNAVAILABLE; a broken
 * connection has other codes in Node and in browsers, but never a reason.
 */
export function isLost(error: unknown): boolean {
  const code = ConnectError.from(error).code;
  const broken = [Code.Aborted, Code.Internal, Code.Unknown].includes(code);
  return code === Code.Unavailable || (broken && why(error).reason === ErrorReason.UNSPECIFIED);
}

/**
 * Whether a write that failed surely changed nothing. UNAVAILABLE promises so
 * when the service says it, and only then.
 */
export function hadNoEffect(error: unknown): boolean {
  return ConnectError.from(error).code === Code.Unavailable && why(error).reason !== ErrorReason.UNSPECIFIED;
}
