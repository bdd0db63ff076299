// vault_box.h - a NaCl box made and opened by the running vault, for this user, as a [[grant]] permits. Part of: cli.
// The long-term key stays where it is; works with keys in tokens too.
#pragma once

#include <filesystem>
#include <memory>

#include "cli/daemon_client.h"
#include "cli/pair_texts.h"

namespace sallyport::cli {

class VaultBox {
 public:
  // `socket` is [vault] socket. `key` is ours, `peer` a name of [peers]. `loop` must outlive this.
  static Result<VaultBox, vaultd::Problem> open(EventLoop& loop, const std::filesystem::path& socket, std::string key,
                                                std::string peer, const PublicKey& peerKey);

  Result<SealedText, vaultd::Problem> seal(std::string_view text);
  // Only a box that this peer made for our key.
  Result<vaultd::SecretText, vaultd::Problem> openFrom(const SealedText& sealed);

  const PublicKey& ownKey() const { return ownKey_; }

 private:
  VaultBox(EventLoop& loop, std::string key, std::string peer, const PublicKey& peerKey)
      : loop_(&loop), keyName_(std::move(key)), peer_(std::move(peer)), peerKey_(peerKey) {}
  vaultd::Problem refused(proto::Refusal refusal, std::string_view verb) const;

  EventLoop* loop_;
  std::string keyName_;
  std::string peer_;
  PublicKey peerKey_;
  PublicKey ownKey_;
  std::unique_ptr<DaemonClient> client_;
  proto::Key::Client key_ = nullptr;
};

}  // namespace sallyport::cli
