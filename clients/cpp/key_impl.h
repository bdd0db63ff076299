// key_impl.h - what stands behind Vault and Key, and how schema values become ours. Part of: libsallyport.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "clients/cpp/codes.h"
#include "clients/cpp/session.h"
#include "common/capnp_bytes.h"
#include "proto/vault.capnp.h"

namespace sallyport::client {

inline constexpr uint64_t APP = capnp::typeId<proto::App>();
inline constexpr uint64_t KEY = capnp::typeId<proto::Key>();

struct Vault::Impl {
  Impl(std::string path, Options options) : session(std::move(path), options) {}

  Session session;
};

// All members but the first four are guarded by the session's turn.
struct Key::Impl {
  using Clock = std::chrono::steady_clock;

  Impl(std::shared_ptr<Vault::Impl> owner, std::string keyName, std::vector<Verb> wanted,
       std::chrono::milliseconds askedLease)
      : vault(std::move(owner)), name(std::move(keyName)), wantedVerbs(std::move(wanted)), lease(askedLease) {}
  ~Impl();

  // Asks for the capability. Throws Error with the refusal.
  void acquire(Turn& turn, std::chrono::milliseconds leaseAsked);
  // The capability on this connection; asks for it if the connection is a new one.
  uint32_t capability(Turn& turn);
  // Runs `step` with the connection and the capability.
  template <typename Step>
  void run(Step&& step) {
    vault->session.run([&](Turn& turn) { step(turn, capability(turn)); });
  }

  const std::shared_ptr<Vault::Impl> vault;
  const std::string name;
  const std::vector<Verb> wantedVerbs;
  Handle handle;
  bool closed = false;
  std::vector<Verb> verbs;                                // granted
  std::chrono::milliseconds lease;                        // given
  Clock::time_point leaseEnd = Clock::time_point::max();  // of a lease that the program asked for
};

// --- conversions -----------------------------------------------------------------------------------------------------

template <size_t N>
std::array<std::byte, N> fixed(capnp::Data::Reader data) {
  if (data.size() != N) throw Error(Code::protocolError);
  std::array<std::byte, N> bytes;
  std::ranges::copy(toBytes(data), bytes.begin());
  return bytes;
}

inline std::string_view toText(View view) { return {reinterpret_cast<const char*>(view.bytes().data()), view.size()}; }
// Text::Reader insists on a NUL at the end, which a string_view doesn't promise.
inline kj::String toCapnp(std::string_view text) { return kj::heapString(text.data(), text.size()); }
inline std::string fromCapnp(capnp::Text::Reader text) { return {text.begin(), text.size()}; }

template <typename List>
std::vector<Verb> verbsOf(const List& list) {
  std::vector<Verb> verbs;
  for (const auto verb : list) verbs.push_back(static_cast<Verb>(verb));
  return verbs;
}

template <typename Params, typename Results, typename Fill, typename Take>
Call makeCall(uint64_t interfaceId, uint16_t method, std::optional<uint32_t> target, size_t bytes, Fill& fill,
              Take& take) {
  return Call{.interfaceId = interfaceId,
              .methodId = method,
              .target = target,
              .paramBytes = bytes,
              .fill = [&fill](capnp::AnyPointer::Builder params) { fill(params.initAs<Params>()); },
              .take = [&take](capnp::AnyPointer::Reader results,
                              std::optional<uint32_t> capability) { take(results.getAs<Results>(), capability); }};
}

}  // namespace sallyport::client
