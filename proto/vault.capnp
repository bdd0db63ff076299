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
  nonceUnavailable @8;   # nothing provably fresh can be made (disk full, fsync failed): status tells more
  locked @9;             # the key is sealed and not unlocked
  tooMany @10;           # more than 64 items in one call
  notPermitted @11;      # this caller may not do this
  badConfig @12;         # reload: the text is not a valid configuration; the old one stays
  badNonce @13;          # not a nonce of this domain: wrong length or a foreign prefix
  tooLong @14;           # a text longer than policy allows, or than fits an answer
  expired @15;           # the lease is over, the capability was closed, or its grant was revoked
  wrongKind @16;         # the key can't do that: an X25519 key doesn't sign, an Ed25519 key doesn't box
  wrongVersion @17;      # no version of the key is in a state that allows this
  breakerOpen @18;       # too many failed opens by this caller: wait, and find out why
  notRecorded @19;       # the audit log can't be written, and the configuration says: no record, no operation
  tooManyObjects @20;    # this connection holds as many capabilities as one may
  badSignature @21;      # verify: the signature is not of this message and key
  badDomain @22;         # freshNonces: not a domain that policy lists, or one that the vault itself uses
  hsmUnavailable @23;    # the key lives in a token that doesn't answer, or not in time, or is locked until its token
                         # opens it: try later; status tells more
  wrongProtocol @24;     # the entry speaks another protocol, or the peer protocol in another mode
  blockUsed @25;         # base mode: a connection was opened with this block before, or nobody can know that none was
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

  # The steps of the peer protocol (docs/protocol.md §14). The 128-byte block never leaves the vault.

  peerSalts @4 (entries :List(PeerEntry)) -> (outcomes :List(PeerSaltOutcome));
  # Hard mode: draws our side's salt of a connection, and remembers it for twice the handshake deadline: so a caller may
  # have some drawn ahead, each for one connection that begins within one handshake deadline. About 1 us.

  peerKeys @5 (requests :List(PeerKeysRequest)) -> (outcomes :List(PeerKeysOutcome));
  # Hard mode: the secrets S of epoch 0 of both directions. Each salt that peerSalts gave works once and for its own
  # entry: keys of recorded connections can't be asked for. Refuses `expired` for a salt that is unknown, used up or too
  # old. netd derives the later epochs itself (one-way), so an established connection doesn't need the vault. About
  # 1.3 us.

  peerAccept @7 (requests :List(PeerAcceptRequest)) -> (outcomes :List(PeerAcceptOutcome));
  # Hard mode, for who has the other party's salt already (who listens): peerSalts and peerKeys in one. Our salt is drawn
  # within the call and goes into the secrets at once, so it is never pending, and keys of recorded connections can't be
  # asked for here either. About 2 us.

  peerSession @6 (entry :PeerEntry, first :Data) -> (outcome :PeerSessionOutcome);
  # Base mode: a capability that seals and opens the frames of one connection. The block is used up, durably, with the
  # first bytes that are sealed or the first header that opens: until then other connections may try too, and the first
  # one that gets so far has it; to all others, for ever, it is `blockUsed`. (So a stranger who connects uses nothing up,
  # as long as we speak only after a good frame.) At most 32 live ones; a further one ends the oldest that has used
  # nothing. `first` is opened in the same step, as by open(), so that no other connection comes in between: with a whole
  # header in it, who holds the block has it at once, and the session of who doesn't is over with the answer. Empty:
  # nothing is opened yet.
}

enum PeerParty {
  a @0;                        # seals with bytes 0 to 63 of the block
  b @1;                        # with bytes 64 to 127
}
struct PeerEntry {
  name @0 :Text;
  listen @1 :Bool;             # a [[listen]] entry, else a [[connect]] entry
}
struct PeerSaltOutcome {
  union {
    refused @0 :Refusal;
    drawn :group {
      party @1 :PeerParty;     # who we are: the preamble says it
      salt @2 :Data;           # 32 bytes
      version @3 :UInt32;      # of the block that is active now; what peerKeys used is what peerKeys says
    }
  }
}
struct PeerKeysRequest {
  entry @0 :PeerEntry;
  ownSalt @1 :Data;            # 32 bytes, as drawn
  peerSalt @2 :Data;           # 32 bytes, as received from the other party
}
struct PeerKeysOutcome {
  union {
    refused @0 :Refusal;
    derived :group {
      sendSecret @1 :Data;     # 32 bytes, S of our direction in epoch 0; to be wiped
      receiveSecret @2 :Data;  # 32 bytes, S of the other direction
      version @3 :UInt32;      # of the block they are made of: netd ends older sessions when it is told to reload
    }
  }
}
struct PeerAcceptRequest {
  entry @0 :PeerEntry;
  peerSalt @1 :Data;           # 32 bytes, as received from the other party
}
struct PeerAcceptOutcome {
  union {
    refused @0 :Refusal;
    accepted :group {
      party @1 :PeerParty;     # who we are: the preamble says it
      ownSalt @2 :Data;        # 32 bytes, for our preamble
      sendSecret @3 :Data;     # as peerKeys answers them
      receiveSecret @4 :Data;
      version @5 :UInt32;
      others @6 :List(PeerSecrets);
      # While the block is being rotated (docs/protocol.md §14): the secrets with versions that the other host may still,
      # or already, have active. Which one it has, its first frame tells. At most 4.
    }
  }
}
struct PeerSecrets {
  sendSecret @0 :Data;
  receiveSecret @1 :Data;
  version @2 :UInt32;
}
struct PeerSessionOutcome {
  union {
    refused @0 :Refusal;
    begun :group {
      session @1 :PeerSession;
      party @2 :PeerParty;     # who we are; there is no preamble in base mode
      opened @3 :OpenedOutcome; # of `first`; null if that is empty
    }
  }
}

interface PeerSession {
  # One connection in base mode. What goes in and out is a piece of the direction's byte stream, at most 60 KiB, cut
  # anywhere: frames may go on in the next call, and a piece may hold many. Bytes of a header or a tag that isn't whole
  # yet are held back, and come with the next answer. Calls are answered in order. A frame is as on the wire: 16 bytes of
  # header, LENGTH bytes, 8 bytes of tag. Refuses `expired` when it has ended: see docs/protocol.md §14.

  seal @0 (frames :Data) -> (outcome :SealedOutcome);
  # Plain frames. Of a header only LENGTH and CODE count; SEQ, CHECKSUM and the tag are any bytes (zeros), and the vault
  # writes what belongs there. Refuses `tooLong` (a frame longer than max_frame_bytes), and then everything.

  open @1 (frames :Data) -> (outcome :OpenedOutcome);
  # Received bytes. A frame's bytes before its end are not sanctified yet: the caller keeps them from its own callers
  # until `sanctified` covers them. Bytes of a frame that turns out bad are not given out any more.

  close @2 () -> ();
  # The connection is over. A block that was used stays used.

  ended @3 () -> ();
  # Answered when the connection has ended here, for whatever reason, and at once if it has: so who has nothing to send
  # and receives nothing learns it, too. What is under way is still answered. May be withdrawn.
}
struct SealedOutcome {
  union {
    refused @0 :Refusal;
    frames @1 :Data;           # to be sent as they are
  }
}
struct OpenedOutcome {
  union {
    refused @0 :Refusal;
    opened :group {
      frames @1 :Data;         # plain frames: the header as it was, the payload, 8 zeros for the tag
      sanctified @2 :UInt32;   # so many of these bytes, from the first on, are covered by a tag that was good
      fault @3 :Text;          # empty, or why the direction is dead: the name of a drop reason
    }
  }
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

# --- for programs ---------------------------------------------------------------------------------------------------
#
# A program connects to [vault] socket (or to one of [[vault_socket]]) and gets an App. What it may do follows from that
# socket and its uid and gids as the kernel tells them: the [[grant]] sections of the configuration, looked up again at
# each call. So a reload that takes a grant away takes it from live capabilities too.
#
# No method takes a nonce to seal under, returns a shared key, or makes or opens a box of a protocol: the nonce of an
# application's box begins with "SallyBox", those of the protocols never do.

enum Verb {
  box @0;
  open @1;               # boxes, and sealed boxes
  sign @2;
  freshNonce @3;
}

interface App {
  publicKey @0 (key :Text) -> (outcome :PublicKeyOutcome);
  # The public half of a key by its name (of its active version). Any program may ask. An answer to `box` under another
  # `version` was made by a key that became active in between.

  ping @1 () -> (selfTest :Bool);
  # Answers after a known-answer self-test of the box; `selfTest` is false if it failed.

  key @2 (name :Text, verbs :List(Verb), leaseMs :UInt64 = 0) -> (outcome :KeyOutcome);
  # A capability for one key, with those of `verbs` that this caller is granted for it; none of them, or a key that is
  # not there: notPermitted (a caller without a grant can't find out which keys exist). No verbs: all that are granted.
  # It ends with the lease (0: the longest that policy allows, which may be none: as long as the connection), with
  # close(), with the connection, or when the grant is revoked. At most 64 live ones a connection. Costs nothing.

  keys @3 (after :Text) -> (keys :List(GrantedKey), more :Bool);
  # What this caller may do, key by key, in the order of their names, from the first one behind `after` on: as many as fit a
  # message. `more`: ask again, with the last name that came.

  verify @4 (items :List(VerifyItem)) -> (outcomes :List(VerifyOutcome));
  # Ed25519 signatures of anybody. Needs no grant. About 100 us an item; 2,000 a second for the
  # programs of a user.
}
struct PublicKeyOutcome {
  union {
    refused @0 :Refusal;
    publicKey @1 :Data;        # 32 bytes
  }
  version @2 :UInt32;          # of the key; 0 from a vault that doesn't tell
  opening @3 :List(Data);      # the public halves of all versions that may open now, the active one first
}
struct KeyOutcome {
  union {
    refused @0 :Refusal;
    granted :group {
      key @1 :Key;
      verbs @2 :List(Verb);
      leaseMs @3 :UInt64;      # what was given; 0: no end
    }
  }
}
struct GrantedKey {
  name @0 :Text;
  kind @1 :Text;               # "x25519", "ed25519" or "peer-block"
  publicKey @2 :Data;          # of the active version; empty if there is none, and for a block
  verbs @3 :List(Verb);
  grants @4 :List(Text);       # names of the [[grant]] sections that say so; the first ones, if they alone fill a message
}

interface Key {
  # Each data verb takes a list of at most 64 items, answers a list of the same length and order, and judges each item
  # by itself. A refusal costs nothing of the others. Calls may be pipelined.

  box @0 (items :List(BoxItem)) -> (outcomes :List(BoxOutcome));
  # NaCl's crypto_box from the key's active version to a peer. The vault draws the nonce, durably fresh. One X25519
  # (about 40 us) unless the peer is one of [peers] and cached.

  open @1 (items :List(OpenItem)) -> (outcomes :List(OpenOutcome));
  # crypto_box_open with any version that may still open. Nonce and box as `box` of the other side gave them. Failures are
  # counted, and many of them open the caller's breaker.

  openSealed @2 (boxes :List(Data)) -> (outcomes :List(OpenOutcome));
  # libsodium's crypto_box_seal_open: anonymous boxes to this key. 48 bytes longer than the text. Needs a grant of `open`
  # for any peer ("*"): nobody knows who made them.

  sign @3 (messages :List(Data)) -> (outcomes :List(SignOutcome));
  # Ed25519 (RFC 8032, pure) with the active version. About 20 us and the hashing of the message twice.

  freshNonces @4 (domain :Text, count :UInt32) -> (outcome :NoncesOutcome);
  # Up to 64 values of 16 bytes that this vault has never given out under this key and domain, and no other vault with
  # the same key ever will but by a chance of 2^-64. `domain`: 1 to 8 characters that a grant lists.

  renew @5 (leaseMs :UInt64 = 0) -> (outcome :RenewOutcome);
  # Begins the lease anew, if policy still grants it.

  close @6 () -> ();
  # Gives the capability back; later calls are refused as expired. For clients that never send Release.
}
struct BoxItem {
  peer :union {
    key @0 :Data;              # 32 bytes, X25519
    name @1 :Text;             # a name in [peers]
  }
  text @2 :Data;
}
struct BoxOutcome {
  union {
    refused @0 :Refusal;
    boxed :group {
      nonce @1 :Data;          # 24 bytes: "SallyBox" and 16 drawn by the vault
      box @2 :Data;            # the text's length + 16
      version @3 :UInt32;      # of our key
    }
  }
}
struct OpenItem {
  peer :union {
    key @0 :Data;              # 32 bytes, X25519: who boxed it
    name @1 :Text;             # a name in [peers]
  }
  nonce @2 :Data;              # 24 bytes
  box @3 :Data;
}
struct OpenOutcome {
  union {
    refused @0 :Refusal;
    opened :group {
      text @1 :Data;
      version @2 :UInt32;      # of our key
    }
  }
}
struct SignOutcome {
  union {
    refused @0 :Refusal;
    signed :group {
      signature @1 :Data;      # 64 bytes
      version @2 :UInt32;
    }
  }
}
struct VerifyItem {
  publicKey @0 :Data;          # 32 bytes, Ed25519
  message @1 :Data;
  signature @2 :Data;          # 64 bytes
}
struct VerifyOutcome {
  union {
    refused @0 :Refusal;       # badSignature, badSize, lowOrderKey
    genuine @1 :Void;
  }
}
struct NoncesOutcome {
  union {
    refused @0 :Refusal;
    nonces @1 :List(Data);     # 16 bytes each
  }
}
struct RenewOutcome {
  union {
    refused @0 :Refusal;
    leaseMs @1 :UInt64;        # what was given; 0: no end
  }
}
