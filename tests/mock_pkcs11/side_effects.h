// side_effects.h - the bad manners of real modules, one function each.
#pragma once

#include <string>
#include <string_view>

#include "tests/mock_pkcs11/counters.h"

namespace sallyport::mock {

void sleepMs(unsigned ms);
[[noreturn]] void hang();
[[noreturn]] void segfault();
// A child as driver daemons have them: it keeps whatever descriptors it got, and ends with its parent.
void forkHelper();
// Idle threads that stay for the life of the process.
void startThreads(unsigned n);
// syslog(3): a socket and a connect on the error path.
void logToSyslog();
// Words that nobody asked for, into a descriptor of its process.
void babble(int fd);
// Never given back.
void leak(size_t kib);
// Tries what a module that was taken over would try, and counts how it went as "syscall:NAME:ok" or
// "syscall:NAME:ERRNO". Unknown names count as "syscall:NAME:unknown".
void attempt(std::string_view name, Counters& counters);

}  // namespace sallyport::mock
