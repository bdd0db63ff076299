// packet.cc - see packet.h.
#include "proto/wire/packet.h"

#include <algorithm>
#include <cstring>

namespace sallyport::wire {

namespace {

using Magic = std::array<unsigned char, MAGIC_BYTES>;
constexpr Magic HELLO_MAGIC = {0x6c, 0x09, 0xaf, 0xb2, 0x8a, 0xa9, 0xfa, 0xfc};
constexpr Magic COOKIE_MAGIC = {0x1c, 0x45, 0xdc, 0xb9, 0x41, 0xc0, 0xe3, 0xf6};
constexpr Magic INITIATE_MAGIC = {0x6c, 0x09, 0xaf, 0xb2, 0x8a, 0xa9, 0xfa, 0xfd};
constexpr Magic MESSAGE_MAGIC = {0x6d, 0x1b, 0x39, 0xcb, 0xf6, 0x5a, 0x11, 0xb4};

bool startsWith(ByteSpan packet, const Magic& magic) {
  return std::memcmp(packet.data(), magic.data(), MAGIC_BYTES) == 0;
}

// Takes fields off the front of a packet whose whole length was checked before.
class Taker {
 public:
  explicit Taker(ByteSpan rest) : rest_(rest) {}
  template <size_t N>
  std::span<const std::byte, N> take() {
    auto field = rest_.first<N>();
    rest_ = rest_.subspan(N);
    return field;
  }
  template <size_t N>
  void copyTo(Block<N>& to) {
    std::ranges::copy(take<N>(), to.begin());
  }

 private:
  ByteSpan rest_;
};

class Putter {
 public:
  explicit Putter(MutableByteSpan rest) : rest_(rest) {}
  void put(ByteSpan bytes) {
    CHECK(bytes.size() <= rest_.size());
    std::ranges::copy(bytes, rest_.begin());
    rest_ = rest_.subspan(bytes.size());
  }
  void put(const Magic& magic) { put(std::as_bytes(std::span(magic))); }
  void putBe64(uint64_t value) {
    Block<8> bytes;
    writeBe64(bytes, value);
    put(bytes);
  }
  void done() const { CHECK(rest_.empty()); }

 private:
  MutableByteSpan rest_;
};

template <size_t N>
Putter beginFrame(Block<N>& frame) {
  writeFrameLength(std::span(frame).template first<FRAME_HEADER_BYTES>(), N - FRAME_HEADER_BYTES);
  return Putter(std::span(frame).subspan(FRAME_HEADER_BYTES));
}

}  // namespace

size_t readFrameLength(std::span<const std::byte, FRAME_HEADER_BYTES> header) {
  return std::to_integer<size_t>(header[0]) << 8 | std::to_integer<size_t>(header[1]);
}

void writeFrameLength(std::span<std::byte, FRAME_HEADER_BYTES> header, size_t packetBytes) {
  CHECK(packetBytes <= MAX_PACKET_BYTES);
  header[0] = static_cast<std::byte>(packetBytes >> 8);
  header[1] = static_cast<std::byte>(packetBytes & 0xff);
}

uint64_t readBe64(std::span<const std::byte, 8> bytes) {
  uint64_t value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return be64toh(value);
}

void writeBe64(std::span<std::byte, 8> bytes, uint64_t value) {
  const uint64_t big = htobe64(value);
  std::memcpy(bytes.data(), &big, sizeof big);
}

// protocol §1: length before magic, magic before counter, counter before the box.
Result<Hello, DropReason> parseHello(ByteSpan packet) {
  if (packet.size() != HELLO_BYTES) return refuse(DropReason::BadLength);
  if (!startsWith(packet, HELLO_MAGIC)) return refuse(DropReason::BadMagic);
  Taker take(packet.subspan(MAGIC_BYTES));
  Hello hello;
  hello.clientEphemeral = PublicKey(take.take<KEY_BYTES>());
  if (readBe64(take.take<COUNTER_BYTES>()) != HELLO_COUNTER) return refuse(DropReason::BadCounter);
  take.copyTo(hello.box);
  return hello;
}

Result<CookiePacket, DropReason> parseCookiePacket(ByteSpan packet) {
  if (packet.size() != COOKIE_PACKET_BYTES) return refuse(DropReason::BadLength);
  if (!startsWith(packet, COOKIE_MAGIC)) return refuse(DropReason::BadMagic);
  Taker take(packet.subspan(MAGIC_BYTES));
  CookiePacket cookie;
  cookie.nonce = LongNonceBytes(take.take<LONG_NONCE_BYTES>());
  take.copyTo(cookie.box);
  return cookie;
}

Result<Initiate, DropReason> parseInitiate(ByteSpan packet) {
  if (packet.size() != INITIATE_BYTES) return refuse(DropReason::BadLength);
  if (!startsWith(packet, INITIATE_MAGIC)) return refuse(DropReason::BadMagic);
  Taker take(packet.subspan(MAGIC_BYTES));
  Initiate initiate;
  take.copyTo(initiate.cookie);
  if (readBe64(take.take<COUNTER_BYTES>()) != INITIATE_COUNTER) return refuse(DropReason::BadCounter);
  take.copyTo(initiate.box);
  return initiate;
}

InitiateContent parseInitiateContent(std::span<const std::byte, KEY_BYTES + LONG_NONCE_BYTES + VOUCH_BYTES> content) {
  Taker take{ByteSpan(content)};
  InitiateContent result;
  result.client = PublicKey(take.take<KEY_BYTES>());
  result.vouchNonce = LongNonceBytes(take.take<LONG_NONCE_BYTES>());
  take.copyTo(result.vouch);
  return result;
}

HelloFrame writeHello(const Hello& hello) {
  HelloFrame frame;
  Putter put = beginFrame(frame);
  put.put(HELLO_MAGIC);
  put.put(hello.clientEphemeral.span());
  put.putBe64(HELLO_COUNTER);
  put.put(hello.box);
  put.done();
  return frame;
}

CookieFrame writeCookiePacket(const CookiePacket& cookie) {
  CookieFrame frame;
  Putter put = beginFrame(frame);
  put.put(COOKIE_MAGIC);
  put.put(cookie.nonce.span());
  put.put(cookie.box);
  put.done();
  return frame;
}

InitiateFrame writeInitiate(const Initiate& initiate) {
  InitiateFrame frame;
  Putter put = beginFrame(frame);
  put.put(INITIATE_MAGIC);
  put.put(initiate.cookie);
  put.putBe64(INITIATE_COUNTER);
  put.put(initiate.box);
  put.done();
  return frame;
}

std::optional<DropReason> checkMessage(ByteSpan packet, uint64_t expected) {
  if (packet.size() < MESSAGE_OVERHEAD_BYTES) return DropReason::BadLength;
  if (!startsWith(packet, MESSAGE_MAGIC)) return DropReason::BadMagic;
  // protocol §2: strictly the next counter, in both directions.
  if (readBe64(packet.subspan<MAGIC_BYTES, COUNTER_BYTES>()) != expected) return DropReason::BadCounter;
  return std::nullopt;
}

void writeMessageHeader(std::span<std::byte, FRAME_HEADER_BYTES + MESSAGE_BOX_OFFSET> header, uint64_t counter,
                        size_t messageBytes) {
  CHECK(messageBytes <= MAX_MESSAGE_BYTES);
  writeFrameLength(header.first<FRAME_HEADER_BYTES>(), MESSAGE_OVERHEAD_BYTES + messageBytes);
  std::memcpy(header.data() + FRAME_HEADER_BYTES, MESSAGE_MAGIC.data(), MAGIC_BYTES);
  writeBe64(header.subspan<FRAME_HEADER_BYTES + MAGIC_BYTES, COUNTER_BYTES>(), counter);
}

}  // namespace sallyport::wire
