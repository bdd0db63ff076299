#include "vaultd/token_batch.h"

#include <sodium.h>

#include <algorithm>

#include "vaultd/tokens.h"

namespace sallyport::vaultd {

namespace {

// Left to keys that are unlocked meanwhile.
constexpr size_t ARENA_RESERVE_BYTES = 16 * 1024;

}  // namespace

std::array<std::byte, 32> TokenResults::hashOf(ByteSpan text) {
  std::array<std::byte, 32> hash;
  CHECK(crypto_generichash_blake2b(uchars(MutableByteSpan(hash)), hash.size(), uchars(text), text.size(), nullptr, 0) ==
        0);
  return hash;
}

const SecretSlot* TokenResults::derived(SharedKeyCache::KeyId own, const PublicKey& peer) const {
  if (now_ == nullptr) return nullptr;
  const auto found =
      std::ranges::find_if(now_->derived, [&](const Derived& each) { return each.own == own && each.peer == peer; });
  return found == now_->derived.end() ? nullptr : &found->raw;
}

const std::array<std::byte, 64>* TokenResults::signature(SharedKeyCache::KeyId own, ByteSpan text) const {
  if (now_ == nullptr || now_->signatures.empty()) return nullptr;
  const auto hash = hashOf(text);
  const auto found = std::ranges::find_if(now_->signatures,
                                          [&](const Signed& each) { return each.own == own && each.textHash == hash; });
  return found == now_->signatures.end() ? nullptr : &found->signature;
}

TokenBatch::TokenBatch(Keyring& keys, Tokens& tokens, int64_t nowUnix)
    : keys_(keys), tokens_(tokens), nowUnix_(nowUnix), pending_(std::make_shared<Pending>()) {
  pending_->arena = &keys.arena();
}

void TokenBatch::derive(VaultKey& key, const VaultVersion& version, const PublicKey& peer) {
  // Refused by the box, as a software key refuses it: no token is asked what it thinks of such a point.
  if (isLowOrder(peer)) return;
  if (std::ranges::find(asked_, std::pair(version.id, peer)) != asked_.end()) return;
  Token* token = tokens_.find(key.header.token);
  if (token == nullptr) return;
  asked_.emplace_back(version.id, peer);
  ++pending_->open;
  token->derive(version.facts.publicKey, peer,
                [weak = std::weak_ptr(pending_), own = version.id, peer](const std::span<const std::byte, 32>* result) {
                  const auto pending = weak.lock();
                  if (!pending) return;
                  if (result != nullptr && pending->arena->freeBytes() > ARENA_RESERVE_BYTES) {
                    auto slot = pending->arena->takeSlot();
                    std::ranges::copy(*result, slot.exposeMutable<32>().begin());
                    pending->set.derived.push_back({own, peer, std::move(slot)});
                  }
                  pending->close();
                });
}

void TokenBatch::open(VaultKey& key, const PublicKey& peer) {
  if (key.locked) return;
  for (const VaultVersion& version : key.versions) {
    const VersionState state = stateOf(version.facts, nowUnix_);
    if (version.secret && (state == VersionState::Active || state == VersionState::OpenOnly))
      derive(key, version, peer);
  }
}

void TokenBatch::box(VaultKey& key, const PublicKey& peer) {
  if (const auto version = key.active(nowUnix_)) derive(key, **version, peer);
}

void TokenBatch::sign(VaultKey& key, ByteSpan text) {
  const auto version = key.active(nowUnix_);
  Token* token = tokens_.find(key.header.token);
  if (!version || token == nullptr) return;
  ++pending_->open;
  token->sign((*version)->facts.publicKey, text,
              [weak = std::weak_ptr(pending_), own = (*version)->id,
               hash = TokenResults::hashOf(text)](const Token::Signature* signature) {
                const auto pending = weak.lock();
                if (!pending) return;
                if (signature != nullptr) pending->set.signatures.push_back({own, hash, *signature});
                pending->close();
              });
}

kj::Promise<void> TokenBatch::answered() {
  if (pending_->open == 1) return kj::READY_NOW;
  auto pair = kj::newPromiseAndFulfiller<void>();
  pending_->fulfiller = kj::mv(pair.fulfiller);
  pending_->close();
  return kj::mv(pair.promise);
}

}  // namespace sallyport::vaultd
