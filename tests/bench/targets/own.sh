# own.sh - Sallyport as a target of the project's shared benchmark (shared/bench): copy or link it into its targets/.
# After target_start, 127.0.0.1:$PORT_A leads to 127.0.0.1:$PORT_B; the wire between the two ends is $PORT_T (or, for the
# attacker in the middle, $PORT_X towards it). SALLYPORT_BUILD is the meson build folder. Both ends are `sallyport up`:
# netd, its workers and vaultd are its children, so their CPU time and memory count.
: "${SALLYPORT_BUILD:=/work/main/build}"

own_site() {  # own_site FOLDER KEY: a key, and the beginning of its sallyport.toml
  mkdir -p "$1" && chmod 755 "$1"
  printf '[vault]\nkeys = "keys"\n\n[net]\nworkers = 2\n' >"$1/sallyport.toml"
  "$SALLYPORT_BUILD/cli/sallyport" key new "$2" -c "$1/sallyport.toml" >>"$W/run/own-keys.log" 2>&1
}

own_key() { "$SALLYPORT_BUILD/cli/sallyport" key show "$2" -c "$1/sallyport.toml"; }

target_start() {
  own=$(mktemp -d "$W/run/own.XXXXXX") && chmod 755 "$own" && own_site "$own/far" server && own_site "$own/near" client ||
    return 1
  cat >>"$own/far/sallyport.toml" <<X

[[listen]]
name    = "bench"
address = "127.0.0.1:$PORT_T"
key     = "server"
allow   = ["client"]
service = "tcp:127.0.0.1:$PORT_B"

[peers]
client = "$(own_key "$own/near" client)"
X
  cat >>"$own/near/sallyport.toml" <<X

[[connect]]
name    = "bench"
listen  = "127.0.0.1:$PORT_A"
address = "127.0.0.1:${PORT_X:-$PORT_T}"
key     = "client"
peer    = "server"

[peers]
server = "$(own_key "$own/far" server)"
X
  "$SALLYPORT_BUILD/cli/sallyport" up -c "$own/far/sallyport.toml" >"$W/run/own-s.log" 2>&1 & SPIDS=$!
  "$SALLYPORT_BUILD/cli/sallyport" up -c "$own/near/sallyport.toml" >"$W/run/own-c.log" 2>&1 & CPIDS=$!
  wait_port 127.0.0.1 "$PORT_T" && wait_port 127.0.0.1 "$PORT_A" || return 1
  TUN_ADDR=127.0.0.1:$PORT_A
}

# SIGTERM lets the daemons close their nonce files; what is still there then is ended by pid.
target_stop() {
  kill $CPIDS $SPIDS 2>/dev/null
  sleep 0.3
  stop_pids $CPIDS $SPIDS
  rm -rf "$own"
}
