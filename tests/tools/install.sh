# How a script installs packages of the system. To be sourced, by a script that has a
# function `fail`. Nothing is installed that was not named before.

# ask WHAT: says what will be installed. Asks where there is somebody to answer; without
# a terminal it fails, unless the script that sources this has set `install_unasked`.
ask() {
    echo "$(basename "$0"): to be installed: $*" >&2
    [ -z "${assume_yes:-}" ] || return 0
    if [ -t 0 ] && [ -t 2 ]; then
        local reply
        read -r -p "Install it? [Y/n] " reply
        case "$reply" in
            "" | y | Y | yes) ;;
            *) fail "install it yourself, then run this again" ;;
        esac
    elif [ -z "${install_unasked:-}" ]; then
        fail "nobody can be asked here: install it yourself, then run this again"
    fi
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif [ -t 0 ]; then
        # sudo asks for the password visibly.
        sudo "$@"
    else
        sudo -n "$@" || fail "sudo needs a password: run as root: $*"
    fi
}

# install_package PACKAGE...: from the packages of Debian or Ubuntu.
install_package() {
    command -v apt-get >/dev/null || return 1
    ask "the packages $* (apt-get, as root)"
    install_without_services "$@"
}

# A package must not start a service: policy-rc.d refuses it while packages are installed,
# and is removed however this ends.
install_without_services() (
    policy=/usr/sbin/policy-rc.d ours='' status=0
    log=$(mktemp)
    trap '[ -z "$ours" ] || as_root rm -f "$policy"; rm -f "$log"' EXIT
    trap 'exit 130' INT TERM
    if [ ! -e "$policy" ]; then
        ours=1
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod +x "$policy"
    fi
    apt=(env DEBIAN_FRONTEND=noninteractive apt-get)
    as_root "${apt[@]}" install -y -q "$@" >"$log" 2>&1 || {
        as_root "${apt[@]}" update -q >>"$log" 2>&1 && as_root "${apt[@]}" install -y -q "$@" >>"$log" 2>&1
    } || status=$?
    [ "$status" = 0 ] || tail -n 5 "$log" >&2
    exit "$status"
)
