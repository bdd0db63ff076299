// token_results.h - what tokens have done for the batch that is answered right now. Process: vaultd alone.
// A key in a token can't be used within one turn of the loop, and batches are answered within one. So what a batch
// needs is asked for first (token_batch.h), and while it is answered the results are here, in slots of the arena: only
// its own, never another batch's, and gone with it.
#pragma once

#include <array>
#include <vector>

#include "vaultd/secret_arena.h"
#include "vaultd/shared_key_cache.h"

namespace sallyport::vaultd {

class TokenResults {
 public:
  struct Derived {
    SharedKeyCache::KeyId own;
    PublicKey peer;
    SecretSlot raw;  // X25519's result, before any hash
  };
  struct Signed {
    SharedKeyCache::KeyId own;
    std::array<std::byte, 32> textHash;
    std::array<std::byte, 64> signature;
  };
  struct Set {
    std::vector<Derived> derived;
    std::vector<Signed> signatures;
  };
  static std::array<std::byte, 32> hashOf(ByteSpan text);

  // Null if the token hasn't done it.
  const SecretSlot* derived(SharedKeyCache::KeyId own, const PublicKey& peer) const;
  const std::array<std::byte, 64>* signature(SharedKeyCache::KeyId own, ByteSpan text) const;

  // While this lives, `set` is what there is.
  class Use {
   public:
    Use(TokenResults& results, const Set& set) : results_(results) {
      CHECK(results_.now_ == nullptr);
      results_.now_ = &set;
    }
    ~Use() { results_.now_ = nullptr; }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    TokenResults& results_;
  };

 private:
  const Set* now_ = nullptr;
};

}  // namespace sallyport::vaultd
