#include "vaultd/tokens.h"

#include <algorithm>

#include "common/log.h"
#include "vaultd/vault_state.h"

namespace sallyport::vaultd {

namespace {

SlotSecret secretOf(const Slot& slot, std::span<const std::byte, 32> unwrapped) {
  SlotSecret secret{SealKind::Token, {}, {}};
  CHECK(secret.text.append({reinterpret_cast<const char*>(unwrapped.data()), unwrapped.size()}));
  secret.slot = slot.number;
  return secret;
}

}  // namespace

Keepers startKeepers(const Config& config) {
  Keepers keepers;
  for (const auto& [name, token] : config.tokens)
    keepers.emplace(name, hsmlink::startKeeper(hsmlink::startOf(token, config.file, false)));
  return keepers;
}

Tokens::Tokens(EventLoop& loop, const Config& config, Keepers keepers) : loop_(loop) {
  for (auto& [name, ends] : keepers) {
    if (!ends) logError("token " + name + ": " + ends.error());
    tokens_.emplace(name, std::make_unique<Token>(loop, config.tokens.at(name), std::move(ends),
                                                  static_cast<Token::Observer&>(*this)));
  }
}

Token* Tokens::find(std::string_view name) const {
  const auto found = tokens_.find(name);
  return found == tokens_.end() ? nullptr : found->second.get();
}

void Tokens::settle(uint64_t timeoutMs) {
  constexpr int STEP_MS = 20;
  const uint64_t until = loop_.nowMs() + timeoutMs;
  const auto settled = [this] {
    return opening_ == 0 && std::ranges::all_of(tokens_, [](const auto& entry) { return entry.second->settled(); });
  };
  while (!settled() && loop_.nowMs() < until) loop_.turn(STEP_MS);
}

Unlocker Tokens::unlocker(Unlocker otherwise) const {
  return [this, otherwise = std::move(otherwise)](const KeyHeader& header) -> Result<SlotSecret, Problem> {
    const bool another = std::ranges::any_of(header.slots, [](const Slot& slot) {
      return slot.kind == SealKind::Passphrase || slot.kind == SealKind::SystemdCredential;
    });
    if (another) return otherwise(header);
    return refuse(Problem{whyNotOpened(header),
                          "`sallyport hsm status` tells more; the key is opened as soon as the token is up"});
  };
}

std::string Tokens::whyNotOpened(const KeyHeader& header) const {
  std::string why;
  for (const Slot& slot : header.slots) {
    if (slot.kind != SealKind::Token) continue;
    const Token* token = find(slot.token);
    why += (why.empty() ? "token " : "; token ") + slot.token;
    if (token == nullptr) {
      why += " isn't in the configuration that vaultd was started with";
    } else if (!token->up()) {
      why += " is " + std::string(describe(token->state())) + ": " + token->why();
    } else {
      why += " doesn't unwrap what opens it";
    }
  }
  return why;
}

void Tokens::attach(VaultState& state) {
  state_ = &state;
  for (const auto& [name, key] : state.keys.all()) want(*key);
  // What tokens have said since the keys were loaded.
  for (const auto& [name, token] : tokens_) {
    if (token->up()) onTokenUp(*token);
    if (token->lost()) onTokenLost(*token);
  }
}

void Tokens::want(const VaultKey& key) {
  if (key.inToken()) {
    if (Token* token = find(key.header.token)) {
      for (const VaultVersion& version : key.versions) {
        if (version.secret) token->want(key.header.kind, version.facts);
      }
    }
  }
  // Also of those that it names no more: a slot that was removed is none of theirs.
  for (const auto& [name, token] : tokens_) {
    std::vector<TokenWrap> wraps;
    for (const Slot& slot : key.header.slots) {
      if (slot.kind == SealKind::Token && slot.token == name) wraps.push_back(slot.tokenWrap);
    }
    token->wantSeals(tokenBound(key.header.name), std::move(wraps));
  }
}

std::string Tokens::problemOf(const VaultKey& key, const KeyVersion& version) const {
  if (!key.inToken()) return {};
  const Token* token = find(key.header.token);
  if (token == nullptr) return "token " + key.header.token + " isn't in the configuration that vaultd was started with";
  return token->problemOf(version.publicKey);
}

void Tokens::panic() {
  for (auto& [name, token] : tokens_) token->panic();
}

void Tokens::onTokenUp(Token& token) {
  if (state_ == nullptr) return;
  for (const auto& [name, key] : state_->keys.all()) {
    if (!key->awaitsToken || !key->locked || key->sealed == nullptr) continue;
    for (const Slot& slot : key->sealed->header.slots) {
      if (slot.kind == SealKind::Token && slot.token == token.name()) openBy(token, name, slot);
    }
  }
}

void Tokens::openBy(Token& token, const std::string& keyName, const Slot& slot) {
  ++opening_;
  token.unwrap(slot.tokenWrap, tokenBound(keyName),
               [this, &token, keyName, slot](const std::span<const std::byte, 32>* unwrapped) {
                 --opening_;
                 VaultKey* key = state_->keys.find(keyName);
                 // Locked or opened by an operator meanwhile: theirs counts.
                 if (unwrapped == nullptr || key == nullptr || !key->awaitsToken || key->sealed == nullptr) return;
                 auto opened = openSealed(*key->sealed, secretOf(slot, *unwrapped));
                 Result<void, Problem> done;
                 if (!opened) {
                   done = refuse(opened.error());
                 } else {
                   done = state_->keys.unlock(*key, std::move(*opened), state_->nowUnix());
                 }
                 wipeDeadStack();
                 if (!done) {
                   logWarning("token " + token.name() + " doesn't open key " + keyName + ": " + done.error().message);
                   return onTokenEvent(token, "unlock", "bad_box", keyName + ": " + done.error().message);
                 }
                 key->openedBy = token.name();
                 state_->counters.add(Count::KeysUnlocked);
                 logInfo("key " + keyName + " is opened by token " + token.name());
                 onTokenEvent(token, "unlock", "ok", "key " + keyName + ", by token " + token.name());
                 want(*key);
               });
}

void Tokens::onTokenLost(Token& token) {
  if (state_ == nullptr || !token.presenceAlways()) return;
  for (const auto& [name, key] : state_->keys.all()) {
    if (key->locked || key->openedBy != token.name()) continue;
    state_->lock(*key);  // a session in base mode sees the block where it lies: it must not outlive it
    key->awaitsToken = true;
    state_->counters.add(Count::KeysLocked);
    logWarning("key " + name + " is locked: token " + token.name() + " is lost");
    onTokenEvent(token, "lock", "ok", "key " + name + ": token " + token.name() + " is lost");
  }
  wipeDeadStack();
}

void Tokens::onTokenEvent(const Token& token, std::string verb, std::string outcome, std::string note) {
  if (state_ == nullptr) return;
  AuditRecord record;
  record.verb = std::move(verb);
  record.entry = token.name();
  record.outcome = std::move(outcome);
  record.note = std::move(note);
  state_->recordEvent(std::move(record));
}

}  // namespace sallyport::vaultd
