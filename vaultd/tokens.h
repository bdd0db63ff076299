// tokens.h - all tokens of the configuration, and what the vault does when one comes or goes. Process: vaultd alone.
// docs/hsm.md. The keepers are started first of all, before a key is read and before the sandbox is entered: later the
// vault can start nothing. Tokens that a reload adds wait for a restart.
//
//   a key in a token     is proved when the token is up, and refused as hsmUnavailable while it isn't
//   a file that a token  is opened when the token is up, also later; locked again when the token is lost and its
//   opens                presence is "always"
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "vaultd/key_file.h"
#include "vaultd/token.h"

namespace sallyport::vaultd {

struct VaultState;
class VaultKey;

// What startKeepers() made of each [token.NAME].
using Keepers = std::map<std::string, Result<hsmlink::KeeperEnds, std::string>, std::less<>>;
// The only place from which the vault starts a program. Before anything is read or locked.
Keepers startKeepers(const Config& config);

class Tokens final : private Token::Observer {
 public:
  Tokens(EventLoop& loop, const Config& config, Keepers keepers);
  ~Tokens() noexcept(false) {}
  Tokens(const Tokens&) = delete;

  // Null if the configuration has none of this name.
  Token* find(std::string_view name) const;
  const std::map<std::string, std::unique_ptr<Token>, std::less<>>& all() const { return tokens_; }

  // From here on keys are opened, proved and locked. Before lock-down; `state` must outlive this.
  void attach(VaultState& state);
  // Turns the loop until each token is up, with what it opens open, or has said why not; at most so long, over all of
  // them. Nothing depends on it: who starts with a token that is well finds it up.
  void settle(uint64_t timeoutMs);
  // As `otherwise` opens a file that no token has opened, if there is another way; else it says how its tokens are.
  Unlocker unlocker(Unlocker otherwise) const;

  // A key was loaded or unlocked: its versions in tokens are to be proved.
  void want(const VaultKey& key);
  // Why the version can't be used now; empty if it can.
  std::string problemOf(const VaultKey& key, const KeyVersion& version) const;
  // Why none of the tokens that could has opened the key's file; empty if no token could.
  std::string whyNotOpened(const KeyHeader& header) const;
  // Those in the token, each version that is of use, and those whose file it opens.
  struct KeyState {
    std::string name;
    PublicKey publicKey;
    bool sealed = false;
    std::string problem, hint;  // empty: it can be used
  };
  std::vector<KeyState> keysOf(const Token& token) const;
  void panic();

 private:
  void onTokenUp(Token& token) override;
  void onTokenLost(Token& token) override;
  void onTokenEvent(const Token& token, std::string verb, std::string outcome, std::string note) override;
  void openBy(Token& token, const std::string& keyName, const Slot& slot);
  void notOpened(const Token& token, const std::string& keyName, std::string why);
  void tellMissing(const Token& token);
  std::string whyLocked(const VaultKey& key) const;

  EventLoop& loop_;
  VaultState* state_ = nullptr;
  size_t opening_ = 0;  // files that tokens have been asked to open
  // What was told to the log, so that it is once: by key and token, why the token doesn't open its file; and the keys
  // that aren't in their tokens.
  std::map<std::pair<std::string, std::string>, std::string> notOpened_;
  std::set<std::pair<std::string, PublicKey>> missing_;
  std::map<std::string, std::unique_ptr<Token>, std::less<>> tokens_;
};

}  // namespace sallyport::vaultd
