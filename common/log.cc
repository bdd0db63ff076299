// log.cc - see log.h. Writes with one write(2) a line, so lines of several processes don't mix.
#include "common/log.h"

#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace sallyport {

namespace {
std::string programName = "sallyport";
LogLevel threshold = LogLevel::Info;
bool printTime = true;

const char* mark(LogLevel level) {
  switch (level) {
    case LogLevel::Error: return "error: ";
    case LogLevel::Warning: return "warning: ";
    case LogLevel::Info:
    case LogLevel::Debug: return "";
  }
  return "";
}
}  // namespace

void startLog(std::string_view program, LogLevel level) {
  programName = program;
  threshold = level;
  printTime = std::getenv("JOURNAL_STREAM") == nullptr;
}

void logLine(LogLevel level, std::string_view text) {
  if (level > threshold) return;
  std::string line;
  line.reserve(text.size() + 64);
  if (printTime) {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    char stamp[32];
    std::snprintf(stamp, sizeof stamp, "%lld.%03ld ", static_cast<long long>(now.tv_sec), now.tv_nsec / 1000000);
    line += stamp;
  }
  line += programName;
  line += ": ";
  line += mark(level);
  line += text;
  line += '\n';
  [[maybe_unused]] ssize_t written = write(STDERR_FILENO, line.data(), line.size());  // a lost log line stops nothing
}

std::string sanitized(std::string_view text) {
  static constexpr size_t MAX_CHARS = 200;
  static constexpr char DIGITS[] = "0123456789abcdef";
  std::string result;
  for (char c : text.substr(0, MAX_CHARS)) {
    auto u = static_cast<unsigned char>(c);
    if (u >= 0x20 && u < 0x7f && c != '\\') {
      result += c;
    } else {
      result += "\\x";
      result += DIGITS[u >> 4];
      result += DIGITS[u & 15];
    }
  }
  if (text.size() > MAX_CHARS) result += "...";
  return result;
}

}  // namespace sallyport
