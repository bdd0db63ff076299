// Goal: nothing of foreign origin can begin a line of the log, hide one, or speak to a terminal.
// Method: every byte value, and texts as long as anybody likes.
#include "common/log.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

namespace sallyport {
namespace {

TEST(SanitizedText, KeepsPrintableAscii) {
  std::string text;
  for (char c = 0x20; c < 0x7f; ++c) {
    if (c != '\\') text += c;
  }
  EXPECT_EQ(sanitized(text), text);
}

TEST(SanitizedText, EscapesEveryOtherByte) {
  for (int value = 0; value < 256; ++value) {
    const char c = static_cast<char>(value);
    const std::string result = sanitized(std::string_view(&c, 1));
    EXPECT_TRUE(std::ranges::all_of(result, [](char r) { return r >= 0x20 && r < 0x7f; })) << value;
    if (value < 0x20 || value >= 0x7f || c == '\\') {
      EXPECT_EQ(result.size(), 4u) << value;
      EXPECT_TRUE(result.starts_with("\\x")) << value;
    }
  }
  EXPECT_EQ(sanitized("a\nb"), "a\\x0ab");
  EXPECT_EQ(sanitized("\x1b[2J"), "\\x1b[2J");
  EXPECT_EQ(sanitized("\xff"), "\\xff");
}

TEST(SanitizedText, CannotBeMistakenForAnEscapedOne) {
  EXPECT_NE(sanitized("\\x0a"), sanitized("\n"));  // the backslash itself is escaped
}

TEST(SanitizedText, IsCutAndSaysSo) {
  EXPECT_EQ(sanitized(std::string(200, 'a')), std::string(200, 'a'));
  EXPECT_EQ(sanitized(std::string(201, 'a')), std::string(200, 'a') + "...");
  EXPECT_LE(sanitized(std::string(1 << 20, '\n')).size(), 4u * 200 + 3);
  EXPECT_EQ(sanitized(""), "");
}

// What `print` writes to standard error, from a process of its own.
std::string written(void (*print)()) {
  int ends[2];
  if (pipe(ends) != 0) return "no pipe";
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    print();
    _exit(0);
  }
  close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t got; (got = read(ends[0], buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<size_t>(got));
  close(ends[0]);
  waitpid(child, nullptr, 0);
  return text;
}

TEST(TheLog, WritesOneLineWithItsProgramAndItsSeverity) {
  const std::string text = written([] {
    unsetenv("JOURNAL_STREAM");
    startLog("netd-worker");
    logError("something broke");
  });
  EXPECT_TRUE(text.ends_with(" netd-worker: error: something broke\n")) << text;
  EXPECT_EQ(std::ranges::count(text, '\n'), 1);
}

TEST(TheLog, LeavesTheTimeToTheJournal) {
  EXPECT_EQ(written([] {
              setenv("JOURNAL_STREAM", "8:1", 1);
              startLog("vaultd");
              logWarning("w");
              logInfo("i");
            }),
            "vaultd: warning: w\nvaultd: i\n");
}

TEST(TheLog, SaysNothingBelowItsLevel) {
  EXPECT_EQ(written([] {
              setenv("JOURNAL_STREAM", "8:1", 1);
              startLog("vaultd");
              logLine(LogLevel::Debug, "drop reason=bad_box");
              startLog("vaultd", LogLevel::Error);
              logWarning("w");
            }),
            "");
}

}  // namespace
}  // namespace sallyport
