// Goal: an entry has its key and its peers and no other, and a broken key disables itself alone.
// Method: configurations as text, keys in a temporary folder.
#include "vaultd/policy.h"

#include "tests/unit/vaultd/support.h"

namespace sallyport::vaultd {
namespace {

using test::contains;

constexpr std::string_view CONFIG = R"([vault]
keys = "keys"

[[listen]]
name = "db"
address = "127.0.0.1:7001"
protocol = "curve"
key = "server"
allow = ["alice"]
service = "echo"

[[listen]]
name = "web"
address = "127.0.0.1:7002"
protocol = "curve"
key = "server"
allow = ["bob"]
service = "echo"

[[connect]]
name = "db"
address = "127.0.0.1:7001"
protocol = "curve"
key = "server"
peer = "bob"

[peers]
alice = "D6poTtKIZ7l/Smot7l34zpdOdrcBjj8iocTPJnhXDyA="
bob   = "ew1H2TQn+DERYHgcfHM/2J+IlwrvSQ2KoO4ZpMuKGxQ="
)";

class Policies : public testing::Test {
 protected:
  test::TemporaryFolder temporary;
  std::unique_ptr<SecretArena> arena = std::move(*SecretArena::create(16384));
  SharedKeyCache cache{*arena, 8};
  std::vector<Problem> warnings;
  PublicKey alice{test::vector("C")};
  PublicKey bob{test::vector("EC")};

  Config config(std::string_view text = CONFIG) {
    auto parsed = parseConfig(text, temporary.path() / "sallyport.toml");
    EXPECT_TRUE(parsed.has_value()) << (parsed ? "" : parsed.error().message);
    return std::move(*parsed);
  }
  std::filesystem::path keys() const { return temporary.path() / "keys"; }
  Result<Keyring, Problem> load(const Config& c) { return Keyring::load(c, *arena, cache, {}, {}, 0, warnings); }
};

TEST_F(Policies, AKeyOfSeveralEntriesIsLoadedOnce) {
  ASSERT_TRUE(generateKey(keys(), "server", {}).has_value());
  ASSERT_TRUE(generateKey(keys(), "unused", {}).has_value());
  const Config c = config();
  auto ring = load(c);
  ASSERT_TRUE(ring.has_value());
  EXPECT_EQ(ring->all().size(), 1u);
  EXPECT_FALSE(std::filesystem::exists(noncePath(keys(), "unused"))) << "no nonce state for a key that isn't used";
  const Policy policy(c, *ring);
  EXPECT_EQ(policy.listen("db")->key, policy.listen("web")->key);
  EXPECT_EQ(policy.listen("db")->key, policy.connect("db")->key);
}

TEST_F(Policies, APlainKeyIsWarnedAbout) {
  ASSERT_TRUE(generateKey(keys(), "server", {}).has_value());
  ASSERT_TRUE(load(config()).has_value());
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_TRUE(contains(warnings[0].message, "not sealed"));
}

TEST_F(Policies, AMissingKeyEndsTheStartWithItsName) {
  ASSERT_TRUE(generateKey(keys(), "other", {}).has_value());
  auto ring = load(config());
  ASSERT_FALSE(ring.has_value());
  EXPECT_TRUE(contains(ring.error().hint, "sallyport key new server"));
}

TEST_F(Policies, ADamagedNonceFileDisablesItsKeyAlone) {
  ASSERT_TRUE(generateKey(keys(), "server", {}).has_value());
  test::writeFile(noncePath(keys(), "server"), "broken");
  auto ring = load(config());
  ASSERT_TRUE(ring.has_value());
  EXPECT_FALSE(ring->find("server")->usable);
  EXPECT_FALSE(ring->find("server")->ledger->ready());
  EXPECT_TRUE(ring->noneUsable());
}

TEST_F(Policies, ASecondRingOnTheSameKeysIsRefused) {
  ASSERT_TRUE(generateKey(keys(), "server", {}).has_value());
  auto first = load(config());
  ASSERT_TRUE(first.has_value());
  auto second = load(config());
  ASSERT_FALSE(second.has_value());
  EXPECT_TRUE(contains(second.error().message, "another vaultd"));
}

TEST_F(Policies, EachEntryAllowsItsOwnPeersOnly) {
  ASSERT_TRUE(generateKey(keys(), "server", {}).has_value());
  const Config c = config();
  auto ring = load(c);
  const Policy policy(c, *ring);
  EXPECT_TRUE(policy.listen("db")->allowed.contains(alice));
  EXPECT_FALSE(policy.listen("db")->allowed.contains(bob));
  EXPECT_EQ(policy.listen("web")->allowed.at(bob), "bob");
  EXPECT_FALSE(policy.listen("web")->allowed.contains(alice));
  EXPECT_EQ(policy.connect("db")->server, bob);
}

TEST_F(Policies, UnknownEntriesAreNotThere) {
  ASSERT_TRUE(generateKey(keys(), "server", {}).has_value());
  const Config c = config();
  auto ring = load(c);
  const Policy policy(c, *ring);
  for (const char* name : {"", "DB", "db ", "server"}) {
    EXPECT_EQ(policy.listen(name), nullptr) << name;
    EXPECT_EQ(policy.connect(name), nullptr) << name;
  }
  EXPECT_EQ(policy.connect("web"), nullptr) << "a listen entry is no connect entry";
}

TEST_F(Policies, KeysThatAReloadAddsAreMissingUntilARestart) {
  ASSERT_TRUE(generateKey(keys(), "server", {}).has_value());
  auto ring = load(config());
  const Policy policy(config(std::string(CONFIG) + R"(
[[listen]]
name = "new"
address = "127.0.0.1:7003"
protocol = "curve"
key = "later"
allow = ["alice"]
service = "echo"
)"),
                      *ring);
  EXPECT_EQ(policy.listen("new")->key, nullptr);
  EXPECT_EQ(policy.missingKeys(), "later");
}

TEST_F(Policies, KnowsPeersByKeyOverAllEntries) {
  ASSERT_TRUE(generateKey(keys(), "server", {}).has_value());
  const Config c = config();
  auto ring = load(c);
  const Policy policy(c, *ring);
  const VaultKey& server = *ring->find("server");
  EXPECT_TRUE(policy.knows(server, alice));
  EXPECT_TRUE(policy.knows(server, bob));
  EXPECT_FALSE(policy.knows(server, PublicKey(test::vector("ES"))));
}

}  // namespace
}  // namespace sallyport::vaultd
