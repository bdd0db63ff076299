// base_vault.h - the vault's half of a connection in base mode, for the tests of netd: party B, without any of vaultd's
// care. Frames come and go in pieces, cut anywhere. Part of: tests/unit/netd.
#pragma once

#include <cstring>
#include <functional>
#include <memory>
#include <optional>

#include "common/capnp_bytes.h"
#include "peer/block_keys.h"
#include "proto/vault.capnp.h"
#include "tests/unit/netd/test_vault.h"

namespace sallyport::netd::test {

class BaseSessionOfB final : public proto::PeerSession::Server {
 public:
  explicit BaseSessionOfB(TestVault& vault)
      : vault_(vault),
        sealer_(peer::baseSealer(vault.block, wire::PeerParty::B)),
        opener_(peer::baseOpener(vault.block, wire::PeerParty::B, vault.maxFrameBytes)) {}

  kj::Promise<void> seal(SealContext context) override {
    std::vector<std::byte> sealed;
    walk(sealing_, toBytes(context.getParams().getFrames()), [&](Part part, MutableByteSpan bytes) {
      if (part == Part::Header) {
        sealing_.run.emplace();
        const auto header = sealer_.begin(cipher_, *sealing_.run, be32(bytes, 0), be32(bytes, 4));
        EXPECT_TRUE(header);
        std::ranges::copy(*header, bytes.begin());
      } else if (part == Part::Payload) {
        sealer_.update(cipher_, *sealing_.run, bytes);
      } else {
        std::ranges::copy(sealer_.finish(cipher_, *sealing_.run), bytes.begin());
      }
      sealed.insert(sealed.end(), bytes.begin(), bytes.end());
      return true;
    });
    context.getResults().initOutcome().setFrames(toData(sealed));
    if (!vault_.holdsSeals) return kj::READY_NOW;
    auto paf = kj::newPromiseAndFulfiller<void>();
    vault_.heldSeals.push_back(
        [held = std::make_shared<kj::Own<kj::PromiseFulfiller<void>>>(kj::mv(paf.fulfiller))] { (*held)->fulfill(); });
    return kj::mv(paf.promise);
  }
  kj::Promise<void> open(OpenContext context) override {
    openInto(toBytes(context.getParams().getFrames()), context.getResults().initOutcome());
    return kj::READY_NOW;
  }
  kj::Promise<void> close(CloseContext) override { return kj::READY_NOW; }
  kj::Promise<void> ended(EndedContext context) override {
    context.allowCancellation();
    auto paf = kj::newPromiseAndFulfiller<void>();
    const auto held = std::make_shared<kj::Own<kj::PromiseFulfiller<void>>>(kj::mv(paf.fulfiller));
    vault_.sessionEnds.push_back(
        {.tell = [held] { (*held)->fulfill(); }, .isAwaited = [held] { return (*held)->isWaiting(); }});
    return kj::mv(paf.promise);
  }

  void openInto(ByteSpan bytes, proto::OpenedOutcome::Builder outcome) {
    std::vector<std::byte> opened;
    size_t sanctified = 0;
    std::optional<wire::DropReason> fault;
    walk(opening_, bytes, [&](Part part, MutableByteSpan piece) {
      if (part == Part::Header) {
        opening_.run.emplace();
        const auto header = opener_.openHeader(cipher_, ByteSpan(piece).first<wire::PEER_HEADER_BYTES>());
        if (!header) fault = header.error();
        if (fault) return false;
        opener_.begin(cipher_, *opening_.run);
        for (size_t i = 0; i < 4; ++i) piece[i] = static_cast<std::byte>(header->length >> (24 - 8 * i));
        for (size_t i = 0; i < 4; ++i) piece[4 + i] = static_cast<std::byte>(header->code >> (24 - 8 * i));
      } else if (part == Part::Payload) {
        opener_.update(cipher_, *opening_.run, piece);
      } else {
        wire::PeerTag tag;
        std::ranges::copy(piece, tag.begin());
        fault = opener_.finish(cipher_, *opening_.run, tag);
        if (fault) return false;
        std::ranges::fill(piece, std::byte{0});
      }
      opened.insert(opened.end(), piece.begin(), piece.end());
      if (part == Part::Tag) sanctified = opened.size();
      return true;
    });
    auto to = outcome.initOpened();
    to.setFrames(toData(opened));
    to.setSanctified(static_cast<uint32_t>(sanctified));
    if (fault) to.setFault(std::string(wire::name(*fault)));
  }

 private:
  enum class Part : uint8_t { Header, Payload, Tag };
  // Where one direction is: in a header or a tag whose bytes aren't all there, or in a payload.
  struct Direction {
    bool sealing = false;
    Part part = Part::Header;
    std::vector<std::byte> held;
    size_t left = 0;  // of the payload
    std::optional<peer::FrameRun> run;
  };

  static uint32_t be32(ByteSpan bytes, size_t at) {
    uint32_t value;
    std::memcpy(&value, &bytes[at], sizeof value);
    return __builtin_bswap32(value);
  }

  // Calls `use` with each header and tag that is whole and each piece of a payload, until it says no. A header's plain
  // LENGTH is read from what `use` left there when it opens, and from what came when it seals.
  template <typename Use>
  static void walk(Direction& at, ByteSpan bytes, Use&& use) {
    std::vector<std::byte> input(bytes.begin(), bytes.end());
    MutableByteSpan rest(input);
    while (!rest.empty() || (at.part == Part::Payload && at.left == 0)) {
      if (at.part == Part::Payload) {
        const MutableByteSpan piece = rest.first(std::min(rest.size(), at.left));
        if (!piece.empty() && !use(at.part, piece)) return;
        at.left -= piece.size();
        rest = rest.subspan(piece.size());
        if (at.left > 0) return;
        at.part = Part::Tag;
        continue;
      }
      const size_t whole = at.part == Part::Header ? wire::PEER_HEADER_BYTES : wire::PEER_TAG_BYTES;
      const size_t more = std::min(rest.size(), whole - at.held.size());
      at.held.insert(at.held.end(), rest.begin(), rest.begin() + static_cast<ptrdiff_t>(more));
      rest = rest.subspan(more);
      if (at.held.size() < whole) return;
      std::vector<std::byte> held = std::exchange(at.held, {});
      const uint32_t asCame = be32(held, 0);
      if (!use(at.part, held)) return;
      if (at.part == Part::Tag) {
        at.part = Part::Header;
        continue;
      }
      at.left = at.sealing ? asCame : be32(held, 0);
      at.part = Part::Payload;
    }
  }

  TestVault& vault_;
  peer::FrameCipher cipher_;
  peer::FrameSealer sealer_;
  peer::FrameOpener opener_;
  Direction sealing_{.sealing = true, .held = {}, .run = {}};
  Direction opening_;
};

}  // namespace sallyport::netd::test
