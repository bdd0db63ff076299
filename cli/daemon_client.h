// daemon_client.h - one connection to vaultd's admin socket or to netd's socket. Part of: cli.
// A daemon that is not there, may not be asked, or doesn't answer is an ordinary answer here: text for people, to
// follow the daemon's name.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/config.h"
#include "common/event_loop.h"
#include "common/result.h"
#include "common/rpc.h"
#include "proto/net.capnp.h"
#include "proto/vault_admin.capnp.h"
#include "vaultd/problem.h"

namespace sallyport::cli {

inline constexpr uint32_t ANSWER_TIMEOUT_MS = 5000;

// `promise`, or an exception when it takes longer.
template <typename T>
kj::Promise<T> within(EventLoop& loop, uint32_t timeoutMs, kj::Promise<T> promise) {
  return promise.exclusiveJoin(loop.timer().afterDelay(timeoutMs * kj::MILLISECONDS).then([]() -> kj::Promise<T> {
    return KJ_EXCEPTION(OVERLOADED, "no answer in time");
  }));
}

class DaemonClient {
 public:
  // The problem says why not, e.g. "is not running: there is no run/net.sock".
  static Result<std::unique_ptr<DaemonClient>, vaultd::Problem> connect(EventLoop& loop,
                                                                        const std::filesystem::path& socket);

  template <typename Interface>
  typename Interface::Client as() {
    return rpc_->bootstrap().castAs<Interface>();
  }

  bool disconnected() const { return disconnected_; }

 private:
  DaemonClient() = default;

  bool disconnected_ = false;
  std::unique_ptr<RpcClient> rpc_;
};

// What went wrong with a call, in words for people.
std::string describeFailure(const kj::Exception& failure);

// Waits for the answer of one call at most ANSWER_TIMEOUT_MS. The error is text for people.
template <typename Results>
Result<capnp::Response<Results>, std::string> answerOf(EventLoop& loop, capnp::RemotePromise<Results> call,
                                                       uint32_t timeoutMs = ANSWER_TIMEOUT_MS) {
  try {
    kj::Promise<capnp::Response<Results>> promise = kj::mv(call);
    return loop.await(within(loop, timeoutMs, kj::mv(promise)));
  } catch (const kj::Exception& failure) { return refuse(describeFailure(failure)); }
}

// What a reload changed, or why it was refused: by the vault, then by netd.
struct ReloadOutcome {
  bool done = false;
  std::string text;
  std::string hint{};    // not done: what to do about it; may be empty
  bool restart = false;  // done, but some of it is in force only after the daemon's next start
  bool absent = false;   // not done, and nobody listens
};
ReloadOutcome reloadVault(EventLoop& loop, const std::filesystem::path& adminSocket, std::string_view configText);
// Hands netd the same text in a memfd: since it gave up root it may be unable to read the file (netd/reload_socket.h).
ReloadOutcome reloadNet(const std::filesystem::path& adminSocket, std::string_view configText);
// What of `config`, which the vault has just taken up, waits for the vault's restart: a line for each key that isn't
// loaded.
std::vector<std::string> keysNotLoaded(EventLoop& loop, const std::filesystem::path& adminSocket, const Config& config);

}  // namespace sallyport::cli
