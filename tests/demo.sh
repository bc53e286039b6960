#!/usr/bin/env bash
# The demo: three hosts announced, listed, withdrawn and expired on a real etcd, told step by step.
# It ends with 0 only if it saw everything that it says. Usage: tests/demo.sh BINARY
#
# Everything lives in one temporary directory and on free loopback ports, and is gone afterwards. On a terminal
# it stays up at the end until Ctrl-C, to be played with.
set -euo pipefail
# One decimal point and one sort order, whatever the user's language.
export LC_ALL=C

readonly TTL=5              # seconds, the shortest that the sidekick accepts
readonly SOON=10            # seconds for what should take a moment: generous, for a busy machine
readonly EXPIRY=$((TTL + 5)) # seconds after a SIGKILL; etcd itself needs up to a second more than the TTL
readonly KEYS=/services/crate/

if [ $# != 1 ] || [ ! -x "$1" ]; then
    echo "usage: tests/demo.sh BINARY" >&2
    exit 2
fi
bin=$(cd "$(dirname "$1")" && pwd)

# Settings for some other etcd must not lead the demo there.
for name in $(compgen -e); do
    case $name in
    ETCD_UNSUPPORTED_ARCH) ;;
    ETCD_* | ETCDCTL_* | CRATE_DISCOVERY_*) unset "$name" ;;
    esac
done
export PATH="$bin:$PATH" ETCDCTL_API=3 ETCDCTL_ENDPOINTS=''

dir=$(mktemp -d "${TMPDIR:-/tmp}/crate-discovery-demo.XXXXXX")
cd "$dir"
declare -A announcer=() # host → process id of its announcer
etcd_pid=''

# --- ending ---------------------------------------------------------------------------------------------------

cleanup() {
    local status=$? pid
    trap - EXIT
    trap '' INT TERM HUP # a second Ctrl-C must not leave half of it running
    for pid in "${announcer[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in "${announcer[@]}"; do wait "$pid" 2>/dev/null || true; done
    stop_etcd
    cd /
    rm -rf "$dir"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    printf '\nerror: demo: %s\n' "$1" >&2
    local log
    for log in crate1.log crate2.log crate3.log etcd.log; do
        [ ! -s "$log" ] || { printf -- '-- the end of %s:\n' "$log" && tail -n 8 "$log"; } >&2
    done
    exit 1
}

# --- telling and checking -------------------------------------------------------------------------------------

chapter() { printf '\n== %s\n' "$1"; }
say() { printf '%s\n' "$@"; }
command_line() { printf '$ %s\n' "$1"; }

try() { printf '    %-52s # %s\n' "$1" "$2"; } # a command to try, and what it does

# Shows a command, runs it and shows what it printed, which stays in the file `out`.
show() {
    echo
    command_line "$1"
    eval "$1" >out || fail "\"$1\" ended with $?"
    sed 's/^/    /' out
}

# What the last shown command must have printed, to the byte.
expect() { printf '%s\n' "$@" | cmp -s - out || fail "expected \"$*\", but the command above printed \"$(<out)\""; }

now() { printf '%s' "$((${EPOCHREALTIME/./} / 1000))"; } # milliseconds

seconds_since() { # seconds_since START → 1.234
    local ms=$(($(now) - $1))
    printf '%d.%03d' $((ms / 1000)) $((ms % 1000))
}

await() { # await SECONDS WHAT COMMAND...: until the command succeeds
    local deadline=$(($(now) + $1 * 1000)) what=$2 limit=$1
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$(now)" -lt "$deadline" ] || fail "not seen within $limit s: $what"
        sleep 0.05
    done
}

alive() { kill -0 "$1" 2>/dev/null; }
key_of() { etcdctl get "$KEYS$1" -w fields; }
field() { key_of "$1" | sed -n "s/^\"$2\" : //p"; } # field HOST Lease|Revision
announced() { [ -n "$(etcdctl get "$KEYS$1")" ]; }
# An etcd that does not answer is no proof that a key is gone.
gone() { local found && found=$(etcdctl get "$KEYS$1") && [ -z "$found" ]; }

# True a second after a lease of that age would have ended: etcd takes that long to notice at most.
outlived() { [ "$(($(now) - $1))" -gt $(((TTL + 1) * 1000)) ]; }

# --- etcd -----------------------------------------------------------------------------------------------------

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Below the range that the kernel hands out to outgoing connections, so that nobody takes it while etcd restarts.
free_port() {
    local port
    while port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000)); ! port_is_free "$port"; do :; done
    printf '%s' "$port"
}

# In a session of its own: Ctrl-C is for the demo, which then ends its children in order.
start_etcd() {
    setsid etcd --name demo --data-dir data --log-outputs stderr --logger zap \
        --listen-client-urls "$ETCDCTL_ENDPOINTS" --advertise-client-urls "$ETCDCTL_ENDPOINTS" \
        --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "demo=$peer" \
        >>etcd.log 2>&1 </dev/null &
    etcd_pid=$!
}

# True when our own etcd serves; false when it ended first, as it does when somebody was faster on one of its ports.
etcd_serves() {
    local deadline=$(($(now) + SOON * 1000))
    until etcdctl --dial-timeout=1s --command-timeout=1s endpoint health >/dev/null 2>&1 && alive "$etcd_pid"; do
        alive "$etcd_pid" && [ "$(now)" -lt "$deadline" ] || return 1
        sleep 0.05
    done
}

stop_etcd() {
    [ -n "$etcd_pid" ] || return 0
    kill -KILL "$etcd_pid" 2>/dev/null || true
    wait "$etcd_pid" 2>/dev/null || true
    etcd_pid=''
}

new_etcd() {
    local try
    for try in 1 2 3 4 5; do
        ETCDCTL_ENDPOINTS="http://127.0.0.1:$(free_port)"
        peer="http://127.0.0.1:$(free_port)"
        start_etcd
        etcd_serves && return
        stop_etcd
        rm -rf data
    done
    fail "etcd did not start, in $try tries"
}

# --- the hosts ------------------------------------------------------------------------------------------------

announce() {
    command_line "crate-discovery announce --host $1 --ttl ${TTL}s 2>$1.log &"
    setsid crate-discovery announce --host "$1" --ttl "${TTL}s" >/dev/null 2>"$1.log" </dev/null &
    announcer[$1]=$!
}

# --- the story ------------------------------------------------------------------------------------------------

started=$(now)
for tool in etcd etcdctl setsid; do
    command -v "$tool" >/dev/null || fail "$tool is not in PATH: \"make demo\" installs it"
done

chapter 'An etcd of our own'
say 'crate-discovery tells the nodes of a CrateDB cluster where the others are. Each host announces itself in' \
    'etcd; whoever starts a node asks who is there. This demo runs both on a throw-away etcd.'
new_etcd
echo
command_line "etcd --data-dir data --listen-client-urls $ETCDCTL_ENDPOINTS ... &"
command_line "export ETCDCTL_ENDPOINTS=$ETCDCTL_ENDPOINTS    # etcdctl and crate-discovery both read it"
say '' 'Nobody is announced yet. The list of nobody is an empty line, as the shell pipeline of 2014 printed it:'
show 'crate-discovery hosts'
expect ''

chapter 'Three hosts announce themselves'
say "One process per host. It keeps the host's key in etcd under a lease of $TTL seconds, and the lease alive." \
    'The default is 60 seconds; the demo is short of time.'
echo
for host in crate1 crate2 crate3; do announce "$host"; done
for host in crate1 crate2 crate3; do await "$SOON" "$host is announced" announced "$host"; done
first_seen=$(now)
say '' "What etcd holds, in etcdctl's words: one key per host, with its ports."
show "etcdctl get --prefix $KEYS"
value='{"http":4200,"transport":4300}'
expect "${KEYS}crate1" "$value" "${KEYS}crate2" "$value" "${KEYS}crate3" "$value"
say '' 'Each key hangs on a lease of its own, and ends with it. The one of crate1:'
lease=$(printf '%016x' "$(field crate1 Lease)")
show "etcdctl lease timetolive $lease --keys"
grep -q "granted with TTL(${TTL}s).*attached keys(\[${KEYS}crate1\])" out || fail "crate1 is not on lease $lease"

chapter 'Who is there? The same list, in each format'
say 'For the command line of a CrateDB node (discovery.seed_hosts), the default:'
show 'crate-discovery hosts'
expect 'crate1:4300,crate2:4300,crate3:4300'
cp out csv
say '' 'The same from the shell pipeline that this replaces:'
# shellcheck disable=SC2016 # shown and evaluated as it stands
show 'etcdctl get --prefix --keys-only /services/crate/ | sed "/^$/d" \
    | sed "s/\/services\/crate\///g" | sed "s/$/:4300/" | paste -s -d","'
cmp -s csv out || fail 'the pipeline printed something else than crate-discovery'
say '' 'One a line, for a script; here the HTTP ports, and without the host itself:'
show 'crate-discovery hosts --format lines --port http --exclude crate1'
expect 'crate2:4200' 'crate3:4200'
say '' 'JSON, with the etcd revision at which it was true:'
show 'crate-discovery hosts --format json'
node() { printf '{"host":"%s","address":null,"http":4200,"transport":4300,"psql":null}' "$1"; }
revision=$(sed 's/^{"revision":\([0-9]*\),.*/\1/' out)
expect "{\"revision\":$revision,\"nodes\":[$(node crate1),$(node crate2),$(node crate3)]}"
say '' 'For a systemd EnvironmentFile:'
show 'crate-discovery hosts --format env'
seeds='crate1:4300,crate2:4300,crate3:4300'
expect "CRATE_SEED_HOSTS=$seeds" "CRATE_SEED_FLAGS=-Cdiscovery.seed_hosts=$seeds"

chapter 'crate2 is stopped: gone at once'
say 'SIGTERM is what "systemctl stop" sends. The sidekick revokes its lease, and the key goes with it.'
echo
command_line "kill -TERM ${announcer[crate2]}    # crate2"
at=$(now)
kill -TERM "${announcer[crate2]}"
status=0
wait "${announcer[crate2]}" || status=$?
took=$(seconds_since "$at")
unset 'announcer[crate2]'
[ "$status" = 0 ] || fail "crate2's announcer ended with $status instead of 0"
gone crate2 || fail 'crate2 is still in etcd after its announcer ended'
say "It ended with exit code 0 after $took s, and its key is gone:"
show 'crate-discovery hosts'
expect 'crate1:4300,crate3:4300'

chapter 'crate3 is killed: gone with its lease'
say 'SIGKILL leaves no time to clean up, like a crash or a power cut. The key stays until the lease runs out.'
echo
command_line "kill -KILL ${announcer[crate3]}    # crate3"
at=$(now)
kill -KILL "${announcer[crate3]}"
wait "${announcer[crate3]}" 2>/dev/null || true
unset 'announcer[crate3]'
show 'crate-discovery hosts'
expect 'crate1:4300,crate3:4300'
say '' "Still listed. Waiting for the lease of $TTL seconds to end ..."
await "$EXPIRY" 'crate3 expires with its lease' gone crate3
say "... gone after $(seconds_since "$at") s:"
show 'crate-discovery hosts'
expect 'crate1:4300'
await "$SOON" 'crate1 has outlived its TTL' outlived "$first_seen"
say '' "crate1 has lived for $(seconds_since "$first_seen") s by now, longer than its lease of $TTL s. It was written once:" \
    'renewing a lease writes nothing and wakes nobody who watches.'
show "etcdctl get ${KEYS}crate1 -w fields | grep -E 'Version|Lease'"
expect '"Version" : 1' "\"Lease\" : $((16#$lease))"

chapter 'etcd loses all its data: crate1 comes back'
say 'We kill etcd, delete its data and start it empty. Nobody touches the sidekick of crate1.'
revision=$(field crate1 Revision)
echo
command_line "kill -KILL $etcd_pid; rm -rf data; etcd --data-dir data ... &"
stop_etcd
rm -rf data
start_etcd
etcd_serves || fail 'etcd did not come back on its ports'
at=$(now)
await "$SOON" 'crate1 is back in the empty etcd' announced crate1
say '' "Back $(seconds_since "$at") s after etcd was:"
show "etcdctl get --prefix $KEYS"
expect "${KEYS}crate1" "$value"
[ "$(field crate1 Revision)" -lt "$revision" ] || fail "this is not a new store: its revision went on counting"
alive "${announcer[crate1]}" || fail "crate1's announcer is no longer the process it was"
say '' "What crate1's sidekick said all the while:"
show 'cat crate1.log'

if [ -t 0 ] && [ -t 1 ]; then
    chapter 'Your turn'
    for host in crate2 crate3; do announce "$host"; done
    for host in crate2 crate3; do await "$SOON" "$host is announced" announced "$host"; done
    say '' 'Everything above was seen. Three hosts are announced again, until you press Ctrl-C here.' \
        "In another terminal (the logs are in $dir):" '' \
        "    export PATH=$bin:\$PATH ETCDCTL_API=3 ETCDCTL_ENDPOINTS=$ETCDCTL_ENDPOINTS" ''
    try 'crate-discovery hosts' 'who is there'
    try 'crate-discovery announce --host crate4' 'one more; Ctrl-C withdraws it'
    try 'crate-discovery hosts --wait-for 4 --timeout 60s' 'waits until four are there'
    try "etcdctl watch --prefix $KEYS" 'every change, as it happens'
    try "etcdctl del ${KEYS}crate1" 'by mistake: it is back at once'
    try "kill -TERM ${announcer[crate2]}" 'crate2: withdrawn'
    try "kill -KILL ${announcer[crate3]}" 'crate3: expires'
    try 'crate-discovery --help' 'the rest'
    trap 'echo; echo "Stopping everything."; exit 0' INT
    wait "$etcd_pid" || true
    fail 'etcd ended by itself'
fi

chapter 'The end'
command_line "kill -TERM ${announcer[crate1]}    # crate1"
kill -TERM "${announcer[crate1]}"
status=0
wait "${announcer[crate1]}" || status=$?
unset 'announcer[crate1]'
[ "$status" = 0 ] || fail "crate1's announcer ended with $status instead of 0"
show "etcdctl get --prefix $KEYS"
[ ! -s out ] || fail 'something is left in etcd'
say '' "Nothing is left in etcd. Everything above was seen, in $(seconds_since "$started") s."
