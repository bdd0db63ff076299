// Goal: the rules for names, addresses and workers hold wherever they are used, and not only in the file.
// Method: each with what is right and what is just not.
#include <algorithm>
#include <thread>

#include <gtest/gtest.h>

#include "common/config.h"

namespace sallyport {
namespace {

TEST(Names, AreSafeFileNames) {
  for (const auto* good : {"a", "A-b_c.d", "0", "x.key"}) EXPECT_TRUE(isName(good)) << good;
  for (const auto* bad : {"", ".", "..", ".x", "-x", "a/b", "a b", "a\n", "ä", "a\\"}) EXPECT_FALSE(isName(bad)) << bad;
}

TEST(Workers, AreAsManyAsWantedOrAsThereAreCores) {
  const auto count = [](uint32_t wanted) {
    NetConfig net;
    net.workers = wanted;
    return workerCount(net);
  };
  EXPECT_EQ(count(5), 5u);
  EXPECT_EQ(count(1000), MAX_WORKERS);  // the parser allows no more either
  EXPECT_EQ(count(0), std::clamp(std::thread::hardware_concurrency(), 1u, MAX_WORKERS));
  EXPECT_FALSE(parseConfig("[net]\nworkers = 64\n", "/etc/x.toml"));
}

// As the kernel binds them, two sockets that listen.
TEST(Addresses, AWildcardCollidesWithWhatItStandsFor) {
  const auto expect = [](bool expected, std::string_view one, const std::vector<std::string_view>& others) {
    for (const auto other : others) {
      const auto first = *parseAddress(one, "/"), second = *parseAddress(other, "/");
      EXPECT_EQ(collide(first, second), expected) << one << " and " << other;
      EXPECT_EQ(collide(second, first), expected) << other << " and " << one;
    }
  };
  expect(true, "[::]:1", {"[::]:1", "[::1]:1", "0.0.0.0:1", "127.0.0.1:1", "localhost:1"});
  expect(false, "[::]:1", {"[::]:2", "127.0.0.1:2", "unix:x.sock"});
  expect(true, "0.0.0.0:1", {"0.0.0.0:1", "127.0.0.1:1", "localhost:1", "[::ffff:127.0.0.1]:1"});
  expect(false, "0.0.0.0:1", {"[::1]:1", "127.0.0.1:2"});
  expect(true, "127.0.0.1:1", {"127.0.0.1:1", "localhost:1", "[::ffff:127.0.0.1]:1"});
  expect(false, "127.0.0.1:1", {"127.0.0.2:1", "[::1]:1", "127.0.0.1:2"});
  expect(true, "[::1]:1", {"[0:0::1]:1"});
  expect(true, "unix:x.sock", {"unix:y/../x.sock"});
  expect(false, "unix:x.sock", {"unix:y.sock"});
}

TEST(Addresses, LocalOnesAreRecognised) {
  const auto local = [](std::string_view text) { return isLocal(*parseAddress(text, "/")); };
  for (const auto* good : {"127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:x"})
    EXPECT_TRUE(local(good)) << good;
  for (const auto* bad : {"0.0.0.0:1", "[::]:1", "128.0.0.1:1", "localhost.example:1", "[::ffff:127.0.0.1]:1"}) {
    EXPECT_FALSE(local(bad)) << bad;
  }
}

}  // namespace
}  // namespace sallyport
