// peer_end.cc - one party of the peer protocol on standard input and output, that returns what it gets. Part of:
// tests/interop. What peer/endpoint gives a program, over two descriptors: the Python implementation is at the other
// end.
//
// usage: peer_end base|hard A|B BLOCK_HEX ROTATE_FRAMES MAX_FRAME_BYTES FRAME_BYTES FIRST_NUMBER
// FIRST_NUMBER is that of the first frame, both ways: 1, or more to see the sequence wrap around.
// Ends with 0 after an end of the peer's, with 3 after a fault, whose name is then the last word on standard error.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "peer/block_keys.h"
#include "peer/endpoint.h"
#include "peer/preamble.h"
#include "tests/unit/peer/descriptor_transport.h"

namespace sallyport::peer {
namespace {

constexpr uint32_t PATIENCE_MS = 20000;
constexpr size_t BUFFER_BYTES = size_t{4} << 20;

[[noreturn]] void end(int status, std::string_view why) {
  std::fprintf(stderr, "peer_end: %.*s\n", static_cast<int>(why.size()), why.data());
  std::exit(status);
}

// Our preamble goes out at once; the peer's is waited for.
wire::PeerSalt exchange(test::DescriptorTransport& io, wire::PeerParty own, const wire::PeerSalt& salt) {
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

int serve(char** argv) {
  const bool hard = argv[1] == std::string_view("hard");
  const auto own = argv[2] == std::string_view("A") ? wire::PeerParty::A : wire::PeerParty::B;
  const auto block = fromHex(argv[3]);
  if (!block || block->size() != wire::PEER_BLOCK_BYTES) end(2, "not a block");
  const PeerBlockView view(block->data(), wire::PEER_BLOCK_BYTES);
  const auto rotate = static_cast<uint32_t>(std::strtoul(argv[4], nullptr, 10));
  const auto limit = static_cast<uint32_t>(std::strtoul(argv[5], nullptr, 10));
  const auto frameBytes = static_cast<uint32_t>(std::strtoul(argv[6], nullptr, 10));
  const uint64_t first = std::strtoull(argv[7], nullptr, 10);

  FrameCipher cipher;
  test::DescriptorTransport io(STDIN_FILENO, STDOUT_FILENO);
  const auto run = [&](FrameSealer sealer, FrameOpener opener) {
    sealer.skipToNumber(first);
    opener.skipToNumber(first);
    Endpoint endpoint(std::move(sealer), std::move(opener), cipher, io, frameBytes);
    echo(endpoint, hard);
    return 0;
  };
  if (!hard) return run(baseSealer(view, own, rotate), baseOpener(view, own, limit, rotate));
  wire::PeerSalt salt;
  fillRandom(salt.mutableSpan());
  const wire::PeerSalt theirs = exchange(io, own, salt);
  return run(hardSealer(hardSendSecret(view, own, salt, theirs), own, rotate),
             hardOpener(hardReceiveSecret(view, own, salt, theirs), own, limit, rotate));
}

}  // namespace
}  // namespace sallyport::peer

int main(int argc, char** argv) {
  if (argc != 8) return 2;
  return sallyport::peer::serve(argv);
}
