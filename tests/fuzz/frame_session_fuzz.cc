// Goal: whatever happens to a stream of frames on its way, its reader delivers a beginning of what was sent.
// Method: the input is a script: messages are sealed, the bytes between are cut, changed, doubled, reflected, and
// delivered in pieces through a socket to the product's reader and session.
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "netd/frame_reader.h"
#include "tests/fuzz/input.h"
#include "tests/sim/dice.h"

using namespace sallyport;
using netd::ReadState;

namespace {

constexpr size_t MAX_SENT_BYTES = 160 * 1024;

netd::SharedKey theKey() {
  std::array<std::byte, wire::KEY_BYTES> bytes;
  bytes.fill(std::byte{0x42});
  return netd::SharedKey(bytes);
}

struct Script {
  explicit Script(netd::MessageCipher& messageCipher) : cipher(messageCipher), budget(stats) {
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sockets.data()) == 0);
  }
  ~Script() {
    reader.clear(budget);
    CHECK(stats.get(netd::Counter::BufferBytes) == 0);
    for (const int fd : sockets) close(fd);
  }

  std::vector<std::byte> seal(netd::Session& session, ByteSpan text) {
    std::vector<std::byte> frame(netd::MESSAGE_TEXT_OFFSET);
    frame.insert(frame.end(), text.begin(), text.end());
    CHECK(!session.seal(cipher, frame));
    return frame;
  }

  void deliver(size_t bytes) {
    bytes = std::min(bytes, stream.size());
    const ssize_t done = send(sockets[1], stream.data(), bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (done > 0) stream.erase(stream.begin(), stream.begin() + done);
  }

  void read(size_t frames, bool untilEof) {
    static std::array<std::byte, netd::SCRATCH_BYTES> scratch;
    for (;;) {
      const auto outcome = reader.read(sockets[0], scratch, frames, untilEof, budget);
      netd::forEachPacket(outcome.bytes, [&](MutableByteSpan packet) -> std::optional<wire::DropReason> {
        const auto text = receiver.open(cipher, packet);
        if (!text) {
          CHECK(!fault || *fault == text.error());  // dead is dead
          fault = text.error();
          return std::nullopt;
        }
        CHECK(!fault && received < sent.size() && std::ranges::equal(*text, sent[received]));
        ++received;
        return std::nullopt;
      });
      if (outcome.state != ReadState::More) return;
    }
  }

  netd::MessageCipher& cipher;
  netd::Stats stats{};
  netd::BufferBudget budget;
  std::array<int, 2> sockets{};
  netd::FrameReader reader;
  netd::Session sender{netd::Role::Client, theKey()};
  netd::Session receiver{netd::Role::Server, theKey()};
  std::vector<std::vector<std::byte>> sent;
  std::vector<std::byte> lastFrame;
  std::vector<std::byte> stream;
  size_t received = 0;
  size_t sentBytes = 0;
  bool clean = true;
  std::optional<wire::DropReason> fault;
};

void append(std::vector<std::byte>& to, ByteSpan bytes) { to.insert(to.end(), bytes.begin(), bytes.end()); }

void sendMessage(Script& script, std::vector<std::byte> text) {
  if (script.sentBytes + text.size() > MAX_SENT_BYTES) return;
  script.sentBytes += text.size() + 1024;
  script.lastFrame = script.seal(script.sender, text);
  append(script.stream, script.lastFrame);
  script.sent.push_back(std::move(text));
}

void play(Script& script, fuzz::Input& input) {
  switch (const uint8_t op = input.byte(); op % 10) {
    case 0: return sendMessage(script, input.block(input.byte()));
    case 1: return sendMessage(script, std::vector<std::byte>(std::min<size_t>(input.word(), wire::MAX_MESSAGE_BYTES)));
    case 2: return script.deliver(input.byte());
    case 3: return script.deliver(input.word());
    case 4: return script.read(1 + op / 10 % netd::FRAMES_PER_READ, op >= 128);
    case 5: script.clean = false; return append(script.stream, input.take(input.byte()));
    case 6:
      if (input.mutate(script.stream)) script.clean = false;
      return;
    case 7: {
      script.clean = false;
      const auto at =
          script.stream.begin() + static_cast<ptrdiff_t>(std::min<size_t>(input.byte(), script.stream.size()));
      script.stream.erase(at, at + std::min<ptrdiff_t>(1 + input.byte(), script.stream.end() - at));
      return;
    }
    case 8: script.clean = false; return append(script.stream, script.lastFrame);
    case 9: {
      script.clean = false;
      netd::Session reflected{netd::Role::Server, theKey()};
      return append(script.stream, script.seal(reflected, input.take(4)));
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static netd::MessageCipher cipher;
  fuzz::Input input(data, size);
  Script script(cipher);
  while (!input.empty()) play(script, input);
  // All that is left arrives, and the wire ends.
  while (!script.stream.empty()) {
    script.deliver(script.stream.size());
    script.read(netd::FRAMES_PER_READ, true);
  }
  shutdown(script.sockets[1], SHUT_WR);
  script.read(netd::FRAMES_PER_READ, true);
  if (script.clean) CHECK(!script.fault && script.received == script.sent.size());
  return 0;
}
