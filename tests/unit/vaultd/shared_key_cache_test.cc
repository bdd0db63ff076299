// Goal: the cache finds what was put in and forgets the least used, wiped.
// Method: a model list beside it over random operations.
#include "vaultd/shared_key_cache.h"

#include <algorithm>

#include "tests/unit/vaultd/support.h"

namespace sallyport::vaultd {
namespace {

PublicKey peer(unsigned number) {
  PublicKey key;
  std::memcpy(key.data(), &number, sizeof number);
  return key;
}

std::array<std::byte, 32> shared(unsigned number) {
  std::array<std::byte, 32> key;
  key.fill(static_cast<std::byte>(number + 1));
  return key;
}

class SharedKeys : public testing::Test {
 protected:
  std::unique_ptr<SecretArena> arena = std::move(*SecretArena::create(8192));
  SharedKeyCache cache{*arena, 4};

  bool has(SharedKeyCache::KeyId own, unsigned number) {
    const auto found = cache.find(own, peer(number));
    return found && std::ranges::equal(*found, shared(number));
  }
};

TEST_F(SharedKeys, AStrangerIsNotThere) { EXPECT_FALSE(cache.find(0, peer(1))); }

TEST_F(SharedKeys, FindsWhatWasPutIn) {
  cache.insert(0, peer(1), shared(1));
  EXPECT_TRUE(has(0, 1));
}

TEST_F(SharedKeys, AnotherKeyOfOursDoesNotFindIt) {
  cache.insert(0, peer(1), shared(1));
  EXPECT_FALSE(cache.find(1, peer(1)));
}

TEST_F(SharedKeys, TheLeastRecentlyUsedGoesFirst) {
  for (unsigned i = 0; i < 4; ++i) cache.insert(0, peer(i), shared(i));
  EXPECT_TRUE(has(0, 0));
  cache.insert(0, peer(4), shared(4));
  EXPECT_FALSE(cache.find(0, peer(1)));
  for (unsigned i : {0u, 2u, 3u, 4u}) EXPECT_TRUE(has(0, i)) << i;
  EXPECT_EQ(cache.size(), 4u);
}

TEST_F(SharedKeys, TwiceTheSameTakesOnePlace) {
  cache.insert(0, peer(1), shared(1));
  cache.insert(0, peer(1), shared(1));
  EXPECT_EQ(cache.size(), 1u);
}

TEST_F(SharedKeys, EvictionWipes) {
  for (unsigned i = 0; i < 4; ++i) cache.insert(0, peer(i), shared(i));
  const std::byte* memory = cache.find(0, peer(2))->data();
  cache.retain([](SharedKeyCache::KeyId, const PublicKey& key) { return key != peer(2); });
  EXPECT_TRUE(std::all_of(memory, memory + 32, [](std::byte b) { return b == std::byte{0}; }));
  EXPECT_FALSE(cache.find(0, peer(2)));
  EXPECT_TRUE(has(0, 1) && has(0, 3));
}

TEST_F(SharedKeys, RetainCanTakeEverythingAndTheCacheStillWorks) {
  for (unsigned i = 0; i < 4; ++i) cache.insert(i, peer(i), shared(i));
  cache.retain([](SharedKeyCache::KeyId, const PublicKey&) { return false; });
  EXPECT_EQ(cache.size(), 0u);
  for (unsigned i = 0; i < 9; ++i) cache.insert(0, peer(i), shared(i));
  for (unsigned i = 5; i < 9; ++i) EXPECT_TRUE(has(0, i)) << i;
}

// Against a plain model: thousands of random operations, the same content after each.
TEST_F(SharedKeys, BehavesLikeAListInOrderOfUse) {
  std::vector<unsigned> model;  // newest first
  uint32_t random = 1;
  for (int step = 0; step < 20000; ++step) {
    random = random * 1664525 + 1013904223;
    const unsigned number = (random >> 16) % 7;
    const auto at = std::find(model.begin(), model.end(), number);
    const bool known = at != model.end();
    if (known) model.erase(at);
    if ((random >> 8) % 2 == 0) {
      ASSERT_EQ(cache.find(0, peer(number)).has_value(), known) << "step " << step;
      if (known) model.insert(model.begin(), number);
    } else {
      cache.insert(0, peer(number), shared(number));
      model.insert(model.begin(), number);
      if (model.size() > 4) model.pop_back();
    }
    ASSERT_EQ(cache.size(), model.size());
  }
  for (unsigned number : std::vector<unsigned>(model)) EXPECT_TRUE(has(0, number));
}

}  // namespace
}  // namespace sallyport::vaultd
