#include "vaultd/secret_arena.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/secret_bytes.h"

// Debian 12's headers know neither of them on every architecture; the numbers are the same on all 64-bit ones.
#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif
#ifndef SYS_mseal
#define SYS_mseal 462
#endif

namespace sallyport::vaultd {

namespace {

size_t pageBytes() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

std::string problemOf(const char* call) { return std::string(call) + ": " + std::strerror(errno); }

}  // namespace

SecretSlot::SecretSlot(SecretSlot&& other) noexcept
    : arena_(std::exchange(other.arena_, nullptr)),
      memory_(std::exchange(other.memory_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)) {}

SecretSlot& SecretSlot::operator=(SecretSlot&& other) noexcept {
  if (this != &other) {
    giveBack();
    arena_ = std::exchange(other.arena_, nullptr);
    memory_ = std::exchange(other.memory_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

SecretSlot::~SecretSlot() { giveBack(); }

void SecretSlot::wipe() {
  if (memory_ != nullptr) sallyport::wipe({memory_, bytes_});
}

void SecretSlot::giveBack() {
  if (memory_ == nullptr) return;
  wipe();
  (bytes_ == SLOT_BYTES ? arena_->freeSlots_ : arena_->freePairs_).push_back(memory_);
  memory_ = nullptr;
  arena_ = nullptr;
}

Result<std::unique_ptr<SecretArena>, std::string> SecretArena::create(size_t bytes, Want want) {
  const size_t page = pageBytes();
  std::unique_ptr<SecretArena> arena(new SecretArena);
  arena->capacity_ = (bytes + page - 1) / page * page;
  arena->mappingBytes_ = arena->capacity_ + 2 * page;

  // Reserve the addresses with no access: what stays of the reservation are the guard pages.
  void* reserved = mmap(nullptr, arena->mappingBytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (reserved == MAP_FAILED) return refuse(problemOf("mmap"));
  arena->mapping_ = static_cast<std::byte*>(reserved);
  arena->data_ = arena->mapping_ + page;

  std::string problem;
  if (want == Want::Best && arena->mapMemfdSecret()) {
    arena->kind_ = Kind::MemfdSecret;
  } else if (arena->mapLocked(problem)) {
    arena->kind_ = Kind::LockedMemory;
  } else {
    return refuse(std::move(problem));
  }
  arena->freeSlots_.reserve(arena->capacity_ / SecretSlot::SLOT_BYTES);  // giving a slot back never allocates
  arena->freePairs_.reserve(arena->capacity_ / SecretSlot::PAIR_BYTES);
  arena->sealMapping();
  return arena;
}

bool SecretArena::mapMemfdSecret() {
  const int fd = static_cast<int>(syscall(SYS_memfd_secret, O_CLOEXEC));
  if (fd < 0) return false;
  bool good = ftruncate(fd, static_cast<off_t>(capacity_)) == 0 &&
              mmap(data_, capacity_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED;
  close(fd);
  if (!good) return false;
  // The mapping is shared, so a child would see the secrets: it must not inherit the mapping at all.
  good = madvise(data_, capacity_, MADV_DONTFORK) == 0;
  if (!good) return false;
  // Touch every page now: a later fault that finds no memory would be a SIGBUS in the middle of a handshake.
  // RLIMIT_MEMLOCK was checked by mmap already.
  std::memset(data_, 0, capacity_);
  return true;
}

bool SecretArena::mapLocked(std::string& problem) {
  if (mmap(data_, capacity_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) {
    problem = problemOf("mmap");
    return false;
  }
  if (mlock(data_, capacity_) != 0) {
    problem = problemOf("mlock") + " (RLIMIT_MEMLOCK too small?)";
    return false;
  }
  if (madvise(data_, capacity_, MADV_DONTDUMP) != 0 || madvise(data_, capacity_, MADV_WIPEONFORK) != 0) {
    problem = problemOf("madvise");
    return false;
  }
  std::memset(data_, 0, capacity_);
  return true;
}

void SecretArena::sealMapping() {
  // Best effort: kernels before 6.10 have no mseal. It stops a later bug from making secrets readable to a child or
  // replacing the pages; a sealed mapping stays until the process ends, so a destroyed arena is wiped but not unmapped.
  sealedMapping_ = syscall(SYS_mseal, mapping_, mappingBytes_, 0) == 0;
}

SecretArena::~SecretArena() {
  if (mapping_ == nullptr) return;
  if (used_ > 0) sallyport::wipe({data_, capacity_});
  if (!sealedMapping_) munmap(mapping_, mappingBytes_);
}

std::string_view SecretArena::describe() const { return kind_ == Kind::MemfdSecret ? "memfd_secret" : "locked memory"; }

SecretSlot SecretArena::takeSlot() {
  constexpr size_t BYTES = SecretSlot::SLOT_BYTES;
  if (freeSlots_.empty()) return SecretSlot(this, takeBlock(BYTES).data(), BYTES);
  std::byte* memory = freeSlots_.back();
  freeSlots_.pop_back();
  return SecretSlot(this, memory, BYTES);
}

SecretSlot SecretArena::takePair() {
  constexpr size_t BYTES = SecretSlot::PAIR_BYTES;
  if (freePairs_.empty()) return SecretSlot(this, takeBlock(BYTES).data(), BYTES);
  std::byte* memory = freePairs_.back();
  freePairs_.pop_back();
  return SecretSlot(this, memory, BYTES);
}

void SecretArena::wipeAll() { sallyport::wipe({data_, used_}); }

MutableByteSpan SecretArena::takeBlock(size_t bytes) {
  const size_t rounded = (bytes + SecretSlot::SLOT_BYTES - 1) / SecretSlot::SLOT_BYTES * SecretSlot::SLOT_BYTES;
  CHECK(rounded <= capacity_ - used_);
  std::byte* memory = data_ + used_;
  used_ += rounded;
  return {memory, bytes};
}

}  // namespace sallyport::vaultd
