// wire.h - a connection to the vault that speaks just as much of Cap'n Proto's RPC as a blocking caller needs.
// Part of: libsallyport (the caller's process). What must never happen here: an answer taken for another question's.
//
// Why not the RPC system of libcapnp-rpc (docs/decisions/0012-clients-without-a-loop.md): it needs an event loop on the
// calling thread or a thread of its own, and a library has no right to either. A caller that waits needs Bootstrap,
// Call, Return, Finish and Release: they are here, over the framing of common/frame.h.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <capnp/any.h>

#include "clients/cpp/include/sallyport/vault.h"
#include "common/bytes.h"
#include "common/frame.h"

namespace sallyport::client {

// One question. `target`: an imported capability, or none for the connection's bootstrap (App).
struct Call {
  uint64_t interfaceId = 0;
  uint16_t methodId = 0;
  std::optional<uint32_t> target = std::nullopt;
  size_t paramBytes = 0;  // about; so that the message is one segment
  std::function<void(capnp::AnyPointer::Builder params)> fill = nullptr;
  // Results, and the first capability in them if there is one: the taker owes a release() for it.
  std::function<void(capnp::AnyPointer::Reader results, std::optional<uint32_t> capability)> take = nullptr;
};

// Not thread-safe: its owner locks. After an exception other than from askAll's answers it is dead: make a new one.
class Wire {
 public:
  // Throws Error cantConnect.
  Wire(const std::string& path, std::chrono::milliseconds timeout);
  ~Wire();
  Wire(const Wire&) = delete;
  Wire& operator=(const Wire&) = delete;

  // False: nobody is there any more, or the process has forked since. Nothing is waited for.
  bool alive();
  // Sends all calls, at most WINDOW ahead of their answers, and gives each answer to its `take`. Waits at most the
  // timeout for each next answer. Throws the first call's Error that was answered with an exception, when all have been
  // answered; or disconnected, timedOut, protocolError at once: then the wire is dead.
  // `patience` is added to that: what the other side may wait itself.
  void askAll(std::span<Call> calls, std::chrono::milliseconds patience = {}) {
    askAllWithin(calls, timeout_ + patience);
  }
  // The same with a time of its own for each next answer.
  void askAllWithin(std::span<Call> calls, std::chrono::milliseconds wait);
  // Ends the connection for netd too, whoever else holds it: a child that was forked has a copy.
  void hangUp() noexcept;
  static constexpr std::chrono::milliseconds FOR_EVER{int64_t{100} * 365 * 86'400'000};
  // Gives an imported capability back. Never waits, never throws: a wire that can't take it is dying.
  void release(uint32_t capability) noexcept;

 private:
  using Clock = std::chrono::steady_clock;

  void encode(size_t paramBytes, const std::function<void(capnp::MessageBuilder&)>& build);
  void sendBootstrap();
  void sendCall(uint32_t question, const Call& call);
  void sendFinish(uint32_t question);
  void flush();
  void waitUntil(Clock::time_point deadline);
  void receive();
  std::unique_ptr<OwnedMessage> nextMessage();
  [[noreturn]] void die(Code code, const std::string& detail = {});

  int fd_ = -1;
  bool dead_ = false;
  int owner_ = 0;  // the process that connected
  std::chrono::milliseconds timeout_;
  std::vector<std::byte> out_;
  size_t outStart_ = 0;
  std::vector<std::byte> in_;
  size_t inStart_ = 0;
};

}  // namespace sallyport::client
