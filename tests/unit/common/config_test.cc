// Goal: every way to write a wrong sallyport.toml is a plain error with its line, and a right one means what it says.
// Method: one good text, and a table of single changes to it with the line and the words expected of the error.
#include "common/config.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include <gtest/gtest.h>

#include "common/config_key.h"
#include "tests/unit/temporary_folder.h"

namespace sallyport {
namespace {

// The two public keys of RFC 7748, section 6.1.
constexpr auto ALICE = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
constexpr auto BOB = "3p7bfXt9wbTTW2HC7ORdk37KKtN0LVdmdNEwxn8vcxQ=";

constexpr std::string_view GOOD = R"(# line 1
[vault]
keys = "keys"
socket = "run/vault.sock"
[net]
socket = "run/net.sock"
workers = 2
metrics = "127.0.0.1:9464"
[[listen]]
name = "db"
address = "[::]:7001"
protocol = "curve"
key = "server"
allow = ["alice"]
service = "tcp:127.0.0.1:5432"
[[connect]]
name = "db"
listen = "127.0.0.1:15432"
address = "db.example.com:7001"
protocol = "curve"
key = "alice"
peer = "server"
[peers]
alice = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
server = "3p7bfXt9wbTTW2HC7ORdk37KKtN0LVdmdNEwxn8vcxQ="
[limits]
connections = 100
)";

Result<Config, ConfigError> parse(std::string_view text) { return parseConfig(text, "/etc/x/sallyport.toml"); }

std::string changed(std::string_view from, std::string_view to) {
  std::string text(GOOD);
  const auto at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(Config, ReadsEverySectionOfAGoodFile) {
  const auto config = parse(GOOD);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->vault.keys, "/etc/x/keys");
  EXPECT_EQ(config->vault.socket, "/etc/x/run/vault.sock");
  EXPECT_EQ(config->vault.netSocket, "/etc/x/run/vault-net.sock");
  EXPECT_EQ(config->vault.adminSocket, "/etc/x/run/vault-admin.sock");
  EXPECT_TRUE(config->vault.passphraseFile.empty());
  EXPECT_EQ(config->net.workers, 2u);
  EXPECT_EQ(toString(*config->net.metrics), "127.0.0.1:9464");
  ASSERT_EQ(config->listens.size(), 1u);
  EXPECT_EQ(toString(config->listens[0].address), "[::]:7001");
  EXPECT_EQ(config->listens[0].line, 9u);
  EXPECT_EQ(toString(std::get<Address>(config->listens[0].service)), "127.0.0.1:5432");
  ASSERT_EQ(config->connects.size(), 1u);
  EXPECT_EQ(config->connects[0].peer, "server");
  EXPECT_EQ(config->peers.size(), 2u);
  EXPECT_EQ(toBase64(config->peers.at("alice").span()), ALICE);
  EXPECT_EQ(config->limits.connections, 100u);
  EXPECT_EQ(config->limits.halfOpen, 8192u);
  EXPECT_EQ(config->vault.requireSandbox, SandboxRequirement::Full);
  EXPECT_TRUE(config->warnings.empty());
  EXPECT_NE(config->findListen("db"), nullptr);
  EXPECT_EQ(config->findConnect("nosuch"), nullptr);
}

TEST(Config, SignersAreEd25519KeysWithNames) {
  // RFC 8032, test 1: as an X25519 key its last bit would be a mistake.
  constexpr auto KEY = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
  const auto config = parse(std::string(GOOD) + "[signers]\nrelease = \"" + KEY + "\"\n");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(toBase64(config->signers.at("release").span()), KEY);
  EXPECT_TRUE(config->peers.size() == 2 && config->signers.size() == 1);
  for (const auto& [value, message] : std::map<std::string, std::string>{
           {"\"AAAA\"", "signer `x`: the key has 3 bytes, not 32"},
           {"\"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"", "is not an Ed25519 public key"},
           {"\"AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"", "is not an Ed25519 public key"},
           {"3", "signer `x` must be a string"},
           {"\"" + std::string(KEY) + "\"\ny = \"" + KEY + "\"", "signer `y` has the same key as `x`"}}) {
    const auto wrong = parse(std::string(GOOD) + "[signers]\nx = " + value + "\n");
    ASSERT_FALSE(wrong) << value;
    EXPECT_NE(wrong.error().message.find(message), std::string::npos) << wrong.error().message;
  }
}

TEST(Config, AnEmptyFileHasDefaultsAndAWarning) {
  const auto config = parse("");
  ASSERT_TRUE(config);
  EXPECT_EQ(config->net.socket, "/etc/x/run/net.sock");
  EXPECT_EQ(config->warnings.size(), 1u);
}

TEST(Config, SandboxRequirementIsInheritedAndOverridden) {
  const auto config = parse("require_sandbox = \"available\"\n[vault]\nrequire_sandbox = \"none\"\n");
  ASSERT_TRUE(config);
  EXPECT_EQ(config->vault.requireSandbox, SandboxRequirement::None);
  EXPECT_EQ(config->net.requireSandbox, SandboxRequirement::Available);
}

TEST(Config, ServicesOfAllKinds) {
  EXPECT_TRUE(std::holds_alternative<EchoService>(parse(changed("tcp:127.0.0.1:5432", "echo"))->listens[0].service));
  EXPECT_TRUE(
      std::holds_alternative<ChannelService>(parse(changed("tcp:127.0.0.1:5432", "channel"))->listens[0].service));
  const auto local = parse(changed("tcp:127.0.0.1:5432", "unix:run/../app.sock"));
  EXPECT_EQ(toString(std::get<Address>(local->listens[0].service)), "unix:/etc/x/app.sock");
}

TEST(Config, WarnsOfPlainBytesThatOtherHostsReach) {
  EXPECT_EQ(parse(changed("listen = \"127.0.0.1:15432\"", "listen = \"0.0.0.0:15432\""))->warnings.size(), 1u);
  EXPECT_EQ(parse(changed("tcp:127.0.0.1:5432", "tcp:10.0.0.1:5432"))->warnings.size(), 1u);
  EXPECT_TRUE(parse(changed("listen = \"127.0.0.1:15432\"", "listen = \"[::1]:15432\""))->warnings.empty());
  EXPECT_TRUE(parse(changed("listen = \"127.0.0.1:15432\"", "listen = \"unix:x.sock\""))->warnings.empty());
}

struct Case {
  std::string_view from;
  std::string to;
  unsigned line;
  std::string_view message;
  std::string_view hint = "";
};

std::vector<Case> cases() {
  const std::string longPath = "unix:/" + std::string(120, 'a');
  const std::string longName(65, 'n');
  return {
      // unknown keys and sections
      {"keys = \"keys\"", "keyz = \"keys\"", 3, "unknown key `keyz` in [vault]", "did you mean `keys`?"},
      {"workers = 2", "worker = 2", 7, "unknown key `worker` in [net]", "`workers`"},
      {"[limits]", "[limit]", 26, "unknown key `limit`", "`limits`"},
      {"[limits]", "[somethingelse]", 26, "unknown key `somethingelse`", "known here: vault, net"},
      {"protocol = \"curve\"", "prot = \"curve\"", 12, "unknown key `prot` in [[listen]] `db`"},
      {"connections = 100", "conections = 100", 27, "unknown key `conections` in [limits]", "`connections`"},
      // wrong types
      {"workers = 2", "workers = \"2\"", 7, "`workers` in [net] must be an integer, not a string"},
      {"workers = 2", "workers = 2.0", 7, "must be an integer, not a floating-point number"},
      {"workers = 2", "workers = true", 7, "must be an integer, not a boolean"},
      {"keys = \"keys\"", "keys = 7", 3, "`keys` in [vault] must be a string, not an integer"},
      {"keys = \"keys\"", "keys = 1979-05-27", 3, "not a date"},
      {"allow = [\"alice\"]", "allow = \"alice\"", 14, "`allow` in [[listen]] `db` must be an array"},
      {"allow = [\"alice\"]", "allow = [\"alice\", 3]", 14, "must hold strings, not an integer"},
      {"[[listen]]", "[listen]", 9, "`listen` must be an array of tables", "[[listen]]"},
      {"[net]", "[[net]]", 5, "`net` must be a table, not an array"},
      {"[vault]", "net = 1\n[vault]", 6, ""},
      // out of range
      {"workers = 2", "workers = 64", 7, "`workers` in [net] is out of range: 64", "0 to 63"},
      {"workers = 2", "workers = -1", 7, "is out of range: -1"},
      {"connections = 100", "connections = 0", 27, "`connections` in [limits] is out of range: 0"},
      {"connections = 100", "connections = 4294967297", 27, "out of range"},
      {"connections = 100", "connections = 99999999999999999999", 27, ""},
      {"connections = 100", "handshake_timeout_ms = 1", 27, "out of range"},
      {"keys = \"keys\"", "handshakes_per_second = 0", 3, "out of range"},
      // names
      {"name = \"db\"", "name = \"a b\"", 10, "`name` in [[listen]] is not a name: `a b`", "letters"},
      {"name = \"db\"", "name = \"../db\"", 10, "is not a name"},
      {"name = \"db\"", "name = \"" + longName + "\"", 10, "is not a name"},
      {"name = \"db\"", "name = \"\"", 10, "is empty"},
      {"name = \"db\"", "name = \"d\\u0007b\"", 10, "control character"},
      {"key = \"server\"", "key = \"-x\"", 13, "`key` in [[listen]] `db` is not a name"},
      {"[[connect]]",
       "[[listen]]\nname=\"db\"\naddress=\"[::]:1\"\nkey=\"k\"\nallow=[\"alice\"]\nservice=\"echo\"\n[[connect]]", 17,
       "is used by another [[listen]]"},
      // missing keys
      {"address = \"[::]:7001\"\n", "", 9, "`address` in [[listen]] `db` is missing", "address = "},
      {"name = \"db\"\n", "", 9, "`name` in [[listen]] is missing"},
      {"key = \"server\"\n", "", 9, "`key` in [[listen]] `db` is missing"},
      {"allow = [\"alice\"]\n", "", 9, "`allow` in [[listen]] `db` is missing"},
      {"service = \"tcp:127.0.0.1:5432\"\n", "", 9, "`service` in [[listen]] `db` is missing"},
      {"peer = \"server\"\n", "", 16, "`peer` in [[connect]] `db` is missing"},
      // who is allowed
      {"allow = [\"alice\"]", "allow = []", 14, "`allow` in [[listen]] `db` allows nobody"},
      {"allow = [\"alice\"]", "allow = [\"alyce\"]", 14, "no peer `alyce` in [peers]", "did you mean `alice`?"},
      {"allow = [\"alice\"]", "allow = [\"alice\", \"alice\"]", 14, "names `alice` twice"},
      {"allow = [\"alice\"]", "allow = [\n\"alice\",\n\"bob\"]", 16, "no peer `bob`", "sallyport peer add bob KEY"},
      {"peer = \"server\"", "peer = \"sever\"", 22, "no peer `sever`", "`server`"},
      // addresses
      {"[::]:7001", "7001", 11, "has no port: `7001`", "HOST:PORT"},
      {"[::]:7001", "*:7001", 11, "has no host", "[::]:7001"},
      {"[::]:7001", ":7001", 11, "has no host"},
      {"[::]:7001", "::1:7001", 11, "more than one colon", "brackets"},
      {"[::]:7001", "[::g]:7001", 11, "broken IPv6 host"},
      {"[::]:7001", "[]:7001", 11, "broken IPv6 host"},
      {"[::]:7001", "[::]:0", 11, "no usable port", "1 to 65535"},
      {"[::]:7001", "[::]:65536", 11, "no usable port"},
      {"[::]:7001", "[::]:70x1", 11, "no usable port"},
      {"[::]:7001", "[::]:+701", 11, "no usable port"},
      {"[::]:7001", "1.2.3.400:7001", 11, "unusable host"},
      {"[::]:7001", "exa mple:7001", 11, "unusable host"},
      {"[::]:7001", "unix:", 11, "names no socket file"},
      {"[::]:7001", "unix:run/", 11, "names no socket file"},
      {"[::]:7001", "unix:.", 11, "names no socket file"},
      {"[::]:7001", "unix:run/x/..", 11, "names no socket file"},
      {"[::]:7001", "unix:@abstract", 11, "abstract socket"},
      {"[::]:7001", longPath, 11, "too long for a Unix socket"},
      {"run/vault.sock", longPath.substr(5), 4, "too long for a Unix socket"},
      {"127.0.0.1:15432", "[::]:7001", 16, "[::]:7001 is listened on twice"},
      {"127.0.0.1:15432", "0.0.0.0:7001", 16,
       "[[connect]] `db`: 0.0.0.0:7001 can't be listened on beside [::]:7001 of [[listen]] `db`", "its own port"},
      {"127.0.0.1:15432", "127.0.0.1:7001", 16, "can't be listened on beside [::]:7001"},
      {"127.0.0.1:15432", "[::1]:7001", 16, "can't be listened on beside [::]:7001"},
      {"127.0.0.1:15432", "localhost:9464", 16,
       "localhost:9464 can't be listened on beside 127.0.0.1:9464 of `metrics` in [net]"},
      {"run/net.sock", "run/vault-net.sock", 0, "vault-net.sock is listened on twice"},
      {"127.0.0.1:9464", "0.0.0.0:9464", 8, "`metrics` in [net] is open to the network", "loopback"},
      {"127.0.0.1:9464", "example.com:9464", 8, "is open to the network"},
      {"tcp:127.0.0.1:5432", "127.0.0.1:5432", 15, "`service` in [[listen]] `db` is", "tcp:HOST:PORT"},
      {"tcp:127.0.0.1:5432", "tcp:", 15, "`service` in [[listen]] `db`"},
      {"tcp:127.0.0.1:5432", "shell", 15, "is `shell`"},
      // protocol and sandbox
      {"protocol = \"curve\"", "protocol = \"tls\"", 12, "is `tls`"},
      {"keys = \"keys\"", "require_sandbox = \"off\"", 3, "`require_sandbox` in [vault] is `off`", "\"none\""},
      {"keys = \"keys\"", "user = \"a b\"", 3, "is not the name of a user or group"},
      {"keys = \"keys\"", "socket_group = \"-x\"", 3, "`socket_group` in [vault] is not the name of a user or group"},
      {"workers = 2", "socket_group = \"\"", 7, "`socket_group` in [net] is empty"},
      // keys of peers
      {BOB, "AAAA", 25, "peer `server`: the key has 3 bytes, not 32", "key show"},
      {BOB, "!!!!", 25, "is not base64"},
      {BOB, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", 25, "low-order point"},
      {BOB, "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", 25, "low-order point"},
      {BOB, "4Ot6fDtBuK4WVuP68Z/EatoJjeucMrH9hmIFFl9JuAA=", 25, "low-order point"},
      {BOB, "7P///////////////////////////////////////38=", 25, "low-order point"},
      {BOB, "7f///////////////////////////////////////38=", 25, "not an X25519 public key"},
      {BOB, "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066Spjqqbzuo=", 25, "not an X25519 public key"},
      {BOB, ALICE, 25, "peer `server` has the same key as `alice`"},
      {"server = \"3p7b", "alice = \"3p7b", 25, ""},
      {"server = \"3p7b", "a.b = \"3p7b", 25, "must be a string, not a table", "quotes"},
      {"server = \"3p7b", "\"x y\" = \"3p7b", 25, "is not a name"},
      // not TOML
      {"workers = 2", "workers = ", 7, ""},
      {"workers = 2", "workers = 2 3", 7, ""},
      {"[net]", "[net", 5, ""},
      {"[net]", "[vault]", 5, ""},
      {"keys = \"keys\"", "keys = \"\xff\xfe\"", 3, ""},
      {"keys = \"keys\"", std::string("keys = \"a\0b\"", 12), 3, "NUL byte"},
  };
}

TEST(Config, NamesTheLineAndTheRemedyOfEachMistake) {
  for (const auto& test : cases()) {
    const auto config = parse(changed(test.from, test.to));
    ASSERT_FALSE(config) << test.to;
    // A peer under another name is missed where it was named: those are two problems.
    const auto all = eachOf(config.error());
    const bool renamed = test.from.starts_with("server = ");
    EXPECT_TRUE(all.size() == 1 || renamed) << test.to << " -> " << all.back().message;
    const auto& error = all.back();
    EXPECT_EQ(error.line, test.line) << test.to << " -> " << error.message;
    EXPECT_FALSE(error.message.empty()) << test.to;
    EXPECT_NE(error.message.find(test.message), std::string::npos) << test.to << " -> " << error.message;
    EXPECT_NE(error.hint.find(test.hint), std::string::npos) << test.to << " -> " << error.hint;
    EXPECT_EQ(error.message.find('\n'), std::string::npos);
  }
}

TEST(Config, TellsAllIndependentProblemsInTheOrderOfTheFile) {
  const auto config = parse(R"([vault]
socket = "run/"
handshakes_per_second = 0
[[listen]]
name = "a b"
address = "nowhere"
key = "server"
allow = ["broken", "nobody"]
service = "shell"
[[listen]]
[peers]
broken = "AAAA"
)");
  ASSERT_FALSE(config);
  std::vector<std::pair<unsigned, std::string>> told;
  for (const auto& error : eachOf(config.error())) told.emplace_back(error.line, error.message);
  const std::vector<std::pair<unsigned, std::string>> expected = {
      {2, "`socket` in [vault] names no socket file"},
      {3, "`handshakes_per_second` in [vault] is out of range: 0"},
      {5, "`name` in [[listen]] is not a name: `a b`"},
      {6, "`address` in [[listen]] has no port: `nowhere`"},
      {8, "`allow` in [[listen]]: no peer `nobody` in [peers]"},  // and none for `broken`, of which line 12 tells
      {9, "`service` in [[listen]] is `shell`"},
      {10, "`name` in [[listen]] is missing"},
      {10, "`address` in [[listen]] is missing"},
      {10, "`key` in [[listen]] is missing"},
      {10, "`allow` in [[listen]] is missing"},
      {10, "`service` in [[listen]] is missing"},
      {12, "peer `broken`: the key has 3 bytes, not 32"},
  };
  EXPECT_EQ(told, expected);
}

TEST(Config, TellsTwentyProblemsAtMost) {
  std::string text = "[limits]\n";
  for (int i = 0; i < 50; ++i) text += "x" + std::to_string(i) + " = 1\n";
  const auto config = parse(text);
  ASSERT_FALSE(config);
  EXPECT_EQ(eachOf(config.error()).size(), MAX_CONFIG_ERRORS);
}

TEST(Config, APeersTableThatIsNoneIsToldOnce) {
  const auto config = parse(changed("[peers]", "[[peers]]"));
  ASSERT_FALSE(config);
  EXPECT_EQ(eachOf(config.error()).size(), 1u);
}

TEST(Config, TextThatIsNotTomlHasAHint) {
  EXPECT_NE(parse("key = server").error().hint.find("quotes"), std::string::npos);
}

TEST(Config, SocketsMayHaveAGroup) {
  EXPECT_EQ(parse(GOOD)->net.socketGroup, "");
  EXPECT_EQ(parse(changed("workers = 2", "socket_group = \"apps\""))->net.socketGroup, "apps");
  EXPECT_EQ(parse(changed("keys = \"keys\"", "socket_group = \"apps\""))->vault.socketGroup, "apps");
}

TEST(Config, DeepOrLongTextIsAPlainError) {
  std::string dots = "a";
  for (int i = 0; i < 400000; ++i) dots += ".a";
  EXPECT_FALSE(parse(dots + " = 1"));
  EXPECT_FALSE(parse("[" + dots + "]"));
  EXPECT_FALSE(parse("a = " + std::string(500000, '[')));
  EXPECT_FALSE(parse("a = " + std::string(100, '[') + std::string(100, ']')));
  std::string tables = "a = ";
  for (int i = 0; i < 1000; ++i) tables += "{a = ";
  EXPECT_FALSE(parse(tables));
  // A quote that a multi-line string only seems to open must not hide what follows it.
  EXPECT_FALSE(parse("x = \"\"\"\n\"\"\"\n" + dots + " = 1"));
  EXPECT_FALSE(parse("x = '''\n'\n'''\n" + dots + " = 1"));
  const auto large = parse(std::string(MAX_CONFIG_BYTES + 1, '#'));
  ASSERT_FALSE(large);
  EXPECT_NE(large.error().message.find("1 MiB"), std::string::npos);
  EXPECT_TRUE(parse(std::string(MAX_CONFIG_BYTES, '#')));
  EXPECT_FALSE(parse(std::string(1000, '\0')));
}

TEST(Config, EveryTruncationAndEveryFlippedByteIsAnswered) {
  for (size_t length = 0; length < GOOD.size(); ++length) (void)parse(GOOD.substr(0, length)).has_value();
  for (size_t at = 0; at < GOOD.size(); ++at) {
    for (const unsigned char mask : {0x01, 0x20, 0x80}) {
      std::string text(GOOD);
      text[at] = static_cast<char>(text[at] ^ mask);
      (void)parse(text).has_value();
    }
  }
}

TEST(Config, ManyPeersParseInReasonableTime) {
  // Every peer costs one multiplication.
  std::string text = "[peers]\n";
  for (uint32_t i = 1; i <= 2000; ++i) {
    std::array<std::byte, 32> key{};
    key[0] = std::byte{9};
    std::memcpy(key.data() + 1, &i, sizeof i);
    text += "p" + std::to_string(i) + " = \"" + toBase64(key) + "\"\n";
  }
  const auto config = parse(text);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->peers.size(), 2000u);
}

class ConfigFile : public ::testing::Test {
 protected:
  std::filesystem::path write(std::string_view text) {
    std::ofstream(folder_ / "sallyport.toml") << text;
    return folder_ / "sallyport.toml";
  }
  test::TemporaryFolder temporary_;
  const std::filesystem::path& folder_ = temporary_.path();
};

TEST_F(ConfigFile, RelativePathsStartAtItsFolder) {
  const auto config = loadConfig(write(GOOD));
  ASSERT_TRUE(config);
  EXPECT_EQ(config->vault.keys, folder_ / "keys");
}

TEST_F(ConfigFile, UnreadableThingsAreErrors) {
  for (const auto& file :
       {folder_ / "nosuch.toml", folder_, std::filesystem::path("/dev/zero"), std::filesystem::path()}) {
    const auto config = loadConfig(file);
    ASSERT_FALSE(config) << file;
    EXPECT_FALSE(config.error().message.empty());
    EXPECT_FALSE(config.error().hint.empty()) << file;
  }
  ASSERT_EQ(::mkfifo((folder_ / "fifo").c_str(), 0600), 0);
  EXPECT_FALSE(loadConfig(folder_ / "fifo"));
}

TEST_F(ConfigFile, AHugeFileIsRefusedUnread) {
  const auto file = write("");
  std::filesystem::resize_file(file, uintmax_t{1} << 40);
  EXPECT_FALSE(loadConfig(file));
}

TEST_F(ConfigFile, WarnsWhenAnyoneMayChangeIt) {
  const auto file = write(GOOD);
  ASSERT_EQ(::chmod(file.c_str(), 0666), 0);
  EXPECT_EQ(loadConfig(file)->warnings.size(), 1u);
}

TEST(ConfigError, IsFormattedWithFileAndLine) {
  EXPECT_EQ(format(ConfigError{"unknown key `x`", 12, ""}, "a/b.toml"), "a/b.toml:12: unknown key `x`");
  EXPECT_EQ(format(ConfigError{"is not a regular file", 0, ""}, "b.toml"), "b.toml: is not a regular file");
  EXPECT_EQ(format(ConfigError{"no configuration", 0, ""}, ""), "no configuration");
}

// --- [key.NAME] ---

TEST(ConfigKeys, TellWhenAKeyIsRotated) {
  const auto config = parseConfig("[key.server]\nrotate_every = \"90d\"\ngrace = \"36h\"\n[key.\"a.b\"]\n", "x.toml");
  ASSERT_TRUE(config.has_value());
  EXPECT_EQ(config->rotations.at("server").everyS, 90 * DAY_S);
  EXPECT_EQ(config->rotations.at("server").graceS, 36 * 3600);
  EXPECT_EQ(config->rotations.at("a.b").everyS, 0);
  EXPECT_EQ(config->rotations.at("a.b").graceS, 7 * DAY_S);
}

TEST(ConfigKeys, AreReadWithVaultAndPeersAlone) {
  const auto config = parseVaultAndPeers("[key.server]\nrotate_every = \"1d\"\n[[listen]]\nwrong = 1\n", "x.toml");
  ASSERT_TRUE(config.has_value());
  EXPECT_EQ(config->rotations.at("server").everyS, DAY_S);
  EXPECT_EQ(config->rotations.at("server").graceS, DAY_S) << "never longer than the period, unless it is asked for";
}

TEST(ConfigKeys, WrongOnesAreToldWithTheirLine) {
  const std::pair<const char*, const char*> wrong[] = {{"rotate_every = 90", "must be a string"},
                                                       {"rotate_every = \"90\"", "not a duration"},
                                                       {"rotate_every = \"d\"", "not a duration"},
                                                       {"rotate_every = \"-1d\"", "not a duration"},
                                                       {"rotate_every = \"9999999999999999999d\"", "not a duration"},
                                                       {"rotate_every = \"36501d\"", "not a duration"},
                                                       {"rotate_every = \"59s\"", "less than a minute"},
                                                       {"rotate_every = \"1d\"\ngrace = \"9d\"", "eight times"},
                                                       {"rotate = \"1d\"", "unknown key `rotate`"}};
  for (const auto& [line, problem] : wrong) {
    const auto config = parseConfig(std::string("[key.server]\n") + line + "\n", "x.toml");
    ASSERT_FALSE(config.has_value()) << line;
    EXPECT_NE(config.error().message.find(problem), std::string::npos) << config.error().message;
    EXPECT_GE(config.error().line, 2u);
  }
  EXPECT_FALSE(parseConfig("[key]\nserver = 1\n", "x.toml").has_value());
  EXPECT_FALSE(parseConfig("key = 1\n", "x.toml").has_value());
  EXPECT_FALSE(parseConfig("[key.\"a/b\"]\n", "x.toml").has_value());
}

}  // namespace
}  // namespace sallyport
