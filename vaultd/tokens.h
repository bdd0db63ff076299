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
#include <string>
#include <string_view>

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

  // Turns the loop until each token is up or has said why not, at most so long. Before lock-down.
  void settle(uint64_t timeoutMs);
  // Lets a token open a file, the one that it names first; else as `otherwise` does if it has another way. Turns the
  // loop: for Keyring::load().
  Unlocker unlocker(Unlocker otherwise);

  // From here on keys are opened, proved and locked. Before lock-down; `state` must outlive this.
  void attach(VaultState& state);
  // A key was loaded or unlocked: its versions in tokens are to be proved.
  void want(const VaultKey& key);
  // Why the version can't be used now; empty if it can.
  std::string problemOf(const VaultKey& key, const KeyVersion& version) const;
  void panic();

 private:
  void onTokenUp(Token& token) override;
  void onTokenLost(Token& token) override;
  void onTokenEvent(const Token& token, std::string verb, std::string outcome, std::string note) override;
  void openBy(Token& token, const std::string& keyName, const Slot& slot);

  EventLoop& loop_;
  VaultState* state_ = nullptr;
  std::map<std::string, std::unique_ptr<Token>, std::less<>> tokens_;
};

}  // namespace sallyport::vaultd
