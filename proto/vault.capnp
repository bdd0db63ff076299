@0xb1f2c3a4d5e6f708;
# vault.capnp - what vaultd does for programs (docs/protocol.md §8). The contract: fields are added, never renumbered or
# reused; a field that is no longer used is renamed obsoleteX. Every refusal is data; an RPC exception means a broken
# caller or a dying vault.
#
# Which capability a caller gets is decided by the socket it connects to (and the peer credentials on it):
#   [vault] net_socket   -> Net    (netd)
#   [vault] socket       -> App    (local programs)
#   [vault] admin_socket -> Admin  (vault_admin.capnp)
#
# Limits of every connection: 64 KiB a message, at most 8 segments, at most 256 calls without an answer, no capability
# in parameters. Who passes one is cut off. Lists take at most 64 items; more is refused whole with `tooMany`.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("sallyport::proto");

enum Refusal {
  unspecified @0;
  unknownEntry @1;       # no [[listen]] or [[connect]] entry of this name
  unknownKey @2;         # no key of this name, or the entry's key is not loaded
  peerNotAllowed @3;     # the box was genuine, but policy doesn't allow this peer here
  badBox @4;             # a box that doesn't open, or opens on what the protocol doesn't allow
  badSize @5;            # a field of the wrong length
  lowOrderKey @6;        # a public key that gives an all-zero shared secret
  rateLimited @7;        # more than the key's limit per second; try later
  nonceUnavailable @8;   # no provably fresh nonce can be made (disk full, fsync failed): status tells more
  locked @9;             # the key is sealed and not unlocked
  tooMany @10;           # more than 64 items in one call
  notPermitted @11;      # this caller may not do this
  badConfig @12;         # reload: the text is not a valid configuration; the old one stays
}

interface Net {
  # The protocol steps of curve_tun 1.0, for netd alone. Each method takes a list, answers a list of the same length and
  # order, and judges each item by itself. None of them takes a nonce for sealing, returns a shared key, or seals a text
  # of the caller's choice. Cost per item: one X25519 multiplication (about 40 us) unless the peer is cached.

  sealCookies @0 (hellos :List(Hello)) -> (outcomes :List(CookieOutcome));
  # Server: open the Hello's box with the entry's key, draw a nonce, seal the Cookie to the client's ephemeral key.

  verifyVouches @1 (vouches :List(Vouch)) -> (outcomes :List(VouchOutcome));
  # Server: open the vouch with the entry's key, compare it with the connection's ephemeral key, apply `allow`.
  # Free of X25519 for a client that was verified before (its shared key is kept inside the vault).

  makeVouches @2 (requests :List(VouchRequest)) -> (outcomes :List(MadeVouchOutcome));
  # Client: vouch for the ephemeral key towards the entry's configured server. The server is not the caller's choice.

  ping @3 () -> ();
  # Nothing but an answer.
}

struct Hello {
  entry @0 :Text;              # name of a [[listen]] entry
  clientEphemeral @1 :Data;    # 32 bytes, EC as received
  box @2 :Data;                # 80 bytes, as received; the vault checks that it holds 64 zero bytes under counter 0
  serverEphemeral @3 :Data;    # 32 bytes, ES: the public half of the pair netd made for this connection
  cookie @4 :Data;             # 96 bytes, K: opaque to the vault
}
struct CookieOutcome {
  union {
    refused @0 :Refusal;
    sealed :group {
      nonce @1 :Data;          # 16 bytes, R, drawn by the vault
      box @2 :Data;            # 144 bytes: box of ES, K under "CurveCPK" R
    }
  }
}

struct Vouch {
  entry @0 :Text;              # name of a [[listen]] entry
  client @1 :Data;             # 32 bytes, C: the client's long-term public key
  nonce @2 :Data;              # 16 bytes, R2 as received
  box @3 :Data;                # 48 bytes, V as received
  clientEphemeral @4 :Data;    # 32 bytes: the EC that this connection has proved
}
struct VouchOutcome {
  union {
    refused @0 :Refusal;
    peer @1 :Text;             # the client's name in [peers]
  }
}

struct VouchRequest {
  entry @0 :Text;              # name of a [[connect]] entry
  clientEphemeral @1 :Data;    # 32 bytes, EC
}
struct MadeVouchOutcome {
  union {
    refused @0 :Refusal;
    made :group {
      client @1 :Data;         # 32 bytes, C: the entry's own public key
      nonce @2 :Data;          # 16 bytes, R2, drawn by the vault
      box @3 :Data;            # 48 bytes: box of EC from C to S under "CurveCPV" R2
    }
  }
}

interface App {
  # What any local program allowed on [vault] socket may ask.

  publicKey @0 (key :Text) -> (outcome :PublicKeyOutcome);
  # The public half of a key by its name.

  ping @1 () -> (selfTest :Bool);
  # Answers after a known-answer self-test of the box; `selfTest` is false if it failed.
}
struct PublicKeyOutcome {
  union {
    refused @0 :Refusal;
    publicKey @1 :Data;        # 32 bytes
  }
}
