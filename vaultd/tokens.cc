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

std::string hintForMissing(const std::string& key) {
  return "it was deleted there, or this is another token of that name: put back the one that has it, or make another "
         "version: `sallyport key rotate " +
         key + "`";
}

std::string hintForLocked(const VaultKey& key, const Token& token) {
  const std::string unlock = "`sallyport unlock " + key.header.name + "`";
  if (!key.awaitsToken) return unlock;
  return token.up() ? "put back the token that it was sealed by, or open it another way: " + unlock : token.hint();
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
    if (!why.empty()) why += "; ";
    if (token == nullptr) {
      why += "token " + slot.token + " isn't in the configuration that vaultd was started with";
    } else if (!token->up()) {
      why += token->describe();
    } else {
      const auto told = notOpened_.find({header.name, slot.token});
      why += "token " + slot.token + (told == notOpened_.end() ? " has not opened it yet" : " " + told->second);
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

std::string Tokens::whyLocked(const VaultKey& key) const {
  return key.awaitsToken ? "locked: " + whyNotOpened(key.header) : "locked by an operator";
}

std::vector<Tokens::KeyState> Tokens::keysOf(const Token& token) const {
  std::vector<KeyState> states;
  if (state_ == nullptr) return states;
  for (const auto& [name, key] : state_->keys.all()) {
    const KeyVersion* active = key->activeFacts(state_->nowUnix());
    const bool sealed = std::ranges::any_of(key->header.slots, [&](const Slot& slot) {
      return slot.kind == SealKind::Token && slot.token == token.name();
    });
    const bool inToken = key->header.token == token.name();
    if (sealed || (inToken && key->locked)) {
      states.push_back({name, active == nullptr ? PublicKey() : active->publicKey, sealed,
                        key->locked ? whyLocked(*key) : "", key->locked ? hintForLocked(*key, token) : ""});
    }
    if (!inToken) continue;
    for (const VaultVersion& version : key->versions) {
      if (!version.secret || !isOfUse(version.facts, state_->nowUnix())) continue;
      const PublicKey& own = version.facts.publicKey;
      std::string problem = token.problemOf(own);
      std::string hint = token.lacks(own) ? hintForMissing(name) : problem.empty() ? "" : token.hint();
      states.push_back({name, own, false, std::move(problem), std::move(hint)});
    }
  }
  return states;
}

// Once for each key, until it is there again.
void Tokens::tellMissing(const Token& token) {
  for (const KeyState& key : keysOf(token)) {
    const std::pair id(token.name(), key.publicKey);
    if (!token.lacks(key.publicKey)) {
      missing_.erase(id);
    } else if (missing_.insert(id).second) {
      logWarning("key " + key.name + " can't be used: " + key.problem + " (" + key.hint + ")");
      onTokenEvent(token, "token_key_missing", "ok", key.name + ", " + toBase64(key.publicKey.span()));
    }
  }
}

void Tokens::onTokenUp(Token& token) {
  if (state_ == nullptr) return;
  tellMissing(token);
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
                 if (key == nullptr || !key->awaitsToken || key->sealed == nullptr) return;
                 if (unwrapped == nullptr) {
                   // If it isn't up any more it is asked again.
                   if (token.up()) notOpened(token, keyName, "doesn't unwrap what opens it");
                   return;
                 }
                 auto opened = openSealed(*key->sealed, secretOf(slot, *unwrapped));
                 Result<void, Problem> done;
                 if (!opened) {
                   done = refuse(opened.error());
                 } else {
                   done = state_->keys.unlock(*key, std::move(*opened), state_->nowUnix());
                 }
                 wipeDeadStack();
                 if (!done) return notOpened(token, keyName, "unwraps what opens it, but: " + done.error().message);
                 notOpened_.erase({keyName, token.name()});
                 key->openedBy = token.name();
                 state_->counters.add(Count::KeysUnlocked);
                 logInfo("key " + keyName + " is opened by token " + token.name());
                 onTokenEvent(token, "unlock", "ok", "key " + keyName + ", by token " + token.name());
                 want(*key);
               });
}

void Tokens::notOpened(const Token& token, const std::string& keyName, std::string why) {
  std::string& told = notOpened_[{keyName, token.name()}];
  if (told == why) return;
  told = std::move(why);
  logWarning("key " + keyName + " stays locked: token " + token.name() + " " + told);
  onTokenEvent(token, "unlock", "bad_box", keyName + ": " + told);
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
