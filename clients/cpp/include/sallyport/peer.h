// peer.h - channels of the peer protocol, through this host's netd. Part of: libsallyport (the caller's process).
// The contract behind it is PeerChannel in proto/net.capnp and docs/protocol.md §13.4. The library has no key and does
// no cryptography: netd does, and gives out what it proved genuine.
//
//     auto channel = sallyport::client::PeerChannel::connect("/run/sallyport/net/net.sock", "db");
//     channel.send("how are you", 7);
//     std::array<std::byte, 4096> buffer;
//     const auto got = channel.receive(buffer, std::chrono::seconds(5));   // got.bytes, got.code, got.status
//
// **Blocking and simple.** One object, one thread at a time, as the protocol's document has it: a second thread that
// calls while a call is under way gets badArgument. Each channel has a connection to netd of its own.
//
// **Ends.** `ended` is the peer's authenticated end; any other end is `broken`, with a reason by name. What was genuine
// before comes first. A channel that is destroyed without close() has no end: the peer sees it broken.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include <sallyport/vault.h>

namespace sallyport::client {

enum class PeerStatus : int {
  complete = 0,  // the whole buffer, or all whole frames of one code that fit
  slowPeer = 1,  // the time is over; what half a frame there is stays for the next call
  tooBig = 2,    // the first frame is larger than the buffer: `needed` says how large. Nothing is lost
  ended = 3,     // the peer's authenticated end, after `bytes`
  broken = 4,    // after `bytes` the connection failed: `reason` is the drop reason's name, or send_given_up or
                 // receive_given_up after a call that threw timedOut. Each later call says it again
};
const char* name(PeerStatus status) noexcept;

struct PeerReceived {
  size_t bytes = 0;  // at the beginning of the buffer, all of them genuine, whatever the status is
  uint32_t code = 0;
  PeerStatus status = PeerStatus::complete;
  uint32_t needed = 0;
  std::string reason;
};

inline constexpr std::chrono::milliseconds FOR_EVER{0};

class PeerChannel {
 public:
  // Through the [[connect]] entry `name` of the netd behind `path`. Throws timedOut when netd has no channel after
  // options.timeout: when the peer is slow, too.
  static PeerChannel connect(const std::string& path, std::string_view name, Options options = {});
  PeerChannel(PeerChannel&&) noexcept;
  PeerChannel& operator=(PeerChannel&&) noexcept;
  ~PeerChannel();

  // Any size, in frames of one code; nothing is one empty frame. Returns when netd has handed it all to the kernel: a
  // peer that doesn't read delays that, without a limit, as a blocking socket does. While it waits, netd reads what the
  // peer sends, up to max_frame_bytes and at least 1 MiB. If both sides send more than that (and than the sockets take)
  // and receive nothing, both wait without end: receive meanwhile, or set a limit. Throws `broken` with the reason;
  // netReservedCode and netClosed (behind finish()), and the channel goes on; disconnected: netd has ended, and the
  // channel with it; timedOut: the limit of setSendTimeout() is over.
  void send(View data, uint32_t code = 0);
  // A limit for send() and finish(); FOR_EVER, as at first: none. It counts from the last progress: that netd handed up
  // to 64 KiB to the kernel, which takes more when about a third of its buffer (some MiB at most) is free again. Then
  // the call throws timedOut and the channel is broken: the peer sees it truncated at once, what it sent and receive()
  // didn't take is lost, and each later call tells send_given_up.
  void setSendTimeout(std::chrono::milliseconds timeout);
  // Fills the buffer from whole frames of one code. A frame without a payload is given out alone.
  PeerReceived receive(std::span<std::byte> buffer, std::chrono::milliseconds timeout = FOR_EVER);
  // Our direction's authenticated end: nothing can be sent after it, and receiving goes on. Waits, and throws, as
  // send().
  void finish();
  // Sends the end, if finish() didn't, and closes. A second time: nothing.
  void close() noexcept;

  const std::string& address() const;  // of an accepted one: where the peer connected from

  struct Impl;

 private:
  friend class PeerListener;
  explicit PeerChannel(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Takes part in accepting the channels of a [[listen]] entry with protocol "peer" and service "channel".
class PeerListener {
 public:
  static PeerListener listen(const std::string& path, std::string_view name, Options options = {});
  PeerListener(PeerListener&&) noexcept;
  PeerListener& operator=(PeerListener&&) noexcept;
  ~PeerListener();

  // The next channel. Throws netTimedOut.
  PeerChannel accept(std::chrono::milliseconds timeout = FOR_EVER);

  struct Impl;

 private:
  explicit PeerListener(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sallyport::client
