// The token of a session.

/** A token is 33 bytes in base64url: version, origin, seen, fresh to, checksum. */
const TOKEN_VERSION = 1;
const TOKEN_LENGTH = 1 + 8 + 8 + 8 + 8;

/**
 * Keeps the newest token that the client has seen, so that no read shows a state older than
 * an earlier answer did.
 *
 * An answer to a call that presented no token may be older than the token at hand, and
 * answers of parallel calls arrive in any order. So tokens of one origin are compared by what
 * they have seen, and the greater one stays: one token, however many calls.
 */
export class Session {
  #token: string;

  constructor(token = "") {
    this.#token = token;
  }

  get token(): string {
    return this.#token;
  }

  /** Takes the token of an answer, unless the one at hand is newer. */
  observe(token: string | undefined): void {
    if (token && !isNewer(this.#token, token)) this.#token = token;
  }

  /**
   * Drops a token that the service refused: it is of another database, or of one that was
   * restored to the past.
   */
  forget(token: string): void {
    if (this.#token === token) this.#token = "";
  }
}

/**
 * Whether one is known to have seen more than other. Tokens of different origins, and of a
 * version that this library does not know, cannot be compared.
 */
function isNewer(one: string, other: string): boolean {
  const [first, second] = [decode(one), decode(other)];
  return first !== undefined && second !== undefined && first.origin === second.origin && first.seen > second.seen;
}

function decode(token: string): { origin: bigint; seen: bigint } | undefined {
  let raw: string;
  try {
    raw = atob(token.replaceAll("-", "+").replaceAll("_", "/"));
  } catch {
    return undefined;
  }
  if (raw.length !== TOKEN_LENGTH || raw.charCodeAt(0) !== TOKEN_VERSION) return undefined;
  const view = new DataView(Uint8Array.from(raw, (c) => c.charCodeAt(0)).buffer);
  return { origin: view.getBigUint64(1), seen: view.getBigUint64(9) };
}
