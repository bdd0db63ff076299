// token_proof.cc - how a token's keys are found and proved: see token.h. Process: vaultd alone.
#include <sodium.h>

#include <algorithm>
#include <cstdio>

#include "common/log.h"
#include "vaultd/signer.h"
#include "vaultd/token.h"

namespace sallyport::vaultd {

using hsm::Status;
using hsmlink::Outcome;

namespace {

constexpr size_t SLOTS_FOR_PROOFS = 8;   // never taken by callers
constexpr size_t CALLS_PER_SESSION = 4;  // one at work, the others on their way there

// Its death will be told, and begins everything anew.
bool workerIsGoing(const Outcome& outcome) { return !outcome && outcome.error() != hsmlink::Failure::Busy; }

std::string told(const Outcome& outcome) {
  if (!outcome) return std::string(hsmlink::describe(outcome.error()));
  std::string text(hsm::describe(outcome->status));
  if (outcome->ckr == 0) return text;
  char code[24];
  std::snprintf(code, sizeof code, " (CKR 0x%x)", outcome->ckr);
  return text + code;
}

}  // namespace

void Token::want(KeyKind kind, const KeyVersion& version) {
  const auto [at, added] = keys_.try_emplace(version.publicKey);
  Key& key = at->second;
  if (!added && key.id == version.tokenId) return;
  key.kind = kind;
  key.id = version.tokenId;
  if (!up()) return;
  for (const hsm::KeyInfo& info : listed_) noteKey(info);
  if (key.index) return prove(version.publicKey, key);
  // Made after this worker had looked around. Another one will find it, if it is there.
  planned_ = "to find a key that is new";
  logInfo("token " + name_ + ": its process is started again " + planned_);
  observer_.onTokenEvent(*this, "token_restart", "ok", planned_);
  link_->kill(hsm::KillReason::NewKey);
}

void Token::wantSeals(const hsm::Block32& bound, std::vector<TokenWrap> wraps) {
  if (wraps.empty()) {
    seals_.erase(bound);
  } else {
    seals_.insert_or_assign(bound, std::move(wraps));
  }
}

std::string Token::problemOf(const PublicKey& own) const {
  if (!up()) return describe();
  const auto key = keys_.find(own);
  if (key == keys_.end()) return "token " + name_ + " was not asked for it";
  if (key->second.proved) return {};
  return "token " + name_ + ": " + key->second.problem;
}

bool Token::lacks(const PublicKey& own) const {
  const auto key = keys_.find(own);
  return up() && key != keys_.end() && !key->second.index;
}

void Token::sayHello() {
  if (pinToForget_) return;  // whoever has it may not use it
  enter(TokenState::Proving, "its keys are being proved");
  ask({hsm::Hello{}, Needs::Nothing, {}, 0, [this](const Outcome& outcome, ByteSpan) {
         if (workerIsGoing(outcome)) return;
         if (!outcome || outcome->status != Status::Ok) return rest(told(outcome));
         const auto& hello = std::get<hsm::HelloReply>(outcome->answer);
         facts_.module = sanitized(hello.module.text());
         facts_.token = sanitized(hello.label.text() + " " + hello.serial.text());
         if (hello.version != hsm::PROTOCOL_VERSION) return enter(TokenState::Down, "hsmd is of another version");
         if (hello.login != Status::Ok)
           return enter(TokenState::NoPin, std::string(hsm::describe(hello.login)), hello.login);
         mostUnderWay_ = std::clamp<size_t>(size_t{hello.sessions} * CALLS_PER_SESSION, CALLS_PER_SESSION,
                                            hsm::SLOT_COUNT - SLOTS_FOR_PROOFS);
         listed_.clear();
         if (hello.keyCount == 0) return proveAll();
         listKeys(0);
       }});
}

void Token::listKeys(uint16_t index) {
  ask({hsm::List{index}, Needs::Nothing, {}, 0, [this, index](const Outcome& outcome, ByteSpan) {
         if (workerIsGoing(outcome)) return;
         if (!outcome || outcome->status != Status::Ok) return rest(told(outcome));
         const auto& info = std::get<hsm::KeyInfo>(outcome->answer);
         if (info.index != index) return rest("it listed another key than the one that was asked for");
         listed_.push_back(info);
         noteKey(info);
         if (index + 1U < std::min<size_t>(info.count, hsm::MAX_KEYS))
           return listKeys(static_cast<uint16_t>(index + 1));
         proveAll();
       }});
}

void Token::noteKey(const hsm::KeyInfo& info) {
  const auto key = keys_.find(PublicKey(info.publicKey));
  if (key == keys_.end()) return;
  const auto wanted = key->second.kind == KeyKind::X25519 ? hsm::KeyKind::X25519 : hsm::KeyKind::Ed25519;
  if (info.kind == wanted && std::ranges::equal(info.id.span(), key->second.id)) key->second.index = info.index;
}

void Token::proveAll() {
  if (proofsUnderWay_ > 0) return;
  // One more than there are keys: none of them may end it before all are begun.
  ++proofsUnderWay_;
  for (auto& [own, key] : keys_) {
    if (!key.index) {
      key.problem = "it has no such key";
    } else if (!key.wrong) {
      prove(own, key);
    }
  }
  if (--proofsUnderWay_ == 0) proofsDone();
}

void Token::prove(const PublicKey& own, Key& key) {
  ++proofsUnderWay_;
  // While callers are served it takes its turn before theirs: one text to sign is under way at a time.
  const auto askOf = [this](Wish wish) { up() ? enqueue(std::move(wish), true) : ask(std::move(wish)); };
  const auto answered = [this, own](const Outcome& outcome, ByteSpan slot) { proved(own, outcome, slot); };
  if (key.kind == KeyKind::Ed25519) {
    fillRandom(key.text);
    return askOf({hsm::Sign{*key.index, static_cast<uint32_t>(key.text.size())}, Needs::Message, WipedBytes(key.text),
                  0, answered});
  }
  // An ephemeral pair of our own: both ways around the result must be the same.
  const auto ephemeral = SecretBytes<struct ProofTag, 32>::random();
  hsm::Derive ask32{*key.index, 0, {}};
  CHECK(crypto_scalarmult_base(uchars(MutableByteSpan(ask32.peer)), ephemeral.exposeData()) == 0);
  if (crypto_scalarmult(key.expected.exposeData(), ephemeral.exposeData(), own.data()) != 0) {
    key.wrong = true;
    key.problem = "its public key is one that gives no secrecy";
    if (--proofsUnderWay_ == 0) proofsDone();
    return;
  }
  askOf({ask32, Needs::Slot, {}, 0, answered});
}

void Token::proved(const PublicKey& own, const Outcome& outcome, ByteSpan slot) {
  const auto found = keys_.find(own);
  // A worker that died has taken the count with it.
  if (found == keys_.end() || proofsUnderWay_ == 0) return;
  Key& key = found->second;
  if (workerIsGoing(outcome)) {
    --proofsUnderWay_;
    return;
  }
  if (!outcome || outcome->status != Status::Ok) {
    key.proved = false;
    key.problem = "its known answer didn't come: " + told(outcome);
  } else {
    bool right = false;
    if (key.kind == KeyKind::X25519) {
      right = reveal(equalsConstantTime(slot.first(32), key.expected.expose()));
    } else {
      right = verifySignature(own, key.text, std::get<hsm::SignReply>(outcome->answer).signature).has_value();
    }
    key.expected.wipe();
    if (right) {
      key.proved = true;
      key.problem.clear();
    } else {
      key.wrong = true;
      bar(own, "its known answer was wrong");
    }
  }
  if (--proofsUnderWay_ == 0) proofsDone();
}

void Token::bar(const PublicKey& own, std::string problem) {
  Key& key = keys_.at(own);
  key.proved = false;
  key.problem = std::move(problem);
  ++facts_.badResults;
  logWarning("token " + name_ + ": key " + toBase64(own.span()) + " is not used: " + key.problem);
  observer_.onTokenEvent(*this, "token_key_barred", "ok", toBase64(own.span()) + ": " + key.problem);
}

void Token::proofsDone() {
  if (state_ != TokenState::Proving && state_ != TokenState::Up) return;
  std::string failed;
  bool anyProved = false;
  for (const auto& [own, key] : keys_) {
    anyProved |= key.proved;
    if (key.index && !key.proved && !key.wrong) failed = key.problem;
  }
  // One key that works is a token that works.
  if (!failed.empty() && !anyProved) return rest(std::move(failed));
  restMs_ = REST_MS;
  provedAtMs_ = loop_.nowMs();
  const bool cameUp = state_ != TokenState::Up;
  enter(TokenState::Up, {});
  if (cameUp) observer_.onTokenUp(*this);
}

void Token::proveSeals() {
  // Copied: a call that is refused at once is answered in here.
  for (const auto& [bound, wraps] : std::map(seals_)) {
    for (const TokenWrap& wrap : wraps) {
      unwrap(wrap, bound, [this, bound = bound, blob = wrap.blob](const std::span<const std::byte, 32>* secret) {
        if (secret != nullptr || !up()) return;
        // One that was removed meanwhile proves nothing.
        const auto wanted = seals_.find(bound);
        if (wanted == seals_.end() || std::ranges::find(wanted->second, blob, &TokenWrap::blob) == wanted->second.end())
          return;
        rest("it doesn't unwrap any more what it has wrapped");
      });
    }
  }
}

void Token::onHealth() {
  health_.set(times_.healthMs);
  if (!up()) return;
  ask({hsm::Ping{}, Needs::Nothing, {}, 0, [this](const Outcome& outcome, ByteSpan) {
         if (outcome && outcome->status == Status::Ok) onPing(std::get<hsm::PingReply>(outcome->answer));
       }});
  if (presenceAlways_ && loop_.nowMs() - provedAtMs_ >= recheckMs_) {
    proveSeals();
    return proveAll();
  }
  for (auto& [own, key] : keys_) {
    if (key.index && !key.proved && !key.wrong) return proveAll();
  }
}

void Token::onPing(const hsm::PingReply& reply) {
  facts_.rssKiB = reply.rssKiB;
  if (reply.rssKiB <= memoryKiB_ || !up()) return;
  logWarning("token " + name_ + ": its process has grown to " + std::to_string(reply.rssKiB / 1024) +
             " MiB, and is started again");
  planned_ = "for its memory had grown";
  observer_.onTokenEvent(*this, "token_restart", "ok", "memory: " + std::to_string(reply.rssKiB / 1024) + " MiB");
  link_->kill(hsm::KillReason::Memory);
}

}  // namespace sallyport::vaultd
