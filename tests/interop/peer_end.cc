// peer_end.cc - one party of the peer protocol on standard input and output, that returns what it gets. Part of:
// tests/interop. What peer/endpoint gives a program, over two descriptors: the Python implementation is at the other
// end.
//
// usage: peer_end base|hard A|B BLOCK_HEX ROTATE_FRAMES MAX_FRAME_BYTES FRAME_BYTES
// Ends with 0 after an end of the peer's, with 3 after a fault, whose name is then the last word on standard error.
#include <poll.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "peer/block_keys.h"
#include "peer/endpoint.h"
#include "peer/preamble.h"

namespace sallyport::peer {
namespace {

constexpr uint32_t PATIENCE_MS = 20000;
constexpr size_t BUFFER_BYTES = size_t{4} << 20;

class StandardIo final : public Transport {
 public:
  Io read(MutableByteSpan bytes) override {
    return moved(ready(STDIN_FILENO, POLLIN) ? ::read(STDIN_FILENO, bytes.data(), bytes.size()) : -1);
  }
  // No more than a pipe takes without waiting when poll says so.
  Io write(ByteSpan bytes) override {
    return moved(ready(STDOUT_FILENO, POLLOUT)
                     ? ::write(STDOUT_FILENO, bytes.data(), std::min<size_t>(bytes.size(), 4096))
                     : -1);
  }
  void wait(bool toRead, bool toWrite, uint64_t untilMs) override {
    pollfd fds[] = {{toRead ? STDIN_FILENO : -1, POLLIN, 0}, {toWrite ? STDOUT_FILENO : -1, POLLOUT, 0}};
    const uint64_t now = nowMs();
    if (untilMs > now) poll(fds, 2, static_cast<int>(untilMs - now));
  }
  uint64_t nowMs() override {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1000 + static_cast<uint64_t>(now.tv_nsec) / 1000000;
  }

 private:
  static bool ready(int fd, short events) {
    errno = EAGAIN;
    pollfd one{fd, events, 0};
    return poll(&one, 1, 0) == 1;
  }
  static Io moved(ssize_t count) {
    if (count > 0) return {Io::State::Done, static_cast<size_t>(count)};
    if (count == 0) return {Io::State::Ended};
    return {errno == EAGAIN || errno == EINTR ? Io::State::Blocked : Io::State::Failed};
  }
};

[[noreturn]] void end(int status, std::string_view why) {
  std::fprintf(stderr, "peer_end: %.*s\n", static_cast<int>(why.size()), why.data());
  std::exit(status);
}

// Our preamble goes out at once; the peer's is waited for.
wire::PeerSalt exchange(StandardIo& io, wire::PeerParty own, const wire::PeerSalt& salt) {
  Preamble preamble(own, salt);
  if (write(STDOUT_FILENO, preamble.outgoing().data(), preamble.outgoing().size()) !=
      static_cast<ssize_t>(wire::PEER_PREAMBLE_BYTES))
    end(3, wire::name(wire::DropReason::TransportError));
  const uint64_t untilMs = io.nowMs() + PATIENCE_MS;
  while (!preamble.complete()) {
    std::byte one;
    const auto read = io.read({&one, 1});
    if (read.state == Transport::Io::State::Blocked) {
      if (io.nowMs() >= untilMs) end(3, wire::name(wire::DropReason::HandshakeTimeout));
      io.wait(true, false, untilMs);
    } else if (read.state != Transport::Io::State::Done) {
      end(3, wire::name(wire::DropReason::ClosedInHandshake));
    } else if (const auto taken = preamble.arrived({&one, 1}); !taken) {
      end(3, wire::name(taken.error()));
    }
  }
  return preamble.peerSalt();
}

void echo(Endpoint& endpoint, bool hard) {
  std::vector<std::byte> buffer(BUFFER_BYTES);
  for (;;) {
    Received received = endpoint.receive(buffer, 0);
    // Nothing yet: as soon as there is anything.
    if (received.frames == 0 && received.status == Status::SlowPeer) received = endpoint.receive({}, PATIENCE_MS);
    if (received.frames > 0) {
      const Sent sent = endpoint.send(ByteSpan(buffer).first(received.bytes), received.code, PATIENCE_MS);
      if (sent.status != Status::Ok) end(3, sent.fault ? wire::name(*sent.fault) : "slow peer");
    }
    switch (received.status) {
      case Status::Ok: break;
      case Status::TooBig: break;  // of a receive without a buffer: something is there
      case Status::SlowPeer:
        if (received.frames == 0) end(3, "slow peer");
        break;
      case Status::Ended:
        if (hard) endpoint.sendEnd(PATIENCE_MS);
        return;
      case Status::Closed: return;
      case Status::Broken: end(3, wire::name(*received.fault));
    }
  }
}

int run(char** argv) {
  const bool hard = argv[1] == std::string_view("hard");
  const auto own = argv[2] == std::string_view("A") ? wire::PeerParty::A : wire::PeerParty::B;
  const auto block = fromHex(argv[3]);
  if (!block || block->size() != wire::PEER_BLOCK_BYTES) end(2, "not a block");
  const PeerBlockView view(block->data(), wire::PEER_BLOCK_BYTES);
  const auto rotate = static_cast<uint32_t>(std::strtoul(argv[4], nullptr, 10));
  const auto limit = static_cast<uint32_t>(std::strtoul(argv[5], nullptr, 10));
  const auto frameBytes = static_cast<uint32_t>(std::strtoul(argv[6], nullptr, 10));

  FrameCipher cipher;
  StandardIo io;
  if (!hard) {
    Endpoint endpoint(baseSealer(view, own, rotate), baseOpener(view, own, limit, rotate), cipher, io, frameBytes);
    echo(endpoint, hard);
    return 0;
  }
  wire::PeerSalt salt;
  fillRandom(salt.mutableSpan());
  const wire::PeerSalt theirs = exchange(io, own, salt);
  Endpoint endpoint(hardSealer(hardSendSecret(view, own, salt, theirs), own, rotate),
                    hardOpener(hardReceiveSecret(view, own, salt, theirs), own, limit, rotate), cipher, io, frameBytes);
  echo(endpoint, hard);
  return 0;
}

}  // namespace
}  // namespace sallyport::peer

int main(int argc, char** argv) {
  if (argc != 7) return 2;
  return sallyport::peer::run(argv);
}
