// memory_file.cc - see memory_file.h.
#include "netd/memory_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <kj/debug.h>

namespace sallyport::netd {

kj::AutoCloseFd writeMemoryFile(const char* name, ByteSpan content) {
  int fd;
  KJ_SYSCALL(fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  kj::AutoCloseFd owned(fd);
  while (!content.empty()) {
    ssize_t written;
    KJ_SYSCALL(written = write(owned, content.data(), content.size()));
    content = content.subspan(static_cast<size_t>(written));
  }
  KJ_SYSCALL(fcntl(owned, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL));
  return owned;
}

std::vector<std::byte> readMemoryFile(int fd) {
  off_t size;
  KJ_SYSCALL(size = lseek(fd, 0, SEEK_END));  // the C library's fstat is a path call (newfstatat), which no worker has
  std::vector<std::byte> content(static_cast<size_t>(size));
  size_t have = 0;
  while (have < content.size()) {
    ssize_t got;
    KJ_SYSCALL(got = pread(fd, content.data() + have, content.size() - have, static_cast<off_t>(have)));
    KJ_REQUIRE(got > 0, "a memory file that is shorter than its size");
    have += static_cast<size_t>(got);
  }
  return content;
}

}  // namespace sallyport::netd
