// Goal: a [token.NAME] that is right means what it says; a wrong one is an error with its line, and a PIN that was
// written where it may not be is never repeated. RFC 7512's own examples are read or refused for a stated reason.
#include <gtest/gtest.h>

#include "common/config.h"
#include "common/pkcs11_uri.h"

namespace sallyport {
namespace {

constexpr std::string_view HEAD = R"([[grant]]
name = "none"
users = ["0"]
keys = ["k"]
verbs = ["fresh_nonce"]
domains = ["d"]
[token.hsm]
)";

Result<Config, ConfigError> parse(std::string_view lines) {
  return parseConfig(std::string(HEAD) + std::string(lines), "/etc/x/sallyport.toml");
}

constexpr std::string_view GOOD = R"(module = "/usr/lib/softhsm/libsofthsm2.so"
uri = "pkcs11:token=sallyport;serial=00ff"
pin = "file:pin"
)";

TEST(TokenConfig, FillsInWhatIsUsual) {
  const auto config = parse(GOOD);
  ASSERT_TRUE(config) << config.error().message;
  const TokenConfig& token = config->tokens.at("hsm");
  EXPECT_EQ(token.name, "hsm");
  EXPECT_EQ(token.profile, ModuleProfile::SoftHsm);
  EXPECT_EQ(std::get<PinFile>(token.pin).path, "/etc/x/pin");
  EXPECT_EQ(token.workers, 2U);
  EXPECT_EQ(token.maxSessions, 4U);
  EXPECT_EQ(token.deadlineMs, 4000U);
  EXPECT_EQ(token.user, "sallyport-hsm");
  EXPECT_FALSE(token.presenceAlways);
}

TEST(TokenConfig, AsksSoftokenByOneThreadUnlessItWorksWithCopies) {
  const std::string nss = "module = \"/usr/lib/libsoftokn3.so\"\nuri = \"pkcs11:token=x\"\npin = \"ask\"\n";
  EXPECT_EQ(parse(nss)->tokens.at("hsm").workers, 1U);
  EXPECT_EQ(parse(nss + "session_copy = true\n")->tokens.at("hsm").workers, 2U);
  EXPECT_EQ(parse(nss + "workers = 3\n")->tokens.at("hsm").workers, 3U);
}

TEST(TokenConfig, TakesAllItsKeys) {
  const auto config = parse(R"(module = "/opt/vendor/lib.so"
uri = "pkcs11:serial=7"
pin = "credential:hsm-pin"
init_args = "configdir='sql:/x'"
profile = "nss"
env = { SOFTHSM2_CONF = "/x/softhsm2.conf" }
user = "other"
max_sessions = 9
workers = 8
deadline_ms = 700
memory_mib = 100
session_copy = true
presence = "always"
recheck_minutes = 1
read_paths = ["/a", "b"]
write_paths = ["/c"]
)");
  ASSERT_TRUE(config) << config.error().message;
  const TokenConfig& token = config->tokens.at("hsm");
  EXPECT_EQ(std::get<PinCredential>(token.pin).name, "hsm-pin");
  EXPECT_EQ(token.profile, ModuleProfile::Nss);
  EXPECT_EQ(token.environment.at("SOFTHSM2_CONF"), "/x/softhsm2.conf");
  EXPECT_EQ(token.workers, 8U);
  EXPECT_TRUE(token.sessionCopy && token.presenceAlways);
  EXPECT_EQ(token.readPaths, (std::vector<std::filesystem::path>{"/a", "/etc/x/b"}));
  EXPECT_EQ(token.writePaths, (std::vector<std::filesystem::path>{"/c"}));
}

TEST(TokenConfig, IsReadWithTheVaultAlone) {
  const auto config = parseVaultAndPeers("[token.a]\n" + std::string(GOOD), "/etc/x/sallyport.toml");
  ASSERT_TRUE(config);
  EXPECT_EQ(config->tokens.size(), 1U);
}

TEST(TokenConfig, HasItsSandboxFromTheTop) {
  const auto config = parseConfig("require_sandbox = \"none\"\n" + std::string(HEAD) + std::string(GOOD), "/x/y");
  ASSERT_TRUE(config);
  EXPECT_EQ(config->tokens.at("hsm").requireSandbox, SandboxRequirement::None);
}

struct Wrong {
  std::string_view from;
  std::string_view to;
  std::string_view expected;
};

TEST(TokenConfig, WrongOnesAreToldOf) {
  const Wrong wrongs[] = {
      {"/usr/lib/softhsm/libsofthsm2.so", "libsofthsm2.so", "`module` in [token.hsm] must be an absolute path"},
      {"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/../tmp/x.so", "must be an absolute path"},
      {"module = \"/usr/lib/softhsm/libsofthsm2.so\"\n", "", "`module` in [token.hsm] is missing"},
      {"uri = \"pkcs11:token=sallyport;serial=00ff\"\n", "", "`uri` in [token.hsm] is missing"},
      {"pkcs11:token=sallyport;serial=00ff", "pkcs11:", "names no token"},
      {"pkcs11:token=sallyport;serial=00ff", "pkcs11:token=a;object=k", "names an object"},
      {"pkcs11:token=sallyport;serial=00ff", "pkcs11:slot-id=1", "names a slot"},
      {"pkcs11:token=sallyport;serial=00ff", "pkcs11:token=a?pin-value=1234", "would put the PIN into the file"},
      {"pin = \"file:pin\"\n", "", "`pin` in [token.hsm] is missing"},
      {"file:pin", "123456", "is not where a PIN comes from"},
      {"file:pin", "fd:2", "is not where a PIN comes from"},
      {"file:pin", "fd:9x", "is not where a PIN comes from"},
      {"file:pin", "file:", "is not where a PIN comes from"},
      {"file:pin", "credential:../x", "is not where a PIN comes from"},
      {"file:pin", "ask:now", "is not where a PIN comes from"},
      {"pin = ", "profile = \"soft\"\npin = ", "`profile` in [token.hsm] is `soft`"},
      {"pin = ", "env = { LD_PRELOAD = \"/x\" }\npin = ", "may not set `LD_PRELOAD`"},
      {"pin = ", "env = { \"A=B\" = \"/x\" }\npin = ", "has a name that is none"},
      {"pin = ", "env = { A = 1 }\npin = ", "needs a string for `A`"},
      {"pin = ", "env = [\"A\"]\npin = ", "must be a table"},
      {"pin = ", "max_sessions = 1\npin = ", "out of range"},
      {"pin = ", "max_sessions = 4\nworkers = 4\npin = ", "needs one session each"},
      {"pin = ", "workers = 0\npin = ", "out of range"},
      {"pin = ", "presence = \"often\"\npin = ", "`presence` in [token.hsm] is `often`"},
      {"pin = ", "read_paths = \"/a\"\npin = ", "must be an array of paths"},
      {"pin = ", "write_paths = [1]\npin = ", "must hold paths as strings"},
      {"pin = ", "slot = 0\npin = ", "unknown key `slot`"},
  };
  for (const Wrong& wrong : wrongs) {
    std::string text(GOOD);
    const auto at = text.find(wrong.from);
    ASSERT_NE(at, std::string::npos) << wrong.from;
    const auto config = parse(text.replace(at, wrong.from.size(), wrong.to));
    ASSERT_FALSE(config) << wrong.to;
    EXPECT_NE(config.error().message.find(wrong.expected), std::string::npos) << config.error().message;
    EXPECT_EQ(config.error().message.find("1234"), std::string::npos) << config.error().message;
    EXPECT_GE(config.error().line, 7U);
  }
}

TEST(TokenConfig, NoTwoReadOneDescriptor) {
  std::string first(GOOD);
  first.replace(first.find("file:pin"), 8, "fd:7");
  std::string second = first;
  EXPECT_TRUE(parse(first + "[token.other]\n" + second.replace(second.find("fd:7"), 4, "fd:8")));
  const auto config = parse(first + "[token.other]\n" + first);
  ASSERT_FALSE(config);
  EXPECT_NE(config.error().message.find("descriptor of another token's PIN"), std::string::npos)
      << config.error().message;
}

TEST(TokenConfig, ThereAreNotMoreThanAFew) {
  std::string text(HEAD);
  text += GOOD;
  for (size_t i = 0; i < MAX_TOKENS; ++i) text += "[token.t" + std::to_string(i) + "]\n" + std::string(GOOD);
  EXPECT_FALSE(parseConfig(text, "/x/y"));
  EXPECT_FALSE(parseConfig("token = 1\n", "/x/y"));
  EXPECT_FALSE(parseConfig("[token]\na = 1\n", "/x/y"));
}

TEST(TokenConfig, KnowsModulesByTheirFile) {
  EXPECT_EQ(profileOf("/usr/lib/x86_64-linux-gnu/libsoftokn3.so"), ModuleProfile::Nss);
  EXPECT_EQ(profileOf("/usr/lib/pkcs11/yubihsm_pkcs11.so"), ModuleProfile::YubiHsmConnector);
  EXPECT_EQ(profileOf("/opt/libsofthsm2/vendor.so"), ModuleProfile::Custom);
}

// --- URIs ------------------------------------------------------------------------------------------------------------

TEST(Pkcs11Uri, ReadsWhatNamesATokenOrAnObject) {
  const auto uri = parsePkcs11Uri(
      "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;"
      "model=1.0;serial=abc;object=my-key;type=private;id=%69%95%3E%5C%F4");
  ASSERT_TRUE(uri) << uri.error().message;
  EXPECT_EQ(uri->token, "The Software PKCS#11 Softtoken");
  EXPECT_EQ(uri->manufacturer, "Snake Oil, Inc.");
  EXPECT_EQ(uri->id, "\x69\x95\x3e\x5c\xf4");
  EXPECT_EQ(uri->type, "private");
  EXPECT_TRUE(uri->namesToken() && uri->namesObject());
}

TEST(Pkcs11Uri, AnEmptyOneNamesNothing) {
  const auto uri = parsePkcs11Uri("pkcs11:");
  ASSERT_TRUE(uri);
  EXPECT_FALSE(uri->namesToken() || uri->namesObject());
}

TEST(Pkcs11Uri, AnIdMayHoldAnyByte) {
  const auto uri = parsePkcs11Uri("pkcs11:id=%00%ff");
  ASSERT_TRUE(uri);
  EXPECT_EQ(uri->id, std::string("\0\xff", 2));
}

TEST(Pkcs11Uri, IsWrittenAsItIsRead) {
  const auto uri = parsePkcs11Uri("pkcs11:serial=a%3Bb;token=%c3%a4;id=%00A");
  ASSERT_TRUE(uri);
  EXPECT_EQ(format(*uri), "pkcs11:token=%C3%A4;serial=a%3Bb;id=%00A");
  EXPECT_EQ(parsePkcs11Uri(format(*uri))->serial, "a;b");
}

TEST(Pkcs11Uri, RefusesWhatItWouldHaveToIgnore) {
  const Wrong wrongs[] = {
      {"", "", "doesn't begin with"},
      {"", "http://x", "doesn't begin with"},
      {"", "PKCS11:token=a", "doesn't begin with"},
      {"", "pkcs11:token", "NAME=VALUE"},
      {"", "pkcs11:=a", "NAME=VALUE"},
      {"", "pkcs11:token=a;", "NAME=VALUE"},
      {"", "pkcs11:;token=a", "NAME=VALUE"},
      {"", "pkcs11:token=", "empty `token`"},
      {"", "pkcs11:token=a;token=b", "`token` twice"},
      {"", "pkcs11:x-vendor=a", "unknown attribute `x-vendor`"},
      {"", "pkcs11:Token=a", "unknown attribute"},
      {"", "pkcs11:token=%", "percent-encoded"},
      {"", "pkcs11:token=%4", "percent-encoded"},
      {"", "pkcs11:token=%4x", "percent-encoded"},
      {"", "pkcs11:token=a b", "percent-encoded"},
      {"", "pkcs11:token=%00", "NUL"},
      {"", "pkcs11:type=key", "unknown type"},
      {"", "pkcs11:slot-id=0", "names a slot"},
      {"", "pkcs11:token=a?pin-value=x", "would put the PIN"},
      {"", "pkcs11:pin-value", "would put the PIN"},
      {"", "pkcs11:token=a?pin-source=file:/x", "is not read"},
      {"", "pkcs11:token=a?module-path=/x", "is not read"},
      {"", "pkcs11:token=a?token=b", "unknown attribute"},
      {"", "pkcs11:token=a?", "NAME=VALUE"},
  };
  for (const Wrong& wrong : wrongs) {
    const auto uri = parsePkcs11Uri(wrong.to);
    ASSERT_FALSE(uri) << wrong.to;
    EXPECT_NE(uri.error().message.find(wrong.expected), std::string::npos) << wrong.to << ": " << uri.error().message;
  }
  EXPECT_FALSE(parsePkcs11Uri("pkcs11:token=" + std::string(MAX_URI_BYTES, 'a')));
}

}  // namespace
}  // namespace sallyport
