// stats.cc - see stats.h.
#include "netd/stats.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include <kj/debug.h>
#include <kj/io.h>

namespace sallyport::netd {

int Stats::create() {
  int fd;
  KJ_SYSCALL(fd = memfd_create("netd stats", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  kj::AutoCloseFd owned(fd);
  KJ_SYSCALL(ftruncate(owned, sizeof(Stats)));
  KJ_SYSCALL(
      fcntl(owned, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));  // a shrunk page would be a SIGBUS for its readers
  return owned.release();
}

int Stats::reopenReadOnly(int fd) {
  int readOnly;
  KJ_SYSCALL(readOnly = open(("/proc/self/fd/" + std::to_string(fd)).c_str(), O_RDONLY | O_CLOEXEC));
  return readOnly;
}

Stats& Stats::map(int fd) {
  void* page = mmap(nullptr, sizeof(Stats), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  KJ_REQUIRE(page != MAP_FAILED, "can't map the statistics page");
  return *static_cast<Stats*>(page);
}

const Stats& Stats::mapReadOnly(int fd) {
  void* page = mmap(nullptr, sizeof(Stats), PROT_READ, MAP_SHARED, fd, 0);
  KJ_REQUIRE(page != MAP_FAILED, "can't map the statistics page");
  return *static_cast<const Stats*>(page);
}

}  // namespace sallyport::netd
