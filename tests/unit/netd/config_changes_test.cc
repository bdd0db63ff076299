// Goal: a reload never says that nothing changed when something did.
// Method: pairs of sallyport.toml texts that differ in one thing, and the words for it.
#include "netd/config_changes.h"

#include <gtest/gtest.h>

#include "common/config.h"
#include "tests/unit/wire/vectors.h"

namespace sallyport::netd {
namespace {

std::string changes(const std::string& from, const std::string& to) {
  const std::string text =
      "[[listen]]\nname = \"db\"\naddress = \"127.0.0.1:7001\"\nkey = \"server\"\n"
      "allow = [\"alice\"]\nservice = \"echo\"\n[peers]\nalice = \"" +
      toBase64(test::vector("C")) + "\"\nbob = \"" + toBase64(test::vector("S")) + "\"\n[limits]\nhalf_open = 200\n";
  std::string other = text;
  if (!from.empty()) other.replace(other.find(from), from.size(), to);
  const auto before = parseConfig(text, "/etc/sallyport.toml");
  const auto after = parseConfig(other, "/etc/sallyport.toml");
  if (!before || !after) return "bad test";
  return describeChanges(*before, *after);
}

TEST(ConfigChanges, SaysSoWhenThereIsNone) { EXPECT_EQ(changes("", ""), "entries, limits and peers are as before"); }

TEST(ConfigChanges, NamesEachKindOfChange) {
  EXPECT_EQ(changes("half_open = 200", "half_open = 100"), "limits changed");
  EXPECT_EQ(changes("key = \"server\"", "key = \"other\""), "listen changed: db");
  EXPECT_EQ(changes("allow = [\"alice\"]", "allow = [\"bob\"]"), "listen changed: db");
  EXPECT_EQ(changes("service = \"echo\"", "service = \"channel\""), "listen changed: db");
  EXPECT_EQ(changes("127.0.0.1:7001", "127.0.0.1:7002"), "listen changed: db");
  EXPECT_EQ(changes("name = \"db\"", "name = \"web\""), "listen added: web, listen removed: db");
  EXPECT_EQ(changes("bob = ", "eve = "), "peer added: eve, peer removed: bob");
}

}  // namespace
}  // namespace sallyport::netd
