// peer_link.h - the peer protocol's hard mode as tunnels, echoes and channels see it (link.h). Part of: netd-worker.
// docs/protocol.md §13. Frames that fit the worker's scratch memory are opened there, in place. A longer one (a
// foreign peer may send any length up to the entry's max_frame_bytes) is decrypted as it comes into a block of its own,
// that grows with what has arrived and not with what the header claims, is counted against the worker's budget, and is
// shown to nobody before its tag is right. Our own streams send frames of MAX_TEXT_BYTES, or of what the entry allows.
#pragma once

#include <memory>

#include "netd/ciphers.h"
#include "netd/link.h"
#include "peer/frame_opener.h"
#include "peer/frame_sealer.h"

namespace sallyport::netd {

class PeerLink {
 public:
  static constexpr size_t HEAD_BYTES = wire::PEER_HEADER_BYTES;
  static constexpr size_t AROUND_BYTES = wire::PEER_OVERHEAD_BYTES;
  static constexpr size_t MAX_TEXT_BYTES = 32 * 1024 - AROUND_BYTES;
  static constexpr size_t FRAMES_PER_TURN = 8;
  static constexpr bool CHANNELS_END = true;

  PeerLink(peer::FrameSealer sealer, peer::FrameOpener opener, uint32_t blockVersion)
      : sealer_(std::move(sealer)), opener_(std::move(opener)), blockVersion_(blockVersion) {}

  // Of the key that the vault made our secrets from.
  std::optional<uint32_t> blockVersion() const { return blockVersion_; }

  // `frame` is room for the head, the text, and room for the tag.
  std::optional<wire::DropReason> seal(Ciphers& ciphers, MutableByteSpan frame, uint32_t code) {
    return sealer_.seal(ciphers.frame, frame, code);
  }
  // `frame` is AROUND_BYTES of room.
  std::optional<wire::DropReason> sealEnd(Ciphers& ciphers, MutableByteSpan frame) {
    return sealer_.seal(ciphers.frame, frame, wire::PEER_CODE_CONTROL);
  }
  // protocol §13.2: the listening side doesn't know who has dialled until he says something.
  static constexpr bool DIALLER_SPEAKS_FIRST = true;
  static constexpr size_t OPEN_BYTES = AROUND_BYTES + wire::PEER_OPEN_TEXT.size();
  void dialled() { dialled_ = true; }
  bool owesFirstWord() const { return dialled_ && sealer_.sealed() == 0; }
  // The first word of who has nothing to say. `frame` is OPEN_BYTES of room.
  std::optional<wire::DropReason> sealOpen(Ciphers& ciphers, MutableByteSpan frame) {
    std::ranges::copy(asBytes(wire::PEER_OPEN_TEXT), frame.begin() + HEAD_BYTES);
    return sealer_.seal(ciphers.frame, frame, wire::PEER_CODE_CONTROL);
  }

  WireRead read(int fd, std::span<std::byte, SCRATCH_BYTES> scratch, size_t maxFrames, bool untilEof,
                BufferBudget& budget);
  // The same, but not a byte beyond the frame that is under way: what follows stays in the socket.
  WireRead readOneFrame(int fd, std::span<std::byte, SCRATCH_BYTES> scratch, BufferBudget& budget);
  // Opens each frame that is whole now and calls `use` with it, until that returns a reason to stop; holds the rest.
  template <typename Use>
  std::optional<wire::DropReason> openEach(Ciphers& ciphers, const WireRead& read, BufferBudget& budget, Use&& use) {
    if (block_ != nullptr) return openBlock(ciphers, read, budget, use);
    MutableByteSpan rest;
    if (!gather(read, budget, rest)) return std::nullopt;
    while (true) {
      if (!opener_.header()) {
        if (rest.size() < HEAD_BYTES) break;
        const auto header = opener_.openHeader(ciphers.frame, rest.first<HEAD_BYTES>());
        if (!header) return header.error();
        // protocol §13.2: nothing follows the end of a direction, an open neither. What it is isn't waited for.
        if (ended_) return opener_.die(wire::DropReason::AfterEnd);
        if (header->code == wire::PEER_CODE_CONTROL && !wire::isPeerControlLength(header->length))
          return opener_.die(wire::DropReason::ReservedCode);
        rest = rest.subspan(HEAD_BYTES);
      }
      const wire::PeerHeader header = *opener_.header();
      const size_t body = header.length + wire::PEER_TAG_BYTES;
      if (rest.size() < body) break;
      if (auto fault = opener_.openBody(ciphers.frame, rest.first(body))) return fault;
      const MutableByteSpan frame(rest.data() - HEAD_BYTES, HEAD_BYTES + body);
      rest = rest.subspan(body);
      if (auto stop = deliver(header.code, frame, use)) return stop;
    }
    hold(ciphers, rest, budget);
    return std::nullopt;
  }
  // The texts are dealt with: a block that is done with goes.
  void done(BufferBudget& budget) {
    if (block_ != nullptr && block_->opened) dropBlock(budget);
  }

  // The frame at hand is kept, and is what openEach() gives out next.
  void keep(const OpenedFrame& opened, BufferBudget& budget);

  bool partial() const { return partialBytes() > 0; }
  // Of a frame that isn't whole, or is kept: what is here.
  size_t partialBytes() const {
    if (block_ != nullptr) return block_->bytes.rest().size();
    return (opener_.header() ? HEAD_BYTES : 0) + held_.rest().size();
  }
  // How many frames were opened.
  uint64_t opened() const { return opener_.opened(); }
  // The header that is read already, of a frame that is not whole yet. An end or an open is no program's frame.
  std::optional<wire::PeerHeader> underWay() const {
    const auto& header = opener_.header();
    return header && header->code != wire::PEER_CODE_CONTROL ? header : std::nullopt;
  }
  // What it holds of the budget.
  size_t held() const { return held_.held() + (block_ == nullptr ? 0 : block_->bytes.held()); }
  void clear(BufferBudget& budget);

 private:
  // A frame that doesn't fit scratch memory, or is kept.
  struct Block {
    Stash bytes;  // room for a head, payload, tag; as much as has arrived
    peer::FrameRun run;
    bool opened = false;
    uint32_t code = 0;
    bool end = false;
  };
  // Beyond that a frame gets a block of its own.
  static constexpr size_t MAX_HELD_BYTES = 128 * 1024;

  size_t missing() const;
  WireRead readBlock(int fd, size_t room, bool untilEof, BufferBudget& budget);
  bool gather(const WireRead& read, BufferBudget& budget, MutableByteSpan& rest);
  void hold(Ciphers& ciphers, MutableByteSpan rest, BufferBudget& budget);
  std::optional<wire::DropReason> absorb(Ciphers& ciphers, MutableByteSpan piece);
  void dropBlock(BufferBudget& budget);
  // protocol §13.2: what the reserved code means, and that nothing else comes under it.
  enum class Meaning : uint8_t { Data, End, Open, Fault };
  Meaning meaning(uint32_t code, ByteSpan text);

  template <typename Use>
  std::optional<wire::DropReason> deliver(uint32_t code, MutableByteSpan frame, Use& use) {
    const MutableByteSpan text = frame.subspan(HEAD_BYTES, frame.size() - AROUND_BYTES);
    switch (meaning(code, text)) {
      case Meaning::Open: return std::nullopt;
      case Meaning::Fault: return opener_.dead();
      case Meaning::Data: return use(OpenedFrame{.text = text, .frame = frame, .code = code});
      case Meaning::End:
        ended_ = true;
        return use(OpenedFrame{.text = text, .frame = frame, .code = code, .end = true});
    }
    return std::nullopt;
  }
  template <typename Use>
  std::optional<wire::DropReason> openBlock(Ciphers& ciphers, const WireRead& read, BufferBudget&, Use& use) {
    if (!block_->opened) {
      if (auto fault = absorb(ciphers, read.bytes)) return fault;
      if (!block_->opened) return std::nullopt;
      return deliver(block_->code, block_->bytes.restMutable(), use);
    }
    const MutableByteSpan frame = block_->bytes.restMutable();
    return use(OpenedFrame{.text = frame.subspan(HEAD_BYTES, frame.size() - AROUND_BYTES),
                           .frame = frame,
                           .code = block_->code,
                           .end = block_->end});
  }

  peer::FrameSealer sealer_;
  peer::FrameOpener opener_;
  uint32_t blockVersion_;
  bool dialled_ = false;
  bool ended_ = false;  // the end of the other direction was opened
  Stash held_;          // of a header, or behind a header that is read: as it came
  std::unique_ptr<Block> block_;
};

}  // namespace sallyport::netd
