// pin_page.cc - see pin_page.h. Part of: hsmd (guard and worker).
#include "hsmd/pin_page.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "common/secret_bytes.h"

namespace sallyport::hsmd {

namespace {

constexpr long MEMFD_SECRET = 447;  // the same on all architectures

// Nobody may make it smaller under a reader's feet.
int sealed(int fd, size_t bytes) {
  if (fd < 0) return -1;
  if (ftruncate(fd, static_cast<off_t>(bytes)) == 0 &&
      fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
    return fd;
  const int problem = errno;
  close(fd);
  errno = problem;
  return -1;
}

}  // namespace

bool PinRecord::give(ByteSpan pin) {
  if (pin.empty() || pin.size() > bytes.size()) return false;
  forget(PinState::Untried);
  std::ranges::copy(pin, bytes.begin());
  length = static_cast<uint32_t>(pin.size());
  return true;
}

void PinRecord::forget(PinState next) {
  wipe(bytes);
  length = 0;
  state = next;
  why = {};
}

void PinRecord::explain(std::string_view reason) {
  why = {};
  std::ranges::copy(reason.substr(0, why.size()), why.begin());
}

std::string PinRecord::reason() const { return {why.begin(), std::find(why.begin(), why.end(), '\0')}; }

void PinRecord::settle() {
  switch (state) {
    case PinState::Missing:
    case PinState::Untried:
    case PinState::Good:
    case PinState::Wrong:
    case PinState::Locked: return;
    case PinState::Trying: break;
  }
  forget(PinState::Missing);  // in doubt, or a state that there isn't
  explain("C_Login was called with its PIN and didn't come back; that one isn't tried again");
}

int SharedMemory::create(const char* name, size_t bytes, bool& secret) {
  const int fd = static_cast<int>(syscall(MEMFD_SECRET, O_CLOEXEC));
  secret = fd >= 0 && ftruncate(fd, static_cast<off_t>(bytes)) == 0;
  if (secret) return fd;
  if (fd >= 0) close(fd);
  return createPlain(name, bytes);
}

int SharedMemory::createPlain(const char* name, size_t bytes) {
  return sealed(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING), bytes);
}

std::optional<SharedMemory> SharedMemory::map(int fd, size_t bytes) {
  void* begin = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (begin == MAP_FAILED) return std::nullopt;
  // Of no use for memfd_secret, which is never dumped; a plain memfd would be.
  madvise(begin, bytes, MADV_DONTDUMP);
  madvise(begin, bytes, MADV_DONTFORK);
  return SharedMemory(begin, bytes);
}

SharedMemory::~SharedMemory() {
  if (begin_ != nullptr) munmap(begin_, bytes_);
}

}  // namespace sallyport::hsmd
