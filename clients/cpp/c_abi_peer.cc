// c_abi_peer.cc - the channels of include/sallyport.h over sallyport/peer.h. Part of: libsallyport (the caller's
// process).
#include "clients/cpp/c_guard.h"
#include "clients/cpp/include/sallyport.h"
#include "clients/cpp/include/sallyport/peer.h"

namespace client = sallyport::client;
using namespace sallyport::client::c_abi;

struct sallyport_peer_channel {
  client::PeerChannel channel;
};
struct sallyport_peer_listener {
  client::PeerListener listener;
};

namespace sallyport::client::c_abi {

namespace {
thread_local std::string lastFailure;
}

int failed(Code code, const char* text) noexcept {
  try {
    lastFailure = text;
  } catch (...) { lastFailure.clear(); }
  return static_cast<int>(code);
}
const char* lastError() noexcept { return lastFailure.c_str(); }

}  // namespace sallyport::client::c_abi

namespace {

constexpr uint32_t DEFAULT_TIMEOUT_MS = 10'000;

client::Options optionsOf(uint32_t timeoutMs) {
  client::Options options;
  options.timeout = std::chrono::milliseconds(timeoutMs != 0 ? timeoutMs : DEFAULT_TIMEOUT_MS);
  return options;
}

}  // namespace

int sallyport_peer_connect(const char* path, const char* name, uint32_t timeout_ms, sallyport_peer_channel** channel) {
  return guarded([&] {
    require(path != nullptr && name != nullptr && channel != nullptr);
    *channel = nullptr;
    *channel = new sallyport_peer_channel{client::PeerChannel::connect(path, name, optionsOf(timeout_ms))};
  });
}

int sallyport_peer_listen(const char* path, const char* name, uint32_t timeout_ms, sallyport_peer_listener** listener) {
  return guarded([&] {
    require(path != nullptr && name != nullptr && listener != nullptr);
    *listener = nullptr;
    *listener = new sallyport_peer_listener{client::PeerListener::listen(path, name, optionsOf(timeout_ms))};
  });
}

int sallyport_peer_accept(sallyport_peer_listener* listener, uint32_t timeout_ms, sallyport_peer_channel** channel) {
  return guarded([&] {
    require(listener != nullptr && channel != nullptr);
    *channel = nullptr;
    *channel = new sallyport_peer_channel{listener->listener.accept(std::chrono::milliseconds(timeout_ms))};
  });
}

void sallyport_peer_unlisten(sallyport_peer_listener** listener) {
  if (listener != nullptr) delete std::exchange(*listener, nullptr);
}

int sallyport_peer_send(sallyport_peer_channel* channel, const void* data, size_t size, uint32_t code) {
  return guarded([&] {
    require(channel != nullptr && readable(data, size));
    channel->channel.send(viewOf(data, size), code);
  });
}

int sallyport_peer_set_send_timeout(sallyport_peer_channel* channel, uint32_t timeout_ms) {
  return guarded([&] {
    require(channel != nullptr);
    channel->channel.setSendTimeout(std::chrono::milliseconds(timeout_ms));
  });
}

int sallyport_peer_receive(sallyport_peer_channel* channel, void* buffer, size_t size, uint32_t timeout_ms,
                           sallyport_peer_received* received) {
  return guarded([&] {
    require(channel != nullptr && received != nullptr && readable(buffer, size));
    *received = {};
    const auto got =
        channel->channel.receive({static_cast<std::byte*>(buffer), size}, std::chrono::milliseconds(timeout_ms));
    received->size = got.bytes;
    received->code = got.code;
    received->status = static_cast<int>(got.status);
    received->needed = got.needed;
    got.reason.copy(received->reason, sizeof received->reason - 1);
  });
}

int sallyport_peer_finish(sallyport_peer_channel* channel) {
  return guarded([&] {
    require(channel != nullptr);
    channel->channel.finish();
  });
}

void sallyport_peer_close(sallyport_peer_channel** channel) {
  if (channel == nullptr || *channel == nullptr) return;
  (*channel)->channel.close();
  delete std::exchange(*channel, nullptr);
}

void sallyport_peer_abandon(sallyport_peer_channel** channel) {
  if (channel != nullptr) delete std::exchange(*channel, nullptr);
}

const char* sallyport_peer_status_name(int status) { return client::name(static_cast<client::PeerStatus>(status)); }
