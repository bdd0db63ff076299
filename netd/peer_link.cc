// peer_link.cc - see peer_link.h.
#include "netd/peer_link.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace sallyport::netd {

using wire::DropReason;
using wire::PEER_TAG_BYTES;

namespace {

constexpr size_t LEAST_READ_BYTES = 4096;

WireRead readInto(int fd, MutableByteSpan room, bool untilEof, bool nothingHeld) {
  ssize_t got;
  do got = recv(fd, room.data(), room.size(), MSG_DONTWAIT);
  while (got < 0 && errno == EINTR);
  if (got == 0) return {.state = nothingHeld ? ReadState::Eof : ReadState::EofInside, .bytes = {}};
  if (got < 0) return {.state = errno == EAGAIN ? ReadState::Drained : ReadState::Failed, .bytes = {}};
  const auto count = static_cast<size_t>(got);
  return {.state = count == room.size() || untilEof ? ReadState::More : ReadState::Drained, .bytes = room.first(count)};
}

}  // namespace

// Of the frame that is under way: as far as is known.
size_t PeerLink::missing() const {
  if (block_ != nullptr) return HEAD_BYTES + opener_.header()->length + PEER_TAG_BYTES - block_->bytes.rest().size();
  const size_t needed = opener_.header() ? opener_.header()->length + PEER_TAG_BYTES : HEAD_BYTES;
  return needed - held_.rest().size();
}

WireRead PeerLink::read(int fd, std::span<std::byte, SCRATCH_BYTES> scratch, size_t maxFrames, bool untilEof,
                        BufferBudget& budget) {
  if (block_ != nullptr) return readBlock(fd, SCRATCH_BYTES, untilEof, budget);
  // Behind room for what is held of the frame, and for its head, whether that is read already or not.
  const size_t before = partialBytes();
  const size_t room = std::min(maxFrames * (AROUND_BYTES + MAX_TEXT_BYTES), scratch.size() - before);
  return readInto(fd, scratch.subspan(before, room), untilEof, !partial());
}

WireRead PeerLink::readOneFrame(int fd, std::span<std::byte, SCRATCH_BYTES> scratch, BufferBudget& budget) {
  if (block_ != nullptr) return readBlock(fd, SCRATCH_BYTES, false, budget);
  const size_t before = partialBytes();
  // The shortest frame is a head and a tag: so much belongs to it in any case.
  const size_t least = partial() ? missing() : AROUND_BYTES;
  return readInto(fd, scratch.subspan(before, std::min(least, scratch.size() - before)), false, !partial());
}

WireRead PeerLink::readBlock(int fd, size_t room, bool untilEof, BufferBudget& budget) {
  if (block_->opened) return {.state = ReadState::More, .bytes = block_->bytes.restMutable()};
  // As much again as has come: who sends little holds little, whatever its header claims.
  room = std::min({room, missing(), std::max(LEAST_READ_BYTES, block_->bytes.rest().size())});
  const MutableByteSpan into = block_->bytes.extend(budget, room, block_->bytes.rest().size() + missing());
  WireRead read = readInto(fd, into, untilEof, false);
  block_->bytes.giveBack(room - read.bytes.size());
  return read;
}

// What is held goes in front of what came, as soon as that makes a header or a frame. False: not yet.
bool PeerLink::gather(const WireRead& read, BufferBudget& budget, MutableByteSpan& rest) {
  const ByteSpan held = held_.rest();
  if (held.empty()) {
    rest = read.bytes;
    return true;
  }
  if (read.bytes.size() < missing()) {
    std::ranges::copy(read.bytes, held_.extend(budget, read.bytes.size()).begin());
    return false;
  }
  rest = {read.bytes.data() - held.size(), held.size() + read.bytes.size()};
  std::ranges::copy(held, rest.begin());
  held_.clear(budget);
  return true;
}

void PeerLink::hold(Ciphers& ciphers, MutableByteSpan rest, BufferBudget& budget) {
  if (opener_.header() && opener_.header()->length > MAX_HELD_BYTES) {
    block_ = std::make_unique<Block>();
    block_->code = opener_.header()->code;
    const MutableByteSpan bytes = block_->bytes.extend(budget, HEAD_BYTES + rest.size());
    std::ranges::copy(rest, bytes.begin() + HEAD_BYTES);
    opener_.begin(ciphers.frame, block_->run);
    const auto fault = absorb(ciphers, bytes.subspan(HEAD_BYTES));
    CHECK(!fault);  // the frame isn't whole, so there is no verdict yet
    return;
  }
  if (!rest.empty()) held_.set(budget, rest);
}

// `piece` is the last that arrived in the block.
std::optional<DropReason> PeerLink::absorb(Ciphers& ciphers, MutableByteSpan piece) {
  peer::FrameRun& run = block_->run;
  const size_t payload = std::min<uint64_t>(piece.size(), run.end - run.offset);
  opener_.update(ciphers.frame, run, piece.first(payload));
  const MutableByteSpan frame = block_->bytes.restMutable();
  if (frame.size() < run.end + PEER_TAG_BYTES) return std::nullopt;
  wire::PeerTag tag;
  std::memcpy(tag.data(), frame.last(PEER_TAG_BYTES).data(), PEER_TAG_BYTES);
  if (auto fault = opener_.finish(ciphers.frame, run, tag)) {
    wipe(frame);
    return fault;
  }
  block_->opened = true;
  return std::nullopt;
}

void PeerLink::keep(const OpenedFrame& opened, BufferBudget& budget) {
  if (block_ == nullptr) {
    block_ = std::make_unique<Block>();
    block_->opened = true;
    block_->bytes.set(budget, opened.frame);
  }
  block_->code = opened.code;
  block_->end = opened.end;
}

PeerLink::Meaning PeerLink::meaning(uint32_t code, ByteSpan text) {
  if (code != wire::PEER_CODE_CONTROL) return Meaning::Data;
  if (const auto control = wire::peerControl(text))
    return *control == wire::PeerControl::End ? Meaning::End : Meaning::Open;
  opener_.die(DropReason::ReservedCode);
  return Meaning::Fault;
}

void PeerLink::dropBlock(BufferBudget& budget) {
  block_->bytes.clear(budget);
  block_ = nullptr;
}

void PeerLink::clear(BufferBudget& budget) {
  held_.clear(budget);
  if (block_ != nullptr) dropBlock(budget);
}

}  // namespace sallyport::netd
