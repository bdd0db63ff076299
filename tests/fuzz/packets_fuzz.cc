// Goal: a packet's parser takes what its writer writes, and any other bytes without harm.
#include <algorithm>

#include "proto/wire/packet.h"
#include "tests/fuzz/input.h"

using namespace sallyport;

namespace {

template <typename Frame>
void sameAgain(const Frame& frame, ByteSpan packet) {
  CHECK(std::ranges::equal(ByteSpan(frame).subspan(wire::FRAME_HEADER_BYTES), packet));
  CHECK(wire::readFrameLength(std::span(frame).template first<wire::FRAME_HEADER_BYTES>()) == packet.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteSpan packet(reinterpret_cast<const std::byte*>(data), size);
  if (const auto hello = wire::parseHello(packet)) sameAgain(wire::writeHello(*hello), packet);
  if (const auto cookie = wire::parseCookiePacket(packet)) sameAgain(wire::writeCookiePacket(*cookie), packet);
  if (const auto initiate = wire::parseInitiate(packet)) sameAgain(wire::writeInitiate(*initiate), packet);
  uint64_t counter = 2;
  if (size >= 16) counter = wire::readBe64(packet.subspan<8, 8>());
  if (!wire::checkMessage(packet, counter)) {
    CHECK(size >= wire::MESSAGE_OVERHEAD_BYTES && size <= wire::MAX_PACKET_BYTES);
    wire::Block<wire::FRAME_HEADER_BYTES + wire::MESSAGE_BOX_OFFSET> header;
    wire::writeMessageHeader(header, counter, size - wire::MESSAGE_OVERHEAD_BYTES);
    CHECK(wire::readFrameLength(std::span(header).first<wire::FRAME_HEADER_BYTES>()) == size);
    CHECK(
        std::ranges::equal(ByteSpan(header).subspan(wire::FRAME_HEADER_BYTES), packet.first(wire::MESSAGE_BOX_OFFSET)));
    CHECK(wire::checkMessage(packet, counter + 1) == wire::DropReason::BadCounter);
  }
  return 0;
}
