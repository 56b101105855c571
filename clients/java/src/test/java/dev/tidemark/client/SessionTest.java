package dev.tidemark.client;

import static org.junit.jupiter.api.Assertions.assertEquals;

import org.junit.jupiter.api.Test;

/** Which token a session keeps. */
class SessionTest {
  // Texts of the service, see the test of src/model/token.rs with the same texts.
  private static final String EARLIER = "AQAAAAAAAAAHAAAAAAAAAAoAAAAAAAAACpj2nQaRC2sD";
  private static final String LATER = "AQAAAAAAAAAHAAAAAAAAAAsAAAAAAAAACejjLmA6UENV";
  private static final String STRANGER = "AQAAAAAAAAAIAAAAAAAAAAEAAAAAAAAAAZ6Ahy7aI_GU";

  @Test
  void keepsTheNewestToken() {
    kept("", EARLIER, EARLIER, "the first");
    kept(EARLIER, LATER, LATER, "a newer one");
    kept(LATER, EARLIER, LATER, "an answer to a call that presented no token");
    kept(LATER, "", LATER, "an answer without one");
    kept(LATER, STRANGER, STRANGER, "another database");
    kept(LATER, "a token of the future", "a token of the future", "an unknown version");
  }

  private static void kept(String has, String gets, String kept, String why) {
    Session session = new Session(has);
    session.observe(gets);
    assertEquals(kept, session.token(), why);
  }

  @Test
  void forgetsOnlyTheTokenThatWasRefused() {
    Session session = new Session(LATER);
    session.forget(EARLIER);
    assertEquals(LATER, session.token());
    session.forget(LATER);
    assertEquals("", session.token());
  }
}
