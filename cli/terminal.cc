// terminal.cc - see terminal.h.
#include "cli/terminal.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "common/log.h"

namespace sallyport::cli {
namespace {

// One write for each line: lines of the daemons, which share our standard error, must not get into the middle of it.
void talk(std::string_view kind, std::string_view text) {
  std::string line = "sallyport: " + std::string(kind);
  for (const char c : text) line += c == '\n' ? ' ' : c;
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace

void say(std::string_view text) { talk("", text); }
void warn(std::string_view text) { talk("warning: ", text); }

int fail(std::string_view error, std::string_view hint) {
  talk("error: ", error);
  if (!hint.empty()) talk("hint: ", hint);
  return EXIT_FAILED;
}

int failUsage(std::string_view error, std::string_view hint) {
  fail(error, hint);
  return EXIT_USAGE;
}

void put(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stdout); }

void putLine(std::string_view text) {
  put(text);
  put("\n");
}

bool putSecretLine(std::string_view text) {
  if (std::fflush(stdout) != 0) return false;
  for (std::string_view rest : {text, std::string_view("\n")}) {
    while (!rest.empty()) {
      const auto written = ::write(STDOUT_FILENO, rest.data(), rest.size());
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) return false;
      rest.remove_prefix(static_cast<size_t>(written));
    }
  }
  return true;
}

int finishOutput() {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return EXIT_DONE;
  return fail(std::string("can't write to standard output: ") + std::strerror(errno));
}

std::string Table::render(std::string_view indent) const {
  std::vector<std::vector<std::string>> rows;
  std::vector<size_t> widths;
  for (const auto& row : rows_) {
    auto& clean = rows.emplace_back();
    for (size_t i = 0; i < row.size(); ++i) {
      clean.push_back(sanitized(row[i]));
      if (widths.size() <= i) widths.push_back(0);
      widths[i] = std::max(widths[i], clean[i].size());
    }
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line(indent);
    for (size_t i = 0; i < row.size(); ++i) line += row[i] + std::string(widths[i] - row[i].size() + 2, ' ');
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  }
  return text;
}

std::string describeSeconds(uint64_t seconds) {
  struct Unit {
    uint64_t seconds;
    const char* name;
  };
  static constexpr Unit UNITS[] = {{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}};
  for (size_t i = 0; i < std::size(UNITS); ++i) {
    if (seconds < UNITS[i].seconds) continue;
    std::string text = std::to_string(seconds / UNITS[i].seconds) + " " + UNITS[i].name;
    if (i + 1 < std::size(UNITS)) {
      const auto rest = seconds % UNITS[i].seconds / UNITS[i + 1].seconds;
      if (rest != 0) text += " " + std::to_string(rest) + " " + UNITS[i + 1].name;
    }
    return text;
  }
  return "0 s";
}

}  // namespace sallyport::cli
