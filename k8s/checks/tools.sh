# Tools of the checks, each at a pinned version, in the cache. To be sourced.
# After `tools`, $cache/bin is on PATH and $python has the Python tools.

cache="${XDG_CACHE_HOME:-$HOME/.cache}/tidemark/k8s"
kustomize_version=5.7.1
kubeconform_version=0.8.0
compose_go_version=2.9.1
kube_score_version=1.20.0
health_probe_version=0.4.61
helm_version=3.22.0
python=$cache/python/bin/python

not_run() {
    echo "NOT RUN: $*"
}

# go_tool NAME VERSION PACKAGE: builds a program from a Go module.
go_tool() {
    local name=$1 version=$2 package=$3
    if [ ! -x "$cache/bin/$name-$version" ]; then
        command -v go >/dev/null || return 1
        local folder
        folder=$(mktemp -d)
        GOBIN=$folder nice -n 19 go install "$package@v$version" 2>"$folder/log" || {
            cat "$folder/log" >&2
            return 1
        }
        mkdir -p "$cache/bin"
        # `go install` names the program after the last path element.
        local built=${package##*/}
        [[ $built =~ ^v[0-9]+$ ]] && built=$(basename "${package%/*}")
        mv "$folder/$built" "$cache/bin/$name-$version"
        rm -rf "$folder"
    fi
    ln -sf "$name-$version" "$cache/bin/$name"
}

# Checkov and kubernetes-validate with all dependencies pinned. Without resolver
# and byte code, because only the first run is slow.
python_tools() {
    local wanted=k8s/checks/requirements.txt
    cmp -s "$wanted" "$cache/python/requirements.txt" && return
    rm -rf "$cache/python"
    python3 -m venv "$cache/python"
    "$python" -m pip install -q --disable-pip-version-check --no-deps --no-compile -r "$wanted"
    cp "$wanted" "$cache/python/requirements.txt"
}

# promtool and prometheus from Debian's package, unpacked but not installed:
# installing would start a server.
prometheus_tools() {
    [ -x "$cache/bin/promtool" ] && return
    command -v promtool >/dev/null && command -v prometheus >/dev/null && return
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    local folder
    folder=$(mktemp -d)
    chmod 755 "$folder"
    (
        cd "$folder"
        apt-get download -q prometheus >/dev/null 2>&1 ||
            { apt-get update -q >/dev/null && apt-get download -q prometheus >/dev/null; }
        dpkg-deb -x prometheus_*.deb .
    ) || return 1
    mkdir -p "$cache/bin"
    mv "$folder/usr/bin/prometheus" "$folder/usr/bin/promtool" "$cache/bin/"
    rm -rf "$folder"
}

health_probe() {
    go_tool grpc-health-probe $health_probe_version github.com/grpc-ecosystem/grpc-health-probe
}

tools() {
    export PATH="$cache/bin:$PATH"
    python_tools
    command -v kubectl >/dev/null ||
        go_tool kustomize $kustomize_version sigs.k8s.io/kustomize/kustomize/v5
    go_tool kubeconform $kubeconform_version github.com/yannh/kubeconform/cmd/kubeconform
    go_tool kube-score $kube_score_version github.com/zegl/kube-score/cmd/kube-score
    go_tool compose-go $compose_go_version github.com/compose-spec/compose-go/v2/cmd
    go_tool helm $helm_version helm.sh/helm/v3/cmd/helm
    health_probe
}
