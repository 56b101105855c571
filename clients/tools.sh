# The tools that `generate` and `test` need, each at one version, in a folder of
# its own under the cache. Sourced by both; nothing here is run by hand.
# A second run finds them there and asks no registry.

cache="${XDG_CACHE_HOME:-$HOME/.cache}/tidemark"
buf_version=1.75.0
protoc_gen_go_version=1.36.12
protoc_gen_go_grpc_version=1.6.2
grpcurl_version=1.9.4
protoc_version=4.36.2
grpc_java_version=1.82.2
mongosh_version=2.12.0

fail() {
    echo "clients: $*" >&2
    exit 1
}

# shellcheck source=../tests/tools/install.sh
. "$(dirname "${BASH_SOURCE[0]}")/../tests/tools/install.sh"

# needs PROGRAM DEBIAN_PACKAGE: there, or installed after a question, or a clear end.
# `./test` has installed all of them before.
needs() {
    command -v "$1" >/dev/null && return
    install_package "$2" || true
    command -v "$1" >/dev/null || fail "$1 is missing (Debian: $2), and the clients cannot be built or tested without it"
}

# at_least NAME FOUND WANTED
at_least() {
    [ "$(printf '%s\n%s\n' "$2" "$3" | sort -V | head -n 1)" = "$3" ] ||
        fail "$1 is too old: $2, and $3 or later is needed"
}

toolchain() {
    case "$1" in
    go)
        needs go golang-go
        at_least go "$(go env GOVERSION | sed 's/^go//')" 1.26
        ;;
    java)
        needs javac openjdk-17-jdk-headless
        needs mvn maven
        at_least java "$(javac -version 2>&1 | sed 's/javac //')" 17
        ;;
    python)
        needs python3 python3-venv
        at_least python3 "$(python3 -c 'import platform; print(platform.python_version())')" 3.10
        ;;
    typescript)
        needs node nodejs
        needs npm npm
        at_least node "$(node --version | sed 's/^v//')" 20
        ;;
    *) fail "no such language: $1" ;;
    esac
}

# Everything goes into a folder beside the final one first, so that an
# installation that was cut short is not taken for a whole one.
# installed FOLDER COMMAND...: runs the command with the new folder's name.
installed() {
    local folder="$1"
    shift
    [ -d "$folder" ] && return
    rm -rf "$folder.new"
    mkdir -p "$folder.new"
    "$@" "$folder.new" || fail "could not install $folder"
    mv "$folder.new" "$folder"
}

npm_buf() {
    npm install --silent --no-fund --no-audit --prefix "$1" "@bufbuild/buf@$buf_version"
}

buf() {
    needs npm npm
    installed "$cache/buf-$buf_version" npm_buf
    "$cache/buf-$buf_version/node_modules/.bin/buf" "$@"
}

go_plugins() {
    GOBIN="$1" go install "google.golang.org/protobuf/cmd/protoc-gen-go@v$protoc_gen_go_version" &&
        GOBIN="$1" go install "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v$protoc_gen_go_grpc_version"
}

go_plugins_folder="$cache/protoc-gen-go-$protoc_gen_go_version-grpc-$protoc_gen_go_grpc_version"
java_plugins_folder="$cache/protoc-$protoc_version-grpc-java-$grpc_java_version"

# As Maven names this machine.
classifier() {
    local system machine
    case "$(uname -s)" in
    Linux) system=linux ;;
    Darwin) system=osx ;;
    *) fail "protoc for $(uname -s) is not known here" ;;
    esac
    case "$(uname -m)" in
    x86_64 | amd64) machine=x86_64 ;;
    aarch64 | arm64) machine=aarch_64 ;;
    *) fail "protoc for $(uname -m) is not known here" ;;
    esac
    echo "$system-$machine"
}

java_plugins() {
    local classifier
    classifier=$(classifier)
    local artifact
    for artifact in "com.google.protobuf:protoc:$protoc_version" "io.grpc:protoc-gen-grpc-java:$grpc_java_version"; do
        mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.11.0:copy \
            -Dartifact="$artifact:exe:$classifier" -DoutputDirectory="$1" -Dmdep.stripVersion=true \
            -Dmdep.stripClassifier=true || return 1
    done
    mv "$1/protoc.exe" "$1/protoc"
    mv "$1/protoc-gen-grpc-java.exe" "$1/protoc-gen-grpc-java"
    chmod +x "$1"/protoc*
}

# The Python packages of requirements.txt: another text, another folder.
python_folder="$cache/clients-python-$(cksum <"$clients/python/requirements.txt" | cut -d ' ' -f 1)"

python_packages() {
    python3 -m venv "$1" || return 1
    "$1/bin/python" -m pip install -q --disable-pip-version-check -r "$clients/python/requirements.txt"
}

grpcurl_folder="$cache/grpcurl-$grpcurl_version"

grpcurl_binary() {
    GOBIN="$1" go install "github.com/fullstorydev/grpcurl/cmd/grpcurl@v$grpcurl_version"
}

# The packages of package-lock.json, installed where they are used.
npm_packages() {
    local mark="$clients/typescript/node_modules/.installed"
    cmp -s "$clients/typescript/package-lock.json" "$mark" && return
    npm ci --silent --no-fund --no-audit --prefix "$clients/typescript" || fail "npm ci failed in clients/typescript"
    cp "$clients/typescript/package-lock.json" "$mark"
}

# A MongoDB replica set and a Redis Cluster for tests, unless MONGODB_URI and REDIS_URL
# name some. They end with this script, which removes $1 by then.
test_servers() {
    local scratch="$1"
    export SERVICE_BINARY="${SERVICE_BINARY:-${CARGO_TARGET_DIR:-$root/target}/debug/tidemark}"
    export MONGOSH="npx --yes mongosh@$mongosh_version"
    [ -x "$SERVICE_BINARY" ] || fail "$SERVICE_BINARY is missing: run cargo build"
    [ -z "${MONGODB_URI:-}" ] || return 0
    local mongod
    mongod=$(command -v mongod || echo "$HOME/.cache/tidemark/mongod-6.0.5/mongod")
    setpriv --pdeathsig TERM "$root/tests/tools/servers" "$mongod" >"$scratch/servers" &
    servers_pid=$!
    until [ -s "$scratch/servers" ]; do
        kill -0 "$servers_pid" || fail "MongoDB and Redis did not start"
        sleep 0.2
    done
    # shellcheck disable=SC1091
    . "$scratch/servers"
}

# CERTIFICATES: a folder with an authority (ca.pem), the service's certificate for 127.0.0.1
# and a client's, each with its key.
test_certificates() {
    needs openssl openssl
    export CERTIFICATES="$1/certificates"
    mkdir -p "$CERTIFICATES"
    local of
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=tests \
        -keyout "$CERTIFICATES/ca.key" -out "$CERTIFICATES/ca.pem" 2>/dev/null
    for of in service client; do
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$of" \
            -keyout "$CERTIFICATES/$of.key" -out "$CERTIFICATES/$of.csr" 2>/dev/null
        openssl x509 -req -in "$CERTIFICATES/$of.csr" -CA "$CERTIFICATES/ca.pem" -CAkey "$CERTIFICATES/ca.key" \
            -CAcreateserial -days 2 -out "$CERTIFICATES/$of.pem" 2>/dev/null \
            -extfile <(echo "subjectAltName=IP:127.0.0.1,DNS:$of.example")
    done
}

# Ends them, and waits until their folders are removed.
end_servers() {
    [ -z "${servers_pid:-}" ] || { kill "$servers_pid" 2>/dev/null && wait "$servers_pid" || true; }
}
