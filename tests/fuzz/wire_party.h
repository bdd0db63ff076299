// wire_party.h - the vault's and the peer's half of a connection of the peer protocol's hard mode, for a worker under a
// fuzzer: the worker is party B of a block, and this is party A, which does what the frames that it gets ask for. So
// who has a worker's program in hand has the wire in hand, too. Part of: tests/fuzz.
#pragma once

#include <sodium.h>
#include <sys/socket.h>
#include <unistd.h>

#include <optional>
#include <utility>
#include <vector>

#include "common/capnp_bytes.h"
#include "peer/block_keys.h"
#include "peer/frame_opener.h"
#include "peer/frame_sealer.h"
#include "proto/vault.capnp.h"

namespace sallyport::fuzz {

using FixedBlock = std::array<std::byte, wire::PEER_BLOCK_BYTES>;

inline const FixedBlock& fixedBlock() {
  static const FixedBlock block = [] {
    FixedBlock bytes;
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(3 * i + 1);
    return bytes;
  }();
  return block;
}

// What netd asks its vault for when it dials in hard mode. All else is unimplemented, and so refused.
class HardModeVault final : public proto::Net::Server {
 public:
  kj::Promise<void> peerSalts(PeerSaltsContext context) override {
    const auto asked = context.getParams().getEntries();
    auto outcomes = context.getResults().initOutcomes(asked.size());
    for (uint i = 0; i < asked.size(); ++i) {
      wire::PeerSalt salt;
      randombytes_buf(salt.data(), wire::PeerSalt::SIZE);
      auto drawn = outcomes[i].initDrawn();
      drawn.setParty(proto::PeerParty::B);
      drawn.setSalt(toData(salt.span()));
      drawn.setVersion(1);
    }
    return kj::READY_NOW;
  }
  kj::Promise<void> peerKeys(PeerKeysContext context) override {
    using wire::PeerParty;
    const auto asked = context.getParams().getRequests();
    auto outcomes = context.getResults().initOutcomes(asked.size());
    for (uint i = 0; i < asked.size(); ++i) {
      const wire::PeerSalt own(toBytes(asked[i].getOwnSalt())), theirs(toBytes(asked[i].getPeerSalt()));
      auto derived = outcomes[i].initDerived();
      derived.setSendSecret(toData(peer::hardSendSecret(fixedBlock(), PeerParty::B, own, theirs).expose()));
      derived.setReceiveSecret(toData(peer::hardReceiveSecret(fixedBlock(), PeerParty::B, own, theirs).expose()));
      derived.setVersion(1);
    }
    return kj::READY_NOW;
  }
};

class WireParty {
 public:
  // What the lowest bits of a frame's CODE ask for.
  enum class Deed : uint8_t {
    Echo,
    EchoInHalves,  // the second half comes with what is asked next
    EchoInBytes,   // each byte is a frame; none is an empty one
    EchoTwice,     // the second time with another code
    Large,         // a frame of 300 times the bytes
    Spoil,         // an echo with a bit changed: where, says the first byte
    End,
    Close
  };
  static constexpr uint32_t DEEDS = 8;
  static constexpr uint32_t MAX_FRAME = 1 << 20;

  explicit WireParty(int fd) : fd_(fd) { salt_.mutableSpan()[0] = std::byte{7}; }
  WireParty(const WireParty&) = delete;
  WireParty& operator=(const WireParty&) = delete;
  ~WireParty() { close(fd_); }

  // Reads what is there, does what it asks for, writes what goes. Frames that were sealed and opened.
  void step() {
    if (over_) return;
    if (!greeted_) {
      const auto preamble = wire::writePeerPreamble(wire::PeerParty::A, salt_);
      out_.assign(preamble.begin(), preamble.end());
      greeted_ = true;
    }
    std::array<std::byte, 65536> piece;
    ssize_t got;
    while ((got = recv(fd_, piece.data(), piece.size(), MSG_DONTWAIT)) > 0)
      in_.insert(in_.end(), piece.begin(), piece.begin() + got);
    if (got == 0) over_ = true;
    while (!over_ && takeOne()) {}
    const ssize_t sent = out_.empty() ? 0 : send(fd_, out_.data(), out_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) out_.erase(out_.begin(), out_.begin() + sent);
    if (closing_ && out_.empty()) over_ = true;
    if (over_) shutdown(fd_, SHUT_RDWR);
  }

  size_t opened() const { return opened_; }
  size_t sealed() const { return sealed_; }

 private:
  bool takeOne() {
    if (!opener_) return takePreamble();
    if (!header_) {
      if (in_.size() < wire::PEER_HEADER_BYTES) return false;
      const auto header = opener_->openHeader(cipher_, std::span(in_).first<wire::PEER_HEADER_BYTES>());
      CHECK(header);  // whatever a program does, the worker's frames are right
      header_ = *header;
      in_.erase(in_.begin(), in_.begin() + wire::PEER_HEADER_BYTES);
    }
    const size_t body = header_->length + wire::PEER_TAG_BYTES;
    if (in_.size() < body) return false;
    CHECK(!opener_->openBody(cipher_, std::span(in_).first(body)));
    ++opened_;
    const std::vector<std::byte> text(in_.begin(), in_.begin() + header_->length);
    in_.erase(in_.begin(), in_.begin() + static_cast<ptrdiff_t>(body));
    obey(text, header_->code);
    header_.reset();
    return true;
  }
  bool takePreamble() {
    using wire::PeerParty;
    if (in_.size() < wire::PEER_PREAMBLE_BYTES) return false;
    wire::PeerPreambleBytes preamble;
    std::copy_n(in_.begin(), preamble.size(), preamble.begin());
    const auto theirs = wire::parsePeerPreamble(preamble, PeerParty::A);
    CHECK(theirs);
    const auto sendSecret = [&] { return peer::hardSendSecret(fixedBlock(), PeerParty::A, salt_, *theirs); };
    const auto receiveSecret = [&] { return peer::hardReceiveSecret(fixedBlock(), PeerParty::A, salt_, *theirs); };
    sealer_ = peer::hardSealer(sendSecret(), PeerParty::A, ROTATE_FRAMES);
    opener_ = peer::hardOpener(receiveSecret(), PeerParty::A, 16 * MAX_FRAME, ROTATE_FRAMES);
    in_.erase(in_.begin(), in_.begin() + wire::PEER_PREAMBLE_BYTES);
    return true;
  }
  void obey(const std::vector<std::byte>& text, uint32_t code) {
    put(std::exchange(later_, {}));
    if (code == wire::PEER_CODE_CONTROL) {
      if (text.empty()) end();
      return;
    }
    switch (static_cast<Deed>(code % DEEDS)) {
      case Deed::Echo: return put(sealed(text, code));
      case Deed::EchoInHalves: {
        const auto frame = sealed(text, code);
        const auto half = static_cast<ptrdiff_t>(frame.size() / 2);
        put({frame.begin(), frame.begin() + half});
        later_.assign(frame.begin() + half, frame.end());
        return;
      }
      case Deed::EchoInBytes:
        for (size_t i = 0; i < std::min<size_t>(text.size(), 64); ++i) put(sealed({text[i]}, code));
        if (text.empty()) put(sealed({}, code));
        return;
      case Deed::EchoTwice:
        put(sealed(text, code));
        put(sealed(text, code / 2));
        return;
      case Deed::Large:
        return put(sealed(std::vector<std::byte>(std::min<size_t>(300 * text.size(), MAX_FRAME)), code));
      case Deed::Spoil: {
        auto frame = sealed(text, code);
        frame[text.empty() ? 0 : static_cast<size_t>(text[0]) % frame.size()] ^= std::byte{1};
        return put(frame);
      }
      case Deed::End: return end();
      case Deed::Close: closing_ = true;
    }
  }
  void end() {
    if (!ended_) put(sealed({}, wire::PEER_CODE_CONTROL));
    ended_ = true;
  }
  std::vector<std::byte> sealed(const std::vector<std::byte>& text, uint32_t code) {
    std::vector<std::byte> frame(wire::PEER_OVERHEAD_BYTES + text.size());
    std::copy(text.begin(), text.end(), frame.begin() + wire::PEER_HEADER_BYTES);
    CHECK(!sealer_->seal(cipher_, frame, code));
    ++sealed_;
    return frame;
  }
  void put(const std::vector<std::byte>& bytes) { out_.insert(out_.end(), bytes.begin(), bytes.end()); }

  static constexpr uint32_t ROTATE_FRAMES = 65536;
  int fd_;
  wire::PeerSalt salt_;
  peer::FrameCipher cipher_;
  std::optional<peer::FrameSealer> sealer_;
  std::optional<peer::FrameOpener> opener_;
  std::optional<wire::PeerHeader> header_;  // of a frame that isn't whole yet
  std::vector<std::byte> in_, out_, later_;
  size_t opened_ = 0;
  size_t sealed_ = 0;
  bool greeted_ = false;
  bool ended_ = false;
  bool closing_ = false;
  bool over_ = false;
};

}  // namespace sallyport::fuzz
