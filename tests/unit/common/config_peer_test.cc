// Goal: an entry with `protocol = "peer"` means what it says, and every way to make it weaker than that is an error
// with its line. Method: one good text, and single changes to it.
#include <gtest/gtest.h>

#include "common/config.h"

namespace sallyport {
namespace {

Result<Config, ConfigError> parse(std::string_view text) { return parseConfig(text, "/etc/x/sallyport.toml"); }

constexpr std::string_view CURVE = R"([[listen]]
name = "db"
address = "[::]:7001"
protocol = "curve"
key = "server"
allow = ["alice"]
service = "echo"
[peers]
alice = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
)";

std::string curve(std::string_view from, std::string_view to) {
  std::string text(CURVE);
  const auto at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

constexpr std::string_view PEER = R"([[listen]]
name = "db"
address = "[::]:7001"
protocol = "peer"
key = "block"
service = "echo"
[[connect]]
name = "db"
address = "db.example.com:7002"
protocol = "peer"
key = "block"
)";

std::string peerText(std::string_view from, std::string_view to) {
  std::string text(PEER);
  const auto at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(ConfigPeer, HardModeIsWhatAnEntryGetsWithoutAsking) {
  const auto config = parse(PEER);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->listens[0].protocol, Protocol::Peer);
  EXPECT_EQ(config->listens[0].framing, PeerFraming());
  EXPECT_EQ(config->connects[0].framing.mode, PeerMode::Hard);
  EXPECT_EQ(config->connects[0].framing.maxFrameBytes, 16u << 20);
  EXPECT_EQ(config->connects[0].framing.rotateFrames, 65536u);
  EXPECT_TRUE(config->listens[0].allow.empty() && config->connects[0].peer.empty());
  EXPECT_TRUE(config->warnings.empty());
}

TEST(ConfigPeer, FramesAndRotationAreRead) {
  const auto config = parse(peerText(
      "service = \"echo\"", "service = \"echo\"\nmax_frame_bytes = 4294967295\nrotate_frames = 1\nmode = \"hard\""));
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->listens[0].framing, (PeerFraming{PeerMode::Hard, 4294967295u, 1}));
}

TEST(ConfigPeer, BaseModeIsReadWithItsWarningAndWithoutRotation) {
  const auto config = parse(peerText("key = \"block\"\nservice", "key = \"other\"\nmode = \"base\"\nservice"));
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->listens[0].framing, (PeerFraming{PeerMode::Base, 16u << 20, 0}));
  ASSERT_EQ(config->warnings.size(), 1u);
  EXPECT_NE(config->warnings[0].find("forgeable"), std::string::npos);
  EXPECT_NE(config->warnings[0].find("[[listen]] `db`"), std::string::npos);
}

TEST(ConfigPeer, WhatWouldBeWeakerThanItSaysIsRefused) {
  struct Wrong {
    std::string_view from;
    std::string_view to;
    unsigned line;
    std::string_view problem;
  };
  const Wrong wrong[] = {
      {"service = \"echo\"", "service = \"echo\"\nallow = [\"alice\"]", 7, "`allow` in [[listen]] `db` has no meaning"},
      {"db.example.com:7002\"", "db.example.com:7002\"\npeer = \"server\"", 10,
       "`peer` in [[connect]] `db` has no meaning"},
      {"service = \"echo\"", "service = \"echo\"\nmode = \"soft\"", 7, "`mode` in [[listen]] `db` is `soft`"},
      {"service = \"echo\"", "service = \"echo\"\nmode = 1", 7, "must be a string"},
      {"service = \"echo\"", "service = \"echo\"\nmax_frame_bytes = 63", 7, "out of range"},
      {"service = \"echo\"", "service = \"echo\"\nmax_frame_bytes = 4294967296", 7, "out of range"},
      {"service = \"echo\"", "service = \"echo\"\nrotate_frames = 0", 7, "out of range"},
      {"service = \"echo\"", "service = \"echo\"\nrotate_frames = 1000000001", 7, "out of range"},
      // a stream that can't tell its end
      {"service = \"echo\"", "mode = \"base\"\nservice = \"tcp:127.0.0.1:5432\"", 7, "would be a tunnel"},
      {"db.example.com:7002\"\nprotocol = \"peer\"\nkey = \"block\"",
       "db.example.com:7002\"\nmode = \"base\"\nlisten = \"127.0.0.1:5433\"\nprotocol = \"peer\"\nkey = \"other\"", 11,
       "would be a tunnel"},
      // one block, two protocols or two connections
      {"protocol = \"peer\"\nkey = \"block\"\nservice",
       "protocol = \"peer\"\nmode = \"base\"\nkey = \"block\"\nservice", 8,
       "a block in base mode serves one connection"},
      {"7002\"\nprotocol = \"peer\"", "7002\"\nprotocol = \"peer\"\nmode = \"base\"", 7,
       "a block in base mode serves one connection"},
  };
  for (const auto& [from, to, line, problem] : wrong) {
    const auto config = parse(peerText(from, to));
    ASSERT_FALSE(config.has_value()) << to;
    EXPECT_NE(config.error().message.find(problem), std::string::npos) << config.error().message;
    EXPECT_EQ(config.error().line, line) << to;
  }
}

TEST(ConfigPeer, AKeyOfAnotherProtocolIsRefused) {
  const auto config = parse(curve("[peers]",
                                  "[[listen]]\nname = \"p\"\naddress = \"[::]:7009\"\nprotocol = \"peer\"\n"
                                  "key = \"server\"\nservice = \"echo\"\n[peers]"));
  ASSERT_FALSE(config.has_value());
  EXPECT_NE(config.error().message.find("with another protocol"), std::string::npos) << config.error().message;
}

TEST(ConfigPeer, AWrongProtocolIsTheOnlyErrorOfItsEntry) {
  for (const auto* word : {"\"peeer\"", "\"\"", "1"}) {
    const auto asked = "protocol = " + std::string(word);
    const std::string wrong[] = {
        peerText("protocol = \"peer\"", asked),
        peerText("protocol = \"peer\"\nkey = \"block\"\nservice",
                 asked + "\nkey = \"block\"\nmode = \"hard\"\nservice"),
        peerText("7002\"\nprotocol = \"peer\"", "7002\"\n" + asked + "\nrotate_frames = 5"),
    };
    for (const auto& text : wrong) {
      const auto config = parse(text);
      ASSERT_FALSE(config.has_value()) << text;
      EXPECT_NE(config.error().message.find("`protocol` in "), std::string::npos) << config.error().message;
      for (const auto& further : config.error().further) ADD_FAILURE() << text << further.message;
    }
  }
}

TEST(ConfigPeer, ItsKeysBelongToNoOtherProtocol) {
  for (const auto* line : {"mode = \"base\"", "max_frame_bytes = 100000", "rotate_frames = 5"}) {
    const auto config = parse(curve("protocol = \"curve\"", std::string("protocol = \"curve\"\n") + line));
    ASSERT_FALSE(config.has_value()) << line;
    EXPECT_NE(config.error().message.find("belongs to protocol = \"peer\""), std::string::npos)
        << config.error().message;
    EXPECT_EQ(config.error().line, 5u);
  }
}

}  // namespace
}  // namespace sallyport
