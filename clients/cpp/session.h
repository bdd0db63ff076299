// session.h - a connection that comes back: what a Vault and its Keys share. Part of: libsallyport (the caller's
// process).
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "clients/cpp/wire.h"

namespace sallyport::client {

// An imported capability, and the connection that it is of.
struct Handle {
  uint64_t connection = 0;  // 0: none
  uint32_t id = 0;
};

// What a call may use while it has the connection.
class Turn {
 public:
  Turn(Wire& wire, uint64_t connection) : wire_(wire), connection_(connection) {}

  void askAll(std::span<Call> calls) { wire_.askAll(calls); }
  void ask(Call call) { askAll({&call, 1}); }
  uint64_t connection() const { return connection_; }
  bool holds(const Handle& handle) const { return handle.connection == connection_; }
  void release(const Handle& handle) {
    if (holds(handle)) wire_.release(handle.id);
  }

 private:
  Wire& wire_;
  uint64_t connection_;
};

// Thread-safe: calls take turns.
class Session {
 public:
  Session(std::string path, Options options) : path_(std::move(path)), options_(options) {}

  // Runs `step` with the connection, a new one if the old one has ended. Throws Error.
  template <typename Step>
  auto run(Step&& step) {
    const std::lock_guard lock(mutex_);
    Turn turn = begin();
    return step(turn);
  }
  // Runs `step` if the session is open and still connected; else nothing.
  template <typename Step>
  void runIfConnected(Step&& step) {
    const std::lock_guard lock(mutex_);
    if (closed_ || !wire_ || !wire_->alive()) return;
    Turn turn(*wire_, connections_);
    step(turn);
  }
  // Runs `step`, which touches what the session's turn guards and asks nothing.
  template <typename Step>
  auto guarded(Step&& step) {
    const std::lock_guard lock(mutex_);
    return step();
  }
  // Gives a capability back, with the next call if one is under way. Never waits.
  void releaseLater(Handle handle) noexcept;
  void close() noexcept;

 private:
  Turn begin();
  void sendReleases(Turn& turn) noexcept;

  const std::string path_;
  const Options options_;
  std::mutex mutex_;
  std::unique_ptr<Wire> wire_;
  uint64_t connections_ = 0;
  bool closed_ = false;
  std::mutex releasesMutex_;  // taken last, held for a moment
  std::vector<Handle> releases_;
};

}  // namespace sallyport::client
