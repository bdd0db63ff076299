// Goal: a block is claimed once, whatever crashes, fills up, is copied or is taken away.
// Method: claims on a disk in memory with ordered failures; and real files in a folder.
#include "vaultd/block_claims.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/vaultd/claims_disk.h"
#include "tests/unit/vaultd/support.h"
#include "vaultd/state_file.h"

namespace sallyport::vaultd {
namespace {

constexpr int64_t NOW = 1'800'000'000;
const BlockClaims::Place PLACE{std::byte{1}};

PublicKey block(unsigned number) {
  PublicKey fingerprint;
  fingerprint.mutableSpan()[0] = static_cast<std::byte>(number);
  fingerprint.mutableSpan()[1] = static_cast<std::byte>(number >> 8);
  return fingerprint;
}

class Claims : public testing::Test {
 protected:
  test::ClaimsImage image{8, PLACE, NOW};
  Result<std::unique_ptr<BlockClaims>, Problem> open() {
    return BlockClaims::open(std::make_unique<test::ClaimsDisk>(image), PLACE, image.bytes.size());
  }
  std::string problem() {
    const auto claims = open();
    return claims ? "" : claims.error().message;
  }
};

TEST_F(Claims, ABlockIsClaimedOnce) {
  const auto claims = std::move(*open());
  EXPECT_FALSE(claims->isClaimed(block(1)));
  ASSERT_TRUE(claims->claim(block(1), NOW).has_value());
  EXPECT_EQ(image.syncs, 1) << "durable before it says so";
  EXPECT_TRUE(claims->isClaimed(block(1)));
  EXPECT_FALSE(claims->isClaimed(block(2)));
  ASSERT_FALSE(claims->claim(block(1), NOW).has_value());
  EXPECT_EQ(claims->claim(block(1), NOW).error(), ClaimRefusal::Used);
}

TEST_F(Claims, AClaimSurvivesARestart) {
  ASSERT_TRUE((*open())->claim(block(1), NOW).has_value());
  ASSERT_TRUE((*open())->claim(block(2), NOW).has_value());
  const auto claims = std::move(*open());
  EXPECT_TRUE(claims->isClaimed(block(1)) && claims->isClaimed(block(2)));
  EXPECT_EQ(claims->claim(block(2), NOW).error(), ClaimRefusal::Used);
}

TEST_F(Claims, AFullDiskRefusesAndEndsAllClaimsOfThisLife) {
  for (const int how : {0, 1, 2}) {
    image.bytes = BlockClaims::newImage(PLACE, {}, NOW), image.bytes.resize(BlockClaims::HEADER_BYTES + 8 * 64);
    image.failWriteWith = how == 0 ? ENOSPC : 0;
    image.failSyncWith = how == 1 ? EIO : 0;
    image.shortWrite = how == 2 ? 63 : SIZE_MAX;
    const auto claims = std::move(*open());
    ASSERT_FALSE(claims->claim(block(1), NOW).has_value());
    image.failWriteWith = image.failSyncWith = 0;
    image.shortWrite = SIZE_MAX;
    EXPECT_TRUE(claims->isClaimed(block(1))) << "nobody knows what is on the disk";
    EXPECT_EQ(claims->claim(block(2), NOW).error(), ClaimRefusal::Unavailable) << how;
    EXPECT_NE(claims->describe(), "ready");
  }
}

TEST_F(Claims, AFullFileRefuses) {
  const auto claims = std::move(*open());
  for (unsigned i = 0; i < 8; ++i) ASSERT_TRUE(claims->claim(block(i), NOW).has_value());
  EXPECT_EQ(claims->claim(block(9), NOW).error(), ClaimRefusal::Unavailable);
}

TEST_F(Claims, AnyDamagedByteOfARecordMakesAllBlocksCountAsUsed) {
  ASSERT_TRUE((*open())->claim(block(1), NOW).has_value());
  ASSERT_TRUE((*open())->claim(block(2), NOW).has_value());
  const auto whole = image.bytes;
  for (size_t at = BlockClaims::HEADER_BYTES; at < BlockClaims::HEADER_BYTES + 2 * 64; ++at) {
    image.bytes = whole;
    image.bytes[at] ^= std::byte{1};
    EXPECT_NE(problem(), "") << at;
  }
  image.bytes = whole;
  std::fill_n(image.bytes.begin() + BlockClaims::HEADER_BYTES, 64, std::byte{});
  EXPECT_NE(problem(), "") << "a claim was taken out";
  image.bytes = whole;
  image.bytes[BlockClaims::HEADER_BYTES + 7 * 64] = std::byte{1};
  EXPECT_NE(problem(), "") << "something behind the end";
}

TEST_F(Claims, ADamagedHeaderACutFileAndACopyAreNotBelieved) {
  const auto whole = image.bytes;
  for (const size_t at : {size_t{0}, size_t{7}, size_t{8}, size_t{100}, BlockClaims::HEADER_BYTES - 1}) {
    image.bytes = whole;
    image.bytes[at] ^= std::byte{1};
    EXPECT_NE(problem(), "") << at;
  }
  for (const size_t bytes : {size_t{0}, size_t{100}, BlockClaims::HEADER_BYTES + 63}) {
    image.bytes = whole;
    image.bytes.resize(bytes);
    EXPECT_NE(problem(), "") << bytes;
  }
  image.bytes = BlockClaims::newImage({std::byte{2}}, {}, NOW);
  EXPECT_TRUE(test::contains(problem(), "copied or restored")) << problem();
}

TEST(UnusableClaims, HaveEveryBlockUsed) {
  const auto claims = BlockClaims::unusable("why");
  EXPECT_TRUE(claims->isClaimed(block(1)));
  EXPECT_EQ(claims->claim(block(1), NOW).error(), ClaimRefusal::Used);
  EXPECT_EQ(claims->describe(), "why");
}

class ClaimsFile : public testing::Test {
 protected:
  test::TemporaryFolder temporary;
  const std::filesystem::path folder = temporary.path() / "keys";
  PublicKey makeBlock(const std::string& name) {
    const auto made = generateKey(folder, name, {}, {.kind = KeyKind::PeerBlock, .party = wire::PeerParty::A});
    CHECK(made.has_value());
    return made->versions[0].publicKey;
  }
};

TEST_F(ClaimsFile, MadeBeforeTheFirstBlockItLeavesTheBlockUnused) {
  ASSERT_TRUE(ensureClaims(folder).has_value());
  const PublicKey fingerprint = makeBlock("p");
  ASSERT_TRUE(ensureClaims(folder).has_value()) << "the second time nothing happens";
  auto claims = openClaims(folder, {});
  ASSERT_TRUE(claims.has_value()) << claims.error().problem.message;
  EXPECT_FALSE((*claims)->isClaimed(fingerprint));
  EXPECT_TRUE((*claims)->claim(fingerprint, NOW).has_value());
  EXPECT_EQ(std::filesystem::file_size(claimsPath(folder)), 4096u + 1024 * 64) << "room was made at the start";
}

TEST_F(ClaimsFile, WhenItIsMissingEveryBlockThatIsThereCountsAsUsed) {
  const PublicKey fingerprint = makeBlock("p");
  const auto claims = openClaims(folder, {});
  ASSERT_TRUE(claims.has_value());
  EXPECT_TRUE((*claims)->isClaimed(fingerprint));
}

TEST_F(ClaimsFile, ACopyOfItIsRefused) {
  ASSERT_TRUE(ensureClaims(folder).has_value());
  makeBlock("p");
  std::filesystem::copy_file(claimsPath(folder), folder / "copy");
  std::filesystem::remove(claimsPath(folder));
  std::filesystem::rename(folder / "copy", claimsPath(folder));
  std::filesystem::permissions(claimsPath(folder), std::filesystem::perms(0600));
  const auto claims = openClaims(folder, {});
  ASSERT_FALSE(claims.has_value());
  EXPECT_FALSE(claims.error().inUse);
  EXPECT_TRUE(test::contains(claims.error().problem.message, "copied or restored"));
}

TEST_F(ClaimsFile, TwoVaultsDontShareIt) {
  ASSERT_TRUE(ensureClaims(folder).has_value());
  const auto first = openClaims(folder, {});
  ASSERT_TRUE(first.has_value());
  const auto second = openClaims(folder, {});
  ASSERT_FALSE(second.has_value());
  EXPECT_TRUE(second.error().inUse);
}

TEST_F(ClaimsFile, OneThatOthersCanUseIsRefused) {
  ASSERT_TRUE(ensureClaims(folder).has_value());
  std::filesystem::permissions(claimsPath(folder), std::filesystem::perms(0660));
  EXPECT_FALSE(openClaims(folder, {}).has_value());
}

TEST_F(ClaimsFile, ASymbolicLinkIsRefused) {
  ASSERT_TRUE(ensureClaims(folder).has_value());
  std::filesystem::rename(claimsPath(folder), folder / "else");
  std::filesystem::create_symlink(folder / "else", claimsPath(folder));
  EXPECT_TRUE(ensureClaims(folder).has_value()) << "there is something: it stays";
  EXPECT_FALSE(openClaims(folder, {}).has_value());
}

}  // namespace
}  // namespace sallyport::vaultd
