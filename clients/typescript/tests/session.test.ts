// Which token a session keeps.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Session } from "../src/session.js";

// Texts of the service, see the test of src/model/token.rs with the same texts.
const earlier = "AQAAAAAAAAAHAAAAAAAAAAoAAAAAAAAACpj2nQaRC2sD";
const later = "AQAAAAAAAAAHAAAAAAAAAAsAAAAAAAAACejjLmA6UENV";
const stranger = "AQAAAAAAAAAIAAAAAAAAAAEAAAAAAAAAAZ6Ahy7aI_GU";

test("a session keeps the newest token", () => {
  const cases = [
    ["", earlier, earlier, "the first"],
    [earlier, later, later, "a newer one"],
    [later, earlier, later, "an answer to a call that presented no token"],
    [later, "", later, "an answer without one"],
    [later, stranger, stranger, "another database"],
    [later, "a token of the future", "a token of the future", "an unknown version"],
  ] as const;
  for (const [has, gets, kept, why] of cases) {
    const session = new Session(has);
    session.observe(gets);
    assert.equal(session.token, kept, why);
  }
});

test("a session forgets only the token that was refused", () => {
  const session = new Session(later);
  session.forget(earlier);
  assert.equal(session.token, later);
  session.forget(later);
  assert.equal(session.token, "");
});
