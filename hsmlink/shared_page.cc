#include "hsmlink/shared_page.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/secret_bytes.h"

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

namespace sallyport::hsmlink {

namespace {

std::string problemOf(const char* call) { return std::string(call) + ": " + std::strerror(errno); }

void* map(int fd) { return ::mmap(nullptr, hsm::PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0); }

}  // namespace

Result<std::unique_ptr<SharedPage>, std::string> SharedPage::create() {
  std::unique_ptr<SharedPage> page(new SharedPage);
  void* mapped = MAP_FAILED;
  if (const int fd = static_cast<int>(::syscall(SYS_memfd_secret, O_CLOEXEC)); fd >= 0) {
    page->fd_ = kj::AutoCloseFd(fd);
    if (::ftruncate(fd, hsm::PAGE_BYTES) == 0) mapped = map(fd);
    page->secret_ = mapped != MAP_FAILED;
  }
  if (mapped == MAP_FAILED) {
    const int fd = ::memfd_create("sallyport-hsm", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return refuse(problemOf("memfd_create"));
    page->fd_ = kj::AutoCloseFd(fd);
    if (::ftruncate(fd, hsm::PAGE_BYTES) != 0) return refuse(problemOf("ftruncate"));
    // Who shrank it would end us with a SIGBUS.
    if (::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) return refuse(problemOf("seals"));
    mapped = map(fd);
    if (mapped == MAP_FAILED) return refuse(problemOf("mmap"));
    if (::mlock(mapped, hsm::PAGE_BYTES) != 0) {
      const std::string problem = problemOf("mlock");
      ::munmap(mapped, hsm::PAGE_BYTES);
      return refuse(problem + " (RLIMIT_MEMLOCK too small?)");
    }
    ::madvise(mapped, hsm::PAGE_BYTES, MADV_DONTDUMP);
  }
  page->memory_ = static_cast<std::byte*>(mapped);
  ::madvise(mapped, hsm::PAGE_BYTES, MADV_DONTFORK);
  // Touched now: later there may be no memory, and that would be a SIGBUS.
  std::memset(mapped, 0, hsm::PAGE_BYTES);
  return page;
}

SharedPage::~SharedPage() {
  if (memory_ == nullptr) return;
  wipeAll();
  ::munmap(memory_, hsm::PAGE_BYTES);
}

void SharedPage::wipeAll() { wipe({memory_, hsm::PAGE_BYTES}); }

}  // namespace sallyport::hsmlink
