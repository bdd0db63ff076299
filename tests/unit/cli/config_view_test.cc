// Goal: `check` says what a configuration means and what would keep the daemons from starting. Method: folders with and
// without what it needs.
#include "cli/config_view.h"

#include <unistd.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "tests/unit/temporary_folder.h"
#include "vaultd/block_claims.h"
#include "vaultd/key_file.h"
#include "vaultd/nonce_file.h"

namespace sallyport::cli {
namespace {

constexpr std::string_view TEXT = R"(
[[listen]]
name = "db"
address = "[::]:7001"
key = "server"
allow = ["alice"]
service = "channel"
[[connect]]
name = "out"
listen = "unix:sockets/out.sock"
address = "example.com:7001"
key = "server"
peer = "alice"
[peers]
alice = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
)";

std::string contentOf(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class ConfigView : public ::testing::Test {
 protected:
  Config config(std::string_view text = TEXT) const {
    const auto parsed = parseConfig(text, folder_ / "sallyport.toml");
    EXPECT_TRUE(parsed);
    return *parsed;
  }
  test::TemporaryFolder temporary_;
  const std::filesystem::path& folder_ = temporary_.path();
};

TEST_F(ConfigView, SaysWhatListensDialsAndIsAllowed) {
  const auto lines = describeEntries(config());
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0],
            "listen `db`: encrypted on [::]:7001, key `server`, allows alice, leads to programs that accept `db`");
  EXPECT_EQ(lines[1], "connect `out`: plain on unix:" + (folder_ / "sockets/out.sock").string() +
                          ", dials example.com:7001, key `server`, expects peer alice");
}

TEST_F(ConfigView, NamesEveryFolderThatNeedsASocket) {
  EXPECT_EQ(socketFolders(config()), (std::vector<std::filesystem::path>{folder_ / "run", folder_ / "sockets"}));
}

TEST_F(ConfigView, AKeyOfTheWrongKindIsAnError) {
  std::filesystem::create_directory(folder_ / "run");
  const auto blocks = config(
      "[[listen]]\nname = \"p\"\naddress = \"[::]:7001\"\nprotocol = \"peer\"\nmode = \"base\"\nkey = \"server\"\n"
      "service = \"echo\"\n");
  ASSERT_TRUE(vaultd::generateKey(folder_ / "keys", "server", {}).has_value());
  const auto wrong = inspectSurroundings(blocks);
  ASSERT_EQ(wrong.errors.size(), 1u);
  EXPECT_NE(wrong.errors[0].message.find("needs a key of the kind peer-block"), std::string::npos);
  std::filesystem::remove_all(folder_ / "keys");

  vaultd::KeyOptions options;
  options.kind = vaultd::KeyKind::PeerBlock;
  options.party = wire::PeerParty::A;
  const auto block = vaultd::LongTermSecret::random(vaultd::KeyKind::PeerBlock);
  ASSERT_TRUE(vaultd::importKey(folder_ / "keys", "server", block, {}, options).has_value());
  const auto other = inspectSurroundings(blocks);
  EXPECT_TRUE(other.errors.empty());
  ASSERT_EQ(other.warnings.size(), 2u) << "what base mode can't promise, and a block of unknown past";
  EXPECT_NE(other.warnings[1].find("pair anew"), std::string::npos) << other.warnings[1];
  EXPECT_NE(describeEntries(blocks)[0].find("peer protocol, base mode"), std::string::npos);
  const auto curve = inspectSurroundings(config());
  EXPECT_EQ(curve.errors.size(), 2u) << "both entries of a curve configuration";
}

TEST_F(ConfigView, AGrantOfWhatAKeysKindCantDoIsWarnedOf) {
  using vaultd::KeyKind;
  for (const KeyKind kind : {KeyKind::X25519, KeyKind::Ed25519, KeyKind::PeerBlock}) {
    vaultd::KeyOptions options;
    options.kind = kind;
    if (kind == KeyKind::PeerBlock) options.party = wire::PeerParty::A;
    ASSERT_TRUE(vaultd::importKey(folder_ / "keys", std::string(vaultd::describe(kind)),
                                  vaultd::LongTermSecret::random(kind), {}, options));
  }
  // Which keys are warned of.
  const auto warned = [this](const std::string& verbs, const std::string& more) {
    const auto found = inspectSurroundings(config("[[grant]]\nname = \"g\"\nusers = [\"root\"]\nkeys = [\"x25519\", "
                                                  "\"ed25519\", \"peer-block\"]\nverbs = [" +
                                                  verbs + "]\n" + more))
                           .warnings;
    std::string keys;
    for (const auto& warning : found) {
      const auto at = warning.find(", as `");
      if (warning.starts_with("[[grant]] `g`: none of its verbs")) keys += warning.substr(at + 6, 3);
    }
    return keys;
  };
  const std::string peers = "peers = [\"*\"]\n";
  EXPECT_EQ(warned("\"box\"", peers), "ed2pee");
  EXPECT_EQ(warned("\"open\", \"sign\"", peers), "pee");
  EXPECT_EQ(warned("\"sign\"", ""), "peex25");
  EXPECT_EQ(warned("\"fresh_nonce\"", "domains = [\"abcdefgh\"]\n"), "pee");
}

TEST_F(ConfigView, AMissingKeyIsAnErrorWithItsRemedy) {
  const auto findings = inspectSurroundings(config());
  ASSERT_EQ(findings.errors.size(), 1u);
  EXPECT_NE(findings.errors[0].hint.find("sallyport key new server"), std::string::npos);
}

TEST_F(ConfigView, AKeysFolderThatIsAFileIsToldAsThat) {
  std::ofstream(folder_ / "keys") << "no folder";
  const auto findings = inspectSurroundings(config());
  ASSERT_EQ(findings.errors.size(), 1u);
  EXPECT_NE(findings.errors[0].message.find((folder_ / "keys").string() + " is not a folder"), std::string::npos)
      << findings.errors[0].message;
  EXPECT_EQ(findings.errors[0].hint.find("key new"), std::string::npos) << findings.errors[0].hint;
}

TEST_F(ConfigView, AFrameThatNoWorkerCanHoldIsWarnedOf) {
  const auto warnings = [this](std::string_view workers, std::string_view frame) {
    const auto found = inspectSurroundings(config("[net]\nworkers = " + std::string(workers) +
                                                  "\n[limits]\nbuffer_mib = 32\n[[listen]]\nname = \"p\"\naddress = "
                                                  "\"[::]:7001\"\nprotocol = \"peer\"\nkey = \"link\"\nservice = "
                                                  "\"echo\"\nmax_frame_bytes = " +
                                                  std::string(frame) + "\n"))
                           .warnings;
    return std::ranges::count_if(found, [](const std::string& warning) {
      return warning.starts_with("[[listen]] `p`: max_frame_bytes is ") && warning.find("memory_limit") != warning.npos;
    });
  };
  EXPECT_EQ(warnings("2", "16777216"), 0);
  EXPECT_EQ(warnings("2", "16777217"), 1);
  EXPECT_EQ(warnings("1", "33554432"), 0);
  EXPECT_EQ(warnings("4", "16777216"), 1);
}

TEST_F(ConfigView, AMissingBlockIsMadeByPairing) {
  const auto findings = inspectSurroundings(config(
      "[[listen]]\nname = \"p\"\naddress = \"[::]:7001\"\nprotocol = \"peer\"\nkey = \"link\"\nservice = \"echo\"\n"));
  ASSERT_EQ(findings.errors.size(), 1u);
  EXPECT_NE(findings.errors[0].hint.find("sallyport pair link"), std::string::npos) << findings.errors[0].hint;
  EXPECT_NE(findings.errors[0].hint.find("--kind peer-block"), std::string::npos);
}

TEST_F(ConfigView, ABrokenKeyFileIsAnErrorThatNamesIt) {
  ASSERT_TRUE(vaultd::generateKey(folder_ / "keys", "server", {}));
  std::filesystem::resize_file(folder_ / "keys/server.key", 10);
  const auto findings = inspectSurroundings(config());
  ASSERT_EQ(findings.errors.size(), 1u);
  EXPECT_NE(findings.errors[0].message.find("server.key"), std::string::npos);
}

TEST_F(ConfigView, AKeyInATokenNeedsItsSectionAndAModule) {
  const vaultd::TokenKey inToken{{}, {std::byte{1}}, "montgomery"};
  ASSERT_TRUE(vaultd::storeTokenKey(folder_ / "keys", "server", vaultd::KeyKind::X25519, "hsm1", inToken, {}));
  const auto says = [](const Findings& findings, const std::string& part) {
    for (const auto& error : findings.errors) {
      if (error.message.find(part) != std::string::npos) return true;
    }
    for (const auto& warning : findings.warnings) {
      if (warning.find(part) != std::string::npos) return true;
    }
    return false;
  };
  EXPECT_TRUE(says(inspectSurroundings(config()), "there is no [token.hsm1]"));
  const auto with = inspectSurroundings(config(std::string(TEXT) + R"(
[token.hsm1]
module = "/usr/lib/there-is-no-such-module.so"
uri = "pkcs11:token=one"
pin = "ask"
[token.hsm2]
module = "/bin/sh"
uri = "pkcs11:token=two"
pin = "file:no-such-pin"
)"));
  EXPECT_FALSE(says(with, "there is no [token.hsm1]"));
  EXPECT_TRUE(says(with, "there is no module /usr/lib/there-is-no-such-module.so"));
  EXPECT_TRUE(says(with, "sallyport hsm unlock hsm1"));
  EXPECT_TRUE(says(with, "no-such-pin"));
  EXPECT_FALSE(says(with, "module /bin/sh"));
  for (const auto& error : with.errors) EXPECT_EQ(error.message.find("no-such"), std::string::npos) << error.message;
}

// Who hangs is to be told from who is late.
TEST_F(ConfigView, ATokensDeadlineIsToBeBelowTheHandshakes) {
  const vaultd::TokenKey inToken{{}, {std::byte{1}}, "montgomery"};
  ASSERT_TRUE(vaultd::storeTokenKey(folder_ / "keys", "server", vaultd::KeyKind::X25519, "hsm1", inToken, {}));
  const auto doubtful = [this](const std::string& deadline, const std::string& limits) {
    const auto findings = inspectSurroundings(config(std::string(TEXT) + R"(
[token.hsm1]
module = "/bin/sh"
uri = "pkcs11:token=one"
pin = "file:no-such-pin"
)" + deadline + "\n" + limits));
    return std::ranges::any_of(findings.warnings,
                               [](const auto& text) { return text.find("deadline_ms") != std::string::npos; });
  };
  EXPECT_FALSE(doubtful("", "")) << "as it is without a word";
  EXPECT_FALSE(doubtful("deadline_ms = 4999", ""));
  EXPECT_TRUE(doubtful("deadline_ms = 5000", ""));
  EXPECT_FALSE(doubtful("deadline_ms = 5000", "[limits]\nhandshake_timeout_ms = 8000"));
  EXPECT_TRUE(doubtful("", "[limits]\nhandshake_timeout_ms = 4000"));
  std::filesystem::remove_all(folder_ / "keys");
  ASSERT_TRUE(vaultd::generateKey(folder_ / "keys", "server", {}));
  EXPECT_FALSE(doubtful("deadline_ms = 60000", "")) << "a token of keys that no handshake needs";
}

TEST_F(ConfigView, AGoodKeyIsNoFinding) {
  ASSERT_TRUE(vaultd::generateKey(folder_ / "keys", "server", {}));
  EXPECT_TRUE(inspectSurroundings(config()).errors.empty());
}

TEST_F(ConfigView, APlainKeyIsOpenedAsTheVaultOpensIt) {
  ASSERT_TRUE(vaultd::generateKey(folder_ / "keys", "server", {}));
  ASSERT_TRUE(vaultd::generateKey(folder_ / "others", "server", {}));
  const auto path = vaultd::keyPath(folder_ / "keys", "server");
  const auto public_ = [](const std::string& text) { return text.substr(text.find("public="), 51); };
  std::string text = contentOf(path);
  text.replace(text.find("public="), 51, public_(contentOf(vaultd::keyPath(folder_ / "others", "server"))));
  std::ofstream(path) << text;
  ASSERT_TRUE(vaultd::readKeyFile(folder_ / "keys", "server")) << "every line of it is well-formed";
  const auto findings = inspectSurroundings(config());
  ASSERT_EQ(findings.errors.size(), 1u);
  EXPECT_EQ(findings.errors[0].message.find(path.string() + ": "), 0u) << findings.errors[0].message;
  EXPECT_FALSE(findings.errors[0].hint.empty());
  EXPECT_EQ(contentOf(path), text);
}

TEST_F(ConfigView, ANonceFileThatTheVaultWouldNotUseIsFound) {
  const auto header = vaultd::generateKey(folder_ / "keys", "server", {});
  ASSERT_TRUE(header);
  const auto path = vaultd::noncePath(folder_ / "keys", "server");
  EXPECT_TRUE(inspectSurroundings(config()).errors.empty());
  EXPECT_FALSE(std::filesystem::exists(path)) << "the vault makes it, a check makes nothing";

  const auto running = vaultd::openNonceFile(path, header->ledgerId);
  ASSERT_TRUE(running);
  const std::string good = contentOf(path);
  EXPECT_TRUE(inspectSurroundings(config()).errors.empty()) << "a vault that is at work with it is no finding";

  const auto errorOf = [&](const std::string& content) {
    std::ofstream(path, std::ios::trunc) << content;
    const auto findings = inspectSurroundings(config());
    EXPECT_EQ(contentOf(path), content) << "a check writes nothing";
    EXPECT_EQ(findings.errors.size(), 1u);
    if (findings.errors.empty()) return std::string();
    EXPECT_FALSE(findings.errors[0].hint.empty());
    return findings.errors[0].message;
  };
  EXPECT_EQ(errorOf(good.substr(0, 100)), path.string() + ": the nonce state is cut off");
  EXPECT_EQ(errorOf(std::string(good.size(), 'x')), path.string() + ": both copies of the nonce state are damaged");
  std::ofstream(path, std::ios::trunc) << good;
  std::filesystem::permissions(path, std::filesystem::perms(0640));
  const auto open = inspectSurroundings(config());
  ASSERT_EQ(open.errors.size(), 1u);
  EXPECT_EQ(open.errors[0].hint, "chmod 600 " + path.string());

  // As in the vault: another key can serve.
  ASSERT_TRUE(vaultd::generateKey(folder_ / "keys", "second", {}));
  std::string both(TEXT);
  both.replace(both.rfind("\"server\""), 8, "\"second\"");
  const auto one = inspectSurroundings(config(both));
  EXPECT_TRUE(one.errors.empty());
  EXPECT_TRUE(std::ranges::any_of(one.warnings, [&](const std::string& warning) {
    return warning.find(path.string()) == 0 && warning.find("handshakes with its key are refused") != std::string::npos;
  }));
}

TEST_F(ConfigView, ClaimsThatTheVaultWouldNotBelieveAreFoundWhereTheyMatter) {
  const auto keys = folder_ / "keys";
  ASSERT_TRUE(vaultd::ensureClaims(keys));
  ASSERT_TRUE(
      vaultd::generateKey(keys, "server", {}, {.kind = vaultd::KeyKind::PeerBlock, .party = wire::PeerParty::A}));
  const auto path = vaultd::claimsPath(keys);
  const auto warnings = [&](const std::string& mode) {
    const auto findings = inspectSurroundings(config(R"(
[[listen]]
name = "link"
address = "[::]:7001"
protocol = "peer"
key = "server"
service = "channel"
mode = ")" + mode + "\"\n"));
    EXPECT_TRUE(findings.errors.empty()) << findings.errors[0].message;
    return std::ranges::count_if(findings.warnings,
                                 [&](const std::string& warning) { return warning.find(path.string()) == 0; });
  };
  EXPECT_EQ(warnings("base"), 0);
  {
    const auto running = vaultd::openClaims(keys, {});
    ASSERT_TRUE(running);
    EXPECT_EQ(warnings("base"), 0) << "a vault that is at work with it is no finding";
  }
  const std::string good = contentOf(path);
  std::ofstream(path, std::ios::trunc) << good.substr(0, 100);
  EXPECT_EQ(warnings("base"), 1);
  EXPECT_EQ(warnings("hard"), 0) << "there nothing is claimed";
  EXPECT_EQ(contentOf(path), good.substr(0, 100)) << "a check writes nothing";
}

TEST_F(ConfigView, ABlockThatBaseModeHasUsedUpIsFound) {
  const auto keys = folder_ / "keys";
  ASSERT_TRUE(vaultd::ensureClaims(keys));
  const auto made =
      vaultd::generateKey(keys, "server", {}, {.kind = vaultd::KeyKind::PeerBlock, .party = wire::PeerParty::A});
  ASSERT_TRUE(made);
  const auto told = [&](const std::string& mode) {
    const auto findings = inspectSurroundings(config(R"(
[[listen]]
name = "link"
address = "[::]:7001"
protocol = "peer"
key = "server"
service = "channel"
mode = ")" + mode + "\"\n"));
    EXPECT_TRUE(findings.errors.empty()) << findings.errors[0].message;
    std::string all;
    for (const std::string& warning : findings.warnings) {
      if (warning.find("[[listen]] `link`: the block of `server`") == 0) all += warning + "\n";
    }
    return all;
  };
  const std::string advice = "in base mode one serves one connection: pair anew, or import one with --unused\n";
  EXPECT_EQ(told("base"), "");
  {
    const auto running = vaultd::openClaims(keys, {});
    ASSERT_TRUE(running);
    ASSERT_TRUE((*running)->claim(made->versions.back().publicKey, vaultd::unixNow()));
    EXPECT_EQ(told("base"), "[[listen]] `link`: the block of `server` is used, and " + advice);
  }
  EXPECT_EQ(told("base"), "[[listen]] `link`: the block of `server` is used, and " + advice);
  EXPECT_EQ(told("hard"), "") << "there it serves as before";
  const auto path = vaultd::claimsPath(keys);
  std::filesystem::remove(path);
  EXPECT_EQ(told("base"),
            "[[listen]] `link`: the block of `server` counts as used, as block-claims is missing, and " + advice);
  EXPECT_EQ(told("hard"), "");
  EXPECT_FALSE(std::filesystem::exists(path)) << "the vault makes it, a check makes nothing";
  ASSERT_TRUE(vaultd::ensureClaims(keys));
  EXPECT_EQ(told("base"), "[[listen]] `link`: the block of `server` is used, and " + advice) << "made with it as used";
}

TEST_F(ConfigView, WhatThisUserCantReadIsSaidToBeUnchecked) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become another";
  const auto header = vaultd::generateKey(folder_ / "keys", "server", {});
  ASSERT_TRUE(header);
  const auto nonces = vaultd::noncePath(folder_ / "keys", "server");
  ASSERT_TRUE(vaultd::openNonceFile(nonces, header->ledgerId));
  std::filesystem::resize_file(nonces, 100);
  std::filesystem::permissions(folder_, std::filesystem::perms(0755));
  std::filesystem::permissions(folder_ / "keys", std::filesystem::perms(0755));
  const auto isUnchecked = [&](const std::filesystem::path& path) {
    if (::setresuid(65534, 65534, 0) != 0) return false;
    const auto findings = inspectSurroundings(config());
    if (::setresuid(0, 0, 0) != 0) return false;
    EXPECT_TRUE(findings.errors.empty());
    const auto note = path.string() + " is not checked: this user can't read it";
    return std::ranges::find(findings.warnings, note) != findings.warnings.end();
  };
  const auto key = vaultd::keyPath(folder_ / "keys", "server");
  EXPECT_TRUE(isUnchecked(key));
  ASSERT_EQ(::chown(key.c_str(), 65534, 65534), 0);
  EXPECT_TRUE(isUnchecked(nonces));
}

TEST_F(ConfigView, AHoneyKeyIsNeededToo) {
  ASSERT_TRUE(vaultd::generateKey(folder_ / "keys", "server", {}));
  const auto findings = inspectSurroundings(config(std::string(TEXT) + "[key.bait]\nhoney = true\n"));
  ASSERT_EQ(findings.errors.size(), 1u);
  EXPECT_NE(findings.errors[0].message.find("[key.bait] honey needs the key `bait`"), std::string::npos);
}

TEST_F(ConfigView, APassphraseFileThatOthersCanReadIsAnError) {
  ASSERT_TRUE(vaultd::generateKey(folder_ / "keys", "server", {}));
  std::ofstream(folder_ / "words") << "secret\n";
  std::filesystem::permissions(folder_ / "words", std::filesystem::perms(0644));
  const auto findings = inspectSurroundings(config("[vault]\npassphrase_file = \"words\"\n"));
  ASSERT_EQ(findings.errors.size(), 1u);
  EXPECT_EQ(findings.errors[0].hint, "chmod 600 " + (folder_ / "words").string());
}

TEST_F(ConfigView, APeerWithOurOwnKeyIsDoubtful) {
  const auto key = vaultd::generateKey(folder_ / "keys", "server", {});
  ASSERT_TRUE(key);
  const auto text = std::string(TEXT) + "me = \"" + toBase64(key->versions[0].publicKey.span()) + "\"\n";
  const auto findings = inspectSurroundings(config(text));
  EXPECT_TRUE(findings.errors.empty());
  EXPECT_NE(findings.warnings.at(0).find("peer `me`"), std::string::npos);
}

TEST_F(ConfigView, AMissingGroupIsAnErrorWithItsRemedy) {
  ASSERT_TRUE(vaultd::generateKey(folder_ / "keys", "server", {}));
  const auto text =
      std::string("[net]\nsocket_group = \"no-such-group\"\n[vault]\nsocket_group = \"no-such-group\"\n") +
      std::string(TEXT);
  const auto findings = inspectSurroundings(config(text));
  ASSERT_EQ(findings.errors.size(), 1u);
  EXPECT_NE(findings.errors[0].message.find("no group `no-such-group`"), std::string::npos);
  EXPECT_NE(findings.errors[0].hint.find("groupadd"), std::string::npos);
}

TEST_F(ConfigView, AMissingPassphraseFileIsAnError) {
  ASSERT_TRUE(vaultd::generateKey(folder_ / "keys", "server", {}));
  const auto findings = inspectSurroundings(config("[vault]\npassphrase_file = \"none\"\n"));
  ASSERT_EQ(findings.errors.size(), 1u);
  EXPECT_NE(findings.errors[0].message.find("passphrase_file"), std::string::npos);
}

TEST_F(ConfigView, WarnsOfRootAsADaemonsUser) {
  std::filesystem::create_directory(folder_ / "run");
  const auto warningsOf = [&](std::string_view text) {
    auto warnings = inspectSurroundings(config(text)).warnings;
    std::erase_if(warnings, [](const std::string& warning) { return warning.find("is root:") == std::string::npos; });
    return warnings;
  };
  const auto both = warningsOf("[vault]\nuser = \"root\"\n[net]\nuser = \"root\"\n");
  ASSERT_EQ(both.size(), 2u);
  EXPECT_EQ(both[0].find("[vault] user = \"root\""), 0u) << both[0];
  EXPECT_EQ(both[1].find("[net] user = \"root\""), 0u) << both[1];
  EXPECT_TRUE(warningsOf("require_sandbox = \"none\"\n[vault]\nuser = \"root\"\n").empty());
  EXPECT_TRUE(warningsOf("[vault]\nuser = \"nobody\"\n").empty());
  EXPECT_TRUE(warningsOf("").empty());
}

}  // namespace
}  // namespace sallyport::cli
