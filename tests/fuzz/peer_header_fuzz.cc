// Goal: a header or preamble of the peer protocol that is taken is the one that would be written, and any other bytes
// do no harm.
#include <algorithm>

#include "peer/preamble.h"
#include "tests/fuzz/input.h"

using namespace sallyport;

namespace {

void header(fuzz::Input& input) {
  wire::PeerChecksumMask mask;
  std::ranges::copy(input.block(mask.size()), mask.begin());
  wire::PeerHeaderBytes bytes;
  std::ranges::copy(input.block(bytes.size()), bytes.begin());
  // Most checksums are made right: what is behind them is to be reached.
  if (input.byte() % 4 > 0) wire::writePeerChecksum(bytes, mask);
  const uint32_t limit = uint32_t{input.word()} << (input.byte() % 17);
  const auto number = static_cast<uint32_t>(bytes[11]) | static_cast<uint32_t>(bytes[10]) << 8 |
                      static_cast<uint32_t>(bytes[9]) << 16 | static_cast<uint32_t>(bytes[8]) << 24;
  const auto parsed = wire::parsePeerHeader(bytes, mask, number, limit);
  if (!parsed) {
    CHECK(parsed.error() == wire::DropReason::BadChecksum || parsed.error() == wire::DropReason::FrameTooLarge);
    return;
  }
  CHECK(parsed->length <= limit && parsed->sequence == number);
  CHECK(wire::parsePeerHeader(bytes, mask, number + 1, limit).error() == wire::DropReason::BadCounter);
  wire::PeerHeaderBytes again;
  wire::writePeerHeaderFields(std::span(again).first<wire::PEER_HEADER_FIELDS_BYTES>(), *parsed);
  wire::writePeerChecksum(again, mask);
  CHECK(again == bytes);
}

void preamble(fuzz::Input& input) {
  const auto own = input.byte() % 2 == 0 ? wire::PeerParty::A : wire::PeerParty::B;
  peer::Preamble machine(own, wire::PeerSalt());
  std::vector<std::byte> taken;
  while (!input.empty()) {
    const ByteSpan piece = input.take(1 + input.byte() % 50);
    const auto count = machine.arrived(piece);
    if (!count) {
      CHECK(!machine.complete() && machine.arrived(piece).error() == count.error());
      return;
    }
    CHECK(*count == piece.size() || machine.complete());
    taken.insert(taken.end(), piece.begin(), piece.begin() + static_cast<ptrdiff_t>(*count));
  }
  CHECK(machine.complete() == (taken.size() == wire::PEER_PREAMBLE_BYTES));
  if (machine.complete())
    CHECK(std::ranges::equal(wire::writePeerPreamble(wire::otherParty(own), machine.peerSalt()), taken));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Input input(data, size);
  if (input.byte() % 2 == 0)
    header(input);
  else
    preamble(input);
  return 0;
}
