package todos

import (
	"encoding/base64"
	"encoding/binary"
	"sync"
)

// A token is 33 bytes in base64url: version, origin, seen, fresh to, checksum.
const (
	tokenVersion = 1
	tokenLength  = 1 + 8 + 8 + 8 + 8
)

// session keeps the newest token that the client has seen, so that no read shows a state
// older than an earlier answer did.
//
// An answer to a call that presented no token may be older than the token at hand, and
// answers of parallel calls arrive in any order. So tokens of one origin are compared by
// what they have seen, and the greater one stays: one token, however many calls.
type session struct {
	mutex sync.Mutex
	token string
}

func (s *session) current() string {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.token
}

// observe takes the token of an answer, unless the one at hand is newer.
func (s *session) observe(token string) {
	if token == "" {
		return
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if !isNewer(s.token, token) {
		s.token = token
	}
}

// forget drops a token that the service refused: it is of another database, or of one
// that was restored to the past.
func (s *session) forget(token string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.token == token {
		s.token = ""
	}
}

// isNewer reports whether one is known to have seen more than other. Tokens of different
// origins, and of a version that this library does not know, cannot be compared.
func isNewer(one, other string) bool {
	oneOrigin, oneSeen, ok := decodeToken(one)
	otherOrigin, otherSeen, otherOK := decodeToken(other)
	return ok && otherOK && oneOrigin == otherOrigin && oneSeen > otherSeen
}

func decodeToken(token string) (origin, seen uint64, ok bool) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) != tokenLength || raw[0] != tokenVersion {
		return 0, 0, false
	}
	return binary.BigEndian.Uint64(raw[1:9]), binary.BigEndian.Uint64(raw[9:17]), true
}
