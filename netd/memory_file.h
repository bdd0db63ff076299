// memory_file.h - a message of any size as a sealed memfd. Part of: netd (the monitor writes, workers read).
#pragma once

#include <vector>

#include <kj/io.h>

#include "common/bytes.h"

namespace sallyport::netd {

// Written once, then sealed: its reader can rely on size and content. Throws kj::Exception.
kj::AutoCloseFd writeMemoryFile(const char* name, ByteSpan content);
std::vector<std::byte> readMemoryFile(int fd);

}  // namespace sallyport::netd
