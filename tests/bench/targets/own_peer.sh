# own_peer.sh - Sallyport's peer protocol (hard mode) as a target of the project's shared benchmark; own.sh says how to use it.
: "${SALLYPORT_BUILD:=/work/main/build}"

own_peer_site() {  # own_peer_site FOLDER PARTY BLOCK
  mkdir -p "$1" && chmod 755 "$1"
  printf '[vault]\nkeys = "keys"\n\n[net]\nworkers = 2\n' >"$1/sallyport.toml"
  printf '%s\n' "$3" | "$SALLYPORT_BUILD/cli/sallyport" key import link --kind peer-block --party "$2" -c "$1/sallyport.toml" \
    >>"$W/run/own-keys.log" 2>&1
}

target_start() {
  own=$(mktemp -d "$W/run/own.XXXXXX") && chmod 755 "$own" && block=$(head -c 128 /dev/urandom | base64 -w 0) &&
    own_peer_site "$own/far" B "$block" && own_peer_site "$own/near" A "$block" || return 1
  cat >>"$own/far/sallyport.toml" <<X

[[listen]]
name     = "bench"
address  = "127.0.0.1:$PORT_T"
protocol = "peer"
key      = "link"
service  = "tcp:127.0.0.1:$PORT_B"
X
  cat >>"$own/near/sallyport.toml" <<X

[[connect]]
name     = "bench"
listen   = "127.0.0.1:$PORT_A"
address  = "127.0.0.1:${PORT_X:-$PORT_T}"
protocol = "peer"
key      = "link"
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
