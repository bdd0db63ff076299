// Goal: a key is in memory as long as it is needed: not after its epoch, its connection or forget(); and base mode
// keeps none at all, because there it is the block itself. Method: all writable memory of the process is searched for
// the known keys of tests/vectors/peer_frame.json.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "tests/unit/peer/peer_pair.h"

namespace sallyport::peer {
namespace {

using namespace test;

// The first half of a key, kept changed, so that the needle is not what is found.
class Needle {
 public:
  explicit Needle(std::string_view hexText) {
    for (size_t i = 0; i < BYTES; ++i)
      hidden_[i] = static_cast<std::byte>(std::stoi(std::string(hexText.substr(2 * i, 2)), nullptr, 16) ^ MASK);
  }
  // In how many places; other tests' vectors are among them, so what counts is the difference. The memory is read as a
  // file, so that no part of it is copied but into one buffer of ours.
  size_t copies() const {
    size_t found = 0;
    const int memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
    CHECK(memory >= 0);
    std::ifstream maps("/proc/self/maps");
    static std::array<std::byte, 1 << 16> buffer;
    for (std::string line; std::getline(maps, line);) {
      unsigned long begin = 0, end = 0;
      char mode[5] = {};
      if (std::sscanf(line.c_str(), "%lx-%lx %4s", &begin, &end, mode) != 3 || mode[1] != 'w') continue;
      if (end - begin > MAX_MAPPING_BYTES) continue;
      for (unsigned long at = begin; at < end; at += buffer.size() - BYTES) {
        const auto place = reinterpret_cast<unsigned long>(buffer.data());
        if (at + buffer.size() > place && at < place + buffer.size()) continue;
        const size_t wanted = std::min<size_t>(buffer.size(), end - at);
        const ssize_t got = pread(memory, buffer.data(), wanted, static_cast<off_t>(at));
        for (ssize_t i = 0; i + static_cast<ssize_t>(BYTES) <= got; ++i) found += isAt(&buffer[static_cast<size_t>(i)]);
        std::ranges::fill(buffer, std::byte{0});
      }
    }
    close(memory);
    return found;
  }

 private:
  static constexpr size_t BYTES = 16;
  static constexpr int MASK = 0x5a;
  static constexpr unsigned long MAX_MAPPING_BYTES = 1ul << 30;  // a sanitizer's shadow

  bool isAt(const std::byte* bytes) const {
    for (size_t i = 0; i < BYTES; ++i)
      if ((bytes[i] ^ std::byte{MASK}) != hidden_[i]) return false;
    return true;
  }
  std::array<std::byte, BYTES> hidden_;
};

// Epoch 0 of A's direction in hard mode, and the beginning of A's half, which is its key in base mode.
const Needle HARD_KEY("787e225b260e5a0a0360c69b18effbf4");
const Needle BLOCK("01060b10151a1f24292e33383d42474c");

// The vectors' block, made where it is needed: the vectors' file holds it in other forms only.
struct BlockOnStack {
  BlockOnStack() {
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(5 * i + 1);
  }
  ~BlockOnStack() { wipe(bytes); }
  std::array<std::byte, wire::PEER_BLOCK_BYTES> bytes;
};

FrameSealer theHardSealer(uint32_t rotate) {
  const BlockOnStack block;
  wire::PeerSalt saltA, saltB;
  for (size_t i = 0; i < wire::PEER_SALT_BYTES; ++i) {
    saltA.mutableSpan()[i] = static_cast<std::byte>(i);
    saltB.mutableSpan()[i] = static_cast<std::byte>(i + 32);
  }
  return hardSealer(hardSendSecret(block.bytes, PeerParty::A, saltA, saltB), PeerParty::A, rotate);
}

void sealOne(FrameSealer& sealer, FrameCipher& cipher) {
  Block frame(100);
  CHECK(!sealer.seal(cipher, frame, 1));
}

TEST(AKeyInMemory, IsFoundWhileItIsUsed) {  // or what follows would prove nothing
  const size_t before = HARD_KEY.copies();
  FrameCipher cipher;
  FrameSealer sealer = theHardSealer(3);
  EXPECT_EQ(HARD_KEY.copies(), before + 1);
  sealOne(sealer, cipher);
  EXPECT_EQ(HARD_KEY.copies(), before + 2);  // and the schedule of the cipher
}

TEST(AKeyInMemory, IsGoneWithItsEpoch) {
  const size_t before = HARD_KEY.copies();
  FrameCipher cipher;
  FrameSealer sealer = theHardSealer(2);
  sealOne(sealer, cipher);
  sealOne(sealer, cipher);
  EXPECT_EQ(HARD_KEY.copies(), before + 1);  // the cipher's alone
  sealOne(sealer, cipher);
  EXPECT_EQ(HARD_KEY.copies(), before);
}

TEST(AKeyInMemory, IsGoneWithItsConnectionAndWithForget) {
  const size_t before = HARD_KEY.copies();
  FrameCipher cipher;
  {
    FrameSealer sealer = theHardSealer(0);
    sealOne(sealer, cipher);
  }
  EXPECT_EQ(HARD_KEY.copies(), before + 1);
  cipher.forget();
  EXPECT_EQ(HARD_KEY.copies(), before);
}

TEST(ABlockInMemory, IsNowhereElseInBaseMode) {
  const size_t before = BLOCK.copies();
  FrameCipher cipher;
  const BlockOnStack block;
  FrameSealer sealer = baseSealer(block.bytes, PeerParty::A);
  EXPECT_EQ(BLOCK.copies(), before + 1);
  sealOne(sealer, cipher);
  EXPECT_EQ(BLOCK.copies(), before + 2);
  cipher.forget();
  EXPECT_EQ(BLOCK.copies(), before + 1);
}

TEST(ABlockInMemory, LeavesNothingBehindInHardMode) {
  const size_t before = BLOCK.copies();
  FrameSealer sealer = theHardSealer(0);
  EXPECT_EQ(BLOCK.copies(), before);
}

}  // namespace
}  // namespace sallyport::peer
