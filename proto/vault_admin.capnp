@0xc0d1e2f3a4b5c607;
# vault_admin.capnp - operating vaultd: for `sallyport status`, `reload` and the service manager.
# Served on [vault] admin_socket (mode 0600; root and the vault's own user). Same limits and rules as vault.capnp.

using Cxx = import "/capnp/c++.capnp";
using Vault = import "vault.capnp";
$Cxx.namespace("sallyport::proto");

interface Admin {
  status @0 () -> (status :VaultStatus);
  # A snapshot. No secrets in it.

  reload @1 (config :Text) -> (outcome :ReloadOutcome);
  # Replaces peers, entries, and limits by those of `config` (the text of sallyport.toml). Keys that the vault has not
  # loaded stay unknown until a restart. All or nothing: a text that doesn't parse changes nothing.

  lock @2 (key :Text) -> (outcome :AdminOutcome);
  # Wipes a key's secrets (empty: those of all keys), its shared keys and its nonce keys. Its uses are refused as
  # `locked` until unlock. Established sessions don't need it and go on, but those in base mode: they end with it.

  unlock @3 (keyFile :Text, fileKey :Data) -> (outcome :AdminOutcome);
  # Loads a key anew from the text of its file and the 32-byte key that one of its slots yields (the caller stretches
  # the passphrase: the vault would stand still meanwhile). Also how new versions and states reach a running vault. The
  # key's name must be one that the vault was started with: its nonce file is open already.

  panic @4 () -> ();
  # Wipes every secret at once, before it answers. The vault goes on answering `locked`, and only unlock brings a key
  # back. Of established sessions only those in base mode end.

  unlockToken @6 (token :Text, pin :Data, force :Bool = false) -> (outcome :AdminOutcome);
  # The PIN of a token whose configuration says pin = "ask", or that has refused its own. It goes on to hsmd by the shared
  # page and isn't kept here. `force`: even if it is the last try that the token allows.

  auditExported @5 (seq :UInt64) -> (outcome :AdminOutcome);
  # An operator holds a copy of the audit log up to this record: the files that hold no later one may be
  # overwritten, also with `when_full = "refuse"`. It becomes a record itself.
}
struct AdminOutcome {
  union {
    refused :group {
      reason @0 :Vault.Refusal;
      problem @1 :Text;        # for people
    }
    done @2 :Text;             # what was done, for people
  }
}

struct ReloadOutcome {
  union {
    refused :group {
      reason @0 :Vault.Refusal;
      problem @1 :Text;        # what is wrong, with a line number where there is one
    }
    done @2 :Text;             # what changed, for people
  }
}

struct VaultStatus {
  version @0 :Text;
  pid @1 :UInt32;
  uptimeSeconds @2 :UInt64;
  sandbox @3 :List(SandboxLayer);
  sandboxVerdict @4 :Text;     # "full", "degraded" or "none"
  memory @5 :Text;             # where long-term secrets live: "memfd_secret" or "locked memory"
  keys @6 :List(KeyStatus);
  counters @7 :List(Counter);  # named event counts since start, e.g. {"cookies_sealed", 12}
  clientsCutOff @8 :List(Counter);  # RPC clients cut off, by reason
  uses @9 :List(VerbUses);     # what programs had done with keys
  audit @10 :AuditStatus;
  tokens @11 :List(TokenStatus);
  limits @12 :List(Counter);   # of [vault], e.g. {"handshakes_per_second", 100000}: of a key, each verb for itself
}

struct TokenStatus {
  name @0 :Text;               # of [token.NAME]
  state @1 :Text;              # "starting", "proving", "up", "no pin", "resting", "down", "ended"
  why @2 :Text;                # if it isn't up, for people
  token @3 :Text;              # label and serial number, as the token gives them
  module @4 :Text;             # maker and version, as the module gives them
  pid @5 :UInt32;              # of the worker; 0: there is none
  epoch @6 :UInt32;            # the how manyeth worker
  restarts @7 :UInt64;         # workers that have died
  rssKiB @8 :UInt64;           # of the worker, as last told
  denials @9 :UInt64;          # system calls that its sandbox refused
  lastDenied @10 :Text;
  presence @11 :Text;          # "start" or "always"
  page @12 :Text;              # where secrets pass: "memfd_secret" or "locked memory"
  keys @13 :List(TokenKeyStatus);
  counters @14 :List(Counter); # "derived", "signed", "refused", "late", "stale", "garbage", "bad_results"
  sandbox @15 :List(Text);     # the layers of the worker's sandbox
  hint @16 :Text;              # if it isn't up: what an operator can do
}
struct TokenKeyStatus {
  publicKey @0 :Data;
  problem @1 :Text;            # why it can't be used; empty: proved, or open
  name @2 :Text;               # of the key
  sealed @3 :Bool;             # the token opens its file; else it lives in the token
  hint @4 :Text;               # if it can't be used: what an operator can do
}

struct AuditStatus {
  state @0 :Text;              # "off", "recording", or why records can't be written
  seq @1 :UInt64;              # the head of the log: its last record,
  chain @2 :Data;              # and that record's chain value, 32 bytes
  lost @3 :UInt64;             # records that could not be written, since start
  exported @4 :UInt64;         # an operator has a copy up to this record
  oldest @6 :UInt64;           # the first record that is kept: those before were overwritten
  required @5 :Bool;           # no record, no operation
}

struct SandboxLayer {
  name @0 :Text;               # e.g. "seccomp"
  state @1 :Text;              # "active", "unavailable", "disabled", "failed"
  detail @2 :Text;             # e.g. "landlock abi 7, no rules" or why it doesn't hold
}
struct KeyStatus {
  name @0 :Text;
  kind @1 :Text;               # "x25519", "ed25519" or "peer-block"
  publicKey @2 :Data;          # of a block: its fingerprint
  state @3 :Text;              # "active", "locked", "unusable", "inactive" (no version is active: deleted, or not yet)
  sealed @4 :Text;             # how the file is protected: "plain file", "passphrase", "systemd credential"
  nonce @5 :Text;              # "ready", or why no nonce is issued
  version @6 :UInt32;          # the active one; 0: there is none now
  party @7 :Text;              # of a block: "A" or "B"
  baseMode @8 :Text;           # of a block: "unused", "used", or why base mode can't use it; empty while none is active
  token @9 :Text;              # in which it lives; empty: in its file
  problem @10 :Text;           # why it can't be used now: of a key in a token, whose state is "unavailable" then, and of
                               # one that is locked until a token opens it
  handshakesPerSecond @11 :UInt64;  # in the last whole second, of the verb that had the most
  rateLimited @12 :UInt64;     # refused because they were more than the limit, since start
}
struct VerbUses {
  verb @0 :Text;               # "box", "open", "sign", "fresh_nonce"
  done @1 :UInt64;             # items
  refused @2 :List(Counter);   # items, by reason; those that are not 0
  queued @3 :List(UInt64);     # calls, by how long they waited for their turn: below 1 us, 2 us, 4 us ... the rest
  executed @4 :List(UInt64);   # calls, by how long their work took; likewise
}
struct Counter {
  name @0 :Text;
  value @1 :UInt64;
}
