"""Which token a session keeps."""

import unittest

import service  # noqa: F401  (finds the library)
from tidemark._session import Session

# Texts of the service, see the test of src/model/token.rs with the same texts.
EARLIER = "AQAAAAAAAAAHAAAAAAAAAAoAAAAAAAAACpj2nQaRC2sD"
LATER = "AQAAAAAAAAAHAAAAAAAAAAsAAAAAAAAACejjLmA6UENV"
STRANGER = "AQAAAAAAAAAIAAAAAAAAAAEAAAAAAAAAAZ6Ahy7aI_GU"


class SessionTest(unittest.TestCase):
    def test_the_newest_token_is_kept(self) -> None:
        for has, gets, kept, why in [
            ("", EARLIER, EARLIER, "the first"),
            (EARLIER, LATER, LATER, "a newer one"),
            (LATER, EARLIER, LATER, "an answer to a call that presented no token"),
            (LATER, "", LATER, "an answer without one"),
            (LATER, STRANGER, STRANGER, "another database"),
            (LATER, "a token of the future", "a token of the future", "an unknown version"),
        ]:
            session = Session(has)
            session.observe(gets)
            self.assertEqual(session.token, kept, why)

    def test_only_the_refused_token_is_forgotten(self) -> None:
        session = Session(LATER)
        session.forget(EARLIER)
        self.assertEqual(session.token, LATER)
        session.forget(LATER)
        self.assertEqual(session.token, "")
