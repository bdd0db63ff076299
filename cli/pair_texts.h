// pair_texts.h - what two hosts say to each other while they pair, as text. Part of: cli. Pure. docs/protocol.md §14.
// Every text travels in a NaCl box from one long-term key to the other, so what is in it is the peer's word; each
// begins with a line of its own, so that no box of another program is taken for one.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "common/bytes.h"
#include "common/result.h"
#include "vaultd/key_format.h"

namespace sallyport::cli {

// What is inside the boxes.
struct BlockOffer {
  wire::PeerParty party = wire::PeerParty::B;  // that the receiver is to be
  vaultd::LongTermSecret block;
};
enum class PairWord : uint8_t {
  Have,  // receiver: the block is stored here, and waits
  Both,  // offerer: it is active here
  Done   // receiver: it is active here too
};

vaultd::SecretText offerText(const BlockOffer& offer);
Result<BlockOffer, vaultd::Problem> parseOffer(std::string_view text);
std::string wordText(PairWord word, const PublicKey& fingerprint);
bool isWord(std::string_view text, PairWord word, const PublicKey& fingerprint);

// A box and its nonce on the way, with the keys for people and for errors: the box itself proves them.
struct SealedText {
  PublicKey from;
  PublicKey to;
  std::array<std::byte, 24> nonce{};
  std::vector<std::byte> box;
};
std::string sealedText(const SealedText& sealed);
Result<SealedText, vaultd::Problem> parseSealed(std::string_view text);

}  // namespace sallyport::cli
