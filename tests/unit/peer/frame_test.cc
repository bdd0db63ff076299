// Goal: frames are to the byte those of docs/protocol.md §13, whole and in pieces, in both modes; whatever is changed
// on the way is refused under its name, and nothing of a refused frame can be read. Method: the known answers of
// tests/vectors/peer_frame.json; every single bit flipped; random lengths and pieces.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/unit/peer/peer_pair.h"

namespace sallyport::peer {
namespace {

using namespace test;

constexpr PeerMode BOTH_MODES[] = {PeerMode::Base, PeerMode::Hard};

Block randomBlock(size_t bytes) {
  Block block(bytes);
  fillRandom(block);
  return block;
}

TEST(AChainedHash, GoesOnFromTheDigestBefore) {
  Digest digest = initialDigest();
  for (const auto& vector : peerVectors().chain) {
    Hash hash;
    hash.startFrom(digest.expose());
    hash.update(vector.data);
    hash.finish(digest.exposeMutable());
    EXPECT_EQ(vec(digest.expose()), vector.digest);
  }
}

TEST(AnHmac, IsThatOfRfc4231) {
  Digest out;
  HmacKey(asBytes("Jefe")).mac(out.exposeMutable(), {asBytes("what do ya want "), asBytes("for nothing?")});
  EXPECT_EQ(vec(out.expose()), hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"));
  HmacKey(Block(20, std::byte{0x0b})).mac(out.exposeMutable(), {asBytes("Hi There")});
  EXPECT_EQ(vec(out.expose()), hex("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"));
}

TEST(AFrame, IsTheKnownAnswerAndOpensAgain) {
  FrameCipher cipher;
  size_t frames = 0;
  for (const auto& direction : peerVectors().directions) {
    const Keys keys{};
    FrameSealer sealer = keys.sealer(direction.mode, direction.side, direction.rotateFrames);
    FrameOpener opener = keys.opener(direction.mode, direction.side, direction.rotateFrames);
    sealer.skipToNumber(direction.firstNumber);
    opener.skipToNumber(direction.firstNumber);
    for (const auto& vector : direction.frames) {
      const Block frame = sealFrame(sealer, cipher, vector.payload, vector.code);
      ASSERT_EQ(frame, vector.frame) << "frame " << vector.number;
      const Opened opened = openFrame(opener, cipher, vector.frame);
      ASSERT_FALSE(opened.fault) << "frame " << vector.number << " " << name(*opened.fault);
      ASSERT_EQ(opened.payload, vector.payload);
      ASSERT_EQ(opened.code, vector.code);
      ASSERT_EQ(sealer.sealed(), vector.number);
      ASSERT_EQ(opener.opened(), vector.number);
      ++frames;
    }
  }
  EXPECT_GE(frames, 40u);
}

TEST(AFrame, SealedInPiecesIsTheKnownAnswerAndOpensInPieces) {
  FrameCipher cipher;
  FrameCipher other;
  for (const size_t pieceBytes : {1, 3, 16, 50}) {
    for (const auto& direction : peerVectors().directions) {
      const Keys keys{};
      FrameSealer sealer = keys.sealer(direction.mode, direction.side, direction.rotateFrames);
      FrameOpener opener = keys.opener(direction.mode, direction.side, direction.rotateFrames);
      sealer.skipToNumber(direction.firstNumber);
      opener.skipToNumber(direction.firstNumber);
      size_t turn = 0;
      // Others use the cipher meanwhile, now and then.
      const auto disturb = [&] {
        if (++turn % 3 == 0) cipher.forget();
      };
      for (const auto& vector : direction.frames) {
        FrameRun run;
        const auto header = sealer.begin(cipher, run, static_cast<uint32_t>(vector.payload.size()), vector.code);
        ASSERT_TRUE(header);
        Block frame = vec(*header);
        Block payload = vector.payload;
        for (size_t at = 0; at < payload.size(); at += pieceBytes) {
          disturb();
          const auto piece = MutableByteSpan(payload).subspan(at, std::min(pieceBytes, payload.size() - at));
          sealer.update(cipher, run, piece);
          frame.insert(frame.end(), piece.begin(), piece.end());
        }
        disturb();
        const auto tag = sealer.finish(cipher, run);
        frame.insert(frame.end(), tag.begin(), tag.end());
        ASSERT_EQ(frame, vector.frame);

        ASSERT_TRUE(opener.openHeader(cipher, ByteSpan(frame).first<wire::PEER_HEADER_BYTES>()));
        FrameRun openRun;
        opener.begin(cipher, openRun);
        for (size_t at = 0; at < payload.size(); at += pieceBytes) {
          disturb();
          opener.update(cipher, openRun,
                        MutableByteSpan(payload).subspan(at, std::min(pieceBytes, payload.size() - at)));
        }
        disturb();
        ASSERT_FALSE(opener.finish(cipher, openRun, tag));
        ASSERT_EQ(payload, vector.payload);
      }
    }
  }
}

TEST(AFrame, OfEveryLengthOpensToWhatWasSealed) {
  FrameCipher cipher;
  std::mt19937 dice(7);
  for (const PeerMode mode : BOTH_MODES) {
    const Keys keys{};
    FrameSealer sealer = keys.sealer(mode, PeerParty::B, 5);
    FrameSealer inPieces = keys.sealer(mode, PeerParty::B, 5);
    FrameOpener opener = keys.opener(mode, PeerParty::B, 5);
    std::vector<size_t> lengths;
    for (size_t length = 0; length < 200; ++length) lengths.push_back(length);
    for (const size_t edge : {PASS_BYTES, 2 * PASS_BYTES, size_t{65536}, size_t{1} << 20})
      for (size_t length = edge - 17; length < edge + 9; length += 1 + dice() % 3) lengths.push_back(length);
    for (const size_t length : lengths) {
      const Block payload = randomBlock(length);
      const Block frame = sealFrame(sealer, cipher, payload, static_cast<uint32_t>(length * 7));
      FrameRun run;
      Block copy = payload;
      Block pieced =
          vec(*inPieces.begin(cipher, run, static_cast<uint32_t>(length), static_cast<uint32_t>(length * 7)));
      for (size_t at = 0; at < length;) {
        const size_t piece = std::min<size_t>(length - at, 1 + dice() % 20000);
        inPieces.update(cipher, run, MutableByteSpan(copy).subspan(at, piece));
        at += piece;
      }
      pieced.insert(pieced.end(), copy.begin(), copy.end());
      const auto tag = inPieces.finish(cipher, run);
      pieced.insert(pieced.end(), tag.begin(), tag.end());
      ASSERT_EQ(pieced, frame) << length;
      const Opened opened = openFrame(opener, cipher, frame);
      ASSERT_FALSE(opened.fault) << length;
      ASSERT_EQ(opened.payload, payload) << length;
    }
  }
}

TEST(ARotation, GivesEachOfTenEpochsKeysOfItsOwn) {
  FrameCipher cipher;
  for (const PeerMode mode : BOTH_MODES) {
    const Keys keys{};
    FrameSealer sealer = keys.sealer(mode, PeerParty::A, 2);
    FrameSealer never = keys.sealer(mode, PeerParty::A, 0);
    FrameOpener opener = keys.opener(mode, PeerParty::A, 2);
    const Block payload(64);
    std::vector<Block> streams;
    for (int frame = 0; frame < 22; ++frame) {
      const Block rotated = sealFrame(sealer, cipher, payload, 9);
      const Block plain = sealFrame(never, cipher, payload, 9);
      ASSERT_EQ(rotated == plain, frame < 2) << "frame " << frame + 1;
      ASSERT_EQ(openFrame(opener, cipher, rotated).payload, payload);
      streams.push_back(rotated);
    }
    // The payload is zeros: what lies on the wire there is the key stream itself, and none comes twice.
    for (Block& stream : streams) stream.assign(stream.begin() + 16, stream.begin() + 80);
    std::ranges::sort(streams);
    ASSERT_EQ(std::ranges::adjacent_find(streams), streams.end());
  }
}

TEST(ARotation, OfAnotherLengthAtTheOtherEndIsABadChecksum) {
  FrameCipher cipher;
  for (const PeerMode mode : BOTH_MODES) {
    const Keys keys{};
    FrameSealer sealer = keys.sealer(mode, PeerParty::A, 2);
    FrameOpener opener = keys.opener(mode, PeerParty::A, 3);
    for (int frame = 0; frame < 2; ++frame)
      ASSERT_FALSE(openFrame(opener, cipher, sealFrame(sealer, cipher, textBlock("x"), 1)).fault);
    ASSERT_EQ(openFrame(opener, cipher, sealFrame(sealer, cipher, textBlock("x"), 1)).fault, R::BadChecksum);
  }
}

TEST(ASequence, WrapsAroundAt32BitsAndStopsBeforeTheLastNumber) {
  FrameCipher cipher;
  for (const PeerMode mode : BOTH_MODES) {
    const Keys keys{};
    FrameSealer sealer = keys.sealer(mode, PeerParty::A, 0);
    FrameOpener opener = keys.opener(mode, PeerParty::A, 0);
    for (const uint64_t start : {uint64_t{0xfffffffe}, 0xfffffffffffffffe}) {
      sealer.skipToNumber(start);
      opener.skipToNumber(start);
      Block last;
      for (int frame = 0; frame < 4; ++frame) {
        if (start == 0xfffffffffffffffe && frame == 1) break;
        last = sealFrame(sealer, cipher, textBlock("around"), 1);
        ASSERT_EQ(openFrame(opener, cipher, last).payload, textBlock("around"));
      }
    }
    Block frame(wire::PEER_OVERHEAD_BYTES);
    FrameRun run;
    EXPECT_EQ(sealer.seal(cipher, frame, 1), R::CounterExhausted);
    EXPECT_EQ(frame, Block(wire::PEER_OVERHEAD_BYTES));
    EXPECT_EQ(sealer.begin(cipher, run, 0, 1).error(), R::CounterExhausted);
    EXPECT_EQ(openFrame(opener, cipher, frame).fault, R::CounterExhausted);
  }
}

TEST(ASequence, OfTwoNumbersWithTheSameLowHalfGivesTwoFrames) {
  FrameCipher cipher;
  const Keys keys{};
  FrameSealer first = keys.sealer(PeerMode::Hard, PeerParty::A, 0);
  FrameSealer second = keys.sealer(PeerMode::Hard, PeerParty::A, 0);
  second.skipToNumber(uint64_t{1} + (uint64_t{1} << 32));
  const Block payload = textBlock("the same text");
  // Hard mode's keyed values count with 64 bits, though the wire shows 32.
  const Block one = sealFrame(first, cipher, payload, 1);
  EXPECT_NE(one, sealFrame(second, cipher, payload, 1));
  FrameOpener opener = keys.opener(PeerMode::Hard, PeerParty::A, 0);
  opener.skipToNumber(uint64_t{1} + (uint64_t{1} << 32));
  EXPECT_EQ(openFrame(opener, cipher, one).fault, R::BadChecksum);
}

}  // namespace
}  // namespace sallyport::peer
