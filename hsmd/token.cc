// token.cc - see token.h. Part of: hsmd (worker).
#include "hsmd/token.h"

#include <algorithm>

#include "hsmd/last_call.h"

namespace sallyport::hsmd {

Token::Token(Module module, TokenFacts facts, PinRecord& pin, Board& board, Options options)
    : module_(module), facts_(std::move(facts)), pin_(pin), board_(board), options_(options) {}

Outcome<CK_SESSION_HANDLE> Token::openSession() {
  const CK_FLAGS flags = CKF_SERIAL_SESSION | (options_.writable ? CKF_RW_SESSION : 0);
  CK_SESSION_HANDLE handle = 0;
  noteCall("C_OpenSession");
  if (const CK_RV rv = module_->C_OpenSession(facts_.slot, flags, nullptr, nullptr, &handle); rv != CKR_OK)
    return failed(rv);
  return handle;
}

Outcome<void> Token::openAnchor(LoginMode mode) {
  if (anchor_ == 0) {
    const auto session = openSession();
    if (!session) return refuse(session.error());
    anchor_ = *session;
  }
  if (auto done = logIn(module_, facts_.slot, anchor_, pin_, mode); !done) return done;
  loggedIn_ = true;
  return {};
}

Outcome<void> Token::open(LoginMode mode) {
  const std::unique_lock lock(mutex_);
  return openAnchor(mode);
}

void Token::logOut() {
  const std::unique_lock lock(mutex_);
  pin_.forget(PinState::Missing);
  if (loggedIn_) module_->C_Logout(anchor_);
  loggedIn_ = false;
}

Outcome<void> Token::findKeys() {
  const std::unique_lock lock(mutex_);
  auto found = hsmd::findKeys(inSession(anchor_), options_.copies);
  if (!found) return refuse(found.error());
  keys_ = std::move(*found);
  // A proof that fails may leave its session in the middle of something: each has one of its own.
  for (TokenKey& key : keys_) {
    const auto session = openSession();
    if (!session) return refuse(session.error());
    settle(inSession(*session), key, board_);
    ++board_.steps;
    module_->C_CloseSession(*session);
    // Not the key's fault: the start is repeated.
    if (key.info.proof == Status::DeviceRemoved && !tokenFacts(module_, facts_.slot))
      return failed(Status::DeviceRemoved);
  }
  for (size_t i = 0; i < keys_.size(); ++i) {
    keys_[i].info.index = static_cast<uint16_t>(i);
    keys_[i].info.count = static_cast<uint16_t>(keys_.size());
  }
  return {};
}

const TokenKey& Token::add(TokenKey key) {
  const std::unique_lock lock(mutex_);
  key.info.index = static_cast<uint16_t>(keys_.size());
  keys_.push_back(std::move(key));
  for (TokenKey& each : keys_) each.info.count = static_cast<uint16_t>(keys_.size());
  return keys_.back();
}

std::vector<Line> Token::openLines(size_t wanted) {
  const std::unique_lock lock(mutex_);
  const CK_ULONG limit = options_.writable && facts_.maxRwSessions != 0 ? facts_.maxRwSessions : facts_.maxSessions;
  // One for the login, one for others who look at the token.
  if (limit != 0) wanted = std::min<size_t>(wanted, limit > 3 ? limit - 2 : 1);
  std::vector<Line> lines;
  while (lines.size() < wanted) {
    const auto session = openSession();
    if (!session) break;
    lines.push_back({.session = *session, .generation = generation_});
  }
  return lines;
}

Outcome<void> Token::attempt(Line& line, std::optional<size_t> key, const Operation& operation, uint64_t& generation) {
  const std::shared_lock lock(mutex_);
  generation = generation_;
  if (lost_.load() != Status::Ok) return failed(lost_.load());
  if (!loggedIn_) return failed(Status::NotLoggedIn);
  // A new process is what looks for them, and its module opens what it finds.
  if (!files_.areThere()) {
    lost_ = Status::DeviceRemoved;
    return failed(Status::DeviceRemoved);
  }
  static const TokenKey NONE;
  if (key && (*key >= keys_.size() || keys_[*key].use == 0)) return failed(Status::NoKey);
  if (line.generation != generation_) line = {.session = 0, .generation = generation_};
  if (line.session == 0) {
    const auto session = openSession();
    if (!session) return refuse(session.error());
    line.session = *session;
  }
  auto done = operation(inSession(line.session), key ? keys_[*key] : NONE);
  if (!done) {
    // It may be in the middle of an operation (there are modules that never get out of it).
    module_->C_CloseSession(line.session);
    line.session = 0;
  }
  return done;
}

Outcome<void> Token::run(Line& line, std::optional<size_t> key, const Operation& operation) {
  uint64_t generation = 0;
  auto done = attempt(line, key, operation, generation);
  if (done || !needsRecovery(done.error().rv)) return done;
  if (auto back = recover(generation); !back) return back;
  done = attempt(line, key, operation, generation);
  // It said so twice, with a new login in between: a fresh process is what is left to try.
  if (!done && done.error().status == Status::DeviceRemoved) lost_ = Status::DeviceRemoved;
  return done;
}

Outcome<void> Token::recover(uint64_t seen) {
  const std::unique_lock lock(mutex_);
  if (generation_ != seen) return {};  // another thread has done it
  ++generation_;
  ++recoveries_;
  loggedIn_ = false;
  module_->C_CloseAllSessions(facts_.slot);
  anchor_ = 0;
  auto back = openAnchor(LoginMode::Automatic);
  if (back) back = findAgain();
  if (!back) {
    // Ours to tell from the module's own words: whatever they were, the token isn't there.
    const Status status = back.error().status == Status::ModuleFailed ? Status::DeviceRemoved : back.error().status;
    lost_ = status;
    return failed(status, back.error().rv);
  }
  return {};
}

// The same keys at the same places, with the handles that they have now.
Outcome<void> Token::findAgain() {
  auto found = hsmd::findKeys(inSession(anchor_), options_.copies);
  if (!found) return refuse(found.error());
  const bool hadKeys = std::ranges::any_of(keys_, [](const TokenKey& key) { return key.use != 0; });
  size_t usable = 0;
  for (TokenKey& key : keys_) {
    const auto same = std::ranges::find_if(*found, [&](const TokenKey& other) { return other.isSame(key); });
    key.use = same == found->end() ? 0 : same->use;
    key.open = same == found->end() ? 0 : same->open;
    if (same == found->end()) continue;
    ++usable;
    found->erase(same);
  }
  // A token that has none of its keys any more isn't it: SoftHSM answers so when its folder is gone.
  if (hadKeys && usable == 0) return failed(Status::DeviceRemoved);
  return {};
}

}  // namespace sallyport::hsmd
