// Goal: an attacker counts as one source, however many addresses of his own he uses, and a place is given back once.
// Method: addresses of every family; tickets moved, settled and dropped in every order.
#include "netd/sources.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vector>

#include "common/config.h"

namespace sallyport::netd {
namespace {

sockaddr_in v4(const char* text, uint16_t port = 1) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  EXPECT_EQ(inet_pton(AF_INET, text, &address.sin_addr), 1);
  return address;
}
sockaddr_in6 v6(const char* text, uint16_t port = 1) {
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_port = htons(port);
  EXPECT_EQ(inet_pton(AF_INET6, text, &address.sin6_addr), 1);
  return address;
}
SourceAddress number(uint32_t i) {
  sockaddr_in address = v4("10.0.0.0");
  address.sin_addr.s_addr = htonl(0x0a000000 + i);
  return sourceOf(address);
}

TEST(ASource, IsAnIPv4AddressWhateverItsPort) {
  EXPECT_EQ(sourceOf(v4("192.0.2.1", 1)), sourceOf(v4("192.0.2.1", 65535)));
  EXPECT_NE(sourceOf(v4("192.0.2.1")), sourceOf(v4("192.0.2.2")));
  EXPECT_NE(sourceOf(v4("192.0.2.1")), sourceOf(v4("193.0.2.1")));
}

TEST(ASource, IsAWholeSlash64OfIPv6) {
  EXPECT_EQ(sourceOf(v6("2001:db8::1")), sourceOf(v6("2001:db8:0:0:ffff:ffff:ffff:ffff")));
  EXPECT_NE(sourceOf(v6("2001:db8::1")), sourceOf(v6("2001:db8:0:1::1")));
}

TEST(ASource, IsTheSameForAnIPv4AddressInIPv6Clothes) {
  EXPECT_EQ(sourceOf(v6("::ffff:192.0.2.1")), sourceOf(v4("192.0.2.1")));
  EXPECT_NE(sourceOf(v6("::ffff:192.0.2.1")), sourceOf(v6("::ffff:192.0.2.2")));
}

TEST(ASource, IsTheUserOfAUnixSocketAndNoAddressOfTheNetwork) {
  EXPECT_EQ(sourceOf(LocalUser{1000}), sourceOf(LocalUser{1000}));
  EXPECT_NE(sourceOf(LocalUser{1000}), sourceOf(LocalUser{1001}));
  EXPECT_NE(sourceOf(LocalUser{0}), sourceOf(v6("::1")));
  EXPECT_NE(sourceOf(LocalUser{0}), sourceOf(v4("0.0.0.0")));
  const uid_t spelledAlike = htonl(INADDR_LOOPBACK);
  EXPECT_NE(sourceOf(LocalUser{spelledAlike}), sourceOf(v4("127.0.0.1")));
  EXPECT_NE(sourceOf(LocalUser{spelledAlike}), sourceOf(v6("::ffff:127.0.0.1")));
  EXPECT_NE(sourceOf(LocalUser{spelledAlike}), sourceOf(v6("::127.0.0.1")));
}

TEST(AnOrigin, IsWhatAcceptTellsOrWhoeverHasTheOtherEnd) {
  sockaddr_storage told{};
  reinterpret_cast<sockaddr_in&>(told) = v4("192.0.2.1", 40000);
  EXPECT_EQ(printable(originOf(-1, told)), "192.0.2.1:40000");
  reinterpret_cast<sockaddr_in6&>(told) = v6("2001:db8::1", 40000);
  EXPECT_EQ(printable(originOf(-1, told)), "[2001:db8::1]:40000");
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  for (const auto family : {AF_UNIX, AF_UNSPEC}) {
    told.ss_family = static_cast<sa_family_t>(family);
    EXPECT_EQ(std::get<LocalUser>(originOf(ends[0], told)).uid, geteuid());
  }
  close(ends[0]);
  close(ends[1]);
  EXPECT_TRUE(isUnnamed(originOf(-1, told))) << "no socket";
  EXPECT_FALSE(isUnnamed(LocalUser{1000}));
  EXPECT_FALSE(isUnnamed(v4("192.0.2.1")));
}

TEST(AnOrigin, IsPrintedForPeople) {
  EXPECT_EQ(printable(v4("192.0.2.1", 40000)), "192.0.2.1:40000");
  EXPECT_EQ(printable(v6("2001:db8::1", 40000)), "[2001:db8::1]:40000");
  EXPECT_EQ(printable(LocalUser{1000}), "unix:uid=1000");
  EXPECT_EQ(printable(LocalUser{OVERFLOW_ID}), "unix");
}

class Places : public testing::Test {
 protected:
  Stats stats;
  Sources sources{stats};
  const SourceAddress here = sourceOf(v4("192.0.2.1"));
  const SourceAddress there = sourceOf(v4("192.0.2.2"));
  void expect(const SourceAddress& source, size_t connections, size_t halfOpen) {
    EXPECT_EQ(sources.counts(source).connections, connections);
    EXPECT_EQ(sources.counts(source).halfOpen, halfOpen);
  }
};

TEST_F(Places, AreCountedForEachSource) {
  auto a = sources.take(here);
  auto b = sources.take(here);
  auto c = sources.take(there);
  expect(here, 2, 2);
  expect(there, 1, 1);
}

TEST_F(Places, OfTheBusiestSourceAreTold) {
  const auto expectBusiest = [&](uint64_t connections, uint64_t halfOpen) {
    EXPECT_EQ(stats.get(Counter::BusiestConnections), connections);
    EXPECT_EQ(stats.get(Counter::BusiestHalfOpen), halfOpen);
  };
  {
    auto a = sources.take(here);
    auto b = sources.take(here);
    auto c = sources.take(there);
    auto d = sources.take(there);
    auto e = sources.take(there);
    expectBusiest(3, 3);
    c.settle();
    d.settle();
    expectBusiest(3, 2);
    { auto gone = std::move(d); }
    { auto gone = std::move(e); }
    expectBusiest(2, 2);
    a.settle();
    expectBusiest(2, 1);
    b.settle();
    expectBusiest(2, 0);
  }
  expectBusiest(0, 0);
  std::vector<Sources::Ticket> many;
  for (uint32_t i = 0; i < 100; ++i) {
    for (uint32_t j = 0; j <= i; ++j) many.push_back(sources.take(number(i)));
  }
  expectBusiest(100, 100);
  while (many.size() > 10) many.pop_back();
  expectBusiest(4, 4);
}

TEST_F(Places, AreHalfOpenUntilTheySettleOnce) {
  auto a = sources.take(here);
  auto b = sources.take(here);
  a.settle();
  a.settle();
  expect(here, 2, 1);
}

TEST_F(Places, AreGivenBackWhetherTheySettledOrNot) {
  {
    auto a = sources.take(here);
    auto b = sources.take(here);
    a.settle();
  }
  expect(here, 0, 0);
}

TEST_F(Places, AreGivenBackOnceHoweverOftenTheyMove) {
  Sources::Ticket last;
  {
    auto a = sources.take(here);
    Sources::Ticket b(std::move(a));
    last = std::move(b);
  }
  expect(here, 1, 1);
  last = {};
  expect(here, 0, 0);
}

TEST_F(Places, OfOneSourceSurviveAThousandOthers) {
  auto kept = sources.take(here);
  {
    std::vector<Sources::Ticket> crowd;
    for (uint32_t i = 0; i < 1000; ++i) crowd.push_back(sources.take(number(i)));
    expect(here, 1, 1);
  }
  kept.settle();
  expect(here, 1, 0);
}

// Only their addresses count here.
struct Holders {
  std::array<std::byte, 8> memory{};
  Connection& operator[](size_t i) { return reinterpret_cast<Connection&>(memory[i]); }
};

TEST_F(Places, OfOneSourceAreInTheOrderInWhichTheyWereTaken) {
  Holders holders;
  EXPECT_EQ(sources.oldestHalfOpen(here), nullptr);
  auto stranger = sources.take(there);
  stranger.heldBy(holders[7]);
  EXPECT_EQ(sources.oldestHalfOpen(here), nullptr);
  std::vector<Sources::Ticket> own;
  for (size_t i = 0; i < 4; ++i) {
    own.push_back(sources.take(here));  // moves the others
    own.back().heldBy(holders[i]);
  }
  EXPECT_EQ(sources.oldestHalfOpen(here), &holders[0]);
  own[1].settle();
  own[0] = {};
  EXPECT_EQ(sources.oldestHalfOpen(here), &holders[2]);
  own[2].settle();
  own[3].settle();
  EXPECT_EQ(sources.oldestHalfOpen(here), nullptr);
  expect(here, 3, 0);
  EXPECT_EQ(sources.oldestHalfOpen(there), &holders[7]);
}

TEST(ASource, HasABoundedNumberOfTriesASecond) {
  Stats stats;
  Sources sources{stats};
  const auto stranger = sourceOf(v4("192.0.2.1")), other = sourceOf(v4("192.0.2.2"));
  for (uint32_t i = 0; i < Sources::TRIES_PER_SECOND; ++i) EXPECT_TRUE(sources.mayTry(stranger, 5000 + i));
  EXPECT_FALSE(sources.mayTry(stranger, 5500));
  EXPECT_TRUE(sources.mayTry(other, 5500)) << "each has its own";
  EXPECT_FALSE(sources.mayTry(stranger, 5999));
  EXPECT_TRUE(sources.mayTry(stranger, 6000));
}

TEST(ASource, PaysNothingForTriesThatProveSomething) {
  Stats stats;
  Sources sources{stats};
  const auto peer = sourceOf(v4("192.0.2.1"));
  for (uint32_t i = 0; i < 10 * Sources::TRIES_PER_SECOND; ++i) {
    EXPECT_TRUE(sources.mayTry(peer, 5000));
    sources.proved(peer);
  }
  sources.proved(peer);
  for (uint32_t i = 0; i < Sources::TRIES_PER_SECOND; ++i) EXPECT_TRUE(sources.mayTry(peer, 5000));
  EXPECT_FALSE(sources.mayTry(peer, 5000)) << "nothing is saved up";
}

TEST(ASource, ThatIsOneOfVeryManyTakesNoMemory) {
  Stats stats;
  Sources sources{stats};
  for (uint32_t i = 0; i < 100'000; ++i) EXPECT_TRUE(sources.mayTry(number(i), 5000));
  EXPECT_LE(sources.triers(), 4096u);
}

}  // namespace
}  // namespace sallyport::netd
