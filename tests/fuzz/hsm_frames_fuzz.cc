// Goal: the frames' parsers take what their writers write, and any other bytes without harm: each value has one frame.
// Input: a byte that says which, then the datagram, filled up with zeros to the frame's size unless its lowest bit says
// not to.
#include <algorithm>
#include <vector>

#include "proto/hsm/frames.h"
#include "tests/fuzz/input.h"

using namespace sallyport;

namespace {

template <typename Parse, typename Write>
void check(std::vector<std::byte> datagram, size_t bytes, bool fill, Parse&& parse, Write&& write) {
  if (fill) datagram.resize(bytes);
  const auto value = parse(datagram);
  if (!value) return;
  CHECK(std::ranges::equal(write(*value), datagram));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const bool fill = (data[0] & 1) == 0;
  const auto* begin = reinterpret_cast<const std::byte*>(data + 1);
  const std::vector<std::byte> datagram(begin, begin + size - 1);
  switch (data[0] / 2 % 3) {
    case 0: check(datagram, hsm::REQUEST_BYTES, fill, hsm::parseRequest, hsm::writeRequest); break;
    case 1: check(datagram, hsm::REPLY_BYTES, fill, hsm::parseReply, hsm::writeReply); break;
    default: check(datagram, hsm::CONTROL_BYTES, fill, hsm::parseControl, hsm::writeControl); break;
  }
  return 0;
}
