// Goal: whatever happens to a stream of the peer protocol on its way, its receiver delivers a beginning of what was
// sent, frame by frame, and holds no more than the largest of them. Method: the input is a script: frames are sealed,
// the bytes between are cut, changed, doubled, reflected, lied about, and taken by calls of receive with buffers of any
// size.
#include <algorithm>
#include <deque>

#include "peer/block_keys.h"
#include "peer/receiver.h"
#include "tests/fuzz/input.h"

using namespace sallyport;
using wire::PeerMode;
using wire::PeerParty;

namespace {

constexpr size_t MAX_SENT_BYTES = 160 * 1024;
constexpr uint32_t MAX_FRAME_BYTES = 20000;
constexpr uint32_t ROTATE_FRAMES = 3;

const auto BLOCK = [] {
  std::array<std::byte, wire::PEER_BLOCK_BYTES> block;
  for (size_t i = 0; i < block.size(); ++i) block[i] = static_cast<std::byte>(i);
  return block;
}();

peer::FrameSealer sealerOf(PeerMode mode, PeerParty own) {
  if (mode == PeerMode::Base) return peer::baseSealer(BLOCK, own, ROTATE_FRAMES);
  const wire::PeerSalt salt;
  return peer::hardSealer(peer::hardSendSecret(BLOCK, own, salt, salt), own, ROTATE_FRAMES);
}
peer::FrameOpener openerOf(PeerMode mode, PeerParty own) {
  if (mode == PeerMode::Base) return peer::baseOpener(BLOCK, own, MAX_FRAME_BYTES, ROTATE_FRAMES);
  const wire::PeerSalt salt;
  return peer::hardOpener(peer::hardReceiveSecret(BLOCK, own, salt, salt), own, MAX_FRAME_BYTES, ROTATE_FRAMES);
}

struct Script {
  explicit Script(PeerMode theMode)
      : mode(theMode), sealer(sealerOf(mode, PeerParty::A)), receiver(openerOf(mode, PeerParty::B), 0) {}

  std::vector<std::byte> seal(peer::FrameSealer& by, ByteSpan payload, uint32_t code) {
    std::vector<std::byte> frame(wire::peerFrameBytes(payload.size()));
    std::ranges::copy(payload, frame.begin() + wire::PEER_HEADER_BYTES);
    CHECK(!by.seal(cipher, frame, code));
    return frame;
  }
  void append(ByteSpan bytes) { stream.insert(stream.end(), bytes.begin(), bytes.end()); }

  void send(std::vector<std::byte> payload, uint32_t code) {
    if (sentBytes + payload.size() > MAX_SENT_BYTES || endSent) return;
    sentBytes += payload.size() + 256;
    const bool control = mode == PeerMode::Hard && code == wire::PEER_CODE_CONTROL;
    lastFrame = seal(sealer, payload, code);
    append(lastFrame);
    if (control)
      endSent = payload.empty();
    else
      sent.push_back({code, std::move(payload)});
  }

  void deliver(size_t bytes, bool inPlace) {
    while (bytes > 0 && !stream.empty()) {
      size_t count = std::min({bytes, stream.size(), receiver.roomBytes()});
      if (count == 0) return;
      if (inPlace) {
        const MutableByteSpan room = receiver.room();
        CHECK(!room.empty() && room.size() <= receiver.roomBytes());
        count = std::min(count, room.size());
        std::copy_n(stream.begin(), count, room.begin());
        receiver.arrived(count);
      } else {
        receiver.arrived(ByteSpan(stream).first(count));
      }
      stream.erase(stream.begin(), stream.begin() + static_cast<ptrdiff_t>(count));
      bytes -= count;
      CHECK(receiver.heldBytes() <= MAX_FRAME_BYTES + wire::PEER_OVERHEAD_BYTES + peer::Receiver::READ_BYTES);
    }
  }

  peer::Received receive(size_t room) {
    std::vector<std::byte> buffer(room, std::byte{0xee});
    peer::Received got;
    const bool over = receiver.gather(cipher, buffer, got);
    CHECK(over || got.status == peer::Status::SlowPeer);
    CHECK(got.bytes <= room);
    size_t at = 0;
    for (uint32_t frame = 0; frame < got.frames; ++frame) {
      CHECK(!sent.empty() && sent.front().code == got.code);
      const auto& payload = sent.front().payload;
      CHECK(payload.size() <= got.bytes - at &&
            std::equal(payload.begin(), payload.end(), buffer.begin() + static_cast<ptrdiff_t>(at)));
      at += payload.size();
      sent.pop_front();
    }
    CHECK(at == got.bytes);
    for (; at < room; ++at) CHECK(buffer[at] == std::byte{0xee});
    if (fault) CHECK(got.status == peer::Status::Broken && got.fault == fault && got.frames == 0);  // dead is dead
    if (got.status == peer::Status::Broken) {
      CHECK(got.fault.has_value());
      fault = got.fault;
    }
    if (got.status == peer::Status::TooBig)
      CHECK(got.frames == 0 && got.needed > room && got.needed <= MAX_FRAME_BYTES);
    if (got.status == peer::Status::Ended) CHECK(endSent && sent.empty());
    return got;
  }

  struct Message {
    uint32_t code;
    std::vector<std::byte> payload;
  };
  PeerMode mode;
  peer::FrameCipher& cipher = theCipher();
  peer::FrameSealer sealer;
  peer::Receiver receiver;
  std::vector<std::byte> lastFrame, stream;
  std::deque<Message> sent;
  size_t sentBytes = 0;
  bool clean = true;
  bool endSent = false;
  std::optional<wire::DropReason> fault;

  static peer::FrameCipher& theCipher() {
    static peer::FrameCipher cipher;
    return cipher;
  }
};

void change(Script& script, fuzz::Input& input, uint8_t how) {
  switch (how) {
    case 0: script.append(input.take(input.byte())); break;
    case 1:
      if (!input.mutate(script.stream)) return;
      break;
    case 2: {
      if (script.stream.empty()) return;
      const auto at =
          script.stream.begin() + static_cast<ptrdiff_t>(std::min<size_t>(input.byte(), script.stream.size() - 1));
      script.stream.erase(at, at + std::min<ptrdiff_t>(1 + input.byte(), script.stream.end() - at));
      break;
    }
    case 3: script.append(script.lastFrame); break;
    case 4: {
      peer::FrameSealer reflected = sealerOf(script.mode, PeerParty::B);
      script.append(script.seal(reflected, input.take(4), 0));
      break;
    }
    case 5: {
      // A genuine header whose frame never comes; then whatever the script sends.
      peer::FrameSealer liar = sealerOf(script.mode, PeerParty::A);
      peer::FrameRun run;
      const auto header = liar.begin(script.cipher, run, uint32_t{input.word()} << (input.byte() % 17), input.byte());
      script.append(*header);
      break;
    }
    default: return;
  }
  script.clean = false;
}

void play(Script& script, fuzz::Input& input) {
  const uint8_t op = input.byte();
  switch (op % 8) {
    case 0: return script.send(input.block(input.byte()), op / 8);
    case 1: return script.send(std::vector<std::byte>(input.word() % MAX_FRAME_BYTES), op / 128);
    case 2: {
      const ByteSpan text = op >= 128 ? ByteSpan() : asBytes(wire::PEER_OPEN_TEXT);
      return script.send({text.begin(), text.end()}, wire::PEER_CODE_CONTROL);
    }
    case 3: return script.deliver(input.byte(), op >= 128);
    case 4: return script.deliver(input.word(), op >= 128);
    case 5: script.receive(input.byte()); return;
    case 6: script.receive(input.word()); return;
    case 7: return change(script, input, op / 8 % 6);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Input input(data, size);
  Script script(input.byte() % 4 == 0 ? PeerMode::Base : PeerMode::Hard);
  while (!input.empty()) play(script, input);
  // All that is left arrives, and the wire ends.
  for (bool moved = true; moved && !script.fault;) {
    const size_t before = script.stream.size();
    script.deliver(SIZE_MAX, true);
    moved = script.receive(MAX_FRAME_BYTES).frames > 0 || script.stream.size() < before;
  }
  script.receiver.wireEnded();
  const auto last = script.receive(MAX_FRAME_BYTES);
  if (!script.clean) return 0;
  CHECK(script.sent.empty() && script.stream.empty());
  if (script.mode == PeerMode::Base)
    CHECK(last.status == peer::Status::Closed);
  else
    CHECK(script.endSent ? last.status == peer::Status::Ended : last.fault == wire::DropReason::Truncated);
  return 0;
}
