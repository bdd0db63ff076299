// quiet_kj.h - keeps KJ from looking up stack traces and from writing to stderr by itself. Part of: common (any
// daemon). Put one as the first variable of main(): KJ insists on the stack. A stack trace would put code addresses
// into logs, and KJ runs addr2line for it: fork and exec in a process that must have neither.
#pragma once

#include <kj/exception.h>

#include "common/log.h"

namespace sallyport {

class QuietKj final : public kj::ExceptionCallback {
 public:
  StackTraceMode stackTraceMode() override { return StackTraceMode::NONE; }
  void logMessage(kj::LogSeverity, const char*, int, int, kj::String&& text) override {
    logWarning("kj " + sanitized({text.begin(), text.size()}));
  }
};

}  // namespace sallyport
