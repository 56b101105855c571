package dev.tidemark.client;

import java.nio.ByteBuffer;
import java.util.Base64;
import java.util.Optional;

/**
 * Keeps the newest token that the client has seen, so that no read shows a state older than an
 * earlier answer did.
 *
 * <p>An answer to a call that presented no token may be older than the token at hand, and answers
 * of parallel calls arrive in any order. So tokens of one origin are compared by what they have
 * seen, and the greater one stays: one token, however many calls.
 */
final class Session {
  /** A token is 33 bytes in base64url: version, origin, seen, fresh to, checksum. */
  private static final int TOKEN_LENGTH = 1 + 8 + 8 + 8 + 8;

  private static final byte TOKEN_VERSION = 1;

  private String token;

  Session(String token) {
    this.token = token;
  }

  synchronized String token() {
    return token;
  }

  /** Takes the token of an answer, unless the one at hand is newer. */
  synchronized void observe(String other) {
    if (!other.isEmpty() && !isNewer(token, other)) {
      token = other;
    }
  }

  /**
   * Drops a token that the service refused: it is of another database, or of one that was restored
   * to the past.
   */
  synchronized void forget(String refused) {
    if (token.equals(refused)) {
      token = "";
    }
  }

  /**
   * Whether one is known to have seen more than other. Tokens of different origins, and of a version
   * that this library does not know, cannot be compared.
   */
  private static boolean isNewer(String one, String other) {
    Optional<Content> first = Content.of(one);
    Optional<Content> second = Content.of(other);
    return first.isPresent()
        && second.isPresent()
        && first.get().origin == second.get().origin
        && Long.compareUnsigned(first.get().seen, second.get().seen) > 0;
  }

  private record Content(long origin, long seen) {
    static Optional<Content> of(String token) {
      byte[] raw;
      try {
        raw = Base64.getUrlDecoder().decode(token);
      } catch (IllegalArgumentException notBase64) {
        return Optional.empty();
      }
      if (raw.length != TOKEN_LENGTH || raw[0] != TOKEN_VERSION) {
        return Optional.empty();
      }
      ByteBuffer words = ByteBuffer.wrap(raw, 1, 16);
      return Optional.of(new Content(words.getLong(), words.getLong()));
    }
  }
}
