// log.h - one line an event to standard error. Part of: common (any process).
// `netd-worker: drop reason=bad_box entry=db`: words, then key=value pairs; never a secret, never bytes of a peer
// unescaped. Times are left to the journal; with a terminal or a file behind stderr the epoch in milliseconds is put in
// front.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

namespace sallyport {

enum class LogLevel { Error, Warning, Info, Debug };

// Call once, before lock-down: fixes the program's name and touches what the first line would allocate.
void startLog(std::string_view program, LogLevel level = LogLevel::Info);
void logLine(LogLevel level, std::string_view text);
inline void logError(std::string_view text) { logLine(LogLevel::Error, text); }
inline void logWarning(std::string_view text) { logLine(LogLevel::Warning, text); }
inline void logInfo(std::string_view text) { logLine(LogLevel::Info, text); }

// Makes text of foreign origin safe for a line: printable ASCII stays, the rest becomes \xNN; cut at 200 characters.
std::string sanitized(std::string_view text);

}  // namespace sallyport
