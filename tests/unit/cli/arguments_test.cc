// Goal: the command line means what it says, and a mistake is told with a remedy. Method: a table of two groups.
#include "cli/arguments.h"

#include <gtest/gtest.h>

namespace sallyport::cli {
namespace {

int nothing(const Arguments&) { return 0; }

const Command COMMANDS[] = {
    {"up", "", "run", {}, 0, 0, nothing, ""},
    {"status", "[--json]", "show", {"--json"}, 0, 0, nothing, ""},
    {"key new", "NAME", "make", {"--keys=", "--passphrase"}, 1, 1, nothing, "more\n"},
    {"key show", "NAME", "print", {"--keys="}, 1, 1, nothing, ""},
    {"box", "--to PEER...", "box", {"--to=*", "--output="}, 0, 1, nothing, ""},
};

Invocation parse(const std::vector<std::string>& words) { return parseCommandLine(COMMANDS, words); }

TEST(CommandLine, FindsTheCommandItsWordsAndItsOptions) {
  const auto call = parse({"key", "new", "--keys", "folder", "server", "--passphrase", "-c", "x.toml"});
  ASSERT_EQ(call.kind, Invocation::Kind::Run) << call.problem;
  EXPECT_EQ(call.command->name, "key new");
  EXPECT_EQ(call.arguments.words, std::vector<std::string>{"server"});
  EXPECT_EQ(call.arguments.get("--keys"), "folder");
  EXPECT_EQ(call.arguments.get("--config"), "x.toml");
  EXPECT_TRUE(call.arguments.has("--passphrase"));
  EXPECT_FALSE(call.arguments.has("--json"));
}

TEST(CommandLine, SomeOptionsMayBeRepeated) {
  const auto call = parse({"box", "--to", "alice", "--to=bob", "-o", "-", "-"});
  ASSERT_EQ(call.kind, Invocation::Kind::Run) << call.problem;
  EXPECT_EQ(call.arguments.all("--to"), (std::vector<std::string>{"alice", "bob"}));
  EXPECT_EQ(call.arguments.get("--output"), "-");
  EXPECT_EQ(call.arguments.words, std::vector<std::string>{"-"});
  EXPECT_TRUE(call.arguments.all("--output").empty());
  EXPECT_EQ(parse({"box", "-o", "a", "-o", "b"}).kind, Invocation::Kind::Mistake);
  EXPECT_EQ(parse({"box", "--to"}).kind, Invocation::Kind::Mistake);
  EXPECT_EQ(parse({"status", "--to", "alice"}).kind, Invocation::Kind::Mistake);
}

TEST(CommandLine, TakesOptionsBeforeTheCommandAndWithEquals) {
  EXPECT_EQ(parse({"-cfile", "up"}).arguments.get("--config"), "file");
  EXPECT_EQ(parse({"--config=a=b", "up"}).arguments.get("--config"), "a=b");
  EXPECT_EQ(parse({"key", "new", "--", "-x"}).arguments.words, std::vector<std::string>{"-x"});
}

TEST(CommandLine, ShowsHelpAndVersionWhereverTheyAreAskedFor) {
  EXPECT_EQ(parse({"--version"}).kind, Invocation::Kind::Version);
  EXPECT_EQ(parse({"--help"}).kind, Invocation::Kind::Help);
  EXPECT_EQ(parse({"help"}).command, nullptr);
  EXPECT_EQ(parse({"key", "new", "-h"}).command, &COMMANDS[2]);
  EXPECT_EQ(parse({"help", "status"}).command, &COMMANDS[1]);
  EXPECT_EQ(parse({"key", "--help"}).kind, Invocation::Kind::Help);
  EXPECT_EQ(parse({"key", "--help"}).group, "key");
  EXPECT_EQ(parse({"help", "key", "show"}).command, &COMMANDS[3]);
  EXPECT_EQ(parse({"-V"}).kind, Invocation::Kind::Version);
}

TEST(CommandLine, TellsEachMistake) {
  struct Case {
    std::vector<std::string> words;
    std::string_view problem;
    std::string_view hint;
  };
  const std::vector<Case> cases = {
      {{}, "no command", "--help"},
      {{"upp"}, "no command `upp`", "`up`"},
      {{"kye", "new"}, "no command", "`key new`"},
      {{"key"}, "`key` needs a command", "new, show"},
      {{"key", "destroy"}, "no command `key destroy`", "new, show"},
      {{"key", "destroy", "--help"}, "no command `key destroy`", "new, show"},
      {{"help", "upp"}, "no command `upp`", "`up`"},
      {{"key", "new"}, "needs more words", "usage: sallyport key new NAME"},
      {{"key", "new", "a", "b"}, "`key new` takes 1 at most: one word too many", "usage"},
      {{"up", "--json"}, "`up` has no option `--json`", "usage"},
      {{"status", "--jsn"}, "no option `--jsn`", "`--json`"},
      {{"status", "-j"}, "no option `-j`", ""},
      {{"key", "new", "--jsn", "x"}, "no option `--jsn`", "sallyport key new --help"},
      {{"key", "new", "--key", "x"}, "no option `--key`", "`--keys`"},
      {{"--jsn", "key", "new", "x"}, "no option `--jsn`", "sallyport key new --help"},
      {{"--jsn"}, "no option `--jsn`", "`--json`"},
      {{"status", "--json=1"}, "takes no value", "sallyport status --help"},
      {{"status", "--json", "--json"}, "given twice", "sallyport status --help"},
      {{"up", "-c"}, "`--config` needs a value", "sallyport up --help"},
      {{"up", "--config="}, "is empty", "sallyport up --help"},
      {{"--keys", "", "key", "new"}, "is empty", "sallyport key new --help"},
  };
  // It may be a secret that was meant for standard input.
  const auto secret = parse({"key", "new", "a", "c2VjcmV0"});
  EXPECT_EQ((secret.problem + secret.hint).find("c2VjcmV0"), std::string::npos);
  for (const auto& test : cases) {
    const auto call = parse(test.words);
    ASSERT_EQ(call.kind, Invocation::Kind::Mistake) << test.problem;
    EXPECT_NE(call.problem.find(test.problem), std::string::npos) << call.problem;
    EXPECT_NE(call.hint.find(test.hint), std::string::npos) << call.hint;
  }
}

TEST(Help, NamesEveryCommandOnOneLineOf120) {
  const auto text = helpForAll(COMMANDS);
  for (const auto& command : COMMANDS) EXPECT_NE(text.find("  " + std::string(command.name)), std::string::npos);
}

TEST(Help, OfACommandHoldsItsOwnUsageAndOptions) {
  const auto text = helpFor(COMMANDS[2]);
  EXPECT_TRUE(text.starts_with("usage: sallyport key new NAME [--keys DIR] [-c FILE]\n")) << text;
  EXPECT_NE(text.find("  --keys DIR "), std::string::npos);
  EXPECT_TRUE(helpFor(COMMANDS[0]).starts_with("usage: sallyport up [-c FILE]\n"));
  EXPECT_EQ(helpFor(COMMANDS[0]).find("--keys"), std::string::npos);
}

TEST(Help, OfAGroupHoldsItsCommandsAlone) {
  const auto text = helpForGroup(COMMANDS, "key");
  EXPECT_TRUE(text.starts_with("usage: sallyport key COMMAND"));
  EXPECT_NE(text.find("  key new NAME   make\n"), std::string::npos);
  EXPECT_NE(text.find("  key show NAME"), std::string::npos);
  EXPECT_EQ(text.find("status"), std::string::npos);
}

}  // namespace
}  // namespace sallyport::cli
