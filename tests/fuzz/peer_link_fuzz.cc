// peer_link_fuzz.cc - netd's Link of the peer protocol. Goal: whatever a peer writes, in whatever pieces, the Link says
// a reason or gives out genuine frames in order, and no byte of another nor any behind the end. Method: the input is a
// script: frames of a peer that holds the block, cut into pieces, some with a bit changed; what comes out is compared
// with what went in.
#include <sys/socket.h>
#include <unistd.h>

#include <deque>

#include "netd/peer_link.h"
#include "peer/hard_keys.h"

namespace {

using namespace sallyport;

constexpr uint32_t MAX_FRAME = 300'000;
// Bytes of the script that stand for the two things that the reserved code carries.
constexpr uint8_t END = 255;
constexpr uint8_t OPEN = 254;

struct Script {
  ByteSpan bytes;
  uint8_t next() {
    if (bytes.empty()) return 0;
    const auto value = static_cast<uint8_t>(bytes.front());
    bytes = bytes.subspan(1);
    return value;
  }
};

template <typename Secret>
Secret secretOf(uint8_t value) {
  std::array<std::byte, wire::PEER_SECRET_BYTES> bytes;
  bytes.fill(std::byte{value});
  return Secret(bytes);
}

bool sawLateOpen = false;

}  // namespace

extern "C" const char* fuzzUnreached() { return sawLateOpen ? nullptr : "an open behind the end"; }

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static netd::Stats stats;
  static netd::Ciphers ciphers;
  static peer::FrameCipher theirs;
  static std::array<std::byte, netd::SCRATCH_BYTES> scratch;
  Script script{std::as_bytes(std::span(data, size))};
  netd::BufferBudget budget(stats);
  const uint32_t rotate = 1 + script.next() % 7;
  netd::PeerLink link(peer::hardSealer(secretOf<peer::SendSecret>(1), wire::PeerParty::B, rotate),
                      peer::hardOpener(secretOf<peer::ReceiveSecret>(2), wire::PeerParty::B, MAX_FRAME, rotate), 1);
  auto sealer = peer::hardSealer(secretOf<peer::SendSecret>(2), wire::PeerParty::A, rotate);
  int ends[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
  std::deque<std::vector<std::byte>> expected;
  bool changed = false;
  bool ended = false;  // nothing that is sent is expected any more
  bool dead = false;
  const auto readSome = [&] {
    for (int i = 0; i < 64 && !dead; ++i) {
      const auto read = link.read(ends[1], scratch, 1 + i % 4, false, budget);
      if (read.bytes.empty()) break;
      const auto fault = link.openEach(ciphers, read, budget, [&](const netd::OpenedFrame& opened) {
        CHECK(!expected.empty());
        CHECK(std::ranges::equal(opened.text, expected.front()));
        CHECK(opened.frame.size() == opened.text.size() + netd::PeerLink::AROUND_BYTES);
        expected.pop_front();
        return std::optional<wire::DropReason>();
      });
      link.done(budget);
      dead = fault.has_value();
      CHECK(!dead || changed || (ended && *fault == wire::DropReason::AfterEnd));
    }
  };
  while (!script.bytes.empty() && !dead) {
    size_t length = script.next();
    if (length >= 250) length = length * size_t{1100};
    const uint8_t fill = script.next();
    uint32_t code = script.next();
    const bool isEnd = code == END;
    const bool isOpen = code == OPEN;
    if (isEnd) length = 0;
    if (isOpen) length = wire::PEER_OPEN_TEXT.size();
    std::vector<std::byte> text(length, std::byte{fill});
    if (isOpen) std::ranges::copy(asBytes(wire::PEER_OPEN_TEXT), text.begin());
    if (isEnd || isOpen) code = wire::PEER_CODE_CONTROL;
    std::vector<std::byte> frame(length + netd::PeerLink::AROUND_BYTES);
    std::ranges::copy(text, frame.begin() + netd::PeerLink::HEAD_BYTES);
    CHECK(!sealer.seal(theirs, frame, code));
    const bool late = ended;
    if (!late && !isOpen) expected.push_back(std::move(text));
    ended = ended || isEnd;
    if (script.next() == 7) {
      frame[script.next() % frame.size()] ^= std::byte{1};
      changed = true;
    }
    for (ByteSpan rest(frame); !rest.empty() && !dead;) {
      // Where the script is over, the rest comes whole: byte by byte a large frame took a second.
      const size_t wanted = script.bytes.empty() ? rest.size() : 1 + script.next() * size_t{300};
      const size_t piece = std::min(rest.size(), wanted);
      const ssize_t sent = write(ends[0], rest.data(), piece);
      if (sent > 0) rest = rest.subspan(static_cast<size_t>(sent));
      readSome();
    }
    CHECK(!late || dead);
    sawLateOpen = sawLateOpen || (late && isOpen && !changed);
  }
  CHECK(changed || expected.empty());
  link.clear(budget);
  CHECK(stats.get(netd::Counter::BufferBytes) == 0);
  close(ends[0]);
  close(ends[1]);
  return 0;
}
