// Errors with their reason.

import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../gen/google/rpc/error_details_pb.js";
import type { ErrorReason } from "../gen/todo/v1/todo_pb.js";

/** The domain of the service's google.rpc.ErrorInfo. */
const DOMAIN = "todo.v1";

/**
 * Why a call failed: a value of ErrorReason. Empty if the error is not from the service: a lost
 * connection, or a deadline that passed on the way. Newer services may have more reasons.
 */
export type Reason = Exclude<keyof typeof ErrorReason, "UNSPECIFIED"> | "" | (string & {});

/** One invalid field of a request. */
export interface FieldProblem {
  /** Its path, such as `todo.title`. */
  field: string;
  /** What is wrong, and what would be right. */
  description: string;
}

/** The error of every call that failed. */
export class TodoError extends Error {
  override readonly name = "TodoError";
  /** The status code of gRPC. */
  readonly code: Code;
  readonly reason: Reason = "";
  /** The values that the message mentions, such as `token`. */
  readonly metadata: Readonly<Record<string, string>> = {};
  /** The fields of the request that are invalid. */
  readonly fields: readonly FieldProblem[];
  /** How long the service asks to wait. 0: it does not say. */
  readonly retryAfterMs: number = 0;

  constructor(cause: unknown) {
    const error = ConnectError.from(cause);
    super(error.rawMessage, { cause });
    this.code = error.code;
    for (const info of error.findDetails(ErrorInfoSchema)) {
      if (info.domain === DOMAIN) [this.reason, this.metadata] = [info.reason, info.metadata];
    }
    this.fields = error.findDetails(BadRequestSchema).flatMap((request) =>
      request.fieldViolations.map(({ field, description }) => ({ field, description })));
    const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
    if (delay) this.retryAfterMs = durationMs(delay);
  }

  /** The error itself if it is one, else one made of it. */
  static from(error: unknown): TodoError {
    return error instanceof TodoError ? error : new TodoError(error);
  }

  /** The code as the gRPC documents spell it: DEADLINE_EXCEEDED. */
  get codeName(): string {
    return (Code[this.code] ?? "Unknown").replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();
  }

  /**
   * Whether a write that failed changed nothing for certain. UNAVAILABLE says so if it is from
   * the service. A connection that is lost after the request was sent has no reason, and then
   * the write may have been applied.
   */
  get hadNoEffect(): boolean {
    return this.code === Code.Unavailable && this.reason !== "";
  }

  /**
   * Whether another replica may do better. The service says UNAVAILABLE; a broken connection
   * has other codes in Node and in browsers, but never a reason.
   */
  get isLost(): boolean {
    const broken = [Code.Aborted, Code.Canceled, Code.Internal, Code.Unknown].includes(this.code);
    return this.code === Code.Unavailable || (broken && this.reason === "");
  }

  /** Whether the service refused the token that was presented. */
  get voidsToken(): boolean {
    return this.reason === "TOKEN_FOREIGN" || this.reason === "TOKEN_INVALID";
  }
}
