// handshake.h - both sides of curve_tun 1.0's handshake as sans-IO machines. Part of: netd-worker.
// docs/protocol.md §3 and §7. A machine takes one packet or one answer of the vault and returns what is to be done
// next; it owns no socket, no clock and no long-term secret. Every input that its state doesn't list is a Drop.
//
//   server:  AwaitHello --Hello--> AwaitCookie --vault--> AwaitInitiate --Initiate--> AwaitVerdict --vault--> done
//   client:  start() --> AwaitCookie --Cookie--> AwaitVouch --vault--> done
//
// Between Cookie and Initiate a server connection holds a hash and nothing else: its secrets are inside the cookie.
#pragma once

#include <string>
#include <variant>

#include "netd/cookie_keys.h"
#include "netd/short_term_box.h"
#include "netd/session.h"
#include "proto/wire/drop_reason.h"
#include "proto/wire/packet.h"

namespace sallyport::netd {

// --- what is asked of the vault; the fields of proto/vault.capnp -----------------------------------------------------
struct SealCookieRequest {
  PublicKey clientEphemeral;
  wire::Block<wire::HELLO_BOX_BYTES> box;
  PublicKey serverEphemeral;
  Cookie cookie;
};
struct VerifyVouchRequest {
  PublicKey client;
  LongNonceBytes nonce;
  wire::Block<wire::VOUCH_BYTES> box;
  PublicKey clientEphemeral;
};
struct MakeVouchRequest {
  PublicKey clientEphemeral;
};

// --- what it answers; a refusal arrives as a DropReason --------------------------------------------------------------
struct SealedCookie {
  wire::CookiePacket packet;
};
struct VerifiedVouch {
  std::string peer;  // name in [peers]
};
struct MadeVouch {
  PublicKey client;
  LongNonceBytes nonce;
  wire::Block<wire::VOUCH_BYTES> box;
};

// --- what is to be done ----------------------------------------------------------------------------------------------
struct Drop {
  wire::DropReason reason;
};
struct Established {
  Session session;
  PublicKey peerKey;  // long-term
  std::string peer;   // its name; empty on a client, which knows whom it called
};

class ServerHandshake {
 public:
  using Step = std::variant<Drop, SealCookieRequest, wire::CookieFrame, VerifyVouchRequest, Established>;

  // The length that the next packet must have; 0: none may come now.
  size_t expectedPacketBytes() const;
  Step onPacket(ByteSpan packet, const CookieKeys& keys);
  Step onVault(const Result<SealedCookie, wire::DropReason>& answer);
  Step onVault(Result<VerifiedVouch, wire::DropReason>&& answer);
  bool awaitsVault() const;

 private:
  struct CookieHashTag;
  using CookieHash = Bytes<CookieHashTag, 32>;
  struct AwaitHello {};
  struct AwaitCookie {
    CookieHash issued;
  };
  struct AwaitInitiate {
    CookieHash issued;
  };
  struct AwaitVerdict {
    SharedKey key;
    PublicKey client;
  };
  struct Done {};

  static CookieHash hash(const Cookie& cookie);
  Step onHello(const wire::Hello& hello, const CookieKeys& keys);
  Step onInitiate(const wire::Initiate& initiate, const CookieKeys& keys);

  std::variant<AwaitHello, AwaitCookie, AwaitInitiate, AwaitVerdict, Done> state_;
};

class ClientHandshake {
 public:
  using Step = std::variant<Drop, wire::HelloFrame, MakeVouchRequest, std::pair<wire::InitiateFrame, Established>>;

  explicit ClientHandshake(const PublicKey& server) : server_(server) {}

  Step start();
  size_t expectedPacketBytes() const;
  Step onPacket(ByteSpan packet);
  Step onVault(const Result<MadeVouch, wire::DropReason>& answer);

 private:
  struct Idle {};
  struct AwaitCookie {
    EphemeralPair pair;
    SharedKey helloKey;  // EC with S: opens the Cookie
  };
  struct AwaitVouch {
    PublicKey clientEphemeral;
    SharedKey key;  // EC with ES
    Cookie cookie;
  };
  struct Done {};

  PublicKey server_;
  std::variant<Idle, AwaitCookie, AwaitVouch, Done> state_;
};

}  // namespace sallyport::netd
