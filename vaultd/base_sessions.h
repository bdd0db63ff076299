// base_sessions.h - the live connections in base mode: their frames' state, and whose block each has. Process: vaultd
// alone. docs/protocol.md §14. Bounded; the state lives in the arena, and is wiped when a connection ends, its key is
// locked or changed, or the operator panics. What must never happen here: two connections that get bytes of one block.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <kj/async.h>

#include "vaultd/base_frames.h"
#include "vaultd/block_claims.h"
#include "vaultd/policy.h"

namespace sallyport::vaultd {

class BaseSessions {
 public:
  static constexpr size_t MAX_LIVE = 32;

  // Both must outlive this.
  BaseSessions(SecretArena& arena, BlockClaims& claims);
  ~BaseSessions();
  BaseSessions(const BaseSessions&) = delete;

  struct Frames {
    BaseSealing sealing;
    BaseOpening opening;
  };
  struct Session {
    uint64_t number = 0;  // of this life; 0: the place is free
    std::string entry;
    bool isListen = false;
    VaultKey* key = nullptr;
    KeyVersion version;
    bool claimed = false;
    // One for all who wait for the end; null: nobody does.
    kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> ending{};
    kj::ForkedPromise<void> ended = nullptr;
  };

  // A number for find(). TOO_MANY_OBJECTS, BLOCK_USED.
  Result<uint64_t, Refusal> begin(std::string_view entry, bool isListen, const PeerRule& rule,
                                  const VaultVersion& version);
  // Null when it has ended.
  Session* find(uint64_t number);
  Frames& frames(const Session& session);
  // The block is this session's from now on. BLOCK_USED, NONCE_UNAVAILABLE.
  Result<void, Refusal> claim(Session& session, int64_t nowUnix);

  void end(uint64_t number);
  void endOf(const VaultKey& key);
  void endAll();
  template <typename Judge>
  void endIf(Judge&& judge) {
    for (Session& session : sessions_) {
      if (session.number != 0 && judge(std::as_const(session))) end(session);
    }
  }
  // When the session has ended: at once, if it has.
  kj::Promise<void> whenEnded(uint64_t number);

  size_t live() const;
  const BlockClaims& claims() const { return claims_; }
  peer::FrameCipher& cipher() { return cipher_; }

 private:
  MutableByteSpan memoryOf(const Session& session);
  Session* freePlace();
  void end(Session& session);

  BlockClaims& claims_;
  MutableByteSpan memory_;  // of the arena; empty: it had no room
  std::vector<Session> sessions_;
  uint64_t lastNumber_ = 0;
  peer::FrameCipher cipher_;  // made before lock-down; holds no key between calls
};

}  // namespace sallyport::vaultd
