// Goal: a use is permitted if one grant permits all of it, and by nothing less: each dimension refuses by itself, under
// its own name; whatever is doubtful in the file is an error with its line.
// Method: configurations as text, resolved with made-up accounts, judged as pure functions.
#include "common/grants.h"

#include <gtest/gtest.h>

namespace sallyport {
namespace {

constexpr std::string_view PEERS = R"(
[peers]
alice = "D6poTtKIZ7l/Smot7l34zpdOdrcBjj8iocTPJnhXDyA="
bob = "ew1H2TQn+DERYHgcfHM/2J+IlwrvSQ2KoO4ZpMuKGxQ="
)";

Accounts accounts() { return {{{"backup", 1001}, {"web", 1002}}, {{"ops", 2001}}}; }

std::string grant(const std::string& lines) {
  return "[[vault_socket]]\nname = \"side\"\npath = \"run/side.sock\"\nmode = \"0660\"\n[[grant]]\nname = \"g\"\n" +
         lines + "\n" + std::string(PEERS);
}
const std::string FULL = R"(users = ["backup"]
keys = ["k"]
verbs = ["box", "open", "fresh_nonce"]
peers = ["alice"]
domains = ["minute-k"]
max_bytes = 100
)";

Result<Config, ConfigError> parse(const std::string& text) {
  return parseConfig(text, "/etc/sallyport/sallyport.toml");
}

struct Judged {
  Config config;
  Grants grants;
  explicit Judged(const std::string& text) : config(*parse(text)), grants(*Grants::resolve(config, accounts())) {}

  std::optional<Denial> operator()(const Caller& caller, std::string_view key, const Use& use, bool rateLeft = true) {
    const auto result = judge(grants.find(caller, key), use, [rateLeft](const Grant&) { return rateLeft; });
    return result ? std::optional<Denial>() : std::optional(result.error());
  }
  const PublicKey& key(const char* name) { return config.peers.at(name); }
};

const Caller BACKUP{"main", 1001, {1001}};

TEST(Grants, PermitWhatIsGrantedAndRefuseEachDimensionByItsName) {
  Judged judged(grant(FULL));
  const PublicKey alice = judged.key("alice");
  const PublicKey bob = judged.key("bob");
  EXPECT_EQ(judged(BACKUP, "k", {Verb::Box, &alice, 100, {}}), std::nullopt);
  EXPECT_EQ(judged(BACKUP, "k", {Verb::Open, &alice, 0, {}}), std::nullopt);
  EXPECT_EQ(judged(BACKUP, "k", {Verb::FreshNonce, nullptr, 0, "minute-k"}), std::nullopt);

  EXPECT_EQ(judged(BACKUP, "other", {Verb::Box, &alice, 1, {}}), Denial::NotPermitted) << "key";
  EXPECT_EQ(judged(BACKUP, "k", {Verb::Sign, nullptr, 1, {}}), Denial::NotPermitted) << "verb";
  EXPECT_EQ(judged({"side", 1001, {1001}}, "k", {Verb::Box, &alice, 1, {}}), Denial::NotPermitted) << "socket";
  EXPECT_EQ(judged({"main", 1002, {1002}}, "k", {Verb::Box, &alice, 1, {}}), Denial::NotPermitted) << "uid";
  EXPECT_EQ(judged(BACKUP, "k", {Verb::Box, &bob, 1, {}}), Denial::PeerNotAllowed);
  EXPECT_EQ(judged(BACKUP, "k", {Verb::Open, nullptr, 1, {}}), Denial::PeerNotAllowed) << "a sealed box needs any peer";
  EXPECT_EQ(judged(BACKUP, "k", {Verb::Box, &alice, 101, {}}), Denial::TooLong);
  EXPECT_EQ(judged(BACKUP, "k", {Verb::FreshNonce, nullptr, 0, "other"}), Denial::BadDomain);
  EXPECT_EQ(judged(BACKUP, "k", {Verb::Box, &alice, 1, {}}, false), Denial::RateLimited);
}

TEST(Grants, AGroupSufficesAndSoDoesAUser) {
  Judged judged(grant("users = [\"web\"]\ngroups = [\"ops\", 77]\nkeys = [\"k\"]\nverbs = [\"sign\"]"));
  const Use sign{Verb::Sign, nullptr, 5, {}};
  EXPECT_EQ(judged({"main", 1002, {1002}}, "k", sign), std::nullopt);
  EXPECT_EQ(judged({"main", 9, {9, 2001}}, "k", sign), std::nullopt) << "a supplementary group";
  EXPECT_EQ(judged({"main", 9, {77}}, "k", sign), std::nullopt) << "a group by number";
  EXPECT_EQ(judged({"main", 77, {9}}, "k", sign), Denial::NotPermitted) << "77 is a group, not a user";
}

// In a user namespace the kernel shows everybody that it doesn't map under one number.
TEST(Grants, WhoCanNotBeNamedIsNobody) {
  Judged judged(grant("users = [\"*\"]\nkeys = [\"k\"]\nverbs = [\"sign\"]"));
  EXPECT_EQ(judged({"main", OVERFLOW_ID, {OVERFLOW_ID}}, "k", {Verb::Sign, nullptr, 5, {}}), std::nullopt);
  Grant named;
  named.socket = "main";
  named.users = {OVERFLOW_ID};
  named.groups = {OVERFLOW_ID};
  EXPECT_FALSE(named.isFor({"main", OVERFLOW_ID, {OVERFLOW_ID}}));
}

TEST(Grants, DoNotAddUpDimensionByDimension) {
  const std::string two =
      "[[grant]]\nname = \"short\"\nusers = [\"*\"]\nkeys = [\"k\"]\nverbs = [\"box\"]\npeers = [\"*\"]\n"
      "max_bytes = 10\n[[grant]]\nname = \"alice\"\nusers = [\"backup\"]\nkeys = [\"k\"]\n"
      "verbs = [\"box\"]\npeers = [\"alice\"]\n";
  Judged judged(two + std::string(PEERS));
  const PublicKey alice = judged.key("alice");
  const PublicKey bob = judged.key("bob");
  EXPECT_EQ(judged(BACKUP, "k", {Verb::Box, &alice, 60000, {}}), std::nullopt);
  EXPECT_EQ(judged(BACKUP, "k", {Verb::Box, &bob, 10, {}}), std::nullopt);
  EXPECT_EQ(judged(BACKUP, "k", {Verb::Box, &bob, 11, {}}), Denial::TooLong);
}

TEST(Grants, ACapabilityHasTheShortestOfItsVerbsLeases) {
  const std::string three =
      "[[grant]]\nname = \"a\"\nusers = [1]\nkeys = [\"k\"]\nverbs = [\"box\"]\npeers = [\"*\"]\nlease_s = 60\n"
      "[[grant]]\nname = \"b\"\nusers = [1]\nkeys = [\"k\"]\nverbs = [\"box\", \"sign\"]\npeers = [\"*\"]\n"
      "lease_s = 100\n[[grant]]\nname = \"c\"\nusers = [1]\nkeys = [\"k\"]\nverbs = [\"open\"]\npeers = [\"*\"]\n";
  Judged judged(three);
  const auto found = judged.grants.find({"main", 1, {}}, "k");
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(verbsOf(found), (VerbSet{Verb::Box, Verb::Open, Verb::Sign}));
  EXPECT_EQ(longestLeaseS(found, {Verb::Box}), 100u);
  EXPECT_EQ(longestLeaseS(found, {Verb::Open}), 0u);
  EXPECT_EQ(longestLeaseS(found, {Verb::Box, Verb::Open}), 100u);
}

TEST(Grants, AnAccountThatIsNotThereIsAnErrorWithItsLine) {
  const auto config = parse(grant("users = [\"backup\", \"nobody-knows\"]\nkeys = [\"k\"]\nverbs = [\"sign\"]"));
  const auto grants = Grants::resolve(*config, accounts());
  ASSERT_FALSE(grants);
  EXPECT_NE(grants.error().message.find("nobody-knows"), std::string::npos);
  EXPECT_EQ(grants.error().line, 5u);
}

TEST(Grants, WhatIsDoubtfulInTheFileIsAnError) {
  const std::pair<const char*, const char*> wrong[] = {
      {"keys = [\"k\"]\nverbs = [\"sign\"]", "users"},
      {"users = []\nkeys = [\"k\"]\nverbs = [\"sign\"]", "empty"},
      {"users = [\"a\", \"a\"]\nkeys = [\"k\"]\nverbs = [\"sign\"]", "twice"},
      {"users = [65534]\nkeys = [\"k\"]\nverbs = [\"sign\"]", "65534"},
      {"users = [4294967295]\nkeys = [\"k\"]\nverbs = [\"sign\"]", "number"},
      {"users = [-1]\nkeys = [\"k\"]\nverbs = [\"sign\"]", "account"},
      {"groups = [\"*\"]\nkeys = [\"k\"]\nverbs = [\"sign\"]", "account"},
      {"users = [1]\nverbs = [\"sign\"]", "keys"},
      {"users = [1]\nkeys = [\"../k\"]\nverbs = [\"sign\"]", "name"},
      {"users = [1]\nkeys = [\"k\"]", "verbs"},
      {"users = [1]\nkeys = [\"k\"]\nverbs = [\"seal\"]", "seal"},
      {"users = [1]\nkeys = [\"k\"]\nverbs = [\"box\"]", "peers"},
      {"users = [1]\nkeys = [\"k\"]\nverbs = [\"box\"]\npeers = [\"carol\"]", "carol"},
      {"users = [1]\nkeys = [\"k\"]\nverbs = [\"sign\"]\npeers = [\"alice\"]", "peers"},
      {"users = [1]\nkeys = [\"k\"]\nverbs = [\"fresh_nonce\"]", "domains"},
      {"users = [1]\nkeys = [\"k\"]\nverbs = [\"fresh_nonce\"]\ndomains = [\"CurveCPK\"]", "CurveCPK"},
      {"users = [1]\nkeys = [\"k\"]\nverbs = [\"fresh_nonce\"]\ndomains = [\"SallyBox\"]", "SallyBox"},
      {"users = [1]\nkeys = [\"k\"]\nverbs = [\"fresh_nonce\"]\ndomains = [\"too-long-x\"]", "too-long-x"},
      {"users = [1]\nkeys = [\"k\"]\nverbs = [\"sign\"]\ndomains = [\"a\"]", "domains"},
      {"users = [1]\nkeys = [\"k\"]\nverbs = [\"sign\"]\nmax_bytes = 61441", "max_bytes"},
      {"users = [1]\nkeys = [\"k\"]\nverbs = [\"sign\"]\nsocket = \"none\"", "none"},
      {"users = [1]\nkeys = [\"k\"]\nverbs = [\"sign\"]\nuser = \"x\"", "users"},
  };
  for (const auto& [lines, part] : wrong) {
    const auto config = parse(grant(lines));
    ASSERT_FALSE(config) << lines;
    const std::string told = config.error().message + config.error().hint;
    EXPECT_NE(told.find(part), std::string::npos) << lines << "\n" << told;
    EXPECT_GT(config.error().line, 0u) << lines;
  }
}

TEST(Grants, SocketsForProgramsAreReadStrictly) {
  const std::pair<const char*, const char*> wrong[] = {
      {"[[vault_socket]]\nname = \"main\"\npath = \"a\"", "main"},
      {"[[vault_socket]]\nname = \"a\"", "path"},
      {"[[vault_socket]]\nname = \"a\"\npath = \"a\"\nmode = \"0060\"", "mode"},
      {"[[vault_socket]]\nname = \"a\"\npath = \"a\"\nmode = \"0777\"", "mode"},
      {"[[vault_socket]]\nname = \"a\"\npath = \"a\"\nmode = \"rw\"", "mode"},
      {"[[vault_socket]]\nname = \"a\"\npath = \"run/vault.sock\"", "twice"},
      {"[[vault_socket]]\nname = \"a\"\npath = \"a\"\n[[vault_socket]]\nname = \"a\"\npath = \"b\"", "another"},
      {"[vault]\nmetrics = \"127.0.0.1:9000\"", "unix"},
      {"[key.k]\nhoney = 1", "honey"},
      {"[key.k]\nhony = true", "honey"},
  };
  for (const auto& [text, part] : wrong) {
    const auto config = parse(text);
    ASSERT_FALSE(config) << text;
    const std::string told = config.error().message + config.error().hint;
    EXPECT_NE(told.find(part), std::string::npos) << text << "\n" << told;
  }
  const auto good = parse(
      "[[vault_socket]]\nname = \"a\"\npath = \"a.sock\"\nmode = \"0660\"\ngroup = \"ops\"\n[key.k]\nhoney = true\n");
  ASSERT_TRUE(good);
  EXPECT_EQ(good->vaultSockets[0].mode, 0660u);
  EXPECT_TRUE(good->honeyKeys.contains("k"));
}

TEST(Grants, AnyUserIsWarnedAbout) {
  const auto config = parse(grant("users = [\"*\"]\nkeys = [\"k\"]\nverbs = [\"sign\"]"));
  ASSERT_TRUE(config);
  ASSERT_EQ(config->warnings.size(), 1u);
  EXPECT_NE(config->warnings[0].find("any user"), std::string::npos);
}

}  // namespace
}  // namespace sallyport
