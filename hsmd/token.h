// token.h - one token, logged in: sessions, keys, and how it comes back after an error. Part of: hsmd (worker).
// Several threads call it, each with a Line of its own, since one session must not be used by two. One more session,
// the anchor, stays open for life: the login would end with the last one.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <shared_mutex>

#include "hsmd/database_files.h"
#include "hsmd/keys.h"
#include "hsmd/login.h"

namespace sallyport::hsmd {

// A thread's session. Closed after any error, and opened anew for the next operation.
struct Line {
  CK_SESSION_HANDLE session = 0;  // 0: none; a module that hands out 0 has it closed and opened once more a call
  uint64_t generation = 0;
};

class Token {
 public:
  struct Options {
    bool copies = false;
    bool writable = false;  // sessions that can make keys
  };
  Token(Module module, TokenFacts facts, PinRecord& pin, Board& board, Options options);

  const Module& module() const { return module_; }
  const TokenFacts& facts() const { return facts_; }
  uint32_t recoveries() const { return recoveries_; }

  // Opens the anchor and logs in.
  Outcome<void> open(LoginMode mode);
  void logOut();  // and forgets the PIN
  // Finds and proves the keys. After open().
  Outcome<void> findKeys();
  // Only while no other thread is in run(): its keys, each with index and count.
  const std::vector<TokenKey>& keys() const { return keys_; }
  // A key that was just made, already proved.
  const TokenKey& add(TokenKey key);

  // From here on the token is gone when one of these is. Before other threads call.
  void watch(DatabaseFiles files) { files_ = std::move(files); }

  // How many lines can be had, at most `wanted`; opens their first sessions.
  std::vector<Line> openLines(size_t wanted);

  // Runs an operation with the line's session and the key. If the token isn't what it was, all sessions are dropped,
  // the token is logged in again, the keys are found anew, and the operation is tried once more. `key`: of keys();
  // without it the operation gets an empty one.
  using Operation = std::function<Outcome<void>(const Session&, const TokenKey&)>;
  Outcome<void> run(Line& line, std::optional<size_t> key, const Operation& operation);

  // The token couldn't be had back: this process has to end, for this reason.
  Status lost() const { return lost_; }

 private:
  Outcome<CK_SESSION_HANDLE> openSession();
  Outcome<void> attempt(Line& line, std::optional<size_t> key, const Operation& operation, uint64_t& generation);
  Outcome<void> recover(uint64_t seen);
  Outcome<void> openAnchor(LoginMode mode);
  Outcome<void> findAgain();
  Session inSession(CK_SESSION_HANDLE handle) const { return {module_, facts_.slot, handle}; }

  Module module_;
  TokenFacts facts_;
  PinRecord& pin_;
  Board& board_;
  Options options_;
  std::shared_mutex mutex_;  // shared: operations; alone: what changes sessions, login or handles
  CK_SESSION_HANDLE anchor_ = 0;
  bool loggedIn_ = false;
  uint64_t generation_ = 1;
  std::vector<TokenKey> keys_;
  DatabaseFiles files_;
  std::atomic<uint32_t> recoveries_ = 0;
  std::atomic<Status> lost_ = Status::Ok;
};

}  // namespace sallyport::hsmd
