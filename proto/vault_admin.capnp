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
}

struct SandboxLayer {
  name @0 :Text;               # e.g. "seccomp"
  state @1 :Text;              # "active", "unavailable", "disabled", "failed"
  detail @2 :Text;             # e.g. "landlock abi 7, no rules" or why it doesn't hold
}
struct KeyStatus {
  name @0 :Text;
  kind @1 :Text;               # "x25519"
  publicKey @2 :Data;
  state @3 :Text;              # "active", "locked", "unusable"
  sealed @4 :Text;             # how the file is protected: "plain file", "passphrase", "systemd credential"
  nonce @5 :Text;              # "ready", or why no nonce is issued
}
struct Counter {
  name @0 :Text;
  value @1 :UInt64;
}
