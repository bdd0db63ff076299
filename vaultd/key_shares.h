// key_shares.h - a secret split among people: any `needed` of `total` shares give it back, fewer tell nothing (Shamir,
// over GF(256)). Part of: vaultd's key library. docs/protocol.md §9. Pure.
// Our own 20 lines of arithmetic instead of libgfshare: that one multiplies through tables, whose addresses depend on
// the secret, and draws its coefficients from random(3) unless told otherwise. Here no address and no branch depends on
// a secret.
#pragma once

#include <span>
#include <vector>

#include "vaultd/key_slot.h"

namespace sallyport::vaultd {

using ShareSecret = SecretBytes<struct ShareSecretTag, 32>;
using ShareSet = std::array<std::byte, 16>;  // tells the shares of one splitting from those of another

// One share: the value of the polynomials at x, which is 1 to 255.
struct Share {
  std::string keyName;
  ShareSet set{};
  unsigned needed = 0;
  unsigned total = 0;
  unsigned x = 0;
  ShareSecret value;
};

// 2 <= needed <= total <= MAX_SHARES.
std::vector<Share> splitSecret(const ShareSecret& secret, std::string_view keyName, const ShareSet& set,
                               unsigned needed, unsigned total);
// What `splitSecret` was given, if these are shares of one set, each another one, and enough. Nothing tells whether a
// share was forged: opening the slot does.
Result<SlotSecret, Problem> joinShares(std::span<const Share> shares);

// "sallyport-share-1 NAME NEEDED TOTAL X SET VALUE CHECK": numbers, hex, and a check sum of 32 bits against mistyping.
SecretText shareText(const Share& share);
Result<Share, Problem> parseShare(std::string_view line);

}  // namespace sallyport::vaultd
