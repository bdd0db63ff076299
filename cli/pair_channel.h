// pair_channel.h - a message channel of our netd for a few short texts, one after the other. Part of: cli. What it
// carries is sealed: netd reads no secret. A peer that says nothing is waited for, but not for ever.
#pragma once

#include <memory>
#include <string>

#include "cli/daemon_client.h"
#include "vaultd/problem.h"

namespace sallyport::cli {

class PairChannel {
 public:
  // `loop` must outlive them. Through a [[connect]] entry; or the next one that comes in by a [[listen]] entry.
  static Result<PairChannel, vaultd::Problem> connect(EventLoop& loop, const Config& config, const std::string& entry);
  static Result<PairChannel, vaultd::Problem> accept(EventLoop& loop, const Config& config, const std::string& entry,
                                                     int64_t waitS);

  Result<void, vaultd::Problem> send(std::string_view text);
  Result<std::string, vaultd::Problem> receive();
  // Sends what is queued.
  void close();

  // accept: the name in [peers] of who connected.
  const std::string& peer() const { return peer_; }

 private:
  PairChannel(EventLoop& loop, std::unique_ptr<DaemonClient> client) : loop_(&loop), client_(std::move(client)) {}

  EventLoop* loop_;
  std::unique_ptr<DaemonClient> client_;
  proto::Channel::Client channel_ = nullptr;
  std::string peer_;
};

}  // namespace sallyport::cli
