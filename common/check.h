// check.h - broken invariants end the process. Part of: common (any process).
// CHECK prints the place and the condition's text, never a value, and aborts. It is for what can't happen;
// bad input is answered with a Result, a failing environment with an exception at the edge.
#pragma once

namespace sallyport {

[[noreturn]] void checkFailed(const char* file, int line, const char* condition);

}  // namespace sallyport

#define CHECK(condition) \
  do { \
    if (!(condition)) [[unlikely]] \
      ::sallyport::checkFailed(__FILE__, __LINE__, #condition); \
  } while (false)
